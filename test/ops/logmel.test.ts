import t from 'tap';
import type { LogmelOptions } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { type Attrs, checkOps, dense, type OpCase, openLab } from '../helpers/op.js';
import { compare, type Kind } from '../helpers/tolerance.js';

const lab = await openLab(t);

const published: Attrs = {
  sample_rate: 32000,
  window_size: 1024,
  hop_size: 320,
  mel_bins: 64,
  fmin: 50,
  fmax: 14000,
};
const at16k: Attrs = {
  ...published,
  sample_rate: 16000,
  window_size: 512,
  hop_size: 160,
  fmax: 8000,
};
const at8k: Attrs = { ...published, sample_rate: 8000, window_size: 256, hop_size: 80, fmax: 4000 };
/** Holds faint bands up: a filter of one bin, or one that pre-emphasis leaves little, may be. */
const normalised: Attrs = { log: 'natural', shift: 4.5, scale: 0.2 };
/** EfficientAT's MobileNetV3. */
const mobilenet: Attrs = {
  ...published,
  mel_bins: 128,
  fmin: 0,
  fmax: 15000,
  window_length: 800,
  periodic: false,
  preemphasis: 0.97,
  mel_scale: 'kaldi',
  ...normalised,
};
/** The natural logarithm in dB. */
const decibels: Attrs = { log: 'natural', shift: 0, scale: 10 / Math.LN10 };

/** How far below the loudest band others are compared in dB. */
const FAINT = 30;

/**
 * dB, and amplitudes (in dB of the faintest that is told in them) where a band lies deeper: a float
 * transform leaves about as much in each bin, of which a faint one may be all that a band has.
 */
const heard =
  ({ log, shift = 0, scale = 1 }: Attrs) =>
  (values: Float32Array, want: Float32Array): Float32Array => {
    const unit = (log === 'natural' ? 10 / Math.LN10 : 1) / Number(scale);
    const decibels = (value: number) => (value - Number(shift) * Number(scale)) * unit;
    const faintest = want.reduce((most, value) => Math.max(most, decibels(value)), -100) - FAINT;
    return values.map((value) => {
      const below = decibels(value) - faintest;
      return below >= 0
        ? value
        : value + ((20 / Math.LN10) * (10 ** (below / 20) - 1) - below) / unit;
    });
  };

const logmel = (
  name: string,
  attrs: Attrs,
  clips: number,
  samples: number,
  level = 0.1,
  kind: Kind = 'logmel',
): OpCase => ({
  name,
  op: 'logmel',
  attrs,
  inputs: [dense([clips, samples], lab.normals(clips * samples, level))],
  kind,
  ...(kind === 'logmel' && { view: heard(attrs) }),
});

await checkOps(t, lab, [
  logmel('32 kHz', published, 2, 8000),
  logmel('32 kHz, the shortest clip', published, 1, 513),
  logmel('32 kHz, a length between two hops', published, 3, 4321),
  logmel('32 kHz, faint', published, 1, 3200, 1e-5),
  logmel('16 kHz', at16k, 2, 4000),
  logmel('8 kHz', at8k, 2, 2001),
  logmel('128 bins', { ...published, mel_bins: 128, ...normalised }, 1, 4000, 0.1, 'features'),
  logmel('a hop of 500', { ...published, hop_size: 500 }, 1, 5000),
  logmel('a window that is no power of two', { ...published, window_size: 960 }, 1, 4000),

  logmel('a shorter window', { ...published, window_length: 800 }, 2, 4000),
  logmel('an odd window', { ...published, window_length: 801 }, 1, 4000),
  logmel('a symmetric window', { ...published, periodic: false }, 1, 4000),
  logmel('pre-emphasis', { ...published, mel_bins: 24, preemphasis: 0.97 }, 2, 4321),
  logmel('pre-emphasis of lows', { ...at8k, mel_bins: 16, preemphasis: -0.5 }, 1, 3000),
  logmel("Kaldi's filters", { ...published, mel_scale: 'kaldi' }, 1, 4000),
  logmel("Kaldi's filters up to half the rate", { ...at16k, mel_scale: 'kaldi' }, 1, 4000),
  logmel('ln in dB', { ...published, ...decibels }, 1, 4000),
  logmel('ln in dB, faint', { ...published, ...decibels }, 1, 4000, 1e-4),
  logmel('shifted, then scaled', { ...published, shift: 60, scale: -0.5 }, 1, 4000),

  logmel('MobileNetV3', mobilenet, 2, 8000, 0.1, 'features'),
  logmel('MobileNetV3 in dB, faint', { ...mobilenet, ...decibels }, 2, 8000, 1e-3),
  logmel('MobileNetV3, the shortest clip', mobilenet, 3, 514, 0.1, 'features'),
  // A frame more than without pre-emphasis would need 3521 samples.
  logmel('MobileNetV3, a sample short of a frame', mobilenet, 2, 3520, 0.1, 'features'),
  logmel('MobileNetV3, just a frame', mobilenet, 2, 3521, 0.1, 'features'),
  logmel('MobileNetV3, an odd length', mobilenet, 1, 7777, 0.1, 'features'),
]);

t.test('pre-emphasis takes a sample, and a frame with it', async (t) => {
  const frames = async (samples: number) => {
    const inputs = [dense([1, samples], lab.normals(samples))];
    const [y] = await lab.run({ op: 'logmel', attrs: mobilenet, inputs });
    return y?.shape[2];
  };
  t.equal(await frames(3520), 11);
  t.equal(await frames(3521), 12);
  t.equal(await frames(320000), 1000);
  await t.rejects(frames(513), {
    code: 'ERR_PANNS_SHAPE',
    message: /more than 513 samples.*pre-emphasis.*got 513/,
  });
});

t.test('settings that make no sense are refused', async (t) => {
  const inputs = [dense([1, 2000], lab.normals(2000))];
  for (const [wrong, message] of [
    [{ window_length: 1025 }, /window_length/],
    [{ window_length: 2 }, /window_length/],
    [{ preemphasis: 2 }, /preemphasis/],
    [{ mel_scale: 'htk' }, /'slaney', 'kaldi'/],
    [{ log: 'octave' }, /'decibel', 'natural'/],
    [{ scale: 0 }, /scale/],
  ] as const) {
    const run = lab.run({ op: 'logmel', attrs: { ...published, ...wrong }, inputs });
    await t.rejects(run, { code: /^ERR_PANNS_(SPEC|OPTION)$/, message });
  }
});

t.test('silence is -100 dB in every bin', async (t) => {
  const inputs = [dense([1, 3200], new Float32Array(3200))];
  const [y] = await lab.run({ op: 'logmel', attrs: published, inputs });
  t.same(y?.shape, [1, 1, 11, 64]);
  t.ok(y?.data.every((v) => v === -100));
});

t.test('half a window cannot be reflected: refused', async (t) => {
  const run = lab.run({
    op: 'logmel',
    attrs: published,
    inputs: [dense([1, 512], lab.normals(512))],
  });
  await t.rejects(run, { code: 'ERR_PANNS_SHAPE', message: /more than 512 samples.*got 512/ });
});

const options: LogmelOptions = {
  sampleRate: 32000,
  windowSize: 1024,
  hopSize: 320,
  melBins: 128,
  fmin: 0,
  fmax: 15000,
  windowLength: 800,
  periodic: false,
  preemphasis: 0.97,
  melScale: 'kaldi',
  log: 'natural',
  shift: 4.5,
  scale: 0.2,
};

t.test('features take the same settings', async (t) => {
  const clip = lab.normals(9000, 0.1);
  const [y] = await lab.run({ op: 'logmel', attrs: mobilenet, inputs: [dense([1, 9000], clip)] });
  const extractor = loadNative().createFeatures(options, 1);
  t.teardown(() => extractor.dispose());
  t.same(await extractor.run(clip, 1, 9000, 'logmel'), y?.data);
  const power = await extractor.run(clip, 1, 9000, 'spectrogram');
  t.equal(power.length, 29 * 513);
  for (const [wrong, message] of [
    [{ windowLength: 1025 }, /window_length/],
    [{ periodic: 1 }, /periodic: expected true or false/],
    [{ preemphasis: Number.NaN }, /preemphasis/],
    [{ melScale: 'htk' }, /melScale: expected 'slaney' or 'kaldi'/],
    [{ log: 'octave' }, /log: expected 'decibel' or 'natural'/],
    [{ shift: Number.POSITIVE_INFINITY }, /shift/],
    [{ scale: 0 }, /scale/],
  ] as const) {
    const create = () => loadNative().createFeatures({ ...options, ...wrong } as LogmelOptions, 1);
    t.throws(create, { code: 'ERR_PANNS_OPTION', message });
  }
});

t.test('the tensors of a front-end make its features', async (t) => {
  const { convReal, convImag, melW } = await loadNative().frontendTensors(options);
  const clip = lab.normals(4000, 0.1);
  const [y] = await lab.run({ op: 'logmel', attrs: mobilenet, inputs: [dense([1, 4000], clip)] });
  const emphasised = Float64Array.from(
    clip.subarray(1),
    (v, i) => v - 0.97 * (clip[i] ?? Number.NaN),
  );
  const length = emphasised.length;
  const sample = (i: number) =>
    emphasised[i < 0 ? -i : i < length ? i : 2 * (length - 1) - i] ?? Number.NaN;
  const want = new Float64Array(13 * 128);
  for (let frame = 0; frame < 13; frame++) {
    for (let k = 0; k <= 512; k++) {
      let [re, im] = [0, 0];
      for (let i = 0; i < 1024; i++) {
        const x = sample(frame * 320 + i - 512);
        re += x * (convReal[k * 1024 + i] ?? Number.NaN);
        im += x * (convImag[k * 1024 + i] ?? Number.NaN);
      }
      for (let m = 0; m < 128; m++) {
        const at = frame * 128 + m;
        want[at] = (want[at] ?? 0) + (re * re + im * im) * (melW[k * 128 + m] ?? Number.NaN);
      }
    }
  }
  const found = compare(
    y?.data ?? [],
    want.map((v) => (Math.log(v + 1e-5) + 4.5) / 5),
    'features',
  );
  t.ok(found.ok, found.message);
});
