import t from 'tap';
import { checkOps, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';

const lab = await openLab(t);

/** (N, K, S, 1), ratio, T: the third leaves frames to the last segment, the fourth cuts it off. */
const rows: readonly (readonly [readonly number[], number, number])[] = [
  [[2, 16, 5, 1], 4, 20],
  [[1, 527, 31, 1], 32, 1001],
  [[2, 17, 3, 1], 8, 101],
  [[2, 5, 7, 1], 4, 26],
  [[3, 1, 6, 1], 2, 13],
  [[1, 20, 1, 1], 1, 3],
];

await checkOps(
  t,
  lab,
  rows.map(([shape, ratio, frames]): OpCase => {
    const like = [shape[0] ?? 0, 1, frames, 3];
    return {
      name: `${shape.join('x')} by ${ratio} to ${frames} frames`,
      op: 'upsample',
      attrs: { ratio },
      inputs: [map(shape, lab.normals(sizeOf(shape))), map(like, lab.normals(sizeOf(like)))],
      kind: 'exact',
    };
  }),
);

t.test('segments with bins, or frames of other clips, are refused', async (t) => {
  const rows: readonly (readonly [number[], number[]])[] = [
    [
      [1, 4, 3, 2],
      [1, 1, 9, 1],
    ],
    [
      [1, 4, 3, 1],
      [2, 1, 9, 1],
    ],
  ];
  for (const shapes of rows) {
    const inputs = shapes.map((shape) => map(shape, lab.normals(sizeOf(shape))));
    await t.rejects(lab.run({ op: 'upsample', attrs: { ratio: 3 }, inputs }), {
      code: 'ERR_PANNS_SHAPE',
      message: /frames of as many clips/,
    });
  }
});
