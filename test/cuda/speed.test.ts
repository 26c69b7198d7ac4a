import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';

const root = join(import.meta.dirname, '..', '..');
const bench = join(root, 'bench');
/** The benchmark runs what is built, as it will on the machine it is for. */
const skip = existsSync(join(root, 'dist', 'index.js')) ? false : 'dist/ is not built';
const python = process.env.PANNS_PYTHON;
const skipPeers = skip || (python ? false : 'PANNS_PYTHON names no Python with torch');

interface Row {
  side: string;
  failed?: string;
  ms?: { median: number; least: number; most: number };
  timesOurs?: number;
  rounds?: [number, number];
  peakMiB?: number;
  startSeconds?: number;
}
interface Report {
  results: { case: string; best?: string; rows: Row[]; work: { mixup: boolean } }[];
  leftOut: string[];
}

/** One case of bench/gpu.mjs on the CPU. */
function rehearse(t: Test, ...options: string[]) {
  const target = join(t.testdir(), 'speed.json');
  const small = ['--device=cpu', '--batch=2', '--samples=16000', '--steps=1', '--rounds=3'];
  const args = [join(bench, 'gpu.mjs'), target, ...small, ...options];
  // Threads that wait for each other would share the cores with other tests.
  const env = { ...process.env, OMP_NUM_THREADS: '1' };
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env });
  const report = existsSync(target) && (JSON.parse(readFileSync(target, 'utf8')) as Report);
  return { status, out: stdout + stderr, report: report || undefined };
}

t.test('ours beside the best peer', { skip: skipPeers, timeout: 300_000 }, async (t) => {
  const peers = '--peers=official,eager,compile_graph';
  const only = '--only=cnn6,train,fp32';
  const { status, out, report } = rehearse(t, only, peers, `--python=${python}`);
  t.equal(status, 0, out);
  const [one] = report?.results ?? [];
  t.match(one, { case: 'Cnn6 train fp32 x2', work: { mixup: true } });
  const rows = new Map(one?.rows.map((row) => [row.side, row]));
  for (const side of ['panns', 'official', 'eager']) {
    const { ms, timesOurs = 0, rounds = [0, 0], startSeconds = 0, failed } = rows.get(side) ?? {};
    t.equal(failed, undefined, side);
    t.ok((ms?.least ?? 0) > 0 && (ms?.least ?? 0) <= (ms?.median ?? 0), side);
    t.ok(rounds[0] <= timesOurs && timesOurs <= rounds[1] && startSeconds > 0, side);
  }
  t.equal(rows.get('panns')?.timesOurs, 1);
  // Weights, gradients and three more of the optimizer: 4.8 million floats each.
  t.ok((rows.get('panns')?.peakMiB ?? 0) > (5 * 4 * 4.8e6) / 2 ** 20);
  const [official, eager] = ['official', 'eager'].map((side) => rows.get(side)?.timesOurs ?? 0);
  t.equal(one?.best, (official ?? 0) < (eager ?? 0) ? 'official' : 'eager');
  // CUDA graphs are no end of the others; another way takes their place, and fails here as well.
  for (const side of ['compile_graph', 'compile_trees']) {
    t.match(rows.get(side)?.failed, /captures CUDA graphs, and this is the CPU/);
  }
  t.match(out, /Cnn6 train fp32 x2 .* failed .*(official|eager) \d/, 'the table');
});

t.test('without PyTorch, and without time', { skip, timeout: 300_000 }, async (t) => {
  const missing = '--python=no-python-here';
  const { status, out, report } = rehearse(t, '--only=logmel', missing);
  t.equal(status, 0, out);
  t.match(out, /PyTorch takes no part: no-python-here: /);
  t.match(report?.results, [{ case: 'logmel fp32 x2', rows: [{ side: 'panns', timesOurs: 1 }] }]);

  const late = rehearse(t, '--seconds=1', missing, '--only=cnn14,x32');
  t.equal(late.status, 1, 'nothing was measured');
  t.ok((late.report?.leftOut.length ?? 0) > 3);
  t.match(late.out, /no time was left for: Cnn14 train bf16 x32; /);
});

t.test('a Trainer and its data', { skip, timeout: 300_000 }, async (t) => {
  const work = { kind: 'train', model: 'Cnn6', device: 'cpu', precision: 'fp32', batch: 2 };
  for (const data of ['ready', 'packed', 'memory', 'files']) {
    const text = JSON.stringify({ ...work, data, samples: 16000, package: root });
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      [join(bench, 'gpu_own.mjs'), text],
      { encoding: 'utf8', input: 'go 2\nend\n' },
    );
    t.equal(status, 0, stderr);
    const [about = '{}', ms, memory] = stdout.trim().split('\n');
    const { loss } = JSON.parse(about) as { loss: number };
    // Silence, what a loader that reads nothing gives, has the loss of even scores: ln 2.
    t.ok(Math.abs(loss - Math.LN2) > 1e-4 && loss > 0.3 && loss < 2, `${data}: loss ${loss}`);
    t.ok(Number(ms) > 0 && Number(memory) > 0, `${data}: ${stdout}`);
  }
});

t.test('wrong usage', async (t) => {
  const { status, out } = rehearse(t, '--peers=eager,jax');
  t.equal(status, 2);
  t.match(out, /expected some of official, eager, .*, got jax/);
});
