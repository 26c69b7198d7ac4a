#!/usr/bin/env node
// Proves a package on a machine with a GPU, and writes what it found as JSON:
//
//   node run.mjs [result.json] [--package=<folder>] [--cases=<folder>] [--only=doctor,ops,...]
//     [--seconds=540] [--jobs=4] [--python=python3] [--cnn14] [--compile] [--rehearse]
//
// 1. doctor: `panns doctor --cuda` of the package.
// 2. ops: every recorded call of test/ops on CUDA and on the CPU.
// 3. training: networks trained for some steps on both.
// 4. curve: 300 steps of Cnn6 beside PyTorch's, where there is one; with --cnn14 of Cnn14 too.
// 5. sanitizer: each op and two steps under compute-sanitizer, where there is one.
// 6. profile: a training step of Cnn14, node by node, beside what the device could do.
// 7. speed: bench/gpu.mjs, against PyTorch where there is one.
//
// Each runs in processes of its own: what crashes or hangs is a result, and the rest goes on. The
// file is written as results come; --seconds bounds all of it, and what was not reached is counted.
// Exit code: 0 all held, 1 something did not, 2 wrong usage, 3 no CUDA device to prove it on. With
// --rehearse the CPU stands in for the GPU: that shows the machinery, and proves nothing.
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { proveCurve } from './curve.mjs';
import { openWorker, PATIENCE_SECONDS } from './processes.mjs';
import { proveSanitized } from './sanitizer.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..', '..');
const PARTS = ['doctor', 'ops', 'training', 'curve', 'sanitizer', 'profile', 'speed'];
const NETWORKS = ['Cnn6', 'MobileNetV1', 'ResNet22', 'Wavegram_Logmel_Cnn14', 'mn04'];
const PRECISIONS = ['fp32', 'bf16', 'fp16', 'tf32'];
const EXIT = { held: 0, failed: 1, usage: 2, noDevice: 3 };
/** Shares of the time, of which those who are left out take none; what is left is for what follows. */
const SHARES = { ops: 25, training: 15, curve: 15, sanitizer: 12, profile: 5, speed: 28 };
/** What is profiled: a full batch of the network that has most to compute. */
const PROFILED = ['Cnn14', '--batch=32', '--mixup', '--device=cuda', '--precision=bf16'];
/** It has plans to find, and some steps to run. */
const LEAST_PROFILE_SECONDS = 10;
/** One small case of each. */
const REHEARSED_PROFILE = ['Cnn6', '--batch=1', '--seconds=1', '--device=cpu', '--runs=1'];
const REHEARSED_SPEED = ['--only=cnn6,train,fp32', '--batch=1', '--samples=16000', '--steps=1'];
/** Without torch.compile, which takes minutes to start. */
const QUICK_PEERS = '--peers=official,eager,graph';

function readOptions() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      package: { type: 'string' },
      cases: { type: 'string', default: join(here, 'cases') },
      only: { type: 'string', default: PARTS.join(',') },
      seconds: { type: 'string', default: '540' },
      jobs: { type: 'string' },
      python: { type: 'string', default: process.env.PANNS_PYTHON ?? 'python3' },
      cnn14: { type: 'boolean', default: false },
      compile: { type: 'boolean', default: false },
      rehearse: { type: 'boolean', default: false },
    },
  });
  const installed = join(root, 'app', 'node_modules', 'panns');
  const only = values.only.split(',');
  const unknown = only.filter((name) => !PARTS.includes(name));
  if (unknown.length > 0) {
    throw new Error(`--only: expected some of ${PARTS.join(', ')}, got ${unknown.join(', ')}`);
  }
  const seconds = Number(values.seconds);
  const jobs = Number(values.jobs ?? Math.min(4, Math.max(1, availableParallelism() >> 1)));
  if (!(seconds > 0) || !Number.isInteger(jobs) || jobs < 1) {
    throw new Error('--seconds and --jobs: expected numbers above 0');
  }
  return {
    target: resolve(positionals[0] ?? 'gpu-proof.json'),
    package: resolve(values.package ?? (existsSync(installed) ? installed : root)),
    cases: resolve(values.cases),
    only,
    jobs,
    python: values.python,
    cnn14: values.cnn14,
    compile: values.compile,
    rehearse: values.rehearse,
    deadline: performance.now() + 1000 * seconds,
  };
}

const secondsTo = (deadline) => (deadline - performance.now()) / 1000;

/** All cases by some workers at once; in time or counted as not reached. */
async function prove(script, cases, options, deadline, note) {
  const waiting = [...cases];
  const results = [];
  const env = options.rehearse ? { PANNS_REHEARSAL: '1' } : {};
  const work = async () => {
    const worker = openWorker(process.execPath, [join(here, script), options.package], { env });
    while (waiting.length > 0 && secondsTo(deadline) > 0) {
      const one = waiting.shift();
      // One that hangs may take the time of what follows, but not more than there is.
      const seconds = Math.min(PATIENCE_SECONDS, secondsTo(options.deadline));
      const { answer, failure } = await worker.ask(one, seconds);
      const found = answer ?? [{ ...one, ok: false, message: failure }];
      results.push(...found);
      for (const one of found) if (!one.ok) console.log('FAILED', JSON.stringify(one));
      note({ results, notReached: waiting.length });
    }
    worker.kill();
  };
  await Promise.all(Array.from({ length: options.jobs }, work));
  const passed = results.filter(({ ok }) => ok).length;
  console.log(
    `${script}: ${passed} of ${results.length} hold, ${waiting.length} cases were not reached`,
  );
  return { results, notReached: waiting.length, passed };
}

/** The recorded calls, one of each op first, so that a run that is cut off has seen every op. */
function recordedCases(folder) {
  const rows = new Map();
  const files = existsSync(folder) ? readdirSync(folder).sort() : [];
  for (const file of files) {
    const op = file.slice(0, file.indexOf('-'));
    rows.set(op, [...(rows.get(op) ?? []), { file: join(folder, file) }]);
  }
  const longest = Math.max(0, ...[...rows.values()].map((list) => list.length));
  return Array.from({ length: longest }, (_, i) => i).flatMap((i) =>
    [...rows.values()].flatMap((list) => list.slice(i, i + 1)),
  );
}

/** What `panns ...` of the package prints as JSON; `failed` says why there is none. */
function askProgram({ package: folder }, words, seconds = PATIENCE_SECONDS) {
  const program = join(folder, 'dist', 'cli', 'main.js');
  const child = spawnSync(process.execPath, [program, ...words, '--json'], {
    encoding: 'utf8',
    timeout: Math.max(1, Math.round(1000 * seconds)),
  });
  try {
    return JSON.parse(child.stdout);
  } catch {
    const how = child.error?.message ?? child.signal ?? child.status;
    return { ok: false, failed: `panns ${words[0]} (${how}): ${child.stderr}` };
  }
}

const askDoctor = (options) => ({ findings: [], ...askProgram(options, ['doctor', '--cuda']) });

function measureProfile(options, deadline) {
  const seconds = secondsTo(deadline);
  if (seconds < LEAST_PROFILE_SECONDS) return { ok: true, leftOut: 'no time was left for it' };
  const words = ['profile', ...(options.rehearse ? REHEARSED_PROFILE : PROFILED), '--train'];
  const profile = { ok: true, ...askProgram(options, words, seconds) };
  if (profile.failed) console.log('FAILED', profile.failed);
  return profile;
}

async function measureSpeed({ target, package: folder, python, compile, rehearse, deadline }) {
  // Beside the result, where what it has found by then is seen should all of this be cut off.
  const file = `${target}.speed`;
  rmSync(file, { force: true });
  const seconds = Math.floor(secondsTo(deadline));
  const args = [file, `--package=${folder}`, `--seconds=${seconds}`, `--python=${python}`];
  if (!compile) args.push(QUICK_PEERS);
  if (rehearse) args.push('--device=cpu', '--rounds=1', ...REHEARSED_SPEED);
  // The runner's own deadline comes first; this one is for a case that hangs.
  const child = spawn(process.execPath, [join(root, 'bench', 'gpu.mjs'), ...args], {
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: Math.max(1, Math.round(deadline - performance.now() + 1000 * PATIENCE_SECONDS)),
  });
  const code = await new Promise((done) => child.on('close', done));
  const report = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
  rmSync(file, { force: true });
  return { ok: code === 0, ...report };
}

async function main() {
  let options;
  try {
    options = readOptions();
  } catch (error) {
    console.error(error.message);
    return EXIT.usage;
  }
  const { version } = JSON.parse(readFileSync(join(options.package, 'package.json'), 'utf8'));
  const result = {
    ...{ date: new Date().toISOString(), version, node: process.versions.node, kernel: release() },
    machine: { cpu: cpus()[0]?.model, cores: cpus().length, memoryBytes: totalmem() },
  };
  let last = 0;
  const write = () => {
    mkdirSync(dirname(options.target), { recursive: true });
    writeFileSync(`${options.target}.part`, `${JSON.stringify(result, null, 1)}\n`);
    renameSync(`${options.target}.part`, options.target);
    last = performance.now();
  };
  // Some hundred kilobytes: not after each of thousands of cases.
  const note = (part) => (found) => {
    result[part] = found;
    if (performance.now() - last > 5000) write();
  };

  const doctor = askDoctor(options);
  result.doctor = doctor;
  for (const { state, name, text, mend } of doctor.findings) {
    console.log(`${state.padEnd(6)} ${name}: ${text}${mend ? `\n       to mend it: ${mend}` : ''}`);
  }
  if (doctor.failed) console.log(doctor.failed);
  const status = doctor.machine?.cuda;
  if (!status?.available && !options.rehearse) {
    result.outcome = 'no CUDA device';
    write();
    console.log(`no CUDA device to prove it on: ${status?.reason ?? doctor.failed ?? ''}`);
    return EXIT.noDevice;
  }
  const wants = (part) => options.only.includes(part);
  const proofs = [];
  const begin = performance.now();
  const taking = Object.keys(SHARES).filter(wants);
  const sharesOf = (parts) => parts.reduce((sum, part) => sum + SHARES[part], 0);
  const endOf = (part) => {
    const until = taking.slice(0, taking.indexOf(part) + 1);
    return begin + (sharesOf(until) / sharesOf(taking)) * (options.deadline - begin);
  };
  const recorded = recordedCases(options.cases);
  if (wants('ops')) {
    if (recorded.length === 0) console.log(`ops: there are no recorded cases in ${options.cases}`);
    result.ops = await prove('ops.mjs', recorded, options, endOf('ops'), note('ops'));
    proofs.push(result.ops);
    write();
  }
  if (wants('training')) {
    const cases = PRECISIONS.flatMap((precision) => NETWORKS.map((name) => ({ name, precision })));
    const two = { ...options, jobs: Math.min(2, options.jobs) };
    result.training = await prove('training.mjs', cases, two, endOf('training'), note('training'));
    proofs.push(result.training);
    write();
  }
  if (wants('curve')) {
    result.curve = await proveCurve(options, endOf('curve'), note('curve'));
    if (result.curve.leftOut === undefined) proofs.push(result.curve);
    write();
  }
  if (wants('sanitizer')) {
    const end = endOf('sanitizer');
    result.sanitizer = await proveSanitized(recorded, options, end, note('sanitizer'));
    if (result.sanitizer.leftOut === undefined) proofs.push(result.sanitizer);
    write();
  }
  if (wants('profile')) {
    result.profile = measureProfile(options, endOf('profile'));
    write();
  }
  if (wants('speed')) result.speed = await measureSpeed(options);
  const held = proofs.every(({ passed, results }) => passed === results.length && passed > 0);
  const ok =
    held &&
    (doctor.ok || options.rehearse) &&
    [result.profile, result.speed].every((part) => part?.ok ?? true);
  const leftOut = PARTS.filter((part) => result[part]?.leftOut !== undefined);
  const without = leftOut.length > 0 ? `, ${leftOut.join(' and ')} left out` : '';
  const rehearsed = options.rehearse ? ', in a rehearsal on the CPU' : '';
  result.outcome = `${ok ? 'all held' : 'something did not hold'}${without}${rehearsed}`;
  write();
  console.log(`${result.outcome}; ${options.target}`);
  return ok ? EXIT.held : EXIT.failed;
}

process.exitCode = await main();
