import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, dense, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';
import { compare } from '../helpers/tolerance.js';

const lab = await openLab(t);

const shapes = [
  [2, 16, 9, 1],
  [2, 17, 31, 1],
  [1, 527, 6, 1],
  // One class: where a single frame has all the attention, its gradient vanishes; not in every clip.
  [20, 1, 11, 1],
  [2, 20, 1, 1],
  [1, 5, 700, 1],
];

await checkOps(
  t,
  lab,
  shapes.flatMap((shape) =>
    // The second spread takes about every tenth element past the clamp at 10.
    [1, 6].map((spread): OpCase => {
      const a = map(shape, lab.normals(sizeOf(shape), spread));
      const x = map(shape, lab.uniforms(sizeOf(shape), 0, 1));
      return {
        name: `${shape.join('x')}, attention spread by ${spread}`,
        op: 'attention_pool',
        inputs: [a, x],
        kind: 'function',
        gradientKind: 'mean',
        // One frame has all the weight whatever its attention is: that gradient is zero, below.
        ...(shape[2] !== 1 && {
          backward: (dy: OpTensor) => [
            { op: 'attention_pool_backward', inputs: [a, x, dy], of: [0, 1] },
          ],
        }),
      };
    }),
  ),
);

t.test('one frame: its score has the whole gradient, its attention none', async (t) => {
  for (const classes of [20, 1]) {
    const shape = [2, classes, 1, 1];
    const attention = map(shape, lab.normals(2 * classes));
    const x = map(shape, lab.uniforms(2 * classes));
    const dy = dense([2, classes], lab.normals(2 * classes));
    const call = { op: 'attention_pool_backward', inputs: [attention, x, dy] };
    const [da, dx] = await lab.run(call);
    t.ok(da?.data.every((g) => Math.abs(g) < 1e-12));
    const check = compare(dx?.data ?? [], dy.data, 'function');
    t.ok(check.ok, check.message);
  }
});

t.test('equal attention is the mean, infinite attention is clamped', async (t) => {
  const x = map([1, 2, 3, 1], Float32Array.of(1, 2, 6, 1, 2, 6));
  const a = map([1, 2, 3, 1], Float32Array.of(4, 4, 4, -Infinity, Infinity, -Infinity));
  const [y] = await lab.run({ op: 'attention_pool', inputs: [a, x] });
  const [mean = Number.NaN, second = Number.NaN] = y?.data ?? [];
  t.ok(Math.abs(mean - 3) < 1e-6, `got ${mean}`);
  // e^-20 of the other two frames' difference from 2.
  t.ok(Math.abs(second - 2) < 1e-6, `got ${second}`);
});

t.test('maps of two shapes, or with bins, are refused', async (t) => {
  const a = map([1, 4, 3, 1], lab.normals(12));
  for (const shape of [
    [1, 4, 2, 1],
    [1, 4, 3, 2],
  ]) {
    const inputs = [a, map(shape, lab.normals(sizeOf(shape)))];
    await t.rejects(lab.run({ op: 'attention_pool', inputs }), { code: 'ERR_PANNS_SHAPE' });
  }
});
