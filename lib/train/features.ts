import { createHash } from 'node:crypto';
import type { Clip, Dataset } from '../data/dataset.js';
import {
  type BatchLoader,
  createBatchLoader,
  type LoaderState,
  wholeBatch,
} from '../data/loader.js';
import type { ClipReader, Decode } from '../data/reader.js';
import { type Sampler, sequentialSampler } from '../data/sampler.js';
import { PannsError, throwIfAborted } from '../errors.js';
import { type Model, modelInternals } from '../inference/model.js';
import { ancestors, type Cut } from '../models/parts.js';
import { callNative } from '../native/call.js';
import { collectResults, type Evaluation, scoreOutputs } from './evaluate.js';

/** What the frozen part of a network made of every clip of a data set. */
export interface Features {
  readonly cut: Cut;
  /** (N, columns), in the order of the data set. */
  readonly values: Float32Array;
}

/** Clips that go through the frozen part at once: as many samples as 8 clips of 10 s at 32 kHz. */
const SAMPLES_AT_ONCE = 8 * 320_000;
const MOST_CLIPS = 32;

/** Rows that go through the head at once. */
const ROWS_AT_ONCE = 256;

/**
 * Features that trainings share: what the same frozen part makes of the same clip is computed once.
 *
 * Clips are told apart by path, start and duration: use it with one decoder, and while files stay as
 * they are. Memory is 4 bytes a value, as long as the store is held.
 */
export interface FeatureStore {
  /**
   * Of this model up to the cut, on clips of so many samples: the rows that are known, by clip.
   * @internal
   */
  rows(model: Model, cut: Cut, samples: number): Promise<Map<string, Float32Array>>;
}

/** An empty {@link FeatureStore}. */
export function createFeatureStore(): FeatureStore {
  const known = new Map<string, Map<string, Float32Array>>();
  return {
    async rows(model, cut, samples) {
      const key = `${samples} ${await frozenDigest(model, cut)}`;
      const rows = known.get(key) ?? new Map<string, Float32Array>();
      known.set(key, rows);
      return rows;
    },
  };
}

/** Bytes that are hashed without a pause: about half a millisecond. */
const HASHED_AT_ONCE = 256 * 1024;

/** Of all that features depend on: the layers up to the cut, and their weights. */
async function frozenDigest(model: Model, { node }: Cut): Promise<string> {
  const { native, description } = modelInternals(model);
  const { spec, stateDict } = description;
  const layers = ancestors(spec, [node], true);
  const paths = new Set([...layers].map((i) => spec.nodes[i]?.path));
  const hash = createHash('sha256').update(JSON.stringify([spec.nodes.slice(0, node + 1), node]));
  for (const { name, role } of stateDict) {
    const owner = name.slice(0, name.lastIndexOf('.'));
    if (!(role === 'parameter' || role === 'buffer') || !paths.has(owner)) continue;
    const { buffer, byteOffset, byteLength } = await callNative(model.name, () => native.get(name));
    for (let at = 0; at < byteLength; at += HASHED_AT_ONCE) {
      if (at > 0) await new Promise(setImmediate);
      const length = Math.min(HASHED_AT_ONCE, byteLength - at);
      hash.update(new Uint8Array(buffer, byteOffset + at, length));
    }
  }
  return hash.digest('hex');
}

const keyOf = ({ path, start, duration, packed }: Clip) =>
  JSON.stringify([path, start, duration, packed?.offset]);

/**
 * Computes what a network makes of each clip up to a cut, as at inference; with a store, of the clips
 * that it lacks.
 *
 * Clips are cut or padded to `samples`. Memory: 4 bytes a value of the result, and a few batches.
 *
 * @throws PannsError `ERR_PANNS_DATA` for clips that cannot be decoded, `ERR_PANNS_NAN`; AbortError
 */
export async function computeFeatures(
  model: Model,
  cut: Cut,
  dataset: Dataset,
  options: {
    readonly samples: number;
    readonly decode?: Decode | ClipReader | undefined;
    readonly store?: FeatureStore | undefined;
    readonly onProgress?: (done: number, total: number) => void;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<Features> {
  const { samples, decode, store, onProgress, signal } = options;
  const { native } = modelInternals(model);
  const { node, columns } = cut;
  const known = await store?.rows(model, cut, samples);
  const values = new Float32Array(dataset.clips.length * columns);
  const rowAt = (place: number) => values.subarray(place * columns, (place + 1) * columns);
  const missing: number[] = [];
  for (const [place, clip] of dataset.clips.entries()) {
    const row = known?.get(keyOf(clip));
    if (row === undefined) missing.push(place);
    else rowAt(place).set(row);
  }
  const clips = missing.map((place) => dataset.clips[place] as Clip);
  if (clips.length === 0) return { cut, values };
  // One size whatever the number of clips: the core compiles once, and a clip's features never depend
  // on which others are computed with it.
  const batchSize = Math.min(MOST_CLIPS, Math.max(1, Math.floor(SAMPLES_AT_ONCE / samples)));
  const loader = createBatchLoader({
    ...{ clips, decode, batchSize, samplesPerClip: samples, cache: 'none' },
    ...{ classes: model.classCount, sampleRate: model.sampleRate },
    sampler: sequentialSampler(clips.length),
  });
  const output = `#${node}`;
  let done = 0;
  try {
    for await (const batch of loader) {
      throwIfAborted(signal);
      const { indices } = batch;
      const rows = wholeBatch(batch);
      const answer = await callNative(
        model.name,
        (cancel) => native.infer(rows, batchSize, samples, [output], cancel),
        signal,
      );
      loader.release?.(batch);
      const made = answer[output]?.subarray(0, indices.length * columns) ?? new Float32Array(0);
      if (!made.every((value) => Number.isFinite(value))) {
        const what = `the features of ${clips[done]?.id} or a clip after it are not finite`;
        throw new PannsError('ERR_PANNS_NAN', what, { where: model.name });
      }
      for (const [i, index] of indices.entries()) {
        const row = rowAt(missing[index] ?? Number.NaN);
        row.set(made.subarray(i * columns, (i + 1) * columns));
        known?.set(keyOf(clips[index] as Clip), row);
      }
      done += indices.length;
      onProgress?.(done, clips.length);
    }
  } finally {
    loader.close();
  }
  return { cut, values };
}

/** Batches of features in a sampler's order: the clips that a loader of their waveforms would give. */
export function createFeatureLoader(
  { cut: { columns }, values }: Features,
  dataset: Dataset,
  { sampler, batchSize }: { sampler: Sampler; batchSize: number },
  state: LoaderState | undefined,
): BatchLoader {
  const { clips } = dataset;
  const classes = dataset.classes.length;
  let batch = state?.batch ?? 0;
  if (state !== undefined) sampler.restore(state.sampler);
  let consumed: LoaderState = { sampler: sampler.state(), batch };
  let closed = false;
  const loader: BatchLoader = {
    async next() {
      const epoch = sampler.epoch();
      const indices = closed ? [] : sampler.take(batchSize);
      if (indices.length === 0) return { done: true, value: undefined };
      const waveform = new Float32Array(indices.length * columns);
      const target = new Float32Array(indices.length * classes);
      for (const [row, index] of indices.entries()) {
        waveform.set(values.subarray(index * columns, (index + 1) * columns), row * columns);
        for (const label of clips[index]?.labels ?? []) target[row * classes + label] = 1;
      }
      consumed = { sampler: sampler.state(), batch: ++batch };
      const value = { waveform, target, indices, epoch, stateAfter: consumed };
      return { done: false, value };
    },
    async return() {
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => loader,
    close() {
      closed = true;
    },
    state: () => consumed,
    skipped: [],
    cachedBytes: values.byteLength,
  };
  return loader;
}

/** Scores clips by their features: {@link evaluate} without the part that is frozen. */
export async function evaluateFeatures(
  model: Model,
  { cut: { node, columns }, values }: Features,
  dataset: Dataset,
  loss: 'bce' | 'cross_entropy',
  signal: AbortSignal | undefined,
): Promise<Evaluation> {
  const { native } = modelInternals(model);
  const results = collectResults(dataset, loss);
  const clips = dataset.clips.length;
  const batch = Math.min(ROWS_AT_ONCE, clips);
  const rows = new Float32Array(batch * columns);
  for (let first = 0; first < clips; first += batch) {
    throwIfAborted(signal);
    const count = Math.min(batch, clips - first);
    rows.set(values.subarray(first * columns, (first + count) * columns));
    const { clipwise_output, logits } = await callNative(model.name, () =>
      native.infer(rows, batch, columns, scoreOutputs(loss), undefined, node),
    );
    results.add(count, clipwise_output as Float32Array, logits);
  }
  return results.finish();
}
