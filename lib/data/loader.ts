import type { CancelFlag } from '../addon.js';
import type { Samples } from '../audio/int16.js';
import { checkOptions, PannsError } from '../errors.js';
import { allocateInt16 } from '../native/call.js';
import { type Clip, dataError, firstTen, type SkippedClip } from './dataset.js';
import { createRandom, mixupWeights } from './random.js';
import {
  type ClipReader,
  checkPackedRate,
  clipRequest,
  createRowCache,
  type Decode,
  type RowRequest,
  readerOf,
} from './reader.js';
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
  /** Whether decoded clips stay in memory, 2 bytes a sample; default `'memory-int16'`. */
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

/** Memory of batches that goes round: fresh pages cost as much as filling them. */
interface Buffers {
  /** One that nobody has. */
  take(): Int16Array;
  /** Its first samples, as a batch that can be taken back. */
  lend(buffer: Int16Array, samples: number): Int16Array;
  /** Of a batch that was lent, once; anything else is let be. */
  takeBack(batch: Int16Array): void;
  /** Keeps none. */
  drop(): void;
}

function createBuffers(length: number): Buffers {
  const free: Int16Array[] = [];
  const lent = new WeakMap<Int16Array, Int16Array>();
  let dropped = false;
  return {
    take: () => free.pop() ?? allocateInt16(length),
    lend(buffer, samples) {
      const batch = buffer.subarray(0, samples);
      lent.set(batch, buffer);
      return batch;
    },
    takeBack(batch) {
      const buffer = lent.get(batch);
      lent.delete(batch);
      if (buffer !== undefined && !dropped) free.push(buffer);
    },
    drop() {
      dropped = true;
      free.length = 0;
    },
  };
}

/**
 * All rows that the batches of a loader here have, of a last batch that may have fewer: the others hold
 * samples of no clip in particular.
 */
export function wholeBatch({ waveform }: Batch): Int16Array {
  return new Int16Array(waveform.buffer);
}

interface ClipSource {
  /**
   * Fills the rows of a buffer with the sampler's next clips that can be read, in their parts of an
   * epoch; returns which they are.
   */
  draw(buffer: Int16Array, rows: number, epoch: number): Promise<number[]>;
  readonly skipped: readonly SkippedClip[];
  readonly cachedBytes: number;
}

function createClipSource(settings: Settings, cancel: CancelFlag): ClipSource {
  const { clips, sampler, samplesPerClip } = settings;
  const reader = readerOf(settings.decode);
  const cache = createRowCache(reader, settings.cache === 'none' ? 0 : settings.cacheBytes);
  const bad = new Map<number, SkippedClip>();

  /** Reads clips, each into its row; those that cannot be read are in `bad` afterwards. */
  const fill = async (wanted: ReadonlyMap<number, Int16Array>, epoch: number): Promise<void> => {
    const places = [...wanted.keys()];
    const requests = [...wanted].map(([index, row]) => requestOf(settings, index, epoch, row));
    const results = requests.length === 0 ? [] : await cache.read(requests, cancel);
    const failures: SkippedClip[] = [];
    let cause: Error | undefined;
    for (const [i, result] of results.entries()) {
      if (typeof result === 'number') continue;
      const index = places[i] as number;
      const failure = describe(clips, index, result);
      cause ??= result;
      failures.push(failure);
      bad.set(index, failure);
    }
    if (failures.length > 0 && settings.onBadClip === 'throw') {
      const named = firstTen(failures.map(({ id, reason }) => `${id} (${reason})`));
      const what = `${failures.length} clips cannot be decoded: ${named}`;
      throw dataError('loader', what, { cause, actual: failures });
    }
  };

  const copy = async (requests: readonly RowRequest[]): Promise<void> => {
    const results = requests.length === 0 ? [] : await reader.read(requests);
    const failure = results.find((result) => result instanceof Error);
    if (failure !== undefined) throw failure;
  };

  return {
    async draw(buffer, rows, epoch) {
      const rowAt = (row: number) =>
        buffer.subarray(row * samplesPerClip, (row + 1) * samplesPerClip);
      const indices: number[] = [];
      const rowOf = new Map<number, Int16Array>();
      // Every clip has been drawn many times over by then: none of those drawn can be decoded.
      let attempts = 10 * clips.length + 1000;
      while (indices.length < rows) {
        const drawn = sampler.take(rows - indices.length);
        if (drawn.length === 0) break;
        const wanted = new Map<number, Int16Array>();
        for (const [i, index] of drawn.entries()) {
          if (bad.has(index) || rowOf.has(index) || wanted.has(index)) continue;
          wanted.set(index, rowAt(indices.length + i));
        }
        await fill(wanted, epoch);
        const good = drawn.filter((index) => !bad.has(index));
        const copies: RowRequest[] = [];
        for (const index of good) {
          const row = rowAt(indices.length);
          indices.push(index);
          const samples = rowOf.get(index);
          if (samples !== undefined) {
            // A clip that comes twice is read once.
            copies.push({ row, samples });
            continue;
          }
          rowOf.set(index, row);
          const read = wanted.get(index) as Int16Array;
          if (read.byteOffset === row.byteOffset) continue;
          // Rows move up behind a bad clip, one after another: each takes the place of one that has.
          await copy([{ row, samples: read }]);
        }
        await copy(copies);
        attempts -= drawn.length;
        if (good.length === 0 && attempts < 0) {
          const named = firstTen([...bad.values()].map(({ id }) => id));
          throw dataError('loader', `no clip that is drawn can be decoded: ${named}`);
        }
      }
      return indices;
    },
    get skipped() {
      return [...bad.values()];
    },
    get cachedBytes() {
      return cache.bytes;
    },
  };
}

/** Samples that a clip has more than are used; 0 where that is not known. */
function slackOf({ clips, lengths, sampleRate, samplesPerClip }: Settings, index: number): number {
  const length = lengths[index] ?? Number.NaN;
  if (Number.isNaN(length)) return 0;
  const samples = clips[index]?.packed?.samples ?? Math.floor(length * sampleRate);
  return Math.max(0, samples - samplesPerClip);
}

/** A stream of random numbers beside those of mixup. */
const PARTS = 1_000_003;

function requestOf(settings: Settings, index: number, epoch: number, row: Int16Array): RowRequest {
  const { clips, sampleRate, samplesPerClip, seed } = settings;
  const shape = { sampleRate, samples: samplesPerClip };
  const slack = slackOf(settings, index);
  const part = slack > 0 ? createRandom(seed, PARTS, index, epoch).integer(slack + 1) : undefined;
  return clipRequest(clips[index] as Clip, row, shape, part);
}

/** (B, K): 1 for each label of the clip, else 0. */
function targetOf({ clips, classes }: Settings, indices: readonly number[]): Float32Array {
  const target = new Float32Array(indices.length * classes);
  for (const [row, index] of indices.entries()) {
    for (const label of clips[index]?.labels ?? []) target[row * classes + label] = 1;
  }
  return target;
}

function describe(clips: readonly Clip[], index: number, error: Error): SkippedClip {
  const { id, path } = clips[index] as Clip;
  return { id, path, reason: error.message };
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
  const { clips, classes, mixupAlpha, cacheBytes, sampleRate } = settings;
  for (const name of ['classes', 'samplesPerClip', 'sampleRate', 'batchSize'] as const) {
    checkNumber(name, settings[name], Number.isSafeInteger(settings[name]) && settings[name] >= 1);
  }
  checkNumber(
    'prefetch',
    settings.prefetch,
    Number.isSafeInteger(settings.prefetch) && settings.prefetch >= 0,
  );
  checkChoice('cache', settings.cache, ['memory-int16', 'none']);
  // Clips that take the place of bad ones would be another process's.
  const policies = settings.sampler.share === undefined ? ['throw', 'skip'] : ['throw'];
  checkChoice('onBadClip', settings.onBadClip, policies);
  checkNumber('cacheBytes', cacheBytes, cacheBytes >= 0);
  checkNumber('mixupAlpha', mixupAlpha, mixupAlpha > 0 && Number.isFinite(mixupAlpha));
  checkNumber('clips.length', clips.length, clips.length >= 1);
  checkPackedRate(clips, sampleRate);
  for (const { id, labels } of clips) {
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

function checkChoice(name: string, value: string, choices: readonly string[]): void {
  if (choices.includes(value)) return;
  const what = `${name} is "${value}"; expected one of ${choices.join(', ')}`;
  throw new PannsError('ERR_PANNS_OPTION', what, {
    where: 'loader',
    expected: choices,
    actual: value,
  });
}

function checkNumber(name: string, value: number, valid: boolean): void {
  if (valid) return;
  throw new PannsError('ERR_PANNS_OPTION', `${name} is ${value}`, {
    where: 'loader',
    expected: 'a number in its range',
    actual: value,
  });
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
