import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import t from 'tap';
import type { LogmelOptions } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { readNpz } from '../helpers/npz.js';
import { openOracle } from '../helpers/oracle.js';
import { sharedFile } from '../helpers/shared.js';

const native = loadNative();
const oracle = await openOracle(t);
const published: LogmelOptions = {
  sampleRate: 32000,
  windowSize: 1024,
  hopSize: 320,
  melBins: 64,
  fmin: 50,
  fmax: 14000,
};

const least = (a: Float32Array) => a.reduce((x, y) => Math.min(x, y));
const largest = (a: Float32Array) => a.reduce((x, y) => Math.max(x, y));

async function features(waveform: Float32Array, output: 'logmel' | 'spectrogram' = 'logmel') {
  const extractor = native.createFeatures(published, 0);
  const found = await extractor.run(waveform, 1, waveform.length, output);
  extractor.dispose();
  return found;
}

const genuine = sharedFile('data', 'panns_reference', 'mobilenetv1_0.389_reference.npz');

t.test('the genuine log-mel of two real windows', { skip: genuine.skip }, async (t) => {
  const arrays = readNpz(genuine.path);
  for (const clip of ['clip_sym5_at_0s', 'clip_octet_at_6s']) {
    const waveform = arrays.get(`${clip}_waveform`)?.data ?? new Float32Array();
    const want = arrays.get(`${clip}_logmel`);
    t.same(want?.shape, [201, 64]);
    const found = await features(waveform);
    t.equal(found.length, want?.data.length);
    let worst = 0;
    found.forEach((v, i) => {
      const gap = Math.abs(v - (want?.data[i] ?? Number.NaN));
      worst = gap <= worst ? worst : gap;
    });
    // The genuine numbers come from a float32 convolution with the transform's matrix.
    t.ok(worst < 1e-3, `${clip}: off by ${worst} dB at most`);
  }
});

const manifest = sharedFile('data', 'panns_reference', 'mobilenetv1_0.389_tensor_manifest.json');

t.test('the stored tensors of the front-end, bit for bit', { skip: manifest.skip }, async (t) => {
  const { tensors } = JSON.parse(readFileSync(manifest.path, 'utf8')) as {
    tensors: Record<string, { sha256: string; shape: number[] }>;
  };
  const made = await native.frontendTensors(published);
  const names = {
    'logmel_extractor.melW': made.melW,
    'spectrogram_extractor.stft.conv_real.weight': made.convReal,
    'spectrogram_extractor.stft.conv_imag.weight': made.convImag,
  };
  for (const [name, values] of Object.entries(names)) {
    t.equal(
      values.length,
      tensors[name]?.shape.reduce((a, b) => a * b),
    );
    const digest = createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex');
    t.equal(digest, tensors[name]?.sha256, name);
  }
});

/** What is known of the filter banks of every published front-end. */
const banks = [
  {
    rate: 32000,
    window: 1024,
    bins: 64,
    fmax: 14000,
    nonzero: 866,
    first: [2, 4, 6],
    last: 447,
    top: 0.018149516,
  },
  {
    rate: 16000,
    window: 512,
    bins: 64,
    fmax: 8000,
    nonzero: 495,
    first: [2, 4, 5],
    last: 255,
    top: 0.02162881,
  },
  {
    rate: 8000,
    window: 256,
    bins: 64,
    fmax: 4000,
    nonzero: 247,
    first: [2, 3, 4],
    last: 127,
    top: 0.028041514,
  },
  {
    rate: 32000,
    window: 1024,
    bins: 32,
    fmax: 14000,
    nonzero: 842,
    first: [2, 6, 9],
    last: 447,
    top: 0.0093969,
  },
  {
    rate: 32000,
    window: 1024,
    bins: 128,
    fmax: 14000,
    nonzero: 879,
    first: [2, 3, 4],
    last: 447,
    top: 0.0363785,
  },
];

for (const { rate, window, bins, fmax, nonzero, first, last, top } of banks) {
  t.test(`the filter bank of ${rate} Hz, ${window} samples, ${bins} bins`, async (t) => {
    const options = { ...published, sampleRate: rate, windowSize: window, melBins: bins, fmax };
    const { melW } = await native.frontendTensors(options);
    const rows = window / 2 + 1;
    t.equal(melW.length, rows * bins);
    t.equal(melW.filter((v) => v > 0).length, nonzero);
    t.notOk(melW.some((v) => v < 0));
    const column = (m: number) => Array.from({ length: rows }, (_, k) => melW[k * bins + m] ?? 0);
    t.same(
      first.map((_, m) => column(m).findIndex((v) => v > 0)),
      first,
    );
    t.equal(Math.floor(melW.findLastIndex((v) => v > 0) / bins), last);
    t.ok(Math.abs(largest(melW) / top - 1) < 5e-6, `largest ${largest(melW)}`);
    if (oracle.skip) {
      t.pass('against librosa', { skip: oracle.skip });
      return;
    }
    const reply = await oracle.call('mel', { rate, window, bins, fmin: 50, fmax });
    t.same(reply.arrays[0], melW, "librosa's, computed in float64 and rounded once");
  });
}

t.test('some weights of the published filter bank', async (t) => {
  const { melW } = await native.frontendTensors(published);
  const found = [2, 3, 4, 5].map((k) => (melW[k * 64] ?? 0).toFixed(8));
  t.same(found, ['0.00428909', '0.01501181', '0.01131285', '0.00059012']);
});

t.test('a sine of 1 kHz', async (t) => {
  const waveform = Float32Array.from(
    { length: 32000 },
    (_, i) => 0.5 * Math.sin((2 * Math.PI * i) / 32),
  );
  const power = await features(waveform, 'spectrogram');
  const frame = power.subarray(50 * 513, 51 * 513);
  t.equal(frame.indexOf(Math.max(...frame)), 32);
  // The ideal is (0.5 * 512 / 2)^2.
  t.ok(Math.abs(Math.max(...frame) - 16384) < 0.02, String(Math.max(...frame)));
  const logmel = await features(waveform);
  const row = logmel.subarray(50 * 64, 51 * 64);
  t.equal(row.indexOf(Math.max(...row)), 17);
  t.ok(Math.abs(Math.max(...row) - 23.6652) < 1e-4, String(Math.max(...row)));
  t.ok(Math.abs(Math.max(...logmel.subarray(0, 64)) - 21.7171) < 1e-4);
  t.same([...row.subarray(0, 4)], [-100, -100, -100, -100]);
});

t.test('frames of a clip', async (t) => {
  for (const [seconds, frames] of [
    [1, 101],
    [2, 201],
    [5, 501],
    [7, 701],
    [10, 1001],
    [30, 3001],
  ] as const) {
    const found = await features(new Float32Array(32000 * seconds));
    t.equal(found.length, 64 * frames, `${seconds} s`);
  }
});

const resource = sharedFile('data', 'audioset', 'R9_ZSCveAHg_7s.wav');

t.test("the authors' example", { skip: resource.skip }, async (t) => {
  const options = {
    start: 0,
    duration: -1,
    sampleRate: 0,
    mono: true,
    nanToZero: false,
    maxSeconds: 60,
  };
  const { channels, sampleRate } = await native.decode(resource.path, options);
  const [waveform = new Float32Array()] = channels;
  t.equal(sampleRate, 32000);
  t.equal(waveform.length, 7 * 32000);
  const near = (got: number | undefined, want: number, digits: number, what: string) =>
    t.equal((got ?? Number.NaN).toFixed(digits), want.toFixed(digits), what);
  near(least(waveform), -0.6033325, 6, 'least');
  near(largest(waveform), 0.6175537, 6, 'largest');
  const mean = (a: Float32Array) => a.reduce((sum, v) => sum + v, 0) / a.length;
  near(Math.sqrt(mean(waveform.map((v) => v * v))), 0.0805301, 6, 'rms');

  const logmel = await features(waveform);
  t.equal(logmel.length, 701 * 64);
  const average = mean(logmel);
  near(average, -25.866512, 3, 'mean');
  near(Math.sqrt(mean(logmel.map((v) => (v - average) ** 2))), 17.246982, 3, 'deviation');
  near(least(logmel), -79.83339, 3, 'least log-mel');
  near(largest(logmel), 18.821955, 3, 'largest log-mel');
  const known: [frame: number, bin: number, values: number[]][] = [
    [0, 0, [-25.111, -16.1547, -13.1206, -13.864]],
    [350, 30, [-33.3683, -26.1342, -20.216, -21.3477]],
    [700, 62, [-60.0124, -58.4528]],
  ];
  for (const [frame, bin, values] of known) {
    values.forEach((value, i) => {
      const got = logmel[frame * 64 + bin + i] ?? Number.NaN;
      t.ok(Math.abs(got - value) < 2e-4, `frame ${frame}, bin ${bin + i}: ${got}, ${value}`);
    });
  }
});
