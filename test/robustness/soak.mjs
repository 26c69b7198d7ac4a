#!/usr/bin/env node
// Makes, uses and disposes of models and trainings in one process, again and again, and says in JSON
// how its resident memory went:
//
//   npm run soak [-- <models> <trainings>]      10000 and 1000 when they are left out
//
// Needs dist/, and node --max-semi-space-size=1, as that script gives it: V8's young generation
// would grow by 24 MB on the way, and that is no leak. Exits with 1 when memory grew; `--keep` keeps every model, to see that it then does.
import { convBlock, createModel, head, logmelFrontend, Trainer } from 'panns';

const counts = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const [models = 10_000, trainings = 1000] = counts.map(Number);
const kept = process.argv.includes('--keep') ? [] : undefined;

const RATE = 8000;
const SAMPLES = RATE / 4;
const CLASSES = ['low', 'high'];

/**
 * Growth from the second tenth of the rounds to the last that is no leak: V8's heap breathes, and
 * glibc keeps what it freed. A leak of 2 kB a model would exceed it in 10000.
 */
const ALLOWED_MIB = 12;
const MiB = 2 ** 20;

/** The whole way from samples to scores, in 40 000 weights. */
const tiny = {
  name: 'Tiny',
  defaults: { sampleRate: RATE, melBins: 16, hopSize: 80, windowSize: 256, embeddingSize: 64 },
  build(b, waveform, config) {
    const front = logmelFrontend(b, waveform, config);
    const x = convBlock(b, 'block2', convBlock(b, 'block1', front, 16, 2), 64, 2);
    return head(b, x, front, config);
  },
};
const options = { classes: CLASSES, fmax: RATE / 2, threads: 1 };

function tone(frequency) {
  return Float32Array.from({ length: SAMPLES }, (_, i) => Math.sin((i * frequency) / RATE) / 2);
}

const clips = [0, 1, 0, 1].map((label, i) => ({ id: `${i}`, path: `${i}`, labels: [label] }));
const dataset = { classes: CLASSES, clips, skipped: [] };
const decode = async (requests) => requests.map(({ path }) => tone(1000 + 4000 * (path % 2)));

async function useModel(i) {
  const model = await createModel(tiny, { ...options, seed: i });
  const { clipwise_output: scores } = await model.infer(tone(100 + i));
  if (!scores.data.every((score) => score >= 0 && score <= 1)) throw new Error(`${scores.data}`);
  if (kept) kept.push(model);
  else model.dispose();
}

async function train(i) {
  const model = await createModel(tiny, { ...options, seed: i });
  const trainer = new Trainer(model, {
    ...{ dataset, decode, batchSize: 2, clipSeconds: SAMPLES / RATE, epochs: 1, seed: i },
  });
  for await (const { loss } of trainer) if (!Number.isFinite(loss)) throw new Error(`loss ${loss}`);
  trainer.dispose();
  if (kept) kept.push(model);
  else model.dispose();
}

/** Repeats; resident memory in MiB, as medians of the rounds 10 to 20 % and of the last 10 %. */
async function soak(name, count, body) {
  const rss = new Float64Array(count);
  const began = performance.now();
  for (let i = 0; i < count; i++) {
    await body(i);
    rss[i] = process.memoryUsage.rss() / MiB;
  }
  const median = (from, to) => {
    const sorted = rss.slice(Math.floor(from * count), Math.ceil(to * count)).sort();
    return Number(sorted[sorted.length >> 1].toFixed(1));
  };
  const result = { name, count, start: median(0.1, 0.2), end: median(0.9, 1) };
  result.seconds = Math.round((performance.now() - began) / 1000);
  result.flat = result.end - result.start < ALLOWED_MIB;
  console.log(JSON.stringify(result));
  return result.flat;
}

const flat = [await soak('models', models, useModel), await soak('trainings', trainings, train)];
process.exitCode = flat.every(Boolean) ? 0 : 1;
