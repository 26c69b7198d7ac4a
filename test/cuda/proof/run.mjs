#!/usr/bin/env node
// Proves a package on a machine with a GPU, and writes what it found as JSON:
//
//   node run.mjs [result.json] [--package=<folder>] [--cases=<folder>] [--only=doctor,ops,training,speed]
//     [--seconds=540] [--jobs=4] [--python=python3] [--compile] [--rehearse]
//
// 1. doctor: `panns doctor --cuda` of the package.
// 2. ops: every recorded call of test/ops on CUDA and on the CPU.
// 3. training: networks trained for some steps on both.
// 4. speed: bench/gpu.mjs, against PyTorch where there is one.
//
// Each runs in processes of its own: what crashes or hangs is a result, and the rest goes on. The
// file is written as results come; --seconds bounds all of it, and what was not reached is counted.
// Exit code: 0 all held, 1 something did not, 2 wrong usage, 3 no CUDA device to prove it on. With
// --rehearse the CPU stands in for the GPU: that shows the machinery, and proves nothing.
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, cpus, release, tmpdir, totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..', '..');
const PARTS = ['doctor', 'ops', 'training', 'speed'];
const NETWORKS = ['Cnn6', 'MobileNetV1', 'ResNet22', 'Wavegram_Logmel_Cnn14', 'mn04'];
const PRECISIONS = ['fp32', 'bf16', 'fp16', 'tf32'];
const EXIT = { held: 0, failed: 1, usage: 2, noDevice: 3 };
/** A worker that says nothing for so long hangs: cuDNN compiles some plans for seconds each. */
const PATIENCE_SECONDS = 240;
/** Shares of the time, of which those who are left out take none; what is left is for what follows. */
const SHARES = { ops: 35, training: 25, speed: 40 };
/** One small case. */
const REHEARSED_SPEED = ['--only=cnn6,train,fp32', '--batch=1', '--samples=16000', '--steps=1'];

function readOptions() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      package: { type: 'string' },
      cases: { type: 'string', default: join(here, 'cases') },
      only: { type: 'string', default: PARTS.join(',') },
      seconds: { type: 'string', default: '540' },
      jobs: { type: 'string' },
      python: { type: 'string' },
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
    compile: values.compile,
    rehearse: values.rehearse,
    deadline: performance.now() + 1000 * seconds,
  };
}

const secondsTo = (deadline) => (deadline - performance.now()) / 1000;

/** A worker, started at the first case and again after it ended. */
function openWorker(script, { package: folder, rehearse }) {
  let child;
  let lines;
  let words = '';
  const start = () => {
    child = spawn(process.execPath, [join(here, script), folder], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...(rehearse && { PANNS_REHEARSAL: '1' }) },
    });
    words = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      words = (words + text).slice(-2000);
    });
    // Its end shows in what it answers: nothing.
    child.stdin.on('error', () => {});
    const ended = child;
    child.on('close', () => {
      if (child === ended) child = undefined;
    });
    lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  };
  return {
    async ask(one) {
      if (child === undefined) start();
      const asked = child;
      let hangs = false;
      const watch = setTimeout(() => {
        hangs = true;
        asked.kill('SIGKILL');
      }, PATIENCE_SECONDS * 1000);
      const gone = new Promise((done) =>
        asked.once('close', (code, signal) => done({ code, signal })),
      );
      asked.stdin.write(`${JSON.stringify(one)}\n`);
      const { value, done } = await lines.next();
      clearTimeout(watch);
      if (!done) return JSON.parse(value);
      const { code, signal } = await gone;
      child = undefined;
      const how = hangs ? `no answer for ${PATIENCE_SECONDS} s` : `it ended (${signal ?? code})`;
      return [{ ...one, ok: false, message: `${how}: ${words.trim().slice(-500)}` }];
    },
    close() {
      child?.kill('SIGKILL');
    },
  };
}

/** All cases by some workers at once; in time or counted as not reached. */
async function prove(script, cases, options, deadline, note) {
  const waiting = [...cases];
  const results = [];
  const work = async () => {
    const worker = openWorker(script, options);
    while (waiting.length > 0 && secondsTo(deadline) > 0) {
      const found = await worker.ask(waiting.shift());
      results.push(...found);
      for (const one of found) if (!one.ok) console.log('FAILED', JSON.stringify(one));
      note({ results, notReached: waiting.length });
    }
    worker.close();
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

function askDoctor({ package: folder }) {
  const program = join(folder, 'dist', 'cli', 'main.js');
  const child = spawnSync(process.execPath, [program, 'doctor', '--cuda', '--json'], {
    encoding: 'utf8',
    timeout: PATIENCE_SECONDS * 1000,
  });
  try {
    return JSON.parse(child.stdout);
  } catch {
    const how = child.error?.message ?? child.signal ?? child.status;
    return { ok: false, findings: [], failed: `panns doctor (${how}): ${child.stderr}` };
  }
}

async function measureSpeed({ package: folder, python, compile, rehearse, deadline }) {
  const own = mkdtempSync(join(tmpdir(), 'panns-speed-'));
  const file = join(own, 'speed.json');
  const args = [file, `--package=${folder}`, `--seconds=${Math.floor(secondsTo(deadline))}`];
  if (python !== undefined) args.push(`--python=${python}`);
  if (compile) args.push('--compile');
  if (rehearse) args.push('--device=cpu', '--rounds=1', ...REHEARSED_SPEED);
  // The runner's own deadline comes first; this one is for a case that hangs.
  const child = spawn(process.execPath, [join(root, 'bench', 'gpu.mjs'), ...args], {
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: Math.max(1, Math.round(deadline - performance.now() + 1000 * PATIENCE_SECONDS)),
  });
  const code = await new Promise((done) => child.on('close', done));
  const report = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
  rmSync(own, { recursive: true, force: true });
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
  if (wants('ops')) {
    const cases = recordedCases(options.cases);
    if (cases.length === 0) console.log(`ops: there are no recorded cases in ${options.cases}`);
    result.ops = await prove('ops.mjs', cases, options, endOf('ops'), note('ops'));
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
  if (wants('speed')) result.speed = await measureSpeed(options);
  const held = proofs.every(({ passed, results }) => passed === results.length && passed > 0);
  const ok = held && (doctor.ok || options.rehearse) && (result.speed?.ok ?? true);
  const rehearsed = options.rehearse ? ', in a rehearsal on the CPU' : '';
  result.outcome = `${ok ? 'all held' : 'something did not hold'}${rehearsed}`;
  write();
  console.log(`${result.outcome}; ${options.target}`);
  return ok ? EXIT.held : EXIT.failed;
}

process.exitCode = await main();
