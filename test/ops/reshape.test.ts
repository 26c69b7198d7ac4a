import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, dense, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';

const lab = await openLab(t);

/** (N, G * bins, T, 1) and bins: the second is Wavegram's. */
const folds: readonly (readonly [readonly number[], number])[] = [
  [[2, 12, 5, 1], 4],
  [[2, 128, 31, 1], 32],
  [[1, 68, 7, 1], 4],
  [[2, 16, 9, 1], 16],
  [[2, 17, 9, 1], 1],
  [[3, 1, 4, 1], 1],
  [[1, 527, 3, 1], 17],
];

await checkOps(t, lab, [
  ...[
    [2, 40001],
    [3, 1],
  ].map(
    (shape): OpCase => ({
      name: shape.join('x'),
      op: 'unsqueeze',
      inputs: [dense(shape, lab.normals(sizeOf(shape)))],
      kind: 'exact',
    }),
  ),
  ...folds.map(([shape, bins]): OpCase => {
    const attrs = { bins };
    return {
      name: `${shape.join('x')} to ${bins} bins`,
      op: 'fold',
      attrs,
      inputs: [map(shape, lab.normals(sizeOf(shape)))],
      kind: 'exact',
      backward: (dy: OpTensor) => [{ op: 'fold_backward', attrs, inputs: [dy], of: [0] }],
    };
  }),
]);

t.test(
  'fold: channels that the bins do not divide, or bins already there, are refused',
  async (t) => {
    for (const shape of [
      [1, 10, 3, 1],
      [1, 8, 3, 2],
    ]) {
      const inputs = [map(shape, lab.normals(sizeOf(shape)))];
      await t.rejects(lab.run({ op: 'fold', attrs: { bins: 4 }, inputs }), {
        code: 'ERR_PANNS_SHAPE',
        message: /channels that 4 divides/,
      });
    }
  },
);
