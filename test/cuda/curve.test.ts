// The proof's part that trains beside PyTorch: what it judges by, and a rehearsal on the CPU.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t, { type Test } from 'tap';
import { openDraws } from '../helpers/random.js';

const root = join(import.meta.dirname, '..', '..');
const python = process.env.PANNS_PYTHON;
const built = existsSync(join(root, 'dist', 'cli', 'doctor.js')) ? false : 'dist/ is not built';
const skip = built || (python ? false : 'PANNS_PYTHON names no Python with torch');

type Precision = 'fp32' | 'bf16' | 'fp16';
interface Apart {
  error: number | null;
  cosine: number | null;
}
interface JudgedLosses {
  ok: boolean;
  first: number;
  stretches: { from: number; difference: number; spread: number; ok: boolean }[];
}
const part = (await import(
  pathToFileURL(join(import.meta.dirname, 'proof', 'curve.mjs')).href
)) as {
  judgeGradients(precision: Precision, rows: { own: Apart; torch: Apart }[]): { ok: boolean };
  judgeLosses(precision: Precision, own: (number | null)[], runs: number[][]): JudgedLosses;
};

t.test('gradients', async (t) => {
  const judge = (precision: Precision, own: Apart, error = 0.02, cosine = 1) => {
    const row = { own, torch: { error, cosine } };
    return part.judgeGradients(precision, [row, row, row]).ok;
  };
  t.ok(judge('bf16', { error: 0.023, cosine: 0.999 }));
  t.notOk(judge('bf16', { error: 0.025, cosine: 0.999 }), 'worse than PyTorch’s own');
  t.notOk(judge('bf16', { error: 0.01, cosine: 0.994 }), 'another direction');
  t.ok(judge('bf16', { error: 0.1, cosine: 0.994 }, 0.1, 0.993), 'as far as PyTorch’s own');
  t.ok(judge('fp16', { error: 0.02, cosine: 0.9996 }));
  t.notOk(judge('fp16', { error: 0.02, cosine: 0.999 }));
  t.ok(judge('fp32', { error: 1e-4, cosine: 1 - 1e-8 }, 1e-6), 'a ReLU of ours went the other way');
  t.notOk(judge('fp32', { error: 2e-3, cosine: 1 - 2e-6 }, 2e-3), 'another direction');
  for (const own of [
    { error: null, cosine: 1 },
    { error: 1e-7, cosine: null },
  ]) {
    for (const precision of ['fp32', 'bf16'] as const) t.notOk(judge(precision, own));
  }
  const torch = { error: 1e-6, cosine: 1 };
  const [right, wrong] = [0, 0.1].map((error) => ({ own: { error, cosine: 1 - error }, torch }));
  const judgeRows = (...rows: (typeof right)[]) =>
    part.judgeGradients('fp32', rows as { own: Apart; torch: Apart }[]).ok;
  t.ok(judgeRows(right, wrong, right), 'one batch in which a ReLU goes the other way');
  t.notOk(judgeRows(wrong, right, wrong));
  t.notOk(judgeRows(), 'nothing was compared');
});

t.test('losses', async (t) => {
  const draws = openDraws(t);
  const STEPS = 120;
  /** From 0.7 down, parting from the others as far as its own noise goes; all begin alike. */
  const run = (spread: number, factor = 1) =>
    Float64Array.from({ length: STEPS }, (_, i) => {
      const noise = 1 + spread * Math.min(1, i / 20) * draws.random.normal();
      return (0.1 + 0.6 * Math.exp(-i / 30)) * (i === 0 ? 1 : factor * noise);
    });
  const runs = [1, 2, 3, 4].map(() => [...run(0.05)]);
  const judge = (own: Iterable<number | null>) => part.judgeLosses('bf16', [...own], runs);
  const same = judge(run(0.05));
  t.ok(same.ok, JSON.stringify(same));
  t.same(
    same.stretches.map(({ from }) => from),
    [0, 50, 100],
  );
  t.notOk(judge(run(0.05, 1.3)).ok, 'a loss that is always larger');
  t.notOk(judge(run(0.5)).ok, 'a loss that jumps');
  const late = run(0.05);
  late.fill(0.6, 100);
  const stretches = judge(late).stretches.map(({ ok }) => ok);
  t.same(stretches, [true, true, false], 'one that no longer falls');
  const first = run(0.05);
  first[0] = 0.72;
  t.notOk(judge(first).ok, 'the first step is compared by itself');
  const broken: (number | null)[] = [...run(0.05)];
  broken[70] = null;
  t.notOk(judge(broken).ok, 'one that is not finite');
  t.notOk(judge(run(0.05).subarray(0, 50)).ok, 'steps that are missing');
  t.notOk(part.judgeLosses('bf16', [], [[], [], [], []]).ok);
});

interface Proof {
  outcome: string;
  curve: {
    leftOut?: string;
    torch?: string;
    notReached?: number;
    results?: {
      ok: boolean;
      gradients: { ok: boolean; own: Apart; torch: Apart };
      losses: JudgedLosses;
      curves: { own: number[]; torch: number[][] };
    }[];
  };
}

function rehearse(t: Test, ...options: string[]) {
  const target = join(t.testdirName, 'result.json');
  const program = join(import.meta.dirname, 'proof', 'run.mjs');
  const args = [program, target, `--package=${root}`, '--rehearse', '--only=curve', ...options];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    env: { ...process.env, OMP_NUM_THREADS: '1', OMP_WAIT_POLICY: 'passive' },
  });
  const result = JSON.parse(readFileSync(target, 'utf8')) as Proof;
  return { status, out: stdout + stderr, result };
}

t.test('a rehearsal: some steps of Cnn6 as in PyTorch', { skip, timeout: 300_000 }, async (t) => {
  t.testdir();
  const { status, out, result } = rehearse(t);
  t.equal(status, 0, out);
  const { results = [], notReached } = result.curve;
  t.equal(notReached, 0);
  const [row] = results;
  t.match(row, { ok: true, losses: { ok: true }, gradients: { ok: true } });
  const { own = [], torch = [] } = row?.curves ?? {};
  t.equal(torch.length, 4, 'a run and three reruns');
  for (const losses of [own, ...torch]) t.equal(losses.length, 4);
  t.equal(new Set(own).size, 4, 'the loss changes');
  // Reruns add up in other orders, and so round otherwise; they compute the same.
  const spread = row?.losses.stretches[0]?.spread ?? Number.NaN;
  t.ok(spread > 0 && spread < 1e-2, `${spread}`);
});

t.test('no PyTorch: left out, and no failure', { skip: built }, async (t) => {
  const folder = t.testdir({ python: '#!/bin/sh\necho "No module named torch" >&2\nexit 1\n' });
  chmodSync(join(folder, 'python'), 0o755);
  for (const [program, reason] of [
    [join(folder, 'python'), /No module named torch/],
    [join(folder, 'none'), /ENOENT/],
  ] as const) {
    const { status, out, result } = rehearse(t, `--python=${program}`);
    t.equal(status, 0, out);
    t.match(result, { outcome: /^all held, curve left out/, curve: { leftOut: reason } });
  }
});

t.test('a PyTorch that ends or hangs', { skip: built }, async (t) => {
  const folder = t.testdir();
  const stage = (name: string, then: string) => {
    const hello = JSON.stringify({ torch: '2.0', cuda: null, missing: null });
    const text = `#!/bin/sh\nread line\necho '${hello}'\nread line\n${then}\n`;
    writeFileSync(join(folder, name), text);
    chmodSync(join(folder, name), 0o755);
    return `--python=${join(folder, name)}`;
  };
  const ended = rehearse(t, stage('ends', 'echo "out of memory" >&2\nexit 9'));
  t.equal(ended.status, 1, ended.out);
  const message = /^PyTorch: it ended \(9\): out of memory/;
  t.match(ended.result.curve, { notReached: 0, results: [{ ok: false, message }] });
  const hung = rehearse(t, stage('hangs', 'exec sleep 600'), '--seconds=2');
  t.equal(hung.status, 1, hung.out);
  t.match(hung.result.curve, { notReached: 1, results: [] });
});
