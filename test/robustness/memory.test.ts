import { spawnSync } from 'node:child_process';
import t, { type Test } from 'tap';
import { FeatureExtractor } from '../../lib/features/extractor.js';
import { createModel } from '../../lib/inference/model.js';
import { loadNative } from '../../lib/native.js';
import {
  CLASSES,
  randomBatch,
  reports,
  runChild,
  SECOND,
  sessionOptions,
  smallModel,
} from './small_model.js';

t.jobs = 1;

const addon = loadNative();
const { spec } = smallModel();
/** Weights of about 9 MB, gradients and optimizer state three times that. */
const wide = smallModel(500).spec;
const MiB = 2 ** 20;

/** Growth of the resident memory from the tenth round on, in MiB. */
function growth(t: Test, rss: readonly number[]): number {
  const [early, late] = [Math.max(...rss.slice(5, 10)), Math.max(...rss.slice(-5))];
  t.comment(
    `RSS after 10 rounds ${(early / MiB).toFixed(0)} MiB, after ${rss.length} ${(late / MiB).toFixed(0)} MiB`,
  );
  return (late - early) / MiB;
}

async function rssOf(
  t: Test,
  request: Parameters<typeof runChild>[0],
  args: string[] = [],
): Promise<number[]> {
  const result = await runChild(request, { limit: 120_000, args });
  t.match(result, { code: 0, signal: null });
  return (reports(result)[0]?.rss ?? []) as number[];
}

t.test('fifty models, made and disposed of', async (t) => {
  const rss = await rssOf(t, { job: 'forgotten', spec: wide, count: 50, dispose: true });
  t.ok(growth(t, rss) < 60, 'the memory is given back');
});

t.test('fifty sessions, made and disposed of', async (t) => {
  const rss = await rssOf(t, { job: 'sessions', spec: wide, batch: 2, count: 50 });
  t.ok(growth(t, rss) < 60, 'the memory is given back');
});

t.test('forgotten models are collected with --expose-gc', async (t) => {
  const rss = await rssOf(t, { job: 'forgotten', spec: wide, count: 40, collect: true }, [
    '--expose-gc',
  ]);
  t.ok(growth(t, rss) < 60, 'the memory is given back');
});

t.test('forgotten models are collected without being asked to', async (t) => {
  const rss = await rssOf(t, { job: 'forgotten', spec: wide, count: 60 });
  t.ok(growth(t, rss) < 500, 'V8 knows how much a model weighs');
});

t.test('dispose() while jobs are under way', async (t) => {
  const model = await addon.createModel(spec, { device: 'cpu', threads: 2 }, SECOND);
  await model.initialise(1n);
  const session = await addon.createSession(model, spec, sessionOptions(4, 2 * SECOND));
  const { waveform, target } = randomBatch(1, 4, 2 * SECOND);
  const state = { seed: 1n, step: 0, lr: 1e-3, maxNorm: 0, update: true };
  const jobs = [
    session.step(waveform, target, undefined, state),
    model.infer(waveform, 4, 2 * SECOND, ['logits']),
    session.step(waveform, target, undefined, { ...state, step: 1 }),
    session.gradient('fc1.weight'),
    model.get('fc1.weight'),
  ] as const;
  session.dispose();
  model.dispose();
  const [first, inferred, second, gradient, weight] = await Promise.all(jobs);
  t.ok(first.loss > 0 && second.loss > 0);
  t.equal(inferred.logits?.length, 4 * CLASSES);
  t.equal(gradient.length, weight.length);
  const disposed = { code: 'ERR_PANNS_DISPOSED' };
  await t.rejects(async () => model.infer(waveform, 4, 2 * SECOND, []), disposed);
  await t.rejects(async () => model.get('fc1.weight'), disposed);
  await t.rejects(async () => model.set('fc1.weight', weight), disposed);
  await t.rejects(async () => model.initialise(1n), disposed);
  await t.rejects(async () => model.text(1, SECOND, []), disposed);
  await t.rejects(
    async () => addon.createSession(model, spec, sessionOptions(1, SECOND)),
    disposed,
  );
  await t.rejects(async () => session.step(waveform, target, undefined, state), disposed);
  await t.rejects(async () => session.gradient('fc1.weight'), disposed);
  await t.rejects(async () => session.getSlot('exp_avg', 'fc1.weight'), disposed);
  for (const call of [
    () => model.parameters(),
    () => session.slots(),
    () => session.cost(),
    () => session.text(),
  ]) {
    t.throws(call, disposed);
  }
  model.dispose();
  session.dispose();
});

t.test('a session outlives the handle of its model', async (t) => {
  const model = await addon.createModel(spec, { device: 'cpu', threads: 1 }, SECOND);
  await model.initialise(1n);
  const session = await addon.createSession(model, spec, sessionOptions(2, SECOND));
  model.dispose();
  const { waveform, target } = randomBatch(1, 2, SECOND);
  const state = { seed: 1n, step: 0, lr: 1e-3, maxNorm: 0, update: true };
  t.ok((await session.step(waveform, target, undefined, state)).loss > 0);
});

t.test('the public classes after dispose()', async (t) => {
  const model = await createModel('Cnn6', { classes: 3, sampleRate: 8000 });
  const running = model.infer(randomBatch(1, 1, SECOND).waveform);
  model.dispose();
  model.dispose();
  t.equal((await running).clipwise_output.data.length, 3);
  const disposed = { name: 'PannsError', code: 'ERR_PANNS_DISPOSED' };
  await t.rejects(model.infer(new Float32Array(SECOND)), disposed);
  await t.rejects(model.stateDict(), disposed);
  await t.rejects(model.save('nowhere.safetensors'), disposed);
  t.throws(() => model.parameters(), disposed);
  const features = new FeatureExtractor({ sampleRate: 8000 });
  const frames = features.logmel(randomBatch(1, 1, SECOND).waveform);
  features.dispose();
  t.same((await frames).shape, [101, 64]);
  await t.rejects(features.logmel(new Float32Array(SECOND)), disposed);
});

t.test('more memory than there is: an error, and the process goes on', async (t) => {
  const model = await addon.createModel(spec, { device: 'cpu', threads: 1 }, SECOND);
  await model.initialise(1n);
  const { waveform } = randomBatch(1, 1, SECOND);
  const expected = await model.infer(waveform, 1, SECOND, ['logits']);
  const none = { code: 'ERR_PANNS_OUT_OF_MEMORY', message: /memory/ };
  await t.rejects(addon.createSession(model, spec, sessionOptions(2 ** 20, 60 * SECOND)), none);
  await t.rejects(model.text(2 ** 20, 3600 * SECOND, []), none);
  const huge = { ...spec, nodes: spec.nodes.map((node) => ({ ...node })) };
  for (const node of huge.nodes) {
    if (node.op === 'conv') node.attrs = { ...node.attrs, out_channels: 2 ** 20 };
  }
  await t.rejects(addon.createModel(huge, { device: 'cpu', threads: 1 }, SECOND), none);
  t.same(await model.infer(waveform, 1, SECOND, ['logits']), expected, 'the same result as before');
});

const notRoot =
  process.getuid?.() !== 0 && 'only root starts processes of another user, with few threads';

t.test('sizes that overflow 64 bits are errors, not small numbers', async (t) => {
  // In a process each: what is written beyond the memory that was reserved ends the process.
  for (const target of ['infer', 'text', 'features', 'weights']) {
    const result = await runChild(
      { job: 'overflow', spec, target },
      { shell: 'ulimit -c 0', limit: 20_000 },
    );
    t.match(result, { code: 0, signal: null }, `${target}: the process goes on`);
    t.match(reports(result), [{ code: /^ERR_PANNS_/ }], `${target}: ${result.stdout}`);
  }
});

t.test(
  'threads that the system refuses: no hang, and the process goes on',
  { skip: notRoot },
  async (t) => {
    // Limits count the threads of a user, and do not hold for root.
    const shell = 'ulimit -u 60; set -- setpriv --reuid 61234 --clear-groups "$@"';
    const result = await runChild({ job: 'threads', spec }, { shell, limit: 20_000 });
    if (/setpriv|MODULE_NOT_FOUND|EACCES/.test(result.stderr)) {
      t.pass('not run', {
        skip: `another user cannot run this here: ${result.stderr.slice(0, 200)}`,
      });
      return;
    }
    t.match(result, { code: 0, signal: null });
    const [report] = reports(result);
    t.match(
      report?.outcomes,
      Array(3).fill(/^made$|^ERR_PANNS_/),
      'made with fewer, or told with a code',
    );
    t.equal(report?.one, 'made');
  },
);

const noLimiter =
  spawnSync('prlimit', ['--version']).status !== 0 && 'no prlimit, which bounds a running process';

t.test(
  'a limit of the address space: known before, named, and the model works on',
  { skip: noLimiter },
  async (t) => {
    const bytes = 400 * MiB;
    const result = await runChild({ job: 'limited', spec, bytes, batch: 2, samples: SECOND });
    t.match(result, { code: 0, signal: null }, result.stderr.slice(0, 2000));
    const [report] = reports(result) as Record<string, never>[];
    const { need, failed, left, before, after } = report as unknown as {
      need: { free: number; largestBatch: number };
      failed: { code: string; message: string };
      left: number;
      before: object;
      after: object;
    };
    t.ok(need.free > 0 && need.free <= bytes, `${need.free} of ${bytes} bytes are free`);
    t.ok(need.largestBatch > 2, `a batch of ${need.largestBatch} fits`);
    t.equal(failed.code, 'ERR_PANNS_OUT_OF_MEMORY');
    const named = Number(/the largest batch that fits is (\d+)$/.exec(failed.message)?.[1]);
    // The limit is the same; Node.js itself may have mapped a little more meanwhile.
    t.ok(named > 0.7 * need.largestBatch && named <= need.largestBatch, failed.message);
    t.equal(left, 0, 'nothing of it is held');
    t.same(after, before, 'a smaller batch gives what it gave');
  },
);
