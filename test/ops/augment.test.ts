import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, dense, first, map, type OpCase, openLab, sizeOf } from '../helpers/op.js';
import { below, randomWord } from '../helpers/philox.js';

const lab = await openLab(t);
const seed = (BigInt(lab.random.uint32()) << 32n) | BigInt(lab.random.uint32());
const step = lab.random.integer(1 << 20);
const mask = lab.random.integer(1000);
const state = { seed, step };

const mixup = (name: string, input: OpTensor): OpCase => {
  const pairs = (input.shape[0] as number) / 2;
  const lambda = Float32Array.from({ length: pairs }, () => lab.random.uniform());
  const weights = dense(
    [2 * pairs],
    Float32Array.from({ length: 2 * pairs }, (_, i) => {
      const l = lambda[i >> 1] as number;
      return i % 2 === 0 ? l : 1 - l;
    }),
  );
  return {
    name,
    op: 'mixup',
    inputs: [input, weights],
    kind: 'mean',
    backward: (dy) => [{ op: 'mixup_backward', inputs: [dy, weights], of: [0] }],
  };
};

const augment = (shape: readonly number[], time: number, freq: number): OpCase => {
  const attrs = { time_width: time, freq_width: freq, mask };
  return {
    name: `${time} x ${freq} of ${shape.join('x')}`,
    op: 'spec_augment',
    attrs,
    inputs: [map(shape, lab.normals(sizeOf(shape)))],
    state,
    kind: 'exact',
    oracle: false,
    backward: (dy) => [{ op: 'spec_augment', attrs, inputs: [dy], state, of: [0] }],
  };
};

await checkOps(t, lab, [
  mixup('a map', map([4, 1, 7, 64], lab.normals(4 * 7 * 64))),
  mixup('a map of 20 channels', map([2, 20, 3, 5], lab.normals(600))),
  mixup('vectors', dense([6, 37], lab.normals(222))),
  augment([3, 1, 101, 64], 64, 8),
  augment([2, 1, 5, 3], 64, 8),
  augment([1, 1, 20, 7], 1, 1),
]);

t.test('mixup: an odd number of clips, or of weights, is refused', async (t) => {
  const run = (clips: number, weights: number) => {
    const inputs = [
      dense([clips, 4], lab.normals(4 * clips)),
      dense([weights], lab.uniforms(weights)),
    ];
    return lab.run({ op: 'mixup', inputs });
  };
  await t.rejects(run(3, 3), { code: 'ERR_PANNS_SHAPE', message: /even number of clips/ });
  await t.rejects(run(4, 2), { code: 'ERR_PANNS_SHAPE', message: /one weight a clip/ });
});

/** Frames (or bins) that the two stripes of an axis blank: elements of the stream as documented. */
function blanked(clip: number, axis: number, width: number, total: number): Set<number> {
  const gone = new Set<number>();
  for (const stripe of [0, 1]) {
    const word = (i: number) => randomWord(seed, step, mask, 8 * clip + 4 * axis + 2 * stripe + i);
    const size = Math.min(below(word(0), width), total - 1);
    const start = below(word(1), total - size);
    for (let i = start; i < start + size; i++) gone.add(i);
  }
  return gone;
}

t.test('spec_augment: the stripes are those of Philox, the rest is untouched', async (t) => {
  for (const [frames, bins, time, freq] of [
    [101, 64, 64, 8],
    [40, 32, 64, 4],
    [1, 1, 64, 8],
  ] as const) {
    const clips = 6;
    const x = map([clips, 1, frames, bins], lab.normals(clips * frames * bins, 1, 5));
    const attrs = { time_width: time, freq_width: freq, mask };
    const y = await first(lab.run({ op: 'spec_augment', attrs, inputs: [x], state }));
    const want = x.data.slice();
    for (let n = 0; n < clips; n++) {
      const gone = [blanked(n, 0, time, frames), blanked(n, 1, freq, bins)] as const;
      for (let i = 0; i < frames * bins; i++) {
        const blank = gone[0].has(Math.floor(i / bins)) || gone[1].has(i % bins);
        if (blank) want[n * frames * bins + i] = 0;
      }
    }
    t.same([...y.data], [...want], `${frames}x${bins}, stripes below ${time} and ${freq}`);
  }
});

t.test('spec_augment: how much is blanked', async (t) => {
  const [clips, frames, bins, time, freq] = [400, 101, 64, 64, 8];
  const ones = new Float32Array(clips * frames * bins).fill(1);
  const attrs = { time_width: time, freq_width: freq, mask };
  const inputs = [map([clips, 1, frames, bins], ones)];
  const { data } = await first(lab.run({ op: 'spec_augment', attrs, inputs, state }));
  /** Blank rows a clip; a frame is blank when each of its bins is. */
  const found = { time: [] as number[], freq: [] as number[] };
  for (let n = 0; n < clips; n++) {
    const at = (i: number, j: number) => data[(n * frames + i) * bins + j] !== 0;
    const keptFrames = Array.from({ length: frames }, (_, i) =>
      Array.from({ length: bins }, (_, j) => at(i, j)).some(Boolean),
    );
    const keptBins = Array.from({ length: bins }, (_, j) =>
      Array.from({ length: frames }, (_, i) => at(i, j)).some(Boolean),
    );
    found.time.push(keptFrames.filter((kept) => !kept).length);
    found.freq.push(keptBins.filter((kept) => !kept).length);
  }
  const check = (counts: number[], width: number, total: number, what: string) => {
    // The same law, drawn anew: two stripes, width in [0, width), start in [0, total - width).
    const law = Array.from({ length: 20_000 }, () => {
      const gone = new Set<number>();
      for (let s = 0; s < 2; s++) {
        const size = lab.random.integer(width);
        const start = lab.random.integer(total - size);
        for (let i = start; i < start + size; i++) gone.add(i);
      }
      return gone.size;
    });
    const mean = (a: number[]) => a.reduce((x, y) => x + y, 0) / a.length;
    const center = mean(law);
    const variance = mean(law.map((v) => (v - center) ** 2));
    const spread = Math.sqrt(variance / counts.length + variance / law.length);
    const gap = mean(counts) - center;
    // Seven standard deviations: 2.6e-12 of all runs fail by chance.
    t.ok(Math.abs(gap) < 7 * spread, `${what}: ${mean(counts)} a clip, ${center} by the law`);
    t.ok(Math.max(...counts) <= 2 * (width - 1), `${what}: at most ${2 * (width - 1)}`);
    t.ok(new Set(counts).size > width / 2, `${what}: many widths`);
  };
  check(found.time, time, frames, 'frames');
  check(found.freq, freq, bins, 'bins');
});

t.test('spec_augment: more than one channel is refused', async (t) => {
  const run = lab.run({ op: 'spec_augment', inputs: [map([1, 2, 4, 4], lab.normals(32))] });
  await t.rejects(run, { code: 'ERR_PANNS_SHAPE', message: /one channel/ });
});
