// A Trainer as bench/gpu.mjs measures it, with each step's clips from one of these:
//   'ready'   the same batch each time: what the Trainer itself takes
//   'packed'  rows of one file of 16-bit samples, in random order, read ahead by a loader of our own
//   'memory'  WAV files through the package's loader, which keeps them decoded in memory
//   'files'   WAV files that are decoded each time
// Files are written to a folder for the time of the process.
import { createWriteStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';

/** Steps that a pass over all clips has: 328 MB of 10 s in batches of 32. */
const EPOCH_STEPS = 8;
const RATE = 32000;
const CLASSES = 527;
/** Batches read ahead, beside the one on its way to the device and the one in use. */
const AHEAD = 2;

/** The samples of the `index`-th clip: another part of one piece of noise. */
const clipOf = (pool, index, samples) => pool.subarray(index, index + samples);

async function writePacked(path, pool, count, samples) {
  const file = createWriteStream(path);
  for (let i = 0; i < count; i++) {
    const clip = clipOf(pool, i, samples);
    file.write(Buffer.from(new Uint8Array(clip.buffer, clip.byteOffset, clip.byteLength)));
  }
  file.end();
  await finished(file);
}

/** A batch loader that gives what `fill` has made of its slots' waveforms, some of them ahead. */
function createLoader(rows, samples, slots, fill) {
  const target = new Float32Array(rows * CLASSES).map((_, i) => (i % 101 === 0 ? 1 : 0));
  const ring = Array.from({ length: slots }, () => ({
    waveform: new Int16Array(new SharedArrayBuffer(2 * rows * samples)),
    indices: Array.from({ length: rows }, (_, i) => i),
  }));
  const state = () => ({ sampler: {}, batch: 0 });
  const waiting = [];
  let made = 0;
  const loader = {
    async next() {
      while (waiting.length <= Math.min(AHEAD, slots - 1)) {
        const slot = ring[made++ % slots];
        waiting.push(fill(slot.waveform).then(() => slot));
      }
      const { waveform, indices } = await waiting.shift();
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

async function packedLoader(folder, pool, rows, samples) {
  const path = join(folder, 'clips.int16');
  await writePacked(path, pool, EPOCH_STEPS * rows, samples);
  const file = await open(path);
  const bytes = 2 * samples;
  const fill = (waveform) => {
    const view = new Uint8Array(waveform.buffer);
    const read = async (row) => {
      const from = bytes * Math.floor(Math.random() * EPOCH_STEPS * rows);
      const { bytesRead } = await file.read(view, row * bytes, bytes, from);
      if (bytesRead !== bytes)
        throw new Error(`${path}: ${bytesRead} of ${bytes} bytes at ${from}`);
    };
    return Promise.all(Array.from({ length: rows }, (_, row) => read(row)));
  };
  return createLoader(rows, samples, AHEAD + 3, fill);
}

function wavDataset(folder, pool, count, samples, encodeWav16) {
  const classes = Array.from({ length: CLASSES }, (_, i) => `class ${i}`);
  const clips = Array.from({ length: count }, (_, i) => {
    const path = join(folder, `${i}.wav`);
    const floats = Float32Array.from(clipOf(pool, i, samples), (x) => x / 32768);
    writeFileSync(path, encodeWav16(floats, RATE));
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
      let full = false;
      const fill = async (waveform) => {
        if (full) return;
        for (let i = 0; i < rows; i++) waveform.set(clipOf(pool, i, samples), i * samples);
        full = true;
      };
      const loader = createLoader(rows, samples, 1, fill);
      return { loader: () => loader };
    },
    async packed() {
      const loader = await packedLoader(folder, pool, rows, samples);
      return { loader: () => loader };
    },
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
