// Batches for training, without a model: the package's loader beside PyTorch's DataLoader over the same
// clips, in turn. From a packed file (an .npy that PyTorch maps), from an HDF5 pack that PyTorch reads as
// audioset_tagging_cnn does, decoded in memory, and from WAV files that are decoded each time. A batch is rows of 10 s at 32 kHz in 16 bits, in random order.
//
//   node bench/loader.mjs [--rounds 5] [--clips 256] [--rows 64] [--folder /tmp] [--out name.json]
//     [--sources packed,hdf5,memory,files]
//   (PANNS_PYTHON: with torch, numpy, h5py and soundfile)
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { encodeWav16 } from '../dist/audio/wav.js';
import { fromFolder, packClips } from '../dist/index.js';
import { median, open } from './side.mjs';

const RATE = 32000;
const SECONDS = 10;
/** Batches of one repetition. */
const BATCHES = 8;

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    clips: { type: 'string', default: '256' },
    rows: { type: 'string', default: '64' },
    folder: { type: 'string', default: tmpdir() },
    sources: { type: 'string', default: 'packed,hdf5,memory,files' },
    out: { type: 'string' },
  },
});
const rounds = Number(values.rounds);
const rows = Number(values.rows);
const here = dirname(fileURLToPath(import.meta.url));
const python = process.env.PANNS_PYTHON ?? join(here, '..', '.venv', 'bin', 'python');

const folder = mkdtempSync(join(values.folder, 'panns-bench-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

/** WAV files of noise, a folder a class, and the same packed; returns clips packed a second. */
async function writeClips() {
  const count = Number(values.clips);
  const noise = new Float32Array(RATE * SECONDS + count).map(() => Math.random() - 0.5);
  for (let i = 0; i < count; i++) {
    const place = join(folder, 'files', `class ${i % 10}`);
    mkdirSync(place, { recursive: true });
    const clip = noise.subarray(i, i + RATE * SECONDS);
    writeFileSync(join(place, `${i}.wav`), encodeWav16(clip, RATE));
  }
  const dataset = await fromFolder(join(folder, 'files'));
  const began = performance.now();
  await packClips(dataset, join(folder, 'packed'));
  return count / ((performance.now() - began) / 1000);
}

const packedPerSecond = await writeClips();
spawnSync(python, [join(here, 'loader_torch.py'), 'pack', folder], { stdio: 'inherit' });
const workers = [0, 1, availableParallelism()];
const results = [];
for (const source of values.sources.split(',')) {
  const work = JSON.stringify({ source, folder, rows, batches: BATCHES });
  const sides = new Map([['panns', await open('node', [join(here, 'loader_own.mjs'), work])]]);
  for (const count of new Set(workers)) {
    const args = [join(here, 'loader_torch.py'), work, String(count)];
    sides.set(`torch, ${count} workers`, await open(python, args));
  }
  const times = new Map([...sides.keys()].map((side) => [side, []]));
  for (let round = 0; round < rounds; round++) {
    for (const [side, process] of sides) times.get(side).push(await process.time());
  }
  const loop = await sides.get('panns').ask('loop');
  const table = [];
  for (const [side, process] of sides) {
    const ms = times.get(side);
    const ratio = median(ms.map((t, i) => t / times.get('panns')[i]));
    const perSecond = 1000 / median(ms);
    const spread = [1000 / Math.max(...ms), 1000 / Math.min(...ms)];
    table.push({ side, perSecond, spread, ratio, peakMiB: (await process.end()) / 1024 });
  }
  results.push({ source, loopMsPerBatch: loop, sides: table });
  console.log(`\n${source}: batches a second (${loop.toFixed(2)} ms of the event loop each)`);
  for (const { side, perSecond, spread, ratio } of table) {
    const [low, high] = spread.map((n) => n.toFixed(1));
    console.log(
      `  ${side.padEnd(18)} ${perSecond.toFixed(1)}  (${low}..${high})  ${ratio.toFixed(2)}x`,
    );
  }
}
const versions = spawnSync(
  python,
  ['-c', 'import torch,numpy;print(torch.__version__,numpy.__version__)'],
  { encoding: 'utf8' },
).stdout.trim();
const report = {
  date: new Date().toISOString().slice(0, 10),
  machine: { cpu: cpus()[0].model, cores: availableParallelism(), load: loadavg().map(Math.round) },
  versions: { node: process.versions.node, 'torch numpy': versions },
  work: { clips: Number(values.clips), rows, seconds: SECONDS, rate: RATE, batches: BATCHES },
  ...{ rounds, packedPerSecond, results },
};
if (values.out) writeFileSync(values.out, `${JSON.stringify(report, null, 1)}\n`);
