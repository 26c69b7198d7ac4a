// Processes with an emulated GPU each: they meet over TCP, join through an emulated NCCL
// (emulator/nccl.cpp), and average inside the captured step.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { openDraws } from '../helpers/random.js';
import { type Comparison, compare, compareNorms } from '../helpers/tolerance.js';
import { drawNorms, type NormsStep, readFloats, takeNorms } from '../parallel/norms.js';
import { BATCH, FROZEN, type Outcome, STEPS, trainPlain } from '../parallel/trainings.js';
import type { Request } from '../parallel/worker.js';
import { emulateHere, emulatorEnv, noEmulator } from './emulator/setup.js';

const skip = noEmulator;

type Trained = Outcome & { weights: Record<string, number[]> };
interface Results {
  engine: string;
  plain: Trained;
  frozen: Trained;
  together: { outcome: Outcome; running: string };
  norms: NormsStep;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Processes of test/parallel/worker.ts as torchrun would start them; how each ended. */
async function runRanks(size: number, request: Request, environment: object = {}) {
  mkdirSync(request.folder, { recursive: true });
  const path = join(request.folder, 'request.json');
  writeFileSync(path, JSON.stringify(request));
  const worker = join(import.meta.dirname, '..', 'parallel', 'worker.ts');
  const port = String(await freePort());
  return Promise.all(
    Array.from({ length: size }, async (_, rank) => {
      const env = {
        ...process.env,
        ...emulatorEnv(join(request.folder, `cache-${rank}`)),
        ...{ RANK: String(rank), LOCAL_RANK: String(rank), WORLD_SIZE: String(size) },
        ...{ MASTER_ADDR: '127.0.0.1', MASTER_PORT: port },
        ...{ PANNS_EMULATOR_DEVICES: String(size), PANNS_EMULATOR_MEMORY: String(2 ** 30) },
        ...environment,
      };
      const args = [...process.execArgv, worker, path];
      const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
      let output = '';
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (text: string) => {
          output += text;
        });
      }
      const [status] = await once(child, 'close');
      const file = join(request.folder, `rank-${rank}.json`);
      const results =
        status === 0 ? (JSON.parse(readFileSync(file, 'utf8')) as Results) : undefined;
      return { status, output, results };
    }),
  );
}

t.test('as one process with all their examples', { skip }, async (t) => {
  const folder = t.testdir();
  const whole = { plain: await trainPlain(3, 2 * BATCH), frozen: undefined as Trained | undefined };
  whole.frozen = await trainPlain(3, 2 * BATCH, undefined, FROZEN);
  const all: Results[] = [];
  for (const overlap of [true, false]) {
    const two = await runRanks(2, {
      ...{ folder: join(folder, `overlap-${overlap}`), device: 'cuda' },
      scenarios: ['plain', 'frozen', 'together'],
      group: { engine: 'nccl', overlap, bucketBytes: 256 },
    });
    for (const { status, output, results } of two) {
      t.equal(status, 0, output);
      if (results !== undefined) all.push(results);
    }
  }
  const [first] = all;
  if (all.length !== 4 || first === undefined) return;
  t.match(first.engine, /^NCCL 2\.14\.0/);
  for (const scenario of ['plain', 'frozen'] as const) {
    const want = whole[scenario] as Trained;
    const got = first[scenario] as Trained;
    t.equal(got.losses.length, STEPS);
    for (const one of all) {
      t.same(one[scenario]?.losses, got.losses, `${scenario}: the same losses in each`);
      t.equal(
        one[scenario]?.digest,
        got.digest,
        'and weights, beside the backward pass or after it',
      );
    }
    const compared = { ...want.weights, losses: want.losses, norms: want.gradNorms };
    const found: Record<string, number[]> = { ...got.weights, losses: got.losses };
    found.norms = got.gradNorms;
    for (const [name, values] of Object.entries(compared)) {
      const { ok, message } = compareNorms(found[name] ?? [], values, 'network');
      t.ok(ok, `${scenario}, ${name}: ${message}`);
    }
  }
  const { together } = first;
  t.equal(together.outcome.losses.length, 3);
  t.equal(together.outcome.error, undefined);
  for (const one of all)
    t.same(one.together, together, 'norms of all: the same in each, and again');
});

t.test('norms over all processes', { skip }, async (t) => {
  emulateHere();
  const folder = t.testdir();
  const { norms } = await drawNorms(t, openDraws(t), folder, 2, true, { melBins: 16 });
  const own = (name: string) => {
    const path = join(folder, name);
    mkdirSync(path);
    return path;
  };
  // test/parallel holds what the CPU finds, alone and in several processes, against PyTorch.
  const want = await takeNorms(norms, own('cpu'), { device: 'cpu', threads: 1 });
  const single = await takeNorms(norms, own('cuda'), { device: 'cuda', threads: 1 });
  const found = new Map([['one process with the whole batch', single]]);
  const request: Request = {
    ...{ folder: own('two'), device: 'cuda', scenarios: ['norms'], norms },
    group: { engine: 'nccl', bucketBytes: 2 ** 16 },
  };
  for (const [rank, { status, output, results }] of (await runRanks(2, request)).entries()) {
    t.equal(status, 0, output);
    if (results?.norms) found.set(`process ${rank}`, results.norms);
  }
  t.equal(found.size, 3);
  const first = found.get('process 0');
  if (first === undefined) return;
  const holds = ({ ok, message }: Comparison, what: string) => t.ok(ok, `${what}: ${message}`);
  for (const [who, { loss, gradients, running }] of found) {
    holds(compare([loss], [want.loss], 'output'), `${who}, loss`);
    for (const [name, values] of Object.entries(want.running)) {
      holds(compare(running[name] ?? [], values, 'running'), `${who}, ${name}`);
    }
    for (const [name, path] of Object.entries(want.gradients)) {
      const got = readFloats(gradients[name] as string);
      holds(compare(got, readFloats(path), 'gradient'), `${who}, ${name}`);
      if (who.startsWith('one')) continue;
      t.same(got, readFloats(first.gradients[name] as string), `${who}, ${name}: the same bits`);
    }
    if (who.startsWith('one')) continue;
    t.same(running, first.running, `${who}: the same running statistics, bit for bit`);
  }
});

t.test('one that does not join is waited for as long as was said', { skip }, async (t) => {
  const request: Request = {
    ...{ folder: t.testdir(), device: 'cuda', scenarios: ['plain'] },
    group: { engine: 'nccl', timeoutSeconds: 3 },
  };
  const began = performance.now();
  for (const { status, output } of await runRanks(2, request, { PANNS_EMULATOR_STRAGGLER: '1' })) {
    t.not(status, 0);
    t.match(output, /process [01]: waited 3 s for the others of 2 processes/);
    t.match(output, /ERR_PANNS_PARALLEL/);
  }
  t.ok(performance.now() - began > 3000);
});

t.test('one that fails in a capture ends, and waits for nothing', { skip }, async (t) => {
  const request: Request = {
    ...{ folder: t.testdir(), device: 'cuda', scenarios: ['plain'] },
    group: { engine: 'nccl', overlap: true, bucketBytes: 256 },
  };
  const environment = { PANNS_EMULATOR_RECORDED: '1' };
  for (const { output, results } of await runRanks(2, request, environment)) {
    const message = /process [01]: ncclAllReduce failed: internal error/;
    t.match(results?.plain?.error, { code: 'ERR_PANNS_PARALLEL', message }, output);
  }
});
