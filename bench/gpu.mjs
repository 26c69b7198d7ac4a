#!/usr/bin/env node
// Throughput on a GPU: our training steps and inference against PyTorch's on the same card, in turn,
// in one run.
//
//   node bench/gpu.mjs [result.json] [--seconds=3600] [--rounds=5] [--only=cnn14,bf16] [--compile]
//     [--python=python3] [--package=.] [--device=cpu --batch=1 --samples=32000 --steps=1]
//
// Each side is a process of its own; the peer is bench/torch_gpu.py. With --compile it is also run
// through torch.compile, which takes minutes to start. Cases are in the order of what they tell;
// those that --seconds leaves no time for are named in the result.
import { spawnSync } from 'node:child_process';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median, open } from './side.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const { values: chosen, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '3600' },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string', default: '' },
    compile: { type: 'boolean', default: false },
    tune: { type: 'boolean', default: false },
    python: { type: 'string', default: process.env.PANNS_PYTHON ?? 'python3' },
    package: { type: 'string', default: dirname(here) },
    device: { type: 'string', default: 'cuda' },
    batch: { type: 'string' },
    samples: { type: 'string', default: '320000' },
    steps: { type: 'string', default: '10' },
  },
});
const deadline = performance.now() + 1000 * Number(chosen.seconds);
/** What a case needs at least: two processes start, and compile what they run. */
const LEAST_SECONDS = 30;
/** Between two lines of a side: torch.compile may think for minutes. */
const PATIENCE = 300;

const models = ['Cnn14', 'Cnn6', 'ResNet38', 'MobileNetV1'];
const cases = [
  ...models.map((model) => ({ kind: 'train', model, precision: 'bf16', batch: 32 })),
  { kind: 'train', model: 'Cnn14', precision: 'bf16', batch: 128 },
  { kind: 'infer', model: 'Cnn14', precision: 'bf16', batch: 32 },
  ...models.map((model) => ({ kind: 'train', model, precision: 'tf32', batch: 32 })),
  { kind: 'infer', model: 'Cnn14', precision: 'bf16', batch: 1 },
  ...models.map((model) => ({ kind: 'train', model, precision: 'fp32', batch: 32 })),
  { kind: 'train', model: 'Cnn14', precision: 'fp16', batch: 32 },
];

/** Our own side in other ways, beside the usual one: what each of the CUDA core's shortcuts gives. */
const ways = {
  'conv+batch_norm off': { passesOff: ['conv+batch_norm'] },
  'early_update on': { passesOn: ['early_update'] },
  'clips with their step': { stages: false },
  'pairs of bins': { pairBins: 'always' },
  'any order of sums': { deterministic: false },
};
cases.splice(2, 0, { kind: 'train', model: 'Cnn14', precision: 'bf16', batch: 32, ways });

const nameOf = ({ kind, model, precision, batch, ways }) =>
  `${model} ${kind} ${precision} x${batch}${ways === undefined ? '' : ' ways'}`;

function wanted(one) {
  const words = chosen.only.toLowerCase().split(',').filter(Boolean);
  return words.every((word) => nameOf(one).toLowerCase().split(' ').includes(word));
}

/** What PyTorch there is, or why none takes part. */
function askTorch() {
  const program =
    'import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version(), ' +
    'torch.cuda.is_available())';
  const { status, stdout, stderr, error } = spawnSync(chosen.python, ['-c', program], {
    encoding: 'utf8',
  });
  if (error) return { missing: `${chosen.python}: ${error.message}` };
  if (status !== 0) return { missing: stderr.trim().split('\n').at(-1) };
  const [version, cuda, cudnn, available] = stdout.trim().split(' ');
  if (chosen.device === 'cuda' && available !== 'True') {
    return { version, missing: 'this PyTorch sees no GPU' };
  }
  return { version, cuda, cudnn };
}

/** The card's own words on its state, where nvidia-smi is. */
function cardState() {
  const query = 'name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw';
  const args = [`--query-gpu=${query}`, '--format=csv,noheader'];
  const { status, stdout } = spawnSync('nvidia-smi', args, { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : null;
}

async function openSides({ ways, ...work }, torch) {
  const rows = [];
  const patience = { seconds: Math.min(PATIENCE, (deadline - performance.now()) / 1000) };
  const start = async (name, command, args) => {
    try {
      const side = await open(command, args, patience);
      rows.push({ name, side, about: JSON.parse(side.ready), times: [] });
    } catch (error) {
      rows.push({ name, failed: error.message });
    }
  };
  for (const [name, way] of Object.entries({ panns: {}, ...ways })) {
    const args = [join(here, 'gpu_own.mjs'), JSON.stringify({ ...work, ...way })];
    await start(name, process.execPath, args);
  }
  if (torch.missing !== undefined || ways !== undefined) return rows;
  for (const compile of chosen.compile ? [false, true] : [false]) {
    const peer = JSON.stringify({ ...work, compile });
    const name = compile ? 'torch.compile' : 'torch';
    await start(name, chosen.python, [join(here, 'torch_gpu.py'), peer]);
  }
  return rows;
}

async function measure(one, torch) {
  const work = {
    ...one,
    package: resolve(chosen.package),
    device: chosen.device,
    batch: Number(chosen.batch ?? one.batch),
    samples: Number(chosen.samples),
    steps: Number(chosen.steps),
    measurePlans: chosen.tune,
  };
  const rows = await openSides(work, torch);
  const running = rows.filter(({ side }) => side !== undefined);
  // The first rounds find plans and warm the caches up.
  for (let round = -2; round < Number(chosen.rounds); round++) {
    for (const row of running.filter(({ failed }) => failed === undefined)) {
      try {
        const ms = await row.side.time();
        if (round >= 0) row.times.push(ms);
      } catch (error) {
        row.failed = error.message;
      }
    }
  }
  const own = rows[0].times ?? [];
  const results = [];
  for (const { name, side, about, times = [], failed } of rows) {
    const result = { side: name, ...about, ...(failed !== undefined && { failed }) };
    if (failed === undefined && times.length > 0) {
      result.ms = { median: median(times), least: Math.min(...times), most: Math.max(...times) };
      result.clipsPerSecond = (1000 * work.batch) / result.ms.median;
      // Of each round, so that what slows the machine slows both.
      const ratios = times.map((ms, i) => ms / own[i]).filter(Number.isFinite);
      if (ratios.length > 0) result.timesOurs = median(ratios);
      result.peakMiB = await side.end().catch(() => null);
    }
    side?.kill();
    results.push(result);
  }
  return { case: nameOf({ ...one, batch: work.batch }), work, rows: results };
}

const target = positionals[0] ?? 'gpu-speed.json';
const torch = askTorch();
if (torch.missing !== undefined) console.log(`PyTorch takes no part: ${torch.missing}`);
const { version } = JSON.parse(readFileSync(join(resolve(chosen.package), 'package.json'), 'utf8'));
const report = {
  ...{ date: new Date().toISOString(), version, torch, rounds: Number(chosen.rounds) },
  ...{ card: [cardState()], results: [], leftOut: [] },
};
/** Written after each case: a run that is cut off leaves what it has. */
function write() {
  writeFileSync(`${target}.part`, `${JSON.stringify(report, null, 1)}\n`);
  renameSync(`${target}.part`, target);
}
for (const one of cases.filter(wanted)) {
  if (deadline - performance.now() < 1000 * LEAST_SECONDS) {
    report.leftOut.push(nameOf(one));
    continue;
  }
  const result = await measure(one, torch);
  report.results.push(result);
  report.card.push(cardState());
  write();
  console.log(result.case);
  for (const { side, ms, clipsPerSecond, timesOurs, failed } of result.rows) {
    const text =
      failed ?? `${ms.median.toFixed(2)} ms (${ms.least.toFixed(2)}..${ms.most.toFixed(2)})`;
    const rate = failed
      ? ''
      : `${clipsPerSecond.toFixed(0)} clips/s, ${timesOurs?.toFixed(2)}x our time`;
    console.log(`  ${side.padEnd(22)} ${text}  ${rate}`);
  }
}
write();
const failed = report.results.flatMap(({ rows }) => rows).filter((row) => row.failed !== undefined);
console.log(
  `${report.results.length} cases, ${failed.length} sides failed, ${report.leftOut.length} left out; ${target}`,
);
process.exitCode = report.results.length > 0 && failed.length === 0 ? 0 : 1;
