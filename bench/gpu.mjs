#!/usr/bin/env node
// Speed on a GPU: our training steps, inference and log-mel against PyTorch's on the same card, in
// turn, in one run; and a Trainer with its data against bare steps.
//
//   node bench/gpu.mjs [result.json] [--seconds=3600] [--rounds=7] [--only=cnn14,bf16] [--unmixed]
//     [--peers=official,eager,graph,compile,compile_graph] [--tune] [--no-ahead] [--patience=180]
//     [--python=python3] [--package=.] [--device=cpu --batch=1 --samples=32000 --steps=1]
//
// Each side is a process of its own; the peer is bench/torch_gpu.py in the ways that a case names
// (gpu_cases.mjs), and so our times are held against the best of them. Training mixes pairs of clips,
// as the paper does: what counts are mixed clips. torch.compile takes about a minute for each case:
// first of all its results are made for as many cases as a share of --seconds allows, several at once,
// and lie in its own cache when their sides start. A side that fails, or does not start within
// --patience seconds, is a row with its reason; cases that no time is left for are named. The table
// comes last.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { watchCard } from './card.mjs';
import { chooseCases, nameOf, PEERS, STAND_IN } from './gpu_cases.mjs';
import { bestPeer, tableOf } from './gpu_table.mjs';
import { median, open } from './side.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const { values: chosen, positionals } = parseArgs({
  allowPositionals: true,
  allowNegative: true,
  options: {
    seconds: { type: 'string', default: '3600' },
    rounds: { type: 'string', default: '7' },
    only: { type: 'string', default: '' },
    peers: { type: 'string' },
    unmixed: { type: 'boolean', default: false },
    tune: { type: 'boolean', default: false },
    ahead: { type: 'boolean', default: true },
    patience: { type: 'string', default: '180' },
    python: { type: 'string', default: process.env.PANNS_PYTHON ?? 'python3' },
    package: { type: 'string', default: dirname(here) },
    device: { type: 'string', default: 'cuda' },
    batch: { type: 'string' },
    samples: { type: 'string', default: '320000' },
    steps: { type: 'string' },
  },
});
const began = performance.now();
const deadline = began + 1000 * Number(chosen.seconds);
const secondsLeft = () => (deadline - performance.now()) / 1000;
/** For each word of a side; one that is being measured at the end may say it. */
const patience = () =>
  Math.min(Number(chosen.patience), Math.max(LAST_WORD_SECONDS, secondsLeft()));
const LAST_WORD_SECONDS = 20;
/** What a case needs at least: two processes start, and compile what they run. */
const LEAST_SECONDS = 30;
/** Of all the time, what compiling ahead may take, and cores for each that compiles. */
const AHEAD_SHARE = 0.3;
const AHEAD_CORES = 4;
/** Of one measurement: long beside the wait at its end, short enough for many rounds. */
const SLICE_MS = 500;
const MOST_STEPS = 2000;
/** Steps of the first measurement, which tells how many make a slice. */
const PROBE_STEPS = 3;

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

/** A case as both sides are told it. */
function workOf({ peers, of, ...one }) {
  return {
    ...one,
    package: resolve(chosen.package),
    device: chosen.device,
    batch: Number(chosen.batch ?? one.batch),
    samples: Number(chosen.samples),
    mixup: one.kind === 'train' && !chosen.unmixed,
    measurePlans: chosen.tune,
    folder,
  };
}

function peerArguments({ ways, ...work }, variant, more = {}) {
  return [join(here, 'torch_gpu.py'), JSON.stringify({ ...work, variant, ...more })];
}

/** Lets torch.compile do its work for the first cases, so that their sides find it done. */
async function compileAhead(cases) {
  // Of frozen weights, as at inference, it keeps nothing.
  const kept = cases.filter(({ kind }) => kind !== 'infer');
  const jobs = kept.flatMap((one) =>
    one.peers
      .filter((peer) => peer.startsWith('compile'))
      .map((peer) => peerArguments(workOf(one), peer, { compileOnly: true })),
  );
  const end = performance.now() + 1000 * AHEAD_SHARE * secondsLeft();
  const waiting = [...jobs];
  const done = [];
  const env = { TORCHINDUCTOR_COMPILE_THREADS: String(AHEAD_CORES) };
  const compile = async () => {
    while (waiting.length > 0 && performance.now() < end) {
      const start = performance.now();
      const patience = () => (end - start) / 1000;
      const side = await open(chosen.python, waiting.shift(), { patience, env }).catch(() => null);
      side?.kill();
      if (side !== null) done.push((performance.now() - start) / 1000);
    }
  };
  const several = Math.max(1, Math.floor(availableParallelism() / AHEAD_CORES));
  await Promise.all(Array.from({ length: several }, compile));
  return { wanted: jobs.length, seconds: done };
}

async function openSides(one, work, torch) {
  const rows = [];
  const start = async (name, command, args) => {
    const from = performance.now();
    try {
      if (rows.length > 0 && secondsLeft() < 0) throw new Error('no time was left for it');
      const side = await open(command, args, { patience });
      const startSeconds = (performance.now() - from) / 1000;
      rows.push({ name, side, about: { startSeconds, ...JSON.parse(side.ready) }, times: [] });
    } catch (error) {
      rows.push({ name, failed: error.message });
    }
    return rows.at(-1);
  };
  const { ways, ...usual } = work;
  for (const [name, way] of Object.entries({ panns: {}, ...ways })) {
    const args = [join(here, 'gpu_own.mjs'), JSON.stringify({ ...usual, ...way })];
    await start(name, process.execPath, args);
  }
  if (torch.missing !== undefined) return rows;
  for (const peer of one.peers) {
    const { failed } = await start(peer, chosen.python, peerArguments(work, peer));
    const other = STAND_IN[peer];
    if (failed === undefined || other === undefined) continue;
    await start(other, chosen.python, peerArguments(work, other));
  }
  return rows;
}

/** Times all sides in turn, in rounds. */
async function runRounds(rows) {
  // The first rounds tell how many steps make a slice, find plans and warm the caches up.
  for (let round = -2; round < Number(chosen.rounds); round++) {
    if (round > 0 && secondsLeft() < 0) return;
    for (const row of rows.filter(({ side, failed }) => side && failed === undefined)) {
      try {
        row.steps ??= Number(chosen.steps ?? PROBE_STEPS);
        const ms = await row.side.time(row.steps);
        if (round >= 0) row.times.push(ms);
        else if (chosen.steps === undefined) {
          row.steps = Math.min(MOST_STEPS, Math.max(PROBE_STEPS, Math.round(SLICE_MS / ms)));
        }
      } catch (error) {
        row.failed = error.message;
      }
    }
  }
}

async function measure(one, torch, card) {
  const work = workOf(one);
  const rows = await openSides(one, work, torch);
  for (const row of rows) {
    const { loss } = row.about ?? {};
    if (row.side && work.kind === 'train' && !(loss > 0 && Number.isFinite(loss))) {
      row.failed = `its first loss is ${loss}`;
    }
  }
  const measuring = performance.now();
  await runRounds(rows);
  const state = card?.since(measuring);
  const own = rows[0].times ?? [];
  const results = [];
  for (const { name, side, about, steps, times = [], failed } of rows) {
    const result = { side: name, ...about, ...(failed !== undefined && { failed }) };
    if (failed === undefined && times.length > 0) {
      const each = times.map((ms) => ms / (work.copies ?? 1));
      result.steps = steps;
      result.ms = { median: median(each), least: Math.min(...each), most: Math.max(...each) };
      result.clipsPerSecond = (1000 * work.batch) / result.ms.median;
      // Of each round, so that what slows the machine slows both.
      const ratios = times.map((ms, i) => ms / own[i]).filter(Number.isFinite);
      if (ratios.length > 0) {
        result.timesOurs = median(ratios);
        result.rounds = [Math.min(...ratios), Math.max(...ratios)];
      }
      result.peakMiB = await side.end().catch(() => null);
    }
    side?.kill();
    results.push(result);
  }
  const best = bestPeer(results)?.side;
  return { case: nameOf({ ...one, batch: work.batch }), work, best, rows: results, card: state };
}

const words = (text) => text.split(',').filter(Boolean);
const peers = chosen.peers === undefined ? undefined : words(chosen.peers);
const unknown = peers?.filter((name) => !PEERS.includes(name)) ?? [];
if (unknown.length > 0) {
  console.error(`--peers: expected some of ${PEERS.join(', ')}, got ${unknown.join(', ')}`);
  process.exit(2);
}
const cases = chooseCases(words(chosen.only), peers);
/** Of sides that write files; those that are killed leave them. */
const folder = mkdtempSync(join(tmpdir(), 'panns-bench-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
const target = positionals[0] ?? 'gpu-speed.json';
const torch = askTorch();
if (torch.missing !== undefined) console.log(`PyTorch takes no part: ${torch.missing}`);
const { version } = JSON.parse(readFileSync(join(resolve(chosen.package), 'package.json'), 'utf8'));
const watch = chosen.device === 'cuda' ? watchCard() : undefined;
const report = {
  ...{ date: new Date().toISOString(), version, torch, rounds: Number(chosen.rounds) },
  ...{ results: [], leftOut: [] },
};
/** Written after each case: a run that is cut off leaves what it has. */
function write() {
  report.card = watch?.card;
  report.seconds = (performance.now() - began) / 1000;
  writeFileSync(`${target}.part`, `${JSON.stringify(report, null, 1)}\n`);
  renameSync(`${target}.part`, target);
}
if (chosen.ahead && chosen.device === 'cuda' && torch.missing === undefined) {
  report.ahead = await compileAhead(cases);
  const { wanted, seconds } = report.ahead;
  console.log(`compiled ahead: ${seconds.length} of ${wanted}`);
}
for (const one of cases) {
  if (secondsLeft() < LEAST_SECONDS) {
    report.leftOut.push(nameOf(one));
    continue;
  }
  const result = await measure(one, torch, watch);
  report.results.push(result);
  write();
  const sides = result.rows.map(({ side, ms, failed }) => {
    return failed === undefined && ms ? `${side} ${ms.median.toFixed(2)}` : `${side} failed`;
  });
  console.log(`${(report.seconds / 60).toFixed(1)} min  ${result.case}, ms: ${sides.join(', ')}`);
}
write();
watch?.stop();
console.log(`\n${tableOf(report)}\n`);
const own = report.results.flatMap(({ rows }) => rows.filter(({ side }) => !PEERS.includes(side)));
const failed = own.filter((row) => row.failed !== undefined);
console.log(`${report.results.length} cases, ${failed.length} of our own failed; ${target}`);
process.exitCode = report.results.length > 0 && failed.length === 0 ? 0 : 1;
