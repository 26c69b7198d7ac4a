// Runs cases: both sides in turn, medians, spreads and the ratio of each round.
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { cases } from './cases.mjs';
import { median, open } from './side.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: 'string', default: '7' }, out: { type: 'string' } },
});
const venv = join(here, '..', '.venv', 'bin', 'python');
const python = process.env.PANNS_PYTHON ?? (existsSync(venv) ? venv : 'python3');

const spread = (list) => [Math.min(...list), Math.max(...list)];
const rounds = Number(values.rounds);
const names = positionals.length > 0 ? positionals : Object.keys(cases);
const results = [];
for (const name of names) {
  const { title, work, peers, goal } = cases[name];
  const sides = new Map([
    ['panns', await open('node', [join(here, 'own.mjs'), JSON.stringify(work)])],
  ]);
  for (const peer of peers) {
    sides.set(peer, await open(python, [join(here, 'peer.py'), JSON.stringify(work), peer]));
  }
  const times = new Map([...sides.keys()].map((side) => [side, []]));
  for (let round = 0; round < rounds; round++) {
    for (const [side, process] of sides) times.get(side).push(await process.time());
  }
  const rows = [];
  for (const [side, process] of sides) {
    const ms = times.get(side);
    const ratios = ms.map((t, i) => t / times.get('panns')[i]);
    rows.push({
      side,
      median: median(ms),
      spread: spread(ms),
      ratio: median(ratios),
      peakMiB: (await process.end()) / 1024, // of kB
    });
  }
  const best = Math.min(...rows.slice(1).map(({ ratio }) => ratio));
  results.push({ name, title, work, goal, best, rows });
  console.log(`\n${title}${goal ? `  (goal: ${goal}x the best peer)` : ''}`);
  for (const {
    side,
    median: m,
    spread: [low, high],
    ratio,
    peakMiB,
  } of rows) {
    const rate = work.gflop ? `  ${((work.gflop / m) * 1e3).toFixed(0)} GFLOP/s` : '';
    console.log(
      `  ${side.padEnd(20)} ${m.toFixed(2).padStart(9)} ms  (${low.toFixed(2)}..${high.toFixed(2)})` +
        `  ${ratio.toFixed(2)}x  peak ${peakMiB.toFixed(0)} MiB${rate}`,
    );
  }
}
const versions = spawnSync(
  python,
  ['-c', 'import torch,numpy;print(torch.__version__,numpy.__version__)'],
  {
    encoding: 'utf8',
  },
).stdout.trim();
const report = {
  date: new Date().toISOString().slice(0, 10),
  machine: {
    cpu: cpus()[0].model,
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
  },
  versions: { node: process.versions.node, 'torch numpy': versions },
  rounds,
  results,
};
if (values.out) writeFileSync(values.out, `${JSON.stringify(report, null, 1)}\n`);
