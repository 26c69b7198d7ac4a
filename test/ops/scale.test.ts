import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, dense, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';

const lab = await openLab(t);

/** The last: more frames than one run of a sum, and more floats than one chunk. */
const shapes = [
  [2, 16, 5, 3],
  [3, 17, 7, 4],
  [2, 72, 4, 2],
  [2, 527, 3, 1],
  [2, 1, 37, 5],
  [3, 1, 1, 1],
  [2, 40, 1100, 3],
];

await checkOps(
  t,
  lab,
  shapes.map((shape): OpCase => {
    const [n = 0, channels = 0] = shape;
    const x = map(shape, lab.normals(sizeOf(shape)));
    const s = dense([n, channels], lab.normals(n * channels));
    return {
      name: shape.join('x'),
      op: 'scale',
      inputs: [x, s],
      kind: 'once',
      gradientKind: 'mean',
      backward: (dy: OpTensor) => [{ op: 'scale_backward', inputs: [x, s, dy], of: [0, 1] }],
    };
  }),
);

t.test('factors that are not one a channel and clip are refused', async (t) => {
  const x = map([2, 4, 3, 5], lab.normals(120));
  for (const shape of [
    [2, 5],
    [1, 4],
  ]) {
    const inputs = [x, dense(shape, lab.normals(sizeOf(shape)))];
    await t.rejects(lab.run({ op: 'scale', inputs }), {
      code: 'ERR_PANNS_SHAPE',
      message: /one factor a channel, 2x4/,
    });
  }
});
