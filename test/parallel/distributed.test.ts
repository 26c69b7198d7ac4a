import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { openProcessGroup } from '../../lib/train/distributed.js';
import { findLauncher } from '../../lib/train/launcher.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { compare } from '../helpers/tolerance.js';
import { forget, mirror } from '../helpers/training.js';
import { findMpi, type Mpi, runProcesses } from './mpirun.js';
import { drawNorms } from './norms.js';
import { BATCH, FROZEN, STEPS, trainPlain } from './trainings.js';
import type { Request } from './worker.js';

// Each starts processes of its own.
t.jobs = 1;

const root = join(import.meta.dirname, '..', '..');
const oracle = await openOracle(t);
const draws = openDraws(t);
const found = findMpi();

/** Every process's answer to one scenario. */
// biome-ignore lint/suspicious/noExplicitAny: what the worker left, as JSON
type Answers = any[];

for (const name of ['Open MPI', 'MPICH'] as const) {
  const mpi = found.find((one) => one.name === name);
  const skip = mpi === undefined && `no ${name}: neither on the PATH nor beside PANNS_PYTHON`;
  t.test(name, { skip }, (t) => checkMpi(t, mpi as Mpi));
}

async function checkMpi(t: Test, mpi: Mpi): Promise<void> {
  const folder = t.testdir();
  const scenarios = [
    ...(['plain', 'frozen', 'masks', 'resumed', 'nan', 'aborted'] as const),
    ...(['undecodable', 'unlike', 'together'] as const),
    ...(oracle.skip === false ? (['norms'] as const) : []),
  ];
  const apart = oracle.skip === false ? await drawChecked(t, folder, 2, false) : undefined;
  const request: Request = { folder, scenarios, ...(apart && { norms: apart.norms }) };
  const two = await runProcesses(mpi, 2, request);
  t.equal(two.status, 0, 'both end well');
  if (two.status !== 0) return void t.comment(two.output);
  const answers = (scenario: string): Answers => two.results.map((all) => all?.[scenario]);
  t.comment(answers('engine')[0], `${two.seconds.toFixed(0)} s`);
  t.match(answers('engine')[0], mpi.name, 'through the MPI of the launcher');

  t.test('as one process with all their examples', async (t) => checkPlain(t, answers('plain')));

  t.test('and where a part is frozen', async (t) => checkPlain(t, answers('frozen'), FROZEN));

  t.test(
    'three processes, buckets of one gradient, beside the backward pass and after it',
    async (t) => {
      const outcomes: Answers[] = [];
      for (const overlap of [true, false]) {
        const request: Request = {
          ...{ folder: join(folder, `three-${overlap}`), scenarios: ['plain', 'frozen'] },
          group: { overlap, bucketBytes: 1 },
        };
        const three = await runProcesses(mpi, 3, request);
        t.equal(three.status, 0, three.output);
        outcomes.push([...three.results]);
      }
      for (const scenario of ['plain', 'frozen']) {
        const [beside, after] = outcomes.map((all) => all.map((one) => one?.[scenario]));
        await checkPlain(t, beside ?? [], scenario === 'frozen' ? FROZEN : []);
        t.same(beside, after, `${scenario}: the same, bit for bit`);
      }
    },
  );

  t.test('norms over all processes', async (t) => {
    const [first, second] = answers('together');
    t.equal(first.outcome.losses.length, 3);
    t.equal(first.running, second.running, 'one running statistic for all');
    t.equal(first.outcome.digest, second.outcome.digest);
    for (const count of oracle.skip === false ? [2, 3] : []) {
      const own = join(folder, `synced-${count}`);
      mkdirSync(own);
      const synced = await drawChecked(t, own, count, true);
      const request: Request = { folder: own, scenarios: ['norms'], norms: synced.norms };
      const { status, output, results } = await runProcesses(mpi, count, request);
      t.equal(status, 0, output);
      if (status !== 0) continue;
      await t.test(`${count} processes, as PyTorch with the whole batch`, (t) =>
        synced.check(
          t,
          results.map((all) => all?.norms),
        ),
      );
    }
    if (oracle.skip !== false) t.comment(`PyTorch: skipped: ${oracle.skip}`);
  });

  t.test('dropout and SpecAugment differ between processes', async (t) => {
    const [first, second] = answers('masks');
    t.not(first.running, second.running, 'the same clips leave other running statistics');
  });

  t.test('evaluation, checkpoints and going on', async (t) => {
    const [first, second] = answers('resumed');
    t.same(first.whole, second.whole, 'both went the same way');
    t.equal(first.whole.losses.length, STEPS);
    t.ok(Number.isFinite(first.best?.value), 'the first evaluates');
    t.same(second.best, first.best, 'and the other knows');
    t.not(first.whose, second.whose, 'running statistics are those of each process');
    t.equal(first.second.losses.length, STEPS - 2);
    t.equal(second.second.digest, first.second.digest);
    t.same(first.second.losses, first.whole.losses.slice(2), 'the same steps after a restart');
    t.equal(first.second.digest, first.whole.digest, 'the same weights, bit for bit');
    for (const run of ['whole', 'half']) {
      t.ok(existsSync(join(folder, run, 'step-000005.safetensors')), `${run}: one file for all`);
    }
  });

  t.test('a NaN in one process ends all', async (t) => {
    for (const { outcome, again } of answers('nan')) {
      t.match(outcome.error, { code: 'ERR_PANNS_NAN', message: /^process 1, waveform: / });
      t.equal(outcome.losses.length, 2, 'after the steps before');
      t.equal(again.error.code, 'ERR_PANNS_NAN', 'and it stays ended');
    }
    t.equal(answers('nan')[0].outcome.digest, answers('nan')[1].outcome.digest);
  });

  t.test('an abort in one process stops all after the same step', async (t) => {
    for (const { outcome, saved, step } of answers('aborted')) {
      t.equal(outcome.error.code, 'ABORT_ERR');
      t.equal(step, 3, 'the step under way is done');
      t.ok(existsSync(saved), 'and saved');
    }
    t.equal(answers('aborted')[0].outcome.digest, answers('aborted')[1].outcome.digest);
  });

  t.test('a clip that one process cannot decode ends all', async (t) => {
    for (const { outcome } of answers('undecodable')) {
      t.match(outcome.error, { code: 'ERR_PANNS_DATA', message: /tone 17/ });
    }
  });

  t.test('processes that train other things do not begin', async (t) => {
    for (const { outcome } of answers('unlike')) {
      t.match(outcome.error, { code: 'ERR_PANNS_PARALLEL', message: /^process 1: / });
      t.same(outcome.losses, []);
    }
  });

  t.test('norms: the mean of the gradients of parts, as PyTorch', { skip: oracle.skip }, (t) =>
    apart === undefined ? t.end() : apart.check(t, answers('norms')),
  );

  t.test('a process that is killed does not leave the others waiting', async (t) => {
    const own = join(folder, 'killed');
    const ending = await runProcesses(mpi, 2, { folder: own, scenarios: ['killed'] });
    t.not(ending.status, 0);
    t.not(ending.status, 124, `ended after ${ending.seconds.toFixed(1)} s`);
    const pid = Number(readFileSync(join(own, 'pid-0'), 'utf8'));
    // An entry of the process may be left until somebody asks for its end.
    for (let i = 0; i < 300 && isRunning(pid); i++) await sleep(100);
    t.notOk(isRunning(pid), 'the other is gone');
  });

  t.test('a process that does not come is waited for as long as was said', async (t) => {
    const request: Request = {
      ...{ folder: join(folder, 'silent'), scenarios: ['silent'] },
      group: { timeoutSeconds: 2 },
    };
    const { results, output } = await runProcesses(mpi, 2, request);
    const { outcome, seconds } = (results[0]?.silent ?? {}) as Answers[0];
    t.match(outcome?.error, { code: 'ERR_PANNS_PARALLEL', message: /waited 2 s/ }, output);
    // The other comes once it has been given up.
    t.ok(seconds > 2, `after ${seconds} s`);
  });

  t.test('the heap is left alone, unless told otherwise', async (t) => {
    const installed = /installing \w+ hook for s?brk/;
    const begin = async (name: string, environment: Record<string, string>) => {
      const request = { folder: join(folder, name), scenarios: [] };
      const told = { UCX_MEM_LOG_LEVEL: 'debug', ...environment };
      return (await runProcesses(mpi, 2, request, told)).output;
    };
    t.notMatch(await begin('heap', {}), installed);
    if (mpi.name === 'MPICH') {
      const watched = await begin('watched', { UCX_MEM_MMAP_HOOK_MODE: 'bistro' });
      // Not every MPICH sends by UCX.
      if (/UCX/.test(watched)) t.match(watched, installed);
    }
  });

  t.test('an MPI that is not there', async (t) => {
    const own = { folder: join(folder, 'none'), scenarios: ['plain'] } as const;
    const absent = join(folder, 'libmpi.so.40');
    const { status, output } = await runProcesses(mpi, 2, own, { PANNS_MPI_LIBRARY: absent });
    t.not(status, 0);
    t.match(output, /ERR_PANNS_PARALLEL/);
    t.match(output, absent);
  });

  t.test('the constants are those of its headers', async (t) => {
    const program = join(folder, 'abi');
    const source = join(import.meta.dirname, 'mpi_abi.c');
    const compiler = join(mpi.programs, 'mpicc');
    if (!existsSync(compiler)) return t.comment(`skipped: ${mpi.programs} has no mpicc`);
    const args = ['-I', join(root, 'native'), source, '-o', program, '-ldl'];
    const built = spawnSync(compiler, args, { encoding: 'utf8' });
    if (built.status !== 0) return t.comment(`skipped: no headers: ${built.stderr.slice(0, 200)}`);
    const env = { ...process.env, LD_LIBRARY_PATH: join(mpi.programs, '..', 'lib') };
    const { status, stdout } = spawnSync(program, { encoding: 'utf8', env });
    t.equal(status, 0, stdout);
    t.match(stdout, mpi.name);
  });
}

function isRunning(pid: number): boolean {
  const status = `/proc/${pid}/status`;
  return existsSync(status) && !/^State:\s+Z/m.test(readFileSync(status, 'utf8'));
}

/** Processes that took parts of the batches against one that took all of them. */
async function checkPlain(t: Test, parts: Answers, freeze: string[] = []): Promise<void> {
  const whole = await trainPlain(3, BATCH * parts.length, undefined, freeze);
  for (const part of parts) {
    t.equal(part.digest, parts[0].digest, 'the same weights in each, bit for bit');
    t.same(part.losses, parts[0].losses);
  }
  const by = (got: number[], want: number[], name: string) => {
    const { ok, message } = compare(got, want, 'reordered');
    t.ok(ok, `${name}: ${message}`);
  };
  by(parts[0].losses, whole.losses, 'losses');
  by(parts[0].gradNorms, whole.gradNorms, 'norms of the gradients');
  t.ok(whole.gradNorms.every((norm) => norm > 0));
  if (freeze.length === 0) t.ok(Math.max(...whole.gradNorms) > 0.5, 'some are clipped');
  for (const [name, values] of Object.entries(whole.weights)) {
    by(parts[0].weights[name], values, name);
  }
}

/**
 * A step of a network with norms, and what PyTorch makes of each process's part, or, where norms see
 * the rows of all, of the whole.
 */
async function drawChecked(t: Test, folder: string, processes: number, syncNorms: boolean) {
  const drawn = await drawNorms(t, draws, folder, processes, syncNorms);
  const { subject, norms, waveform, target } = drawn;
  const { row } = subject;

  const check = async (t: Test, answers: Answers) => {
    const parts = syncNorms ? 1 : processes;
    const sums = new Map<string, Float64Array>();
    let loss = 0;
    for (let i = 0; i < parts; i++) {
      await mirror(oracle, subject);
      const part = (all: Float32Array) =>
        all.slice((i * all.length) / parts, ((i + 1) * all.length) / parts);
      const options = {
        ...{ row, clips: (norms.batch * processes) / parts, mixup: false, loss: 'bce' },
        ...{ lr: 1, kind: 'sgd', attrs: {} },
      };
      const given = [part(waveform), part(target)];
      const { header, arrays } = await oracle.call('train', options, given);
      forget(oracle);
      const names = header.gradients as string[];
      for (const [k, name] of names.entries()) {
        const share = (arrays[k] as Float32Array).map((value) => value / parts);
        const sum = sums.get(name) ?? new Float64Array(share.length);
        sums.set(
          name,
          sum.map((value, j) => value + (share[j] as number)),
        );
      }
      for (const [k, name] of (header.buffers as string[]).entries()) {
        const own = syncNorms ? [...answers.keys()] : [i];
        for (const rank of own) {
          const { ok, message } = compare(
            answers[rank].running[name],
            arrays[names.length + k] ?? [],
            'running',
          );
          t.ok(ok, `process ${rank}, ${name}: ${message}`);
        }
      }
      loss += ((header.losses as number[])[0] as number) / parts;
    }
    if (syncNorms) {
      for (const one of answers) t.same(one.running, answers[0].running, 'the same in all');
    }
    t.same([...sums.keys()].sort(), Object.keys(answers[0].gradients).sort());
    for (const [name, want] of sums) {
      const [first, ...rest] = answers.map(({ gradients }) => readFileSync(gradients[name]));
      if (first === undefined) return;
      const got = new Float32Array(first.buffer, first.byteOffset, first.length / 4);
      const { ok, message } = compare(got, want, 'gradient');
      t.ok(ok, `${name}: ${message}`);
      t.ok(rest.length > 0 && rest.every((other) => first.equals(other)), `${name}: equal in all`);
    }
    const { ok, message } = compare([answers[0].loss], [loss], 'losses');
    t.ok(ok, `loss: ${message}`);
  };
  return { norms, check };
}

t.test('without a launcher', async (t) => {
  const variables = ['OMPI_COMM_WORLD_RANK', 'PMI_RANK', 'SLURM_PROCID', 'RANK'];
  t.same(
    variables.filter((name) => name in process.env),
    [],
  );
  await t.rejects(openProcessGroup(), { code: 'ERR_PANNS_PARALLEL', message: /mpirun -n 2/ });
  const option = { code: 'ERR_PANNS_OPTION' };
  await t.rejects(openProcessGroup({ timeoutSeconds: -1 }), option);
  await t.rejects(openProcessGroup({ timeout: 3 } as object), {
    ...option,
    message: /timeoutSeconds/,
  });
});

t.test('launchers by their variables', async (t) => {
  t.equal(findLauncher({}), undefined);
  const open = { OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '4' };
  t.same(findLauncher(open), { kind: 'Open MPI', rank: 1, size: 4, localRank: 0 });
  const slurm = { SLURM_PROCID: '5', SLURM_STEP_NUM_TASKS: '8', SLURM_LOCALID: '1' };
  t.same(findLauncher(slurm), { kind: 'Slurm', rank: 5, size: 8, localRank: 1 });
  t.equal(findLauncher({ ...slurm, ...open })?.kind, 'Open MPI', 'mpirun inside a job of Slurm');
  t.equal(findLauncher({ PMI_RANK: '0', PMI_SIZE: '2', MPI_LOCALRANKID: '0' })?.kind, 'MPICH');
  const torch = { RANK: '0', WORLD_SIZE: '2', LOCAL_RANK: '0' };
  t.equal(findLauncher(torch)?.kind, 'torchrun');
  t.equal(findLauncher({ ...torch, RANK: 'zero' }), undefined);
  t.equal(findLauncher({ ...torch, RANK: '2' }), undefined, 'a rank beyond the size');
});
