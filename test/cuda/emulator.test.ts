// The whole CUDA backend on emulated devices (emulator/emulator.h): networks against the CPU,
// several models and devices, memory that is not there. Single ops run so in test/ops.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DeviceOptions } from '../../lib/addon.js';
import { encodeWav16 } from '../../lib/audio/wav.js';
import { runProgram } from '../../lib/cli/program.js';
import { cudaStatus } from '../../lib/cuda.js';
import { createModel } from '../../lib/inference/model.js';
import { freshSeed } from '../data/fresh_seed.js';
import { distance, norm } from './emulator/ops.js';
import { type Found, type Run, runNetwork } from './emulator/runs.js';
import { noEmulator as skip } from './emulator/setup.js';

const PRECISIONS = ['fp32', 'tf32', 'bf16', 'fp16'] as const;
type Precision = (typeof PRECISIONS)[number];

/** How far results, by the Euclidean norm, may lie from the CPU's. */
const INFERRED = { fp32: 1e-4, tf32: 5e-3, bf16: 5e-2, fp16: 1e-2 };
/**
 * Gradients, of two short clips through all layers. In float they are some 4e-6 apart, but where a ReLU
 * goes the other way, as in one run of twenty, up to 1e-2; in the others many do in each run.
 */
const TRAINED = { fp32: 3e-3, tf32: 1e-1, bf16: 4e-1, fp16: 1e-1 };

/** Seeds of which one has gradients as close: one in twenty fails by its ReLUs, eight in turn never. */
const DRAWS = 8;

const SMALL = { sampleRate: 8000, windowSize: 256, hopSize: 80, fmax: 3900, classes: 5 };
const cpu: DeviceOptions = { device: 'cpu', threads: 1 };
const cuda = (precision: Precision, index = 0): DeviceOptions => ({
  ...{ device: 'cuda', threads: 1, precision, index },
});

/** A network of each family, on as short clips as it takes, and the precisions it is run in. */
const FAMILIES: readonly (readonly [string, Run['options'], readonly Precision[]])[] = [
  ['Cnn6', SMALL, PRECISIONS],
  ['ResNet22', SMALL, ['fp32', 'bf16']],
  ['MobileNetV1', SMALL, ['fp32', 'fp16']],
  ['MobileNetV2', SMALL, ['fp32']],
  ['Cnn14_DecisionLevelAtt', SMALL, ['fp32', 'fp16']],
  ['mn04', { classes: 5 }, ['fp32', 'bf16']],
  ['DaiNet19', { classes: 5 }, ['fp32']],
  ['Res1dNet31', { classes: 5 }, ['fp32']],
  ['Wavegram_Logmel_Cnn14', { classes: 5 }, ['fp32']],
];

/** The worst of all that is in `want`; `scaled` values may all be larger by one power of two. */
function worstOf(got: Found, want: Found, scaled = false): { error: number; text: string } {
  let scale = 1;
  if (scaled) {
    const ratios = [...want].map(([name, x]) => norm(got.get(name) ?? []) / norm(x));
    scale = 2 ** Math.round(Math.log2(ratios.sort((a, b) => a - b)[ratios.length >> 1] ?? 1));
  }
  let worst = { name: '', error: 0 };
  for (const [name, values] of want) {
    const found = (got.get(name) ?? new Float32Array()).map((x) => x / scale);
    const error = distance(found, values);
    if (!(error <= worst.error)) worst = { name, error };
  }
  const text = `${worst.name} ${worst.error.toExponential(2)} from the CPU`;
  return { error: worst.error, text: scaled ? `${text}, scaled by ${scale}` : text };
}

function compareAll(t: Test, got: Found, want: Found, limit: number, what: string) {
  const { error, text } = worstOf(got, want);
  t.ok(error <= limit, `${what}: ${text}`);
}

const only = (found: Found, kind: string): Found =>
  new Map([...found].filter(([name]) => name.startsWith(kind)));

function sameBits(t: Test, a: Found, b: Found, what: string) {
  const other = [...a].filter(([name, x]) => {
    const y = b.get(name);
    return y === undefined || x.length !== y.length || x.some((v, i) => !Object.is(v, y[i]));
  });
  t.same(
    other.map(([name]) => name),
    [],
    `${what}: the same bits`,
  );
  t.equal(a.size, b.size);
}

/**
 * The same run in a process whose environment says what devices there are. Of several, which go on at
 * once, the first.
 */
function elsewhere(run: Run | readonly Run[], env: Record<string, string>) {
  const script = join(import.meta.dirname, 'emulator', 'worker.ts');
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [...process.execArgv, script, JSON.stringify(run)],
    { encoding: 'utf8', env: { ...process.env, ...env }, maxBuffer: 2 ** 30 },
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

t.test('the emulated device is found', { skip }, async (t) => {
  const status = await cudaStatus();
  t.match(status, { available: true, problem: '', reason: '' });
  t.match(status.devices, [{ name: 'Emulated GPU 0', reason: '' }]);
  let out = '';
  const code = await runProgram(['doctor', '--cuda'], {
    print: (line) => {
      out += `${line}\n`;
    },
    messages: { write: () => true },
    signal: new AbortController().signal,
  });
  t.equal(code, 0, out);
  t.match(out, /CUDA trial/);
});

t.test('a file is tagged as on the CPU', { skip }, async (t) => {
  const folder = t.testdir();
  const seed = freshSeed(t) >>> 4;
  using model = await createModel('Cnn6', { ...SMALL, seed });
  const weights = join(folder, 'model.safetensors');
  await model.save(weights);
  const sweep = Float32Array.from({ length: 8000 }, (_, i) => Math.sin(i * i * 1e-5) / 4);
  const file = join(folder, 'sweep.wav');
  writeFileSync(file, encodeWav16(sweep, 8000));
  const scores = async (device: 'cpu' | 'cuda') => {
    const lines: string[] = [];
    const code = await runProgram(
      ['tag', '--model', weights, '--device', device, '--top', '5', '--json', file],
      {
        print: (line) => lines.push(line),
        messages: { write: () => true },
        signal: new AbortController().signal,
      },
    );
    t.equal(code, 0);
    const { labels } = JSON.parse(lines.join('')) as { labels: { index: number; score: number }[] };
    return labels.sort((one, other) => one.index - other.index).map(({ score }) => score);
  };
  const want = await scores('cpu');
  t.equal(want.length, SMALL.classes);
  t.ok(distance(await scores('cuda'), want) < INFERRED.fp32);
});

t.test('every family scores clips', { skip, timeout: 600_000 }, async (t) => {
  const seed = freshSeed(t) >>> 4;
  for (const [name, options, precisions] of FAMILIES) {
    const run = { name, options, seed, batch: 2, steps: 0 };
    const want = await runNetwork({ ...run, device: cpu });
    for (const precision of precisions) {
      const got = await runNetwork({ ...run, device: cuda(precision) });
      compareAll(t, got, want, INFERRED[precision], `${name} ${precision}`);
    }
  }
});

// With mixup, SpecAugment and dropout, whose masks are the same on every device. Deeper networks
// give no gradients to compare here: where a norm sees a handful of values, as at the end of a
// network on clips as short as these, float's own rounding changes them at will. Their ops have
// their backward passes compared one by one in test/ops.
t.test('networks train', { skip, timeout: 600_000 }, async (t) => {
  const first = freshSeed(t) >>> 4;
  for (const [name, options, precisions] of FAMILIES.slice(0, 1)) {
    const plain = { name, options, batch: 2, steps: 1, mixup: true };
    for (const precision of precisions) {
      const what = `${name} ${precision}`;
      const tried: string[] = [];
      let close = false;
      while (!close && tried.length < DRAWS) {
        const run = { ...plain, seed: first + tried.length };
        const want = await runNetwork({ ...run, device: cpu });
        const got = await runNetwork({ ...run, device: cuda(precision) });
        compareAll(t, got, only(want, 'losses'), INFERRED[precision], what);
        const { error, text } = worstOf(got, only(want, 'gradient'), precision === 'fp16');
        close = error <= TRAINED[precision];
        tried.push(text);
      }
      t.ok(close, `${what}: ${tried.join('; ')}`);
    }
  }
});

t.test('steps in float are those of the CPU, and the same again', { skip }, async (t) => {
  const seed = freshSeed(t) >>> 4;
  const sgd = { kind: 'sgd', attrs: { momentum: 0.9 } } as const;
  for (const rest of [
    { optimizer: sgd, maxNorm: 0.5, loss: 'cross_entropy' as const, mixup: false },
    // Adam's first steps move each weight by the sign of its gradient, whatever its size: steps are
    // short, or where rounding decides, losses would part by as much as they change.
    { mixup: true, lr: 2e-5 },
  ]) {
    const run = { name: 'Cnn6', options: SMALL, seed, batch: 2, steps: 3, ...rest };
    const want = await runNetwork({ ...run, device: cpu });
    const got = await runNetwork({ ...run, device: cuda('fp32') });
    compareAll(t, got, only(want, 'losses'), 1e-3, JSON.stringify(rest));
    compareAll(t, got, only(want, 'norm'), 1e-2, JSON.stringify(rest));
    sameBits(t, await runNetwork({ ...run, device: cuda('fp32') }), got, 'again');
    // No block, thread or warp may have to come before another but at a barrier.
    const order = rest.mixup ? 'shuffled' : 'descending';
    const other = elsewhere({ ...run, device: cuda('fp32') }, { PANNS_EMULATOR_ORDER: order });
    sameBits(t, other.found, got, order);
  }
});

t.test('fp16 leaves out the steps that overflow, and goes on', { skip }, async (t) => {
  const seed = freshSeed(t) >>> 4;
  const options = { ...SMALL, specAugment: false };
  const run = { name: 'MobileNetV2', options, seed, batch: 4, steps: 12, device: cuda('fp16') };
  const found = await runNetwork(run);
  const start = await runNetwork({ ...run, steps: 0 });
  t.ok(start.size > 0);
  const finite = ([, x]: readonly [string, Float32Array]) => x.every(Number.isFinite);
  const gradients = [...only(found, 'gradient')];
  t.notOk(gradients.every(finite), 'the first scale is too large');
  t.ok([...only(found, 'parameter')].every(finite), 'no weight is lost');
  t.ok(found.get('losses')?.every(Number.isFinite));
});

t.test('two models at once, on one device', { skip }, async (t) => {
  const seed = freshSeed(t) >>> 4;
  const runs = ['fp32', 'bf16'].map(
    (precision): Run => ({
      ...{ name: 'Cnn6', options: SMALL, seed, batch: 1, steps: 2 },
      device: cuda(precision as Precision),
    }),
  );
  const alone: Found[] = [];
  for (const run of runs) alone.push(await runNetwork(run));
  const together = await Promise.all(runs.map((run) => runNetwork(run)));
  runs.forEach((_, i) => {
    sameBits(t, together[i] ?? new Map(), alone[i] ?? new Map(), `model ${i}`);
  });
});

t.test('the second of two devices', { skip }, async (t) => {
  const seed = freshSeed(t) >>> 4;
  const run = { name: 'Cnn6', options: SMALL, seed, batch: 1, steps: 2 };
  const run0: Run = { ...run, device: cuda('fp16') };
  const want = await runNetwork(run0);
  const env = { PANNS_EMULATOR_DEVICES: '2' };
  const { found, message } = elsewhere({ ...run, device: cuda('fp16', 1) }, env);
  t.equal(message, undefined);
  sameBits(t, found, want, 'the second');
  const both = elsewhere([{ ...run, device: cuda('fp16', 1) }, run0], env);
  t.equal(both.message, undefined);
  sameBits(t, both.found, want, 'the second, while the first computes too');
  const third = elsewhere({ ...run, device: cuda('fp16', 2) }, env);
  t.match(third, { code: 'ERR_PANNS_OPTION', message: /device of 0\.\.1, got 2/ });
});

t.test('memory that is not there', { skip }, async (t) => {
  const run = { name: 'Cnn6', options: SMALL, seed: 1, batch: 1, device: cuda('fp32') };
  const env = (megabytes: number) => ({ PANNS_EMULATOR_MEMORY: String(megabytes << 20) });
  // Its weights are 18 MB, and a step needs four times as much and the activations.
  const fits = elsewhere({ ...run, steps: 1 }, env(256));
  t.equal(fits.message, undefined);
  const wanting = { code: 'ERR_PANNS_OUT_OF_MEMORY', message: /MiB/ };
  t.match(elsewhere({ ...run, steps: 1 }, env(40)), wanting);
  t.match(elsewhere({ ...run, steps: 0 }, env(8)), wanting);
});
