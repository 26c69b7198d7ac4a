import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { type Attrs, checkOps, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';

const lab = await openLab(t);

const reduce = (attrs: Attrs, shape: readonly number[]): OpCase => {
  const x = map(shape, lab.normals(sizeOf(shape)));
  return {
    name: `${attrs.kind} over ${attrs.axis} of ${shape.join('x')}`,
    op: 'reduce',
    attrs,
    inputs: [x],
    kind: attrs.kind === 'max' ? 'exact' : 'mean',
    backward: (dy: OpTensor) => [{ op: 'reduce_backward', attrs, inputs: [x, dy], of: [0] }],
  };
};

await checkOps(t, lab, [
  ...[
    [2, 20, 5, 7],
    [2, 64, 3, 2],
    [1, 1, 4, 64],
    [1, 17, 5, 3],
    [1, 527, 3, 2],
  ].map((shape) => reduce({ axis: 'freq', kind: 'mean' }, shape)),
  ...['mean', 'max', 'max+mean'].flatMap((kind) =>
    [
      [2, 20, 31, 1],
      [3, 64, 1, 1],
      // Each mean of many values is near zero by chance at times; all of sixteen are not.
      [16, 1, 300, 1],
      [2, 17, 7, 1],
      [1, 527, 9, 1],
    ].map((shape) => reduce({ axis: 'time', kind }, shape)),
  ),
]);

t.test('max+mean of equal frames: the maximum leads to the first', async (t) => {
  const x = map([1, 1, 4, 1], Float32Array.of(2, 2, 2, 2));
  const attrs = { axis: 'time', kind: 'max+mean' };
  const [y] = await lab.run({ op: 'reduce', attrs, inputs: [x] });
  t.same([...(y?.data ?? [])], [4]);
  const dy = { shape: [1, 1], form: 'dense', data: Float32Array.of(8) } as const;
  const [dx] = await lab.run({
    op: 'reduce_backward',
    attrs,
    inputs: [x, { ...dy, shape: [1, 1] }],
  });
  t.same([...(dx?.data ?? [])], [10, 2, 2, 2]);
});

t.test('time before frequency is refused, as is a maximum over frequency', async (t) => {
  const inputs = [map([1, 4, 3, 2], lab.normals(24))];
  const time = lab.run({ op: 'reduce', attrs: { axis: 'time', kind: 'mean' }, inputs });
  await t.rejects(time, {
    code: 'ERR_PANNS_SHAPE',
    message: /frequency to be reduced before time/,
  });
  const max = lab.run({ op: 'reduce', attrs: { axis: 'freq', kind: 'max' }, inputs });
  await t.rejects(max, { code: 'ERR_PANNS_UNSUPPORTED' });
});
