import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, dense, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';

const lab = await openLab(t);

/** A map whose channels fill no block of 16, and one of a single channel. */
const shapes = [
  [2, 20, 5, 7],
  [3, 1, 9, 4],
  [2, 17, 300, 5],
];
const backward = (op: string) => (dy: OpTensor, outputs: readonly OpTensor[]) => [
  { op, inputs: [outputs[0] as OpTensor, dy], of: [0] },
];

/** Spread so that both clamps are met. */
const clamped = (op: 'relu6' | 'hard_swish', x: OpTensor): OpCase => ({
  name: `${x.form} ${x.shape.join('x')}`,
  op,
  inputs: [x],
  kind: op === 'relu6' ? 'exact' : 'few',
  backward: (dy, outputs) => [
    // hard_swish is not monotonic: its slope follows from x alone.
    { op: `${op}_backward`, inputs: [op === 'relu6' ? (outputs[0] as OpTensor) : x, dy], of: [0] },
  ],
});

await checkOps(t, lab, [
  ...(['relu6', 'hard_swish'] as const).flatMap((op) => [
    ...shapes.map((shape) => clamped(op, map(shape, lab.normals(sizeOf(shape), 5)))),
    clamped(op, dense([5, 37], lab.normals(185, 5))),
  ]),
  ...shapes.map(
    (shape): OpCase => ({
      name: shape.join('x'),
      op: 'sigmoid',
      inputs: [map(shape, lab.normals(sizeOf(shape), 4))],
      kind: 'function',
      backward: backward('sigmoid_backward'),
    }),
  ),
  ...shapes.map(
    (shape): OpCase => ({
      name: shape.join('x'),
      op: 'relu',
      inputs: [map(shape, lab.normals(sizeOf(shape)))],
      kind: 'exact',
      backward: backward('relu_backward'),
    }),
  ),
  ...shapes.map(
    (shape): OpCase => ({
      name: shape.join('x'),
      op: 'add',
      inputs: [map(shape, lab.normals(sizeOf(shape))), map(shape, lab.normals(sizeOf(shape)))],
      kind: 'once',
    }),
  ),
  {
    name: 'dense',
    op: 'relu',
    inputs: [dense([5, 37], lab.normals(185))],
    kind: 'exact',
    backward: backward('relu_backward'),
  },
  {
    name: '5x37, also far out',
    op: 'sigmoid',
    inputs: [dense([5, 37], lab.normals(185, 4))],
    kind: 'function',
    backward: backward('sigmoid_backward'),
  },
  {
    name: '4x37, large logits',
    op: 'softmax',
    inputs: [dense([4, 37], lab.normals(148, 20))],
    kind: 'function',
  },
  { name: 'one class', op: 'softmax', inputs: [dense([3, 1], lab.normals(3))], kind: 'exact' },
]);

t.test('relu: a negative zero and a NaN', async (t) => {
  const x = Float32Array.of(-0, 0, Number.NaN, -1, 2);
  const [y] = await lab.run({ op: 'relu', inputs: [dense([1, 5], x)] });
  t.same([...(y?.data ?? [])].slice(3), [0, 2]);
  t.ok(Number.isNaN(y?.data[2]), 'a NaN is not hidden');
  t.equal(Math.abs(y?.data[0] ?? 1), 0);
});

t.test('relu6 and hard_swish: a NaN is not hidden', async (t) => {
  const x = Float32Array.of(Number.NaN, -4, 8);
  for (const op of ['relu6', 'hard_swish']) {
    const [y] = await lab.run({ op, inputs: [dense([1, 3], x)] });
    t.ok(Number.isNaN(y?.data[0]), op);
    t.equal(Math.abs(y?.data[1] ?? 1), 0, op);
  }
});

t.test('sigmoid: saturates without NaN', async (t) => {
  const x = Float32Array.of(-200, -90, 90, 200, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY);
  const [y] = await lab.run({ op: 'sigmoid', inputs: [dense([1, 6], x)] });
  for (const [i, value] of (y?.data ?? []).entries()) {
    t.equal(Math.round(value), (x[i] ?? 0) > 0 ? 1 : 0, `sigmoid(${x[i]})`);
    t.ok(value >= 0 && value <= 1);
  }
});

t.test('softmax: infinite spread without NaN', async (t) => {
  const x = Float32Array.of(-3e38, 0, 3e38, 1e30);
  const [y] = await lab.run({ op: 'softmax', inputs: [dense([1, 4], x)] });
  t.same([...(y?.data ?? [])], [0, 0, 1, 0]);
});

t.test('add: shapes that differ are refused', async (t) => {
  const inputs = [dense([1, 4], lab.normals(4)), dense([1, 5], lab.normals(5))];
  await t.rejects(lab.run({ op: 'add', inputs }), { code: 'ERR_PANNS_SHAPE' });
});
