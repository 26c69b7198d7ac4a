import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { decodeAudio, probeAudio } from '../../lib/audio/decode.js';
import { loadAudio } from '../../lib/audio/load.js';
import { encodeWav16 } from '../../lib/audio/wav.js';
import { createModel } from '../../lib/inference/model.js';
import { AudioTagger } from '../../lib/inference/tagger.js';
import { freshSeed } from '../data/fresh_seed.js';
import { randomBatch } from './small_model.js';

t.jobs = 1;

const MiB = 2 ** 20;
const RATE = 32000;
const FIVE_HOURS = 5 * 3600;

/** The header of a WAV file: format tag, channels and bits as given, `dataBytes` announced. */
function header(dataBytes: number, { tag = 1, channels = 1, bits = 16, rate = RATE } = {}): Buffer {
  const bytes = Buffer.alloc(44);
  bytes.write('RIFF', 0);
  bytes.writeUInt32LE(Math.min(2 ** 32 - 1, 36 + dataBytes), 4);
  bytes.write('WAVEfmt ', 8);
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(tag, 20);
  bytes.writeUInt16LE(channels, 22);
  bytes.writeUInt32LE(rate, 24);
  bytes.writeUInt32LE((rate * channels * bits) / 8, 28);
  bytes.writeUInt16LE((channels * bits) / 8, 32);
  bytes.writeUInt16LE(bits, 34);
  bytes.write('data', 36);
  bytes.writeUInt32LE(dataBytes, 40);
  return bytes;
}

/** The largest resident memory while `work` goes on, in MiB above what was there before. */
async function peak(work: () => Promise<unknown>): Promise<number> {
  const before = process.memoryUsage.rss();
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss());
  }, 5);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  return (Math.max(most, process.memoryUsage.rss()) - before) / MiB;
}

/** Five hours that take a few kilobytes of disk: silence, with one second of noise at 4 h. */
function sparseFile(t: Test, noise: Float32Array): string {
  const path = join(t.testdir(), 'long.wav');
  const file = openSync(path, 'w');
  const dataBytes = 2 * RATE * FIVE_HOURS;
  writeSync(file, header(dataBytes));
  ftruncateSync(file, 44 + dataBytes);
  writeSync(
    file,
    encodeWav16(noise, RATE).subarray(44),
    0,
    2 * noise.length,
    44 + 2 * RATE * 4 * 3600,
  );
  closeSync(file);
  return path;
}

t.test('a header that announces five hours before little data', async (t) => {
  const { waveform } = randomBatch(freshSeed(t), 1, RATE);
  const samples = waveform.map((x) => x / 2);
  const bytes = Buffer.concat([
    header(2 * RATE * FIVE_HOURS),
    encodeWav16(samples, RATE).subarray(44),
  ]);
  const path = join(t.testdir(), 'short.wav');
  writeFileSync(path, bytes);
  for (const source of [path, new Uint8Array(bytes)]) {
    const grown = await peak(async () => {
      const { channels, truncated } = await decodeAudio(source);
      t.equal(channels[0]?.length, RATE);
      t.ok(truncated, 'and says that the rest is missing');
      const worst = samples.reduce(
        (most, x, i) => Math.max(most, Math.abs(x - (channels[0]?.[i] ?? 9))),
        0,
      );
      t.ok(worst <= 1 / 65536 + 1e-7, `samples are those of the file (${worst})`);
    });
    t.ok(grown < 100, `memory follows the data, not the header: ${grown.toFixed(0)} MiB`);
  }
  await t.rejects(decodeAudio(path, { start: 3600, duration: 1 }), { code: /^ERR_PANNS_AUDIO_/ });
});

t.test('a file of five hours, in ranges', async (t) => {
  const { waveform } = randomBatch(freshSeed(t), 1, RATE);
  const noise = waveform.map((x) => x / 2);
  const path = sparseFile(t, noise);
  const { frames } = await probeAudio(path);
  t.equal(frames, RATE * FIVE_HOURS);
  const begin = performance.now();
  const grown = await peak(async () => {
    const range = { start: 4 * 3600 - 1, duration: 3, sampleRate: RATE };
    const { samples } = await loadAudio(path, range);
    t.equal(samples.length, 3 * RATE);
    const heard = samples.subarray(RATE, 2 * RATE);
    const worst = heard.reduce((most, x, i) => Math.max(most, Math.abs(x - (noise[i] ?? 9))), 0);
    t.ok(worst <= 1 / 65536 + 1e-7, `the noise is where it was written (${worst})`);
    t.ok(
      samples.subarray(0, RATE).every((x) => x === 0) &&
        samples.subarray(2 * RATE).every((x) => x === 0),
    );
    const last = await loadAudio(path, { start: FIVE_HOURS - 1, sampleRate: 16000 });
    t.equal(last.samples.length, 16000, 'the last second, at another rate');
  });
  t.comment(
    `two ranges of a 5-hour file: ${grown.toFixed(0)} MiB, ${(performance.now() - begin).toFixed(0)} ms`,
  );
  t.ok(grown < 64, `${grown.toFixed(0)} MiB`);
  await t.rejects(decodeAudio(path, { start: FIVE_HOURS + 1 }), { code: 'ERR_PANNS_AUDIO_RANGE' });
  await t.rejects(decodeAudio(path, { maxSeconds: 60 }), { code: 'ERR_PANNS_AUDIO_TOO_LONG' });
});

t.test('audio without a limit on its length', async (t) => {
  const { waveform } = randomBatch(freshSeed(t), 1, RATE);
  const file = encodeWav16(waveform, RATE);
  const { channels } = await decodeAudio(file, { maxSeconds: Number.POSITIVE_INFINITY });
  t.equal(channels[0]?.length, RATE);
});

t.test('five hours are decoded, and aborted, at once', async (t) => {
  const path = sparseFile(t, new Float32Array(10));
  const controller = new AbortController();
  const decoding = decodeAudio(path, { sampleRate: 22050, signal: controller.signal });
  setTimeout(() => controller.abort(), 100);
  const begin = performance.now();
  await t.rejects(decoding, { name: 'AbortError', code: 'ABORT_ERR' });
  t.ok(
    performance.now() - begin < 1500,
    `aborted after ${(performance.now() - begin).toFixed(0)} ms`,
  );
});

t.test('tagging a long file takes the memory of a short one', async (t) => {
  const path = sparseFile(t, new Float32Array(10));
  const model = await createModel('Cnn6', {
    classes: 3,
    sampleRate: 4000,
    windowSize: 64,
    hopSize: 400,
    melBins: 16,
  });
  const tagger = new AudioTagger(model, { windowSeconds: 60 });
  const controller = new AbortController();
  const grown = await peak(async () => {
    setTimeout(() => controller.abort(), 2000);
    await t.rejects(tagger.tag(path, { signal: controller.signal }), { code: 'ABORT_ERR' });
  });
  t.comment(`tagging for 2 s: ${grown.toFixed(0)} MiB`);
  t.ok(grown < 150, `${grown.toFixed(0)} MiB`);
  model.dispose();
});

t.test('files that are no audio, or damaged', async (t) => {
  const good = encodeWav16(randomBatch(1, 1, 1000).waveform, RATE);
  const nan = Buffer.concat([header(16, { tag: 3, bits: 32 }), Buffer.alloc(16, 0xff)]);
  const infinite = Buffer.concat([
    header(4, { tag: 3, bits: 32 }),
    Buffer.from([0, 0, 0x80, 0x7f]),
  ]);
  const cases: Record<string, [Uint8Array, RegExp]> = {
    empty: [new Uint8Array(0), /^ERR_PANNS_AUDIO_EMPTY$/],
    text: [Buffer.from('this is no audio\n'.repeat(100)), /^ERR_PANNS_AUDIO_FORMAT$/],
    zeros: [Buffer.alloc(5000), /^ERR_PANNS_AUDIO_FORMAT$/],
    'a header cut short': [good.subarray(0, 30), /^ERR_PANNS_AUDIO_/],
    'a header without samples': [header(0), /^ERR_PANNS_AUDIO_EMPTY$/],
    'announced samples, none there': [header(2000), /^ERR_PANNS_AUDIO_(EMPTY|CORRUPT)$/],
    'no channels': [
      Buffer.concat([header(2000, { channels: 0 }), Buffer.alloc(2000)]),
      /^ERR_PANNS_AUDIO_/,
    ],
    'a rate of 0': [
      Buffer.concat([header(2000, { rate: 0 }), Buffer.alloc(2000)]),
      /^ERR_PANNS_AUDIO_/,
    ],
    '60000 channels': [
      Buffer.concat([header(2000, { channels: 60000, bits: 8 }), Buffer.alloc(2000)]),
      /^ERR_PANNS_AUDIO_/,
    ],
    'NaN samples': [nan, /^ERR_PANNS_AUDIO_NAN$/],
    'infinite samples': [infinite, /^ERR_PANNS_AUDIO_NAN$/],
  };
  const folder = t.testdir();
  for (const [name, [bytes, code]] of Object.entries(cases)) {
    const path = join(folder, 'file.wav');
    writeFileSync(path, bytes);
    for (const source of [path, new Uint8Array(bytes)]) {
      const where = typeof source === 'string' ? 'file' : 'memory';
      const wrong = { name: 'PannsError', code };
      await t.rejects(decodeAudio(source), wrong, `${name}, decodeAudio, ${where}`);
      await t.rejects(
        loadAudio(source, { sampleRate: RATE }),
        { name: 'PannsError' },
        `${name}, loadAudio, ${where}`,
      );
    }
  }
  t.same((await decodeAudio(nan, { nanToZero: true })).channels, [new Float32Array(4)]);
  const cut = await decodeAudio(good.subarray(0, 44 + 501));
  t.match(
    cut,
    { truncated: true, channels: [{ length: 250 }] },
    'half a sample at the end is dropped',
  );
  await t.rejects(decodeAudio(join(folder, 'none.wav')), { code: 'ERR_PANNS_AUDIO_NOT_FOUND' });
  await t.rejects(decodeAudio(folder), { code: /^ERR_PANNS_(IO|AUDIO_FORMAT)$/ });
  await t.rejects(decodeAudio('a\0b'), { code: 'ERR_PANNS_AUDIO_NOT_FOUND' });
  await t.rejects(decodeAudio('/dev/zero'), { code: /^ERR_PANNS_(IO|AUDIO_FORMAT)$/ });
});
