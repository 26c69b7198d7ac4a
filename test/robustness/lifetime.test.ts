import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import {
  HEAVY_SAMPLES,
  heavySpec,
  type JobRequest,
  reports,
  runChild,
  runProgram,
  SECOND,
  smallModel,
  startWorker,
  testPath,
} from './small_model.js';

t.jobs = 1;

const heavy = { spec: heavySpec(), batch: 8, samples: HEAVY_SAMPLES };
const { spec } = smallModel();

/** A promise of milliseconds is worth something only where the work itself lasts far longer. */
const PROMISED = 1000;

/** Waits for the first message with the key, and fails when the worker breaks before. */
function message(worker: Worker, key: string): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.on('message', (fields: Record<string, unknown>) => {
      if (key in fields) resolve();
    });
    worker.once('error', reject);
    worker.once('exit', (code) => reject(new Error(`the worker left with ${code}`)));
  });
}

/** Cuts a job `after` milliseconds of its first piece of work; how long that took, and what was done. */
async function cut(request: JobRequest, after: number): Promise<{ took: number; done: boolean }> {
  const worker = startWorker(request);
  let done = false;
  worker.on('message', (fields: Record<string, unknown>) => {
    done ||= 'done' in fields;
  });
  await message(worker, 'busy');
  await sleep(after);
  const begin = performance.now();
  await worker.terminate();
  return { took: performance.now() - begin, done };
}

async function cutOften(t: Test, request: JobRequest, delays: readonly number[]): Promise<void> {
  const took: number[] = [];
  for (const delay of delays) {
    const result = await cut(request, delay);
    t.notOk(result.done, `the work was under way when it was cut after ${delay} ms`);
    took.push(result.took);
  }
  t.comment(`terminate(): ${took.map((ms) => ms.toFixed(0)).join(', ')} ms`);
  t.ok(Math.max(...took) < PROMISED, `worker.terminate() ends within ${PROMISED} ms`);
}

t.test('worker.terminate() cuts a training step', async (t) => {
  await cutOften(t, { job: 'train', ...heavy }, [0, 30, 150, 400, 700]);
});

t.test('worker.terminate() cuts inference', async (t) => {
  await cutOften(t, { job: 'infer', ...heavy }, [0, 30, 100, 200, 300]);
});

t.test('worker.terminate() while a queue of small steps moves on', async (t) => {
  const worker = startWorker({ job: 'train', spec, batch: 2, samples: SECOND });
  await message(worker, 'done');
  await sleep(50);
  const begin = performance.now();
  t.equal(await worker.terminate(), 1);
  t.ok(performance.now() - begin < PROMISED);
});

t.test('process.exit() in a step, with stop() in an exit handler', async (t) => {
  for (const after of [20, 500]) {
    const result = await runChild({ job: 'exit', ...heavy, after, stop: true });
    t.match(result, { code: 7, signal: null, stderr: '' });
    t.notOk(reports(result).length, 'the step was under way');
    t.comment(`process.exit(): ${result.leaving.toFixed(0)} ms`);
    t.ok(result.leaving < PROMISED, `the process ends within ${PROMISED} ms`);
  }
});

t.test('process.exit() in a step, without anybody who stops the engine', async (t) => {
  const result = await runChild({ job: 'exit', ...heavy, after: 300, stop: false });
  t.match(result, { code: 7, signal: null, stderr: '' });
  t.comment(`process.exit(): ${result.leaving.toFixed(0)} ms`);
  t.ok(result.leaving < PROMISED, `the process ends within ${PROMISED} ms`);
});

t.test('process.exit() in a step of the public Trainer', async (t) => {
  const result = await runProgram(process.execPath, [
    ...process.execArgv,
    testPath('exit_in_training.ts'),
  ]);
  t.match(result, { code: 7, signal: null });
  t.notOk(
    reports(result).some((fields) => 'done' in fields),
    'the step was under way',
  );
  t.comment(`process.exit(): ${result.leaving.toFixed(0)} ms`);
  t.ok(result.leaving < PROMISED, `the process ends within ${PROMISED} ms`);
});

t.test('an idle engine keeps nobody waiting', async (t) => {
  const result = await runChild({ job: 'idle', spec, samples: SECOND });
  t.match(result, { code: 0, signal: null, stderr: '' });
  t.ok(
    result.leaving < PROMISED,
    `the process ends by itself, after ${result.leaving.toFixed(0)} ms`,
  );
});

t.test('a job that nobody awaits is done before the process ends', async (t) => {
  const result = await runChild({ job: 'unresolved', spec, batch: 4, samples: 4 * SECOND });
  t.match(result, { code: 0, signal: null, stderr: '' });
  t.same(reports(result), [{ done: 0 }, { done: 1 }, { exit: 0 }]);
});

t.test('twenty workers load the addon, work and leave, one after another', async (t) => {
  const before = process.memoryUsage.rss();
  for (let i = 0; i < 20; i++) {
    const worker = startWorker({ job: 'results', spec, batch: 1, samples: SECOND });
    const left = once(worker, 'exit');
    await message(worker, 'weights');
    const [code] = await left;
    if (code !== 0) t.equal(code, 0, `worker ${i}`);
  }
  const grown = (process.memoryUsage.rss() - before) / 2 ** 20;
  t.comment(`20 workers: ${grown.toFixed(0)} MiB more`);
  t.ok(grown < 200, 'their memory has been given back');
});
