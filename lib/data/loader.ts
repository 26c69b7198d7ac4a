import type { Samples } from '../audio/int16.js';
import { checkOptions, kindOf, optionCheck, PannsError } from '../errors.js';
import { createBuffers } from './buffers.js';
import { createClipSource } from './clip_source.js';
import type { Clip, SkippedClip } from './dataset.js';
import { createRandom, mixupWeights } from './random.js';
import { type ClipReader, checkPackedRate, type Decode } from './reader.js';
import type { Sampler, SamplerState } from './sampler.js';

/** Where a loader stands, as JSON: goes into a checkpoint. */
export interface LoaderState {
  readonly sampler: SamplerState;
  /** Batches consumed; the mixup weights of a batch follow from its number. */
  readonly batch: number;
}

/** B clips (2B where mixup asks for pairs), as the training step takes them. */
export interface Batch<S extends Samples = Samples> {
  /** (B, S): mono samples, zeros after the end of a short clip. */
  readonly waveform: S;
  /** (B, K): 1 for each label of the clip, else 0. */
  readonly target: Float32Array;
  /** (B): with mixup only, weights [l0, 1 - l0, l1, 1 - l1, ...] of the rows 2i and 2i + 1. */
  readonly lambda?: Float32Array;
  /** (B): which clips these are. */
  readonly indices: readonly number[];
  /** The sampler's complete passes when the batch was drawn. */
  readonly epoch: number;
  /** The loader's state once this batch is consumed. */
  readonly stateAfter: LoaderState;
}

/** Options of {@link createBatchLoader}. */
export interface LoaderOptions {
  clips: readonly Clip[];
  /** K, the columns of `target`. */
  classes: number;
  /** S: longer clips are cut, shorter ones are padded with zeros. */
  samplesPerClip: number;
  /**
   * Of the clips, in seconds: of those that are longer than S each epoch takes another part, which the
   * seed fixes. Where a length is NaN, and without lengths, it is the beginning.
   */
  lengths?: readonly number[] | undefined;
  /** In Hz. */
  sampleRate: number;
  /** Reads clips; default audio files. Packed clips are read as they are. */
  decode?: Decode | ClipReader | undefined;
  sampler: Sampler;
  /** B; with mixup, the number of mixed examples, so that a batch has 2B rows. */
  batchSize: number;
  mixup?: boolean | undefined;
  /** Of the Beta(alpha, alpha) that mixup weights come from; default 1, as PANNs. */
  mixupAlpha?: number | undefined;
  /** Of the mixup weights and the parts of clips; default 0. */
  seed?: number | undefined;
  /**
   * Whether decoded clips stay in memory, 2 bytes a sample; default `'memory-int16'`, and `'none'` where
   * `decode` is a reader that remembers them. Packed clips are never kept.
   */
  cache?: 'memory-int16' | 'none' | undefined;
  /** The most that the cache may hold; clips past it are decoded again each time. Default 2 GiB. */
  cacheBytes?: number | undefined;
  /** Batches made ahead while one is being consumed; default 2. */
  prefetch?: number | undefined;
  /** What to do about clips that cannot be decoded; default `'throw'`. */
  onBadClip?: 'throw' | 'skip' | undefined;
}

/** Makes batches ahead of their use; an async iterator that ends where the sampler does. */
export interface BatchLoader<S extends Samples = Samples> extends AsyncIterableIterator<Batch<S>> {
  next(): Promise<IteratorResult<Batch<S>, undefined>>;
  /** Stops making batches; the loader ends. Breaking out of `for await` does not call it. */
  close(): void;
  /** The state after the last batch that was handed out, whatever was made ahead. */
  state(): LoaderState;
  /**
   * Gives the memory of a batch back, for one to come: nobody may read the batch from then on. Batches
   * that are never given back stay as they are.
   */
  release?(batch: Batch<S>): void;
  /** Clips that were skipped, with the decoder's reasons. */
  readonly skipped: readonly SkippedClip[];
  /** Bytes of decoded clips in memory. */
  readonly cachedBytes: number;
}

const check = optionCheck('loader');

const OPTION_NAMES: readonly (keyof LoaderOptions)[] = [
  'clips',
  'classes',
  'samplesPerClip',
  'lengths',
  'sampleRate',
  'decode',
  'sampler',
  'batchSize',
  'mixup',
  'mixupAlpha',
  'seed',
  'cache',
  'cacheBytes',
  'prefetch',
  'onBadClip',
];

/** Holds 6,700 clips of 5 s at 32 kHz; a set that is larger still trains, decoding what is over. */
const DEFAULT_CACHE_BYTES = 2 * 1024 ** 3;

/**
 * A loader of batches over clips.
 *
 * Every clip comes in the 16-bit form of PANNs' packed files ({@link toInt16}), cached or not, so a
 * batch does not depend on the cache. Clips are read into the batch's memory off the event loop, those
 * of one batch together; batches are made one after another. The order depends on the sampler alone,
 * never on timing. `state`, if given, is where an earlier loader over the same clips stood.
 *
 * Iterating throws `ERR_PANNS_DATA` naming the clips that cannot be decoded, unless `onBadClip` is
 * `'skip'`: then the sampler's next clips take their places.
 *
 * @throws PannsError `ERR_PANNS_OPTION`; `ERR_PANNS_CHECKPOINT` for a state of other clips
 */
export function createBatchLoader(
  options: LoaderOptions,
  state?: LoaderState,
): BatchLoader<Int16Array> {
  const settings = checkedSettings(options);
  const { sampler, prefetch, samplesPerClip } = settings;
  const rows = settings.mixup ? 2 * settings.batchSize : settings.batchSize;
  let planned = 0;
  if (state !== undefined) {
    planned = checkedBatchNumber(state);
    sampler.restore(state.sampler);
  }
  let consumed: LoaderState = { sampler: sampler.state(), batch: planned };
  const buffers = createBuffers(rows * samplesPerClip);
  const cancel = new Uint8Array(new SharedArrayBuffer(1));
  const source = createClipSource(settings, cancel);
  const ready: Promise<Batch<Int16Array> | undefined>[] = [];
  let last: Promise<unknown> = Promise.resolve();
  let closed = false;

  const make = async (): Promise<Batch<Int16Array> | undefined> => {
    if (closed) return undefined;
    const epoch = sampler.epoch();
    const buffer = buffers.take();
    const indices = await source.draw(buffer, rows, epoch);
    // A pair needs two: mixup over a sampler that ends drops a last odd row.
    if (settings.mixup && indices.length % 2 === 1) indices.pop();
    if (indices.length === 0 || closed) return undefined;
    const number = planned++;
    const stateAfter = { sampler: sampler.state(), batch: planned };
    const waveform = buffers.lend(buffer, indices.length * samplesPerClip);
    const base = { waveform, target: targetOf(settings, indices), indices, epoch, stateAfter };
    if (!settings.mixup) return base;
    const random = createRandom(settings.seed, number);
    // Drawn for the rows of all processes, as one process would with a batch of all of them.
    const { rank, size } = sampler.share ?? { rank: 0, size: 1 };
    const all = mixupWeights((size * indices.length) / 2, settings.mixupAlpha, random);
    const first = rank * indices.length;
    return { ...base, lambda: all.slice(first, first + indices.length) };
  };
  const request = (): void => {
    const batch = last.then(make).catch((error: unknown) => {
      // What was under way when the loader was closed has been cancelled.
      if (closed) return undefined;
      throw error;
    });
    // A failure ends the chain: nothing is made after it. It is reported where it is awaited.
    last = batch;
    batch.catch(() => undefined);
    ready.push(batch);
  };
  const loader: BatchLoader<Int16Array> = {
    async next() {
      while (!closed && ready.length <= prefetch) request();
      const batch = closed ? undefined : await ready.shift();
      if (batch === undefined || closed) {
        loader.close();
        return { done: true, value: undefined };
      }
      consumed = batch.stateAfter;
      return { done: false, value: batch };
    },
    async return() {
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => loader,
    close() {
      closed = true;
      Atomics.store(cancel, 0, 1);
      ready.length = 0;
      buffers.drop();
    },
    state: () => consumed,
    release: ({ waveform }) => buffers.takeBack(waveform),
    get skipped() {
      return source.skipped;
    },
    get cachedBytes() {
      return source.cachedBytes;
    },
  };
  return loader;
}

type Settings = {
  [K in keyof LoaderOptions]-?: K extends 'decode'
    ? LoaderOptions[K]
    : Exclude<LoaderOptions[K], undefined>;
};

/**
 * All rows that the batches of a loader here have, of a last batch that may have fewer: the others hold
 * samples of no clip in particular.
 */
export function wholeBatch({ waveform }: Batch): Int16Array {
  return new Int16Array(waveform.buffer);
}

/** Whether a batch's clips are samples of 16 bits. */
export function holdsInt16(batch: Batch): batch is Batch<Int16Array> {
  return batch.waveform instanceof Int16Array;
}

/** (B, K): 1 for each label of the clip, else 0. */
function targetOf({ clips, classes }: Settings, indices: readonly number[]): Float32Array {
  const target = new Float32Array(indices.length * classes);
  for (const [row, index] of indices.entries()) {
    for (const label of clips[index]?.labels ?? []) target[row * classes + label] = 1;
  }
  return target;
}

function checkedSettings(options: LoaderOptions): Settings {
  checkOptions(options, OPTION_NAMES, 'loader');
  const settings: Settings = {
    ...options,
    decode: options.decode,
    lengths: options.lengths ?? [],
    mixup: options.mixup ?? false,
    mixupAlpha: options.mixupAlpha ?? 1,
    seed: options.seed ?? 0,
    // A reader that remembers clips keeps them already.
    cache: options.cache ?? (typeof options.decode === 'object' ? 'none' : 'memory-int16'),
    cacheBytes: options.cacheBytes ?? DEFAULT_CACHE_BYTES,
    prefetch: options.prefetch ?? 2,
    onBadClip: options.onBadClip ?? 'throw',
  };
  const { clips, classes, mixupAlpha, cacheBytes, prefetch, sampleRate } = settings;
  for (const name of ['classes', 'samplesPerClip', 'sampleRate', 'batchSize'] as const) {
    const whole = Number.isSafeInteger(settings[name]) && settings[name] >= 1;
    check(name, settings[name], whole, 'a whole number >= 1');
  }
  const ahead = Number.isSafeInteger(prefetch) && prefetch >= 0;
  check('prefetch', prefetch, ahead, 'a whole number >= 0');
  const { cache, onBadClip } = settings;
  check('cache', cache, cache === 'memory-int16' || cache === 'none', '"memory-int16" or "none"');
  // Clips that take the place of bad ones would be another process's.
  const skips = settings.sampler.share === undefined;
  const known = onBadClip === 'throw' || (onBadClip === 'skip' && skips);
  check('onBadClip', onBadClip, known, `"throw"${skips ? ' or "skip"' : ' in several processes'}`);
  check('cacheBytes', cacheBytes, cacheBytes >= 0, 'a number >= 0');
  const drawn = mixupAlpha > 0 && Number.isFinite(mixupAlpha);
  check('mixupAlpha', mixupAlpha, drawn, 'a finite number above 0');
  check('clips.length', clips.length, clips.length >= 1, 'at least 1');
  checkPackedRate(clips, sampleRate);
  for (const { id, labels } of clips) {
    if (!Array.isArray(labels)) {
      const what = `expected the labels of clip ${id} to be a list of class indices, got ${kindOf(labels)}`;
      throw new PannsError('ERR_PANNS_OPTION', what, { where: 'loader' });
    }
    const wrong = labels.find(
      (label) => !(Number.isInteger(label) && label >= 0 && label < classes),
    );
    if (wrong === undefined) continue;
    throw new PannsError('ERR_PANNS_OPTION', `clip ${id} has the label ${wrong}`, {
      where: 'loader',
      expected: `labels in 0..${classes - 1}`,
      actual: wrong,
    });
  }
  return settings;
}

function checkedBatchNumber(state: LoaderState): number {
  const { batch } = state ?? {};
  if (Number.isSafeInteger(batch) && batch >= 0) return batch;
  throw new PannsError('ERR_PANNS_CHECKPOINT', 'the saved state of the loader is damaged', {
    where: 'loader',
    expected: '{ sampler, batch }',
    actual: state,
  });
}
