// A Trainer as bench/gpu.mjs measures it, with each step's clips from one of these:
//   'ready'   the same batch each time: what the Trainer itself takes
//   'packed'  a packed data set, as packClips writes it
//   'memory'  WAV files, which the loader keeps decoded in memory
//   'files'   WAV files that are decoded each time
// Files are written to a folder for the time of the process.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Steps that a pass over all clips has: 328 MB of 10 s in batches of 32. */
const EPOCH_STEPS = 8;
const RATE = 32000;
const CLASSES = 527;
/** The samples of the `index`-th clip: another part of one piece of noise. */
const clipOf = (pool, index, samples) => pool.subarray(index, index + samples);

/** A batch loader that gives the same clips each time, mixed in other shares. */
function readyLoader(rows, samples, pool) {
  const waveform = new Int16Array(new SharedArrayBuffer(2 * rows * samples));
  for (let i = 0; i < rows; i++) waveform.set(clipOf(pool, i, samples), i * samples);
  const target = new Float32Array(rows * CLASSES).map((_, i) => (i % 101 === 0 ? 1 : 0));
  const indices = Array.from({ length: rows }, (_, i) => i);
  const state = () => ({ sampler: {}, batch: 0 });
  const loader = {
    async next() {
      const lambda = new Float32Array(rows);
      for (let i = 0; i < rows; i += 2) {
        lambda[i] = Math.random();
        lambda[i + 1] = 1 - lambda[i];
      }
      const value = { waveform, target, lambda, indices, epoch: 0, stateAfter: state() };
      return { done: false, value };
    },
    return: async () => ({ done: true, value: undefined }),
    [Symbol.asyncIterator]: () => loader,
    close() {},
    state,
    skipped: [],
    cachedBytes: 0,
  };
  return loader;
}

const classes = Array.from({ length: CLASSES }, (_, i) => `class ${i}`);
const floatsOf = (pool, index, samples) =>
  Float32Array.from(clipOf(pool, index, samples), (x) => x / 32768);

async function packedDataset(folder, pool, count, samples, { packClips, fromPacked }) {
  const clips = Array.from({ length: count }, (_, i) => {
    return { id: `${i}`, path: `${i}`, labels: [i % CLASSES] };
  });
  const decode = async (requests) =>
    requests.map(({ path }) => floatsOf(pool, Number(path), samples));
  const out = join(folder, 'packed');
  await packClips({ classes, clips, skipped: [] }, out, { seconds: samples / RATE, decode });
  return fromPacked(out);
}

function wavDataset(folder, pool, count, samples, encodeWav16) {
  const clips = Array.from({ length: count }, (_, i) => {
    const path = join(folder, `${i}.wav`);
    writeFileSync(path, encodeWav16(floatsOf(pool, i, samples), RATE));
    return { id: `${i}.wav`, path, labels: [i % CLASSES] };
  });
  return { classes, clips, skipped: [] };
}

/** The same work as a session's step, by the package's own Trainer. */
export async function prepareTrainer(work, load, noise) {
  const [panns, { encodeWav16 }] = await Promise.all([load('index.js'), load('audio/wav.js')]);
  const { model: name, device, precision, batch, samples, data } = work;
  const folder = mkdtempSync(join(work.folder ?? tmpdir(), 'panns-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const rows = 2 * batch;
  const clips = EPOCH_STEPS * rows;
  const pool = noise(samples + clips);
  const source = {
    async ready() {
      const loader = readyLoader(rows, samples, pool);
      return { loader: () => loader };
    },
    packed: async () => ({ dataset: await packedDataset(folder, pool, clips, samples, panns) }),
    memory: async () => ({ dataset: wavDataset(folder, pool, clips, samples, encodeWav16) }),
    files: async () => ({ ...(await source.memory()), cache: 'none' }),
  };
  const given = await source[data]();
  const model = await panns.createModel(name, { device, precision });
  const recipe = { batchSize: batch, clipSeconds: samples / RATE, mixup: true, steps: 2 ** 31 };
  const { total } = await panns.trainingMemory(model, recipe);
  const trainer = new panns.Trainer(model, {
    ...{ ...given, ...recipe },
    optimizer: { kind: 'adam', lr: 1e-4, amsgrad: true },
  });
  const steps = trainer[Symbol.asyncIterator]();
  return { bytes: total, step: async () => (await steps.next()).value.loss };
}
