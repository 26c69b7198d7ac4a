import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { encodeWav16, writeWav16 } from '../../lib/audio/wav.js';
import { EventDetector } from '../../lib/inference/detector.js';
import { embed } from '../../lib/inference/embed.js';
import { createModel } from '../../lib/inference/model.js';
import { AudioTagger } from '../../lib/inference/tagger.js';
import { openDraws } from '../helpers/random.js';

const draws = openDraws(t);

const RATE = 8000;
const TINY = {
  sampleRate: RATE,
  melBins: 16,
  classes: ['low', 'high', 'none'],
  seed: 3,
  threads: 1,
} as const;

/** Noise of 16-bit values, so that a file gives it back exactly. */
const noise = (seconds: number) =>
  Float32Array.from(
    { length: seconds * RATE },
    () => (draws.random.integer(65536) - 32768) / 32768,
  );

/** A WAV file of 32-bit floats: the header of 16 bits, with another format, sizes and data. */
function wavOfFloats(samples: Float32Array): Buffer {
  const head = Buffer.from(encodeWav16(new Float32Array(0), RATE).subarray(0, 44));
  head.writeUInt32LE(36 + 4 * samples.length, 4);
  head.writeUInt16LE(3, 20);
  head.writeUInt32LE(4 * RATE, 28);
  head.writeUInt16LE(4, 32);
  head.writeUInt16LE(32, 34);
  head.writeUInt32LE(4 * samples.length, 40);
  return Buffer.concat([head, Buffer.from(samples.buffer, samples.byteOffset, 4 * samples.length)]);
}

t.test('files, their bytes and their samples are tagged alike', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const path = join(t.testdir(), 'noise.wav');
  const samples = noise(5.3);
  await writeWav16(path, samples, RATE);
  const tagger = await AudioTagger.load(model, { windowSeconds: 2, hopSeconds: 1 });
  const fromFile = await tagger.tag(path);
  t.same(await tagger.tag(samples), fromFile);
  t.same(await tagger.tag(new Uint8Array(readFileSync(path))), fromFile);
  t.same(
    fromFile.segments.map(({ start, end }) => [start, end]),
    [
      [0, 2],
      [1, 3],
      [2, 4],
      [3, 5],
      [3.3, 5.3],
    ],
  );
  t.equal(fromFile.seconds, 5.3);

  const windows = [0, 1, 2, 3, 3.3].map((at) => samples.slice(at * RATE, (at + 2) * RATE));
  const { clipwise_output, embedding } = await model.infer(windows);
  const column = (data: Float32Array, columns: number, k: number) =>
    windows.map((_, row) => data[row * columns + k] ?? Number.NaN);
  for (let k = 0; k < 3; k++) {
    const own = column(clipwise_output.data, 3, k);
    const mean = own.reduce((sum, value) => sum + value, 0) / own.length;
    t.ok(Math.abs(mean - (fromFile.scores[k] ?? 0)) < 1e-6, 'mean');
    const louder = await AudioTagger.load(model, {
      windowSeconds: 2,
      hopSeconds: 1,
      aggregate: 'max',
    });
    const { scores } = await louder.tag(samples);
    t.ok(Math.abs(Math.max(...own) - (scores[k] ?? 0)) < 1e-6, 'max');
  }
  const first = column(embedding.data, 512, 9).reduce((sum, value) => sum + value, 0) / 5;
  t.ok(Math.abs(first - (fromFile.embedding[9] ?? 0)) < 1e-5);
});

t.test('a file that is cut off says so, wherever the cut lies', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const tagger = await AudioTagger.load(model, { windowSeconds: 1 });
  const detector = await EventDetector.load(model, { windowSeconds: 1, hopSeconds: 0.5 });
  const whole = encodeWav16(noise(10), RATE);
  // Four windows are read at once: 4 and 8 s are where one reading ends and the next begins.
  // The last is half a window and more behind one: a rest of less than 0.1 s would not be counted.
  const half = RATE / 2;
  const drawn = RATE * draws.random.integer(9) + half + draws.random.integer(half);
  const ends = [1.3, 4, 8, drawn / RATE];
  for (const seconds of [...ends, 10]) {
    const path = join(t.testdir(), 'cut.wav');
    const bytes = whole.subarray(0, 44 + 2 * Math.round(seconds * RATE));
    writeFileSync(path, bytes);
    const truncated = seconds < 10;
    for (const source of [path, new Uint8Array(bytes)]) {
      const found = await tagger.tag(source);
      t.match(found, { truncated, seconds }, `tag, ${seconds} s`);
      t.equal((await embed(model, source, { windowSeconds: 1 })).truncated, truncated, 'embed');
      const detection = await detector.detect(source);
      t.match(detection, { truncated, seconds }, `detect, ${seconds} s`);
    }
  }
  // A header that is right, of as much sound as four windows take.
  t.equal((await tagger.tag(new Uint8Array(encodeWav16(noise(4), RATE)))).truncated, false);
  t.equal((await tagger.tag(noise(4))).truncated, false);
});

t.test('samples that are no numbers end a reading, or are read as 0', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const tagger = await AudioTagger.load(model, { windowSeconds: 1 });
  const detector = await EventDetector.load(model, { windowSeconds: 1, hopSeconds: 0.5 });
  const samples = noise(2.5);
  const at = draws.random.integer(samples.length);
  const bad = new Uint8Array(wavOfFloats(samples.with(at, Number.NaN)));
  const good = new Uint8Array(wavOfFloats(samples.with(at, 0)));
  const wrong = { code: 'ERR_PANNS_AUDIO_NAN', message: /nanToZero.*--nan-to-zero/ };
  const nanToZero = true;
  await t.rejects(tagger.tag(bad), wrong);
  await t.rejects(embed(model, bad), wrong);
  await t.rejects(detector.detect(bad), wrong);
  t.same(await tagger.tag(bad, { nanToZero }), await tagger.tag(good));
  t.same(await embed(model, bad, { nanToZero }), await embed(model, good));
  t.same(await detector.detect(bad, { nanToZero }), await detector.detect(good));
  const files = { code: 'ERR_PANNS_OPTION', message: /nanToZero to be absent/ };
  await t.rejects(tagger.tag(samples, { nanToZero }), files);
  const stream = (async function* () {
    yield samples;
  })();
  await t.rejects(detector.detectStream(stream, { nanToZero }).next(), files);
});

t.test('labels come best first, as many and as high as asked', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const tagger = await AudioTagger.load(model);
  const { labels, scores } = await tagger.tag(noise(1));
  t.same(
    labels.map(({ score }) => score),
    [...scores].sort((a, b) => b - a),
  );
  t.ok(labels.every(({ label, index }) => label === TINY.classes[index]));
  t.equal((await tagger.tag(noise(1), { topK: 2 })).labels.length, 2);
  const middle = labels[1]?.score ?? 0;
  t.same(tagger.best(scores, { threshold: middle }), labels.slice(0, 2));
});

t.test('short clips and other rates', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const tagger = await AudioTagger.load(model);
  t.equal((await tagger.tag(noise(0.01))).segments.length, 1);
  const fast = Float32Array.from({ length: 16000 }, (_, n) => Math.sin(n / 20));
  const { seconds } = await tagger.tag(fast, { sampleRate: 16000 });
  t.ok(Math.abs(seconds - 1) < 1e-3);
});

t.test('wrong use is refused', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const tagger = await AudioTagger.load(model);
  const option = { code: 'ERR_PANNS_OPTION' };
  await t.rejects(AudioTagger.load(model, { windowSeconds: 0.1 }), option);
  await t.rejects(AudioTagger.load(model, { windowSeconds: 2, hopSeconds: 3 }), option);
  await t.rejects(AudioTagger.load(model, { device: 'cuda' }), {
    ...option,
    message: /expected no device beside a model/,
  });
  await t.rejects(tagger.tag(noise(1), { topK: 0 }), option);
  t.throws(() => tagger.best(new Float32Array(3), { topK: -1 }), option);
  await t.rejects(tagger.tag(7 as unknown as string), option);
  await t.rejects(tagger.tag('a.wav', { sampleRate: 8000 }), option);
  await t.rejects(tagger.tag('/no/such.wav'), { code: 'ERR_PANNS_AUDIO_NOT_FOUND' });
  await t.rejects(tagger.tag(new Float32Array(0)), { code: 'ERR_PANNS_AUDIO_EMPTY' });
  await t.rejects(tagger.tag(noise(1), { signal: AbortSignal.abort() }), { code: 'ABORT_ERR' });
  await t.rejects(AudioTagger.load('/no/such.safetensors'), { code: 'ERR_PANNS_IO' });
  tagger.dispose();
  t.equal(model.parameters().length > 0, true, 'a model passed in stays');
});

t.test('samples of 16 bits are tagged as the floats they stand for', async (t) => {
  using model = await createModel('Cnn6', TINY);
  using tagger = await AudioTagger.load(model, { windowSeconds: 2 });
  const integers = Int16Array.from({ length: 3 * RATE }, () => draws.random.integer(65536) - 32768);
  const floats = Float32Array.from(integers, (value) => value / 32767);
  t.same(await tagger.tag(integers), await tagger.tag(floats));
});

t.test('what is no audio is refused, with what came', async (t) => {
  using model = await createModel('Cnn6', TINY);
  using tagger = await AudioTagger.load(model);
  const refusal = (source: unknown, message: RegExp, code = 'ERR_PANNS_OPTION') =>
    t.rejects(tagger.tag(source as string), { code, message });
  await refusal(new Float64Array(RATE), /got Float64Array/);
  for (const memory of [new ArrayBuffer(0), new SharedArrayBuffer(0)]) {
    await refusal(new Uint8Array(memory), /a file of 0 bytes/, 'ERR_PANNS_AUDIO_EMPTY');
  }
  await refusal([0.5], /got array/);
  await refusal(new ArrayBuffer(8), /as Uint8Array, .* got ArrayBuffer/);
  await refusal((function* () {})(), /got object$/);
  await refusal(new URL('file:///a.wav'), /got URL/);
  const loud = noise(1).map((sample) => 32768 * sample);
  await refusal(loud, /expected samples in -1\.\.1, they reach \d+/);
  loud[3] = Number.NaN;
  await refusal(loud, /NaN/, 'ERR_PANNS_NAN');
  const rates = [0, -1, 1e12, 44100.5, Number.NaN];
  for (const sampleRate of rates) {
    await t.rejects(tagger.tag(noise(1), { sampleRate }), {
      ...{ code: 'ERR_PANNS_OPTION', message: /expected sampleRate to be a whole number of Hz/ },
    });
  }
  const signal = {} as AbortSignal;
  await t.rejects(tagger.tag(noise(1), { signal }), {
    ...{
      code: 'ERR_PANNS_OPTION',
      message: 'tag: expected signal to be an AbortSignal, got Object',
    },
  });

  const huge = noise(1).map((sample) => 1e30 * sample);
  await t.rejects(model.infer(huge), { code: 'ERR_PANNS_NAN', message: /far outside -1\.\.1/ });
  for (const samples of [undefined, [], new Float32Array(0), [new Float32Array(0)], 'a.wav']) {
    await t.rejects(model.infer(samples as Float32Array), { code: 'ERR_PANNS_SHAPE' });
  }
  await t.rejects(model.infer(new Float64Array(RATE) as unknown as Float32Array), {
    ...{ code: 'ERR_PANNS_SHAPE', message: /got Float64Array/ },
  });
});
