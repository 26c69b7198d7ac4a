import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';

const lab = await openLab(t);

/** Channels of the two, then T and F: whole blocks of 16, parts of them, single channels. */
const rows = [
  [16, 48, 5, 3],
  [32, 7, 4, 3],
  [17, 20, 6, 2],
  [5, 3, 7, 4],
  [1, 16, 5, 3],
  [16, 1, 5, 3],
  [1, 1, 9, 2],
  [64, 527, 3, 1],
];

await checkOps(
  t,
  lab,
  rows.map(([a = 0, b = 0, frames = 0, bins = 0]): OpCase => {
    const [left, right] = [a, b].map((channels) => [2, channels, frames, bins]) as [
      number[],
      number[],
    ];
    const attrs = { channels_a: a, channels_b: b };
    return {
      name: `${a} and ${b} channels of ${frames}x${bins}`,
      op: 'concat',
      inputs: [map(left, lab.normals(sizeOf(left))), map(right, lab.normals(sizeOf(right)))],
      kind: 'exact',
      backward: (dy: OpTensor) => [{ op: 'concat_backward', attrs, inputs: [dy], of: [0, 1] }],
    };
  }),
);

t.test('maps that differ in more than channels are refused', async (t) => {
  for (const other of [
    [1, 4, 3, 5],
    [1, 4, 2, 6],
    [2, 4, 3, 6],
  ]) {
    const inputs = [map([1, 4, 3, 6], lab.normals(72)), map(other, lab.normals(sizeOf(other)))];
    await t.rejects(lab.run({ op: 'concat', inputs }), {
      code: 'ERR_PANNS_SHAPE',
      message: /differ in channels alone/,
    });
  }
});
