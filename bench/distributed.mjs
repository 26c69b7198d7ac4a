// Two processes of one thread against one process of two threads, the same examples a step; the two
// processes with sums beside the backward pass and after it. All three in turn.
//
//   node bench/distributed.mjs [--rounds 5] [--model Cnn6] [--out bench/results/name.json]
//   (mpirun: PATH, PANNS_MPIRUN)
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    model: { type: 'string' },
    out: { type: 'string' },
  },
});
const worker = join(dirname(fileURLToPath(import.meta.url)), 'distributed_worker.mjs');
const mpirun = process.env.PANNS_MPIRUN ?? 'mpirun';
const version = spawnSync(mpirun, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0];
const flags = /Open MPI/.test(version) ? ['--allow-run-as-root', '--bind-to', 'none'] : [];

const cases = [
  { model: 'Cnn6', samples: 64000, batch: 8, steps: 6 },
  { model: 'Cnn14', samples: 64000, batch: 4, steps: 4 },
].filter(({ model }) => values.model === undefined || model === values.model);

function run(command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1)).rate;
}

const one = (work) => run(process.execPath, [worker, JSON.stringify({ ...work, threads: 2 })]);
const two = (work, distributed) => {
  const part = { ...work, batch: work.batch / 2, threads: 1, distributed };
  return run(mpirun, [...flags, '-n', '2', process.execPath, worker, JSON.stringify(part)]);
};

const sorted = (list) => [...list].sort((a, b) => a - b);
const summary = (list) => ({
  median: sorted(list)[list.length >> 1],
  spread: [Math.min(...list), Math.max(...list)],
});
const results = [];
for (const work of cases) {
  const rates = { one: [], beside: [], after: [] };
  for (let round = 0; round < Number(values.rounds); round++) {
    rates.one.push(one(work));
    rates.beside.push(two(work, { overlap: true }));
    rates.after.push(two(work, { overlap: false }));
  }
  const over = (a, b) => summary(rates[a].map((rate, i) => rate / rates[b][i]));
  const result = {
    ...work,
    'one process, 2 threads, clips/s': summary(rates.one),
    'two processes, 1 thread each, sums beside the backward pass, clips/s': summary(rates.beside),
    'two processes, 1 thread each, sums after it, clips/s': summary(rates.after),
    'beside over after': over('beside', 'after'),
    'two over one': over('beside', 'one'),
  };
  results.push(result);
  console.log(JSON.stringify(result, null, 1));
  const report = {
    date: new Date().toISOString().slice(0, 10),
    machine: { cpu: cpus()[0].model, cores: cpus().length, load: loadavg().map(Math.round) },
    ...{ mpi: version, node: process.versions.node, rounds: Number(values.rounds), results },
  };
  if (values.out) writeFileSync(values.out, `${JSON.stringify(report, null, 1)}\n`);
}
