import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { serialize } from 'node:v8';
import t, { type Test } from 'tap';
import { cudaStatus } from '../../lib/cuda.js';
import { openDraws } from '../helpers/random.js';

const root = join(import.meta.dirname, '..', '..');
const program = join(import.meta.dirname, 'proof', 'run.mjs');
/** The proof runs what is built, as it will on the machine it is for. */
const skip = existsSync(join(root, 'dist', 'cli', 'doctor.js')) ? false : 'dist/ is not built';

interface Proof {
  outcome: string;
  doctor: { ok: boolean };
  ops?: { results: { op: string; ok: boolean; message?: string }[]; notReached: number };
}

function prove(t: Test, ...options: string[]) {
  const target = join(t.testdirName, 'result.json');
  const args = [program, target, `--package=${root}`, ...options];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  const result = existsSync(target) && (JSON.parse(readFileSync(target, 'utf8')) as Proof);
  return { status, out: stdout + stderr, result: result || undefined };
}

t.test('without a GPU it says so, and is no success', { skip }, async (t) => {
  if ((await cudaStatus()).available) return t.comment('this machine has a GPU');
  t.testdir();
  const { status, out, result } = prove(t);
  t.equal(status, 3, out);
  t.match(out, /no CUDA device to prove it on: /);
  t.match(result, { outcome: 'no CUDA device', doctor: { ok: false } });
});

t.test('calls are proved, and a worker that dies is a result', { skip }, async (t) => {
  const { uniforms } = openDraws(t);
  const x = { shape: [2, 3, 8, 4], form: 'map', data: uniforms(2 * 3 * 8 * 4) };
  const call = (attrs: object) => serialize({ op: 'pool', attrs, inputs: [x], state: {} });
  const folder = t.testdir({ cases: {} });
  const cases = join(folder, 'cases');
  writeFileSync(join(cases, 'pool-1.case'), call({ kind: 'avg', kernel: [2, 2] }));
  writeFileSync(join(cases, 'damaged-1.case'), 'no recorded call');
  // What the CPU refuses the GPU must refuse alike.
  writeFileSync(join(cases, 'pool-2.case'), call({ kind: 'avg', kernel: [0, 2] }));
  const { status, out, result } = prove(
    t,
    '--rehearse',
    '--only=ops',
    '--jobs=1',
    `--cases=${cases}`,
  );
  t.equal(status, 1, out);
  t.match(result?.outcome, /something did not hold, in a rehearsal/);
  const { results = [], notReached } = result?.ops ?? {};
  t.equal(notReached, 0);
  const pools = results.filter(({ op }) => op === 'pool');
  t.equal(pools.length, 6, 'two calls in three precisions');
  t.ok(
    pools.every(({ ok }) => ok),
    JSON.stringify(pools),
  );
  t.match(
    results.filter(({ ok }) => !ok),
    [{ message: /it ended \(1\): / }],
  );
});

t.test('a worker that is done with its answer fails no other case', async (t) => {
  const file = join(import.meta.dirname, 'proof', 'processes.mjs');
  const { openWorker } = (await import(pathToFileURL(file).href)) as {
    openWorker(command: string, args: string[]): { ask(one: object): Promise<object> };
  };
  const once = `
    const { createInterface } = require('node:readline');
    createInterface({ input: process.stdin }).once('line', (line) => {
      process.stdout.write(line + '\\n');
      process.exit(JSON.parse(line).status);
    });`;
  const worker = openWorker(process.execPath, ['-e', once]);
  for (const i of [1, 2, 3]) {
    t.same(await worker.ask({ i, status: 0 }), { answer: { i, status: 0 } });
  }
  t.match(await worker.ask({ i: 4, status: 1 }), { answer: { i: 4 } });
  t.match(await worker.ask({ i: 5 }), { failure: /it ended \(1\)/ }, 'one that fails is told');
});

t.test('time that runs out', { skip }, async (t) => {
  const folder = t.testdir({ cases: { 'pool-1.case': '', 'relu-1.case': '' } });
  const options = ['--rehearse', '--only=ops', '--seconds=0.001'];
  const { status, result } = prove(t, ...options, `--cases=${join(folder, 'cases')}`);
  t.equal(status, 1, 'nothing was proved');
  t.match(result, { ops: { notReached: 2, results: [] } });
});

t.test('a profile is in the result', { skip }, async (t) => {
  t.testdir();
  const { status, out, result } = prove(t, '--rehearse', '--only=profile');
  t.equal(status, 0, out);
  t.match(result, { profile: { ok: true, model: 'Cnn6', training: true, batch: 1, runs: 1 } });
});

t.test('wrong usage', async (t) => {
  t.testdir();
  const { status, out } = prove(t, '--only=ops,speeds');
  t.equal(status, 2);
  t.match(out, /expected some of doctor, ops, training, curve, .*, got speeds/);
});
