import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeWav16 } from '../../lib/audio/wav.js';
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
  await t.rejects(tagger.tag(noise(1), { topK: 0 }), option);
  await t.rejects(tagger.tag(7 as unknown as string), option);
  await t.rejects(tagger.tag('a.wav', { sampleRate: 8000 }), option);
  await t.rejects(tagger.tag('/no/such.wav'), { code: 'ERR_PANNS_AUDIO_NOT_FOUND' });
  await t.rejects(tagger.tag(new Float32Array(0)), { code: 'ERR_PANNS_AUDIO_EMPTY' });
  await t.rejects(tagger.tag(noise(1), { signal: AbortSignal.abort() }), { code: 'ABORT_ERR' });
  await t.rejects(AudioTagger.load('/no/such.safetensors'), { code: 'ERR_PANNS_IO' });
  tagger.dispose();
  t.equal(model.parameters().length > 0, true, 'a model passed in stays');
});
