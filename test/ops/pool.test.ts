import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { type Attrs, checkOps, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';

const lab = await openLab(t);

const shapes = [
  [2, 16, 8, 6],
  [1, 20, 9, 7],
  [2, 1, 6, 5],
];
const windows: readonly Attrs[] = [
  { kernel: 2 },
  { kernel: [2, 1] },
  { kernel: [4, 2], stride: [2, 1] },
  { kernel: 3, stride: 2, padding: 1 },
  { kernel: 3, stride: 1, padding: 1 },
  { kernel: [5, 3], stride: [1, 2], padding: [2, 0] },
];

/** As networks on the waveform have them: one bin, and frames that windows do not divide. */
const lines = [
  [2, 64, 50, 1],
  [1, 17, 49, 1],
  [2, 1, 31, 1],
  [1, 527, 11, 1],
];
const lineWindows: readonly Attrs[] = [
  { kernel: [3, 1], stride: [3, 1], padding: [1, 0] },
  { kernel: [4, 1], stride: [4, 1], padding: 0 },
  { kernel: [3, 1], stride: 1, padding: [1, 0] },
];

const pairs = [
  ...windows.map((window, i) => [window, shapes[i % shapes.length] as number[]] as const),
  ...lineWindows.flatMap((window) => lines.map((shape) => [window, shape] as const)),
];
const cases = pairs.flatMap(([window, shape]) =>
  ['avg', 'max', 'avg+max'].map((kind): OpCase => {
    const attrs = { ...window, kind };
    const x = map(shape, lab.normals(sizeOf(shape)));
    return {
      name: `${kind} ${JSON.stringify(window)} of ${shape.join('x')}`,
      op: 'pool',
      attrs,
      inputs: [x],
      kind: kind === 'max' ? 'exact' : 'mean',
      gradientKind: 'mean',
      backward: (dy: OpTensor) => [{ op: 'pool_backward', attrs, inputs: [x, dy], of: [0] }],
    };
  }),
);

await checkOps(t, lab, [
  ...cases,
  {
    name: 'the whole map',
    op: 'pool',
    attrs: { kind: 'avg+max', kernel: [9, 7] },
    inputs: [map([1, 20, 9, 7], lab.normals(1260))],
    kind: 'mean',
  },
]);

t.test('max: equal values give one gradient, to the first', async (t) => {
  const x = map([1, 1, 2, 2], Float32Array.of(3, 3, 3, 3));
  const dy = map([1, 1, 1, 1], Float32Array.of(5));
  const attrs = { kind: 'max', kernel: 2 };
  const [dx] = await lab.run({ op: 'pool_backward', attrs, inputs: [x, dy] });
  t.same([...(dx?.data ?? [])], [5, 0, 0, 0]);
});

t.test('max: padding never wins', async (t) => {
  const x = map([1, 1, 2, 2], Float32Array.of(-5, -6, -7, -8));
  const attrs = { kind: 'max', kernel: 3, stride: 1, padding: 1 };
  const [y] = await lab.run({ op: 'pool', attrs, inputs: [x] });
  t.same([...(y?.data ?? [])], [-5, -5, -5, -5]);
});

t.test('what cannot be pooled is refused', async (t) => {
  const x = map([1, 4, 1, 6], lab.normals(24));
  const run = (attrs: Attrs) => lab.run({ op: 'pool', attrs, inputs: [x] });
  await t.rejects(run({ kernel: 2 }), { code: 'ERR_PANNS_SHAPE', message: /at least 2 frames/ });
  await t.rejects(run({ kernel: 2, padding: 2 }), { code: 'ERR_PANNS_SPEC', message: /half/ });
});
