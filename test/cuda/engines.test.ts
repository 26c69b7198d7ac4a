// Engines of cuDNN that can be built and fail when they first run, on emulated devices.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DeviceOptions } from '../../lib/addon.js';
import { createModel, modelInternals } from '../../lib/inference/model.js';
import { describeModel } from '../../lib/models/index.js';
import { loadNative } from '../../lib/native.js';
import { tunePlans } from '../../lib/train/tune_plans.js';
import { freshSeed } from '../data/fresh_seed.js';
import { type Found, type Run, runNetwork } from './emulator/runs.js';
import { emulateHere, noEmulator } from './emulator/setup.js';

const skip = noEmulator;
if (!skip) emulateHere();

type Precision = NonNullable<DeviceOptions['precision']>;
/** Which of emulator.h's engines there are. */
type Engines = 'failing' | 'breaking' | 'none';

const OPTIONS = { sampleRate: 8000, windowSize: 256, hopSize: 80, fmax: 3900, classes: 5 };
const cuda = (precision: Precision, more: object = {}): DeviceOptions => ({
  ...{ device: 'cuda', threads: 1, precision },
  ...more,
});

function give(engines?: Engines): void {
  if (engines === undefined) delete process.env.PANNS_EMULATOR_ENGINES;
  else process.env.PANNS_EMULATOR_ENGINES = engines;
}
t.afterEach(() => give());

/** A folder of plans for what comes now. */
function freshCache(t: Test, name: string): string {
  process.env.PANNS_CACHE = join(t.testdirName, name);
  return join(process.env.PANNS_CACHE, 'plans');
}

/** What is kept of each convolution, or which engines failed there. */
function kept(plans: string, refused: boolean): string[] {
  return readdirSync(plans).filter((name) => {
    const [key = ''] = readFileSync(join(plans, name), 'utf8').split('\n---\n');
    return key.endsWith('\nrefused') === refused;
  });
}

function sameBits(t: Test, got: Found, want: Found, what: string): void {
  t.ok(want.size > 0);
  const other = [...want].filter(([name, x]) => {
    const y = got.get(name);
    return y === undefined || x.length !== y.length || x.some((v, i) => !Object.is(v, y[i]));
  });
  t.same([other.map(([name]) => name), got.size], [[], want.size], `${what}: the same bits`);
}

/** The same in a process of its own, as a device that is broken stays so. */
function elsewhere(run: Run) {
  const script = join(import.meta.dirname, 'emulator', 'worker.ts');
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [...process.execArgv, script, JSON.stringify(run)],
    { encoding: 'utf8', maxBuffer: 2 ** 30 },
  );
  if (status !== 0) throw new Error(`the worker ended (${status}): ${stderr}`);
  const { found = {}, ...error } = JSON.parse(stdout) as {
    found?: Record<string, number[]>;
    code?: string;
    message?: string;
  };
  const values = Object.entries(found).map(([name, x]) => [name, Float32Array.from(x)] as const);
  return { found: new Map(values), ...error };
}

for (const precision of ['fp32', 'bf16'] as const) {
  t.test(`${precision}: the next engine is taken`, { skip, timeout: 300_000 }, async (t) => {
    t.testdir();
    const seed = freshSeed(t) >>> 4;
    const plain = { name: 'Cnn6', options: OPTIONS, seed, batch: 2, device: cuda(precision) };
    for (const steps of [0, 2]) {
      const run = { ...plain, steps, mixup: steps > 0 };
      const what = steps > 0 ? 'training' : 'inference';
      freshCache(t, `sound ${what}`);
      const want = await runNetwork(run);
      const plans = freshCache(t, what);
      give('failing');
      sameBits(t, await runNetwork(run), want, what);
      const failed = kept(plans, true);
      t.ok(failed.length > 0, `${failed.length} convolutions passed over an engine`);
      // Were it tried, nothing would run any more.
      give('breaking');
      sameBits(t, await runNetwork(run), want, `${what} with the plans that were kept`);
      for (const file of kept(plans, false)) rmSync(join(plans, file));
      sameBits(t, await runNetwork(run), want, `${what} without them`);
      give();
    }
  });
}

t.test('scratch memory beyond what was planned', { skip }, async (t) => {
  t.testdir();
  freshCache(t, 'cache');
  give('failing');
  const size = { batch: 2, seconds: 0.3 };
  using first = await createModel('Cnn6', { ...OPTIONS, device: 'cuda' });
  const { native } = modelInternals(first);
  const weights = await native.held();
  const planned = await first.memory(size);
  const clips = new Float32Array(2 * planned.samples).fill(0.1);
  await first.infer(clips, { batch: 2 });
  const beyond = (await native.held()) - planned.total;
  t.ok(beyond > 0, `${beyond} bytes`);
  first.dispose();

  using second = await createModel('Cnn6', { ...OPTIONS, device: 'cuda' });
  const held = modelInternals(second).native;
  t.equal(await held.held(), weights, 'all of it comes back');
  const need = await second.memory(size);
  t.ok(need.total > planned.total);
  await second.infer(clips, { batch: 2 });
  t.equal(await held.held(), need.total, 'and is planned from then on');
});

t.test('where all fail they are named', { skip }, async (t) => {
  t.testdir();
  const plans = freshCache(t, 'cache');
  give('none');
  using model = await createModel('Cnn6', { ...OPTIONS, device: 'cuda' });
  const { native } = modelInternals(model);
  const weights = await native.held();
  const clip = new Float32Array(2400).fill(0.1);
  for (const again of [false, true]) {
    await t.rejects(
      model.infer(clip),
      {
        code: 'ERR_PANNS_UNSUPPORTED',
        message:
          /no engine on .* for the convolution forward fp32 .*failed when it ran; engine 8: CUDNN_STATUS_EXECUTION_FAILED/,
      },
      again ? 'again' : 'first',
    );
  }
  // All six are chosen before the first of them runs.
  t.equal(kept(plans, false).length, 5, 'the plan that failed is not kept');
  model.dispose();
  give();
  using other = await createModel('Cnn6', { ...OPTIONS, device: 'cuda' });
  t.equal(await modelInternals(other).native.held(), weights, 'nothing is left behind');
  const { clipwise_output: scores } = await other.infer(clip);
  t.ok(scores?.data.every(Number.isFinite), 'a later model tries them again');
});

t.test('an engine that breaks the device is named, and not tried again', { skip }, async (t) => {
  t.testdir();
  const seed = freshSeed(t) >>> 4;
  const run = { name: 'Cnn6', options: OPTIONS, seed, batch: 1, steps: 0 };
  const named = (measurePlans: boolean) => {
    const { code, message = '' } = elsewhere({ ...run, device: cuda('fp32', { measurePlans }) });
    t.equal(code, 'ERR_PANNS_DEVICE');
    const words =
      /engine 9 of cuDNN .* in the convolution (forward fp32 .*) and left .*started anew/;
    return words.exec(message)?.[1] ?? message;
  };
  const plans = freshCache(t, 'cache');
  give('breaking');
  const first = named(false);
  t.match(first, /^forward fp32 /);
  t.equal(kept(plans, true).length, 1);
  const second = named(false);
  t.match(second, /^forward fp32 /);
  t.not(second, first, 'the first convolution passes over it');
  const measured = named(true);
  t.match(measured, /^forward fp32 /);
  t.notOk([first, second].includes(measured), 'as it does where engines are measured');
  t.equal(kept(plans, true).length, 3);
});

t.test('one that fails while it is timed is passed over', { skip }, async (t) => {
  t.testdir();
  const seed = freshSeed(t) >>> 4;
  const run = { name: 'Cnn6', options: OPTIONS, seed, batch: 1, steps: 0 };
  freshCache(t, 'sound');
  // In fp32 one engine is left, whatever the times are.
  const want = await runNetwork({ ...run, device: cuda('fp32') });
  const plans = freshCache(t, 'measured');
  give('failing');
  const device = cuda('fp32', { measurePlans: true });
  sameBits(t, await runNetwork({ ...run, device }), want, 'measured');
  t.ok(kept(plans, true).length > 0);
  freshCache(t, 'tuned');
  const tuned = await tunePlans(describeModel('Cnn6', OPTIONS), { batch: 1, seconds: 0.3 });
  t.match(tuned, { inference: 6, training: 0 });
});

t.teardown(() => {
  if (!skip) loadNative().stop();
});
