import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import t, { type Test } from 'tap';
import { decodeAudio } from '../../lib/audio/decode.js';
import { encodeWav16 } from '../../lib/audio/wav.js';
import { createModel } from '../../lib/inference/model.js';
import { AudioTagger } from '../../lib/inference/tagger.js';
import { loadNative } from '../../lib/native.js';
import { quantile, randomBatch, SECOND, sessionOptions, smallModel } from './small_model.js';

t.jobs = 1;

const addon = loadNative();
const { spec } = smallModel(64);

/** A machine that is busy with other things delays timers by itself; this much more is ours. */
const ALLOWED = 100;
const INTERVAL = 5;

interface Watch {
  readonly delays: readonly number[];
  readonly reads: readonly number[];
}

/** Timer delays and the times of file reads, in ms, while `work` goes on. */
async function watch(path: string, work: () => Promise<unknown>): Promise<Watch> {
  const delays: number[] = [];
  const reads: number[] = [];
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    delays.push(Math.max(0, now - last - INTERVAL));
    last = now;
  }, INTERVAL);
  let working = true;
  const reading = (async () => {
    while (working) {
      const begin = performance.now();
      // More at once than the pool has threads: one that is taken shows in all.
      await Promise.all(Array.from({ length: 8 }, () => readFile(path)));
      reads.push(performance.now() - begin);
    }
  })();
  try {
    await work();
  } finally {
    working = false;
    clearInterval(timer);
    await reading;
  }
  return { delays, reads };
}

async function staysFree(t: Test, name: string, work: () => Promise<unknown>): Promise<void> {
  const path = join(t.testdir(), 'file.bin');
  await (await import('node:fs/promises')).writeFile(path, randomBytes(64 * 1024));
  const idle = await watch(path, () => new Promise((resolve) => setTimeout(resolve, 700)));
  const busy = await watch(path, work);
  // A blocked loop shows in every tick; the slowest few of a hundred show the machine's own load.
  const [before, during] = [quantile(idle.delays, 0.9), quantile(busy.delays, 0.9)];
  const [readBefore, read] = [quantile(idle.reads, 0.5), quantile(busy.reads, 0.5)];
  t.comment(
    `${name}: delay p90 ${during.toFixed(1)} ms (idle ${before.toFixed(1)}), worst ` +
      `${Math.max(...busy.delays).toFixed(1)}; 8 reads p50 ${read.toFixed(1)} ms (idle ${readBefore.toFixed(1)})`,
  );
  // A loop that is blocked throughout ticks once or twice.
  t.ok(busy.delays.length > 10, `the work lasted (${busy.delays.length} ticks)`);
  t.ok(during < before + ALLOWED, 'timers run while the addon works');
  t.ok(read < readBefore + ALLOWED, 'file reads run while the addon works');
}

t.test('training', async (t) => {
  const model = await addon.createModel(spec, { device: 'cpu', threads: 0 }, SECOND);
  await model.initialise(1n);
  const session = await addon.createSession(model, spec, sessionOptions(8, 5 * SECOND));
  const { waveform, target } = randomBatch(1, 8, 5 * SECOND);
  await staysFree(t, 'training', async () => {
    const end = performance.now() + 1500;
    for (let step = 0; performance.now() < end; step++) {
      const state = { seed: 1n, step, lr: 1e-3, maxNorm: 1, update: true };
      await session.step(waveform, target, undefined, state);
    }
  });
});

t.test('tagging', async (t) => {
  const model = await createModel('Cnn6', { classes: 4, sampleRate: 8000, melBins: 32 });
  const tagger = new AudioTagger(model, { windowSeconds: 5 });
  const { waveform } = randomBatch(2, 1, 120 * SECOND);
  await staysFree(t, 'tagging', () => tagger.tag(waveform));
  model.dispose();
});

t.test('decoding with a change of rate', async (t) => {
  const file = encodeWav16(randomBatch(3, 1, 120 * 44100).waveform, 44100);
  await staysFree(t, 'decoding', async () => {
    const end = performance.now() + 1200;
    while (performance.now() < end) await decodeAudio(file, { sampleRate: 32000 });
  });
});

t.test('making a model and its first call', async (t) => {
  await staysFree(t, 'createModel', async () => {
    const model = await createModel('Cnn10', { classes: 4 });
    await model.infer(randomBatch(4, 1, 64_000).waveform);
    model.dispose();
  });
});
