import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, dense, type OpCase, openLab } from '../helpers/op.js';

const lab = await openLab(t);

const loss = (
  name: string,
  op: 'bce' | 'cross_entropy',
  inputs: readonly [OpTensor, OpTensor],
): OpCase => ({
  name,
  op,
  inputs,
  kind: 'loss',
  loss: true,
  backward: () => [{ op: `${op}_backward`, inputs, of: [0] }],
});

const [n, k] = [5, 37];
const labels = lab.uniforms(n * k).map((u) => Math.round(u));
/** One class a row. */
const classes = new Float32Array(n * k);
for (let i = 0; i < n; i++) classes[i * k + lab.random.integer(k)] = 1;
/** Rows that add up to one, as after mixup. */
const mixed = classes.map((y, i) => 0.3 * y + 0.7 * (classes[(i + k) % (n * k)] as number));

await checkOps(t, lab, [
  loss('labels', 'bce', [
    dense([n, k], lab.uniforms(n * k, 0.01, 0.99)),
    dense([n, k], Float32Array.from(labels)),
  ]),
  loss('soft targets', 'bce', [
    dense([n, k], lab.uniforms(n * k, 1e-4, 1 - 1e-4)),
    dense([n, k], lab.uniforms(n * k)),
  ]),
  loss('one class a clip', 'cross_entropy', [
    dense([n, k], lab.normals(n * k, 3)),
    dense([n, k], classes),
  ]),
  loss('mixed targets', 'cross_entropy', [
    dense([n, k], lab.normals(n * k, 3)),
    dense([n, k], Float32Array.from(mixed)),
  ]),
  loss('targets that add up to more than one', 'cross_entropy', [
    dense([n, k], lab.normals(n * k)),
    dense([n, k], lab.uniforms(n * k)),
  ]),
  loss('logits far apart', 'cross_entropy', [
    dense([n, k], lab.normals(n * k, 100)),
    dense([n, k], classes),
  ]),
]);

t.test('bce: saturated scores', async (t) => {
  // p exactly 0 or 1: the logarithm stops at -100, as PyTorch's, and the gradient stays finite.
  const p = dense([1, 4], Float32Array.of(0, 1, 0, 1));
  const y = dense([1, 4], Float32Array.of(0, 1, 1, 0));
  const [value] = await lab.run({ op: 'bce', inputs: [p, y] });
  t.equal(value?.data[0], 50);
  const [dp] = await lab.run({ op: 'bce_backward', inputs: [p, y] });
  // (p - y) / max(p (1 - p), 1e-12) / 4
  t.same([...(dp?.data ?? [])], [0, 0, Math.fround(-2.5e11), Math.fround(2.5e11)]);
  if (lab.oracle.skip) {
    t.pass('against PyTorch', { skip: lab.oracle.skip });
    return;
  }
  const header = {
    op: 'bce',
    attrs: {},
    shapes: [
      [1, 4],
      [1, 4],
    ],
  };
  const truth = await lab.oracle.call('forward', header, [p.data, y.data]);
  t.equal(truth.arrays[0]?.[0], 50);
  const one = Float32Array.of(1);
  // No differences: they would leave 0..1.
  const request = { ...header, wants: [0] };
  const back = await lab.oracle.call('gradient', request, [p.data, y.data, one]);
  t.same([...(dp?.data ?? [])], [...(back.arrays[0] ?? [])]);
});

t.test('targets of another shape are refused', async (t) => {
  const inputs = [dense([2, 3], lab.uniforms(6)), dense([2, 4], lab.uniforms(8))];
  for (const op of ['bce', 'cross_entropy']) {
    await t.rejects(lab.run({ op, inputs }), {
      code: 'ERR_PANNS_SHAPE',
      message: /targets of 2x3/,
    });
  }
});
