import type { Worker } from 'node:worker_threads';
import t from 'tap';
import { loadNative } from '../../lib/native.js';
import { freshSeed } from '../data/fresh_seed.js';
import { type JobRequest, randomBatch, SECOND, smallModel, startWorker } from './small_model.js';

t.jobs = 1;

const { spec } = smallModel(24);

interface Results {
  readonly rounds: readonly {
    readonly loss: number;
    readonly inferred: Record<string, Float32Array>;
    readonly gradients: Record<string, Float32Array>;
  }[];
  readonly weights: Record<string, Float32Array>;
}

function results(request: Omit<JobRequest, 'job'>): Promise<Results> {
  const worker: Worker = startWorker({ job: 'results', spec, ...request });
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

t.test('the number of threads changes no bit', async (t) => {
  const seed = freshSeed(t);
  // Odd sizes: work that no number of threads divides evenly.
  const request = { seed, batch: 3, samples: SECOND + 333 };
  const one = await results({ ...request, threads: 1 });
  const [round] = one.rounds;
  t.ok(Number.isFinite(round?.loss) && Object.keys(round?.gradients ?? {}).length > 8);
  const fc1 = round?.gradients['fc1.weight'] ?? new Float32Array(1);
  t.ok(
    fc1.some((x) => x !== 0) && fc1.every(Number.isFinite),
    'gradients are numbers, and not all zero',
  );
  for (const threads of [2, 3, 7])
    t.same(await results({ ...request, threads }), one, `${threads} threads`);
});

t.test('another seed gives other results', async (t) => {
  const [a, b] = [await results({ seed: 1, batch: 2 }), await results({ seed: 2, batch: 2 })];
  t.not(a.rounds[0]?.loss, b.rounds[0]?.loss);
});

t.test('worker threads side by side get what each gets alone', async (t) => {
  const seed = freshSeed(t);
  const requests = [0, 1, 2, 3].map((i) => ({
    seed: seed + i,
    batch: 2,
    rounds: 3,
    threads: 1 + (i % 2),
  }));
  const alone: Results[] = [];
  for (const request of requests) alone.push(await results(request));
  t.same(await Promise.all(requests.map(results)), alone);
});

t.test('several models of one thread, their calls mixed', async (t) => {
  const addon = loadNative();
  const seed = freshSeed(t);
  const clips = Array.from({ length: 6 }, (_, i) => randomBatch(seed + i, 1, SECOND).waveform);
  const models = await Promise.all(
    [1n, 2n, 3n].map(async (own) => {
      const model = await addon.createModel(spec, { device: 'cpu', threads: 2 }, SECOND);
      await model.initialise(own);
      return model;
    }),
  );
  const calls = models.flatMap((model) => {
    return clips.map((clip) => () => model.infer(clip, 1, SECOND, ['logits', 'embedding']));
  });
  const expected: unknown[] = [];
  for (const call of calls) expected.push(await call());
  t.same(await Promise.all(calls.map((call) => call())), expected);
  t.not(String(expected[0]), undefined);
  t.notSame(expected[0], expected[clips.length], 'the models differ');
});
