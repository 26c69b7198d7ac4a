import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { readNpz } from '../helpers/npz.js';
import { sharedFile } from '../helpers/shared.js';

// What the published MobileNetV1 makes of two real windows, as far as it follows without its weights.
const native = loadNative();
const genuine = sharedFile('data', 'panns_reference', 'mobilenetv1_0.389_reference.npz');
const { skip } = genuine;
const CLIPS = ['clip_sym5_at_0s', 'clip_octet_at_6s'];
const FRAMES = 201;
const BINS = 64;

const arrays = skip ? new Map<never, never>() : readNpz(genuine.path);
const values = (name: string): Float32Array => {
  const found = (arrays as ReturnType<typeof readNpz>).get(name)?.data;
  if (found === undefined) throw new Error(`no ${name} in ${genuine.path}`);
  return found;
};
const run = async (op: string, attrs: object, inputs: OpTensor[]): Promise<Float32Array> => {
  const [y] = await native.runOp(op, { ...attrs }, inputs, {});
  return y?.data ?? new Float32Array();
};
const dense = (data: Float32Array, shape: number[]): OpTensor => ({ shape, form: 'dense', data });
/** The largest difference; NaN where one is missing. */
const gap = (a: Float32Array, b: Float32Array): number =>
  a.length === b.length
    ? a.reduce((most, x, i) => Math.max(most, Math.abs(x - (b[i] ?? Number.NaN))), 0)
    : Number.NaN;

t.test('the probabilities are the sigmoid of the logits', { skip }, async (t) => {
  for (const clip of CLIPS) {
    const found = await run('sigmoid', {}, [dense(values(`${clip}_logits`), [1, 527])]);
    const worst = gap(found, values(`${clip}_probs`));
    // Two units in the last place of a number just below 1.
    t.ok(worst <= 2 ** -23, `${clip}: off by ${worst} at most`);
  }
});

t.test('bn0 is one line a mel bin, over our log-mel', { skip }, async (t) => {
  const [clip = ''] = CLIPS;
  const front = { sample_rate: 32000, window_size: 1024, hop_size: 320 };
  const waveform = values(`${clip}_waveform`);
  const logmel = await run('logmel', { ...front, mel_bins: BINS, fmin: 50, fmax: 14000 }, [
    dense(waveform, [1, waveform.length]),
  ]);
  const normed = values(`${clip}_bn0`);
  t.equal(normed.length, FRAMES * BINS);
  const gamma = new Float32Array(BINS);
  const beta = new Float32Array(BINS);
  const eps = 1e-5;
  for (let bin = 0; bin < BINS; bin++) {
    const frames = Array.from({ length: FRAMES }, (_, i) => logmel[i * BINS + bin] ?? 0);
    const low = frames.indexOf(Math.min(...frames));
    const high = frames.indexOf(Math.max(...frames));
    const at = (frame: number) => normed[frame * BINS + bin] ?? 0;
    // Two of the 201 frames fix the line; the others must lie on it.
    const slope = (at(high) - at(low)) / ((frames[high] ?? 0) - (frames[low] ?? 0));
    t.ok(slope > 0);
    gamma[bin] = slope * Math.sqrt(1 + eps);
    beta[bin] = at(low) - slope * (frames[low] ?? 0);
  }
  const found = await run('batch_norm', { axis: 'freq', training: false }, [
    { shape: [1, 1, FRAMES, BINS], form: 'map', data: logmel },
    ...[gamma, beta, new Float32Array(BINS), new Float32Array(BINS).fill(1)].map((vector) =>
      dense(vector, [BINS]),
    ),
  ]);
  const worst = gap(found, normed);
  // Of values to 5.8: the log-mel's own difference of up to 1e-3 dB times a slope of about 0.07.
  t.ok(worst < 1e-4, `off by ${worst} at most`);
});

t.test('the pooled features are sums of a maximum and a mean after ReLU', { skip }, async (t) => {
  const features = values(`${CLIPS[0]}_pre_fc`);
  t.equal(features.length, 1024);
  t.ok(features.every((x) => x >= 0));
  t.ok(features.some((x) => x === 0) || Math.min(...features) < 0.01, 'some hardly respond');
});
