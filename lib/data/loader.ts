import { type Samples, toInt16 } from '../audio/int16.js';
import { checkOptions, PannsError } from '../errors.js';
import { allocateInt16 } from '../native/call.js';
import { type Clip, dataError, firstTen, type SkippedClip } from './dataset.js';
import { createRandom, mixupWeights } from './random.js';
import type { Sampler, SamplerState } from './sampler.js';

/** What the loader asks of a decoder: mono float32 in [-1, 1] at `sampleRate`. */
export interface DecodeRequest {
  readonly path: string;
  readonly sampleRate: number;
  /** In seconds; default the beginning. */
  readonly start?: number;
  /** In seconds; default to the end. */
  readonly duration?: number;
  /** More samples than this are not used, so a decoder may stop there. */
  readonly maxSamples: number;
}

/** Decodes all requests, at once if it can: one result each, in order; an Error for a bad file. */
export type Decode = (
  requests: readonly DecodeRequest[],
) => Promise<readonly (Float32Array | Error)[]>;

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
  decode: Decode;
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
 * batch does not depend on the cache. Batches are made one after another and the clips of one
 * are decoded together; the order depends on the sampler alone, never on timing. `state`, if
 * given, is where an earlier loader over the same clips stood.
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
  const { sampler, prefetch } = settings;
  let planned = 0;
  if (state !== undefined) {
    planned = checkedBatchNumber(state);
    sampler.restore(state.sampler);
  }
  let consumed: LoaderState = { sampler: sampler.state(), batch: planned };
  const source = createClipSource(settings);
  const ready: Promise<Batch<Int16Array> | undefined>[] = [];
  let last: Promise<unknown> = Promise.resolve();
  let closed = false;

  const make = async (): Promise<Batch<Int16Array> | undefined> => {
    if (closed) return undefined;
    const epoch = sampler.epoch();
    const rows = settings.mixup ? 2 * settings.batchSize : settings.batchSize;
    const { indices, samples } = await source.draw(rows, epoch);
    // A pair needs two: mixup over a sampler that ends drops a last odd row.
    if (settings.mixup && indices.length % 2 === 1) indices.pop();
    if (indices.length === 0) return undefined;
    const number = planned++;
    const stateAfter = { sampler: sampler.state(), batch: planned };
    const batch = assemble(settings, indices, samples);
    const base = { ...batch, indices, epoch, stateAfter };
    if (!settings.mixup) return base;
    const random = createRandom(settings.seed, number);
    // Drawn for the rows of all processes, as one process would with a batch of all of them.
    const { rank, size } = sampler.share ?? { rank: 0, size: 1 };
    const all = mixupWeights((size * indices.length) / 2, settings.mixupAlpha, random);
    const first = rank * indices.length;
    return { ...base, lambda: all.slice(first, first + indices.length) };
  };
  const request = (): void => {
    const batch = last.then(make);
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
      ready.length = 0;
    },
    state: () => consumed,
    get skipped() {
      return source.skipped;
    },
    get cachedBytes() {
      return source.cachedBytes;
    },
  };
  return loader;
}

type Settings = { [K in keyof LoaderOptions]-?: Exclude<LoaderOptions[K], undefined> };

interface ClipSource {
  /** The sampler's next `rows` clips that can be decoded, in their parts of an epoch. */
  draw(
    rows: number,
    epoch: number,
  ): Promise<{ indices: number[]; samples: ReadonlyMap<number, Int16Array> }>;
  readonly skipped: readonly SkippedClip[];
  readonly cachedBytes: number;
}

function createClipSource(settings: Settings): ClipSource {
  const { clips, sampler } = settings;
  const cache = new Map<number, Int16Array>();
  const bad = new Map<number, SkippedClip>();
  let cachedBytes = 0;

  const fetch = async (
    wanted: readonly number[],
    epoch: number,
  ): Promise<Map<number, Int16Array>> => {
    const found = new Map<number, Int16Array>();
    const absent: number[] = [];
    for (const index of new Set(wanted)) {
      const samples = cache.get(index);
      if (samples !== undefined) found.set(index, samples);
      else if (!bad.has(index)) absent.push(index);
    }
    const failures: SkippedClip[] = [];
    let cause: Error | undefined;
    const results = absent.length === 0 ? [] : await decodeClips(settings, absent, epoch);
    for (const [i, index] of absent.entries()) {
      const result = results[i];
      if (result instanceof Error) {
        const failure = describe(clips, index, result);
        cause ??= result;
        failures.push(failure);
        bad.set(index, failure);
        continue;
      }
      const samples = result ?? new Int16Array(0);
      found.set(index, samples);
      // Another epoch takes another part.
      if (settings.cache === 'none' || slackOf(settings, index) > 0) continue;
      if (cachedBytes + samples.byteLength > settings.cacheBytes) continue;
      cache.set(index, samples);
      cachedBytes += samples.byteLength;
    }
    if (failures.length > 0 && settings.onBadClip === 'throw') {
      const named = firstTen(failures.map(({ id, reason }) => `${id} (${reason})`));
      const what = `${failures.length} clips cannot be decoded: ${named}`;
      throw dataError('loader', what, { cause, actual: failures });
    }
    return found;
  };

  return {
    async draw(rows, epoch) {
      const indices: number[] = [];
      const samples = new Map<number, Int16Array>();
      // Every clip has been drawn many times over by then: none of those drawn can be decoded.
      let attempts = 10 * clips.length + 1000;
      while (indices.length < rows) {
        const drawn = sampler.take(rows - indices.length);
        if (drawn.length === 0) break;
        for (const [index, data] of await fetch(drawn, epoch)) samples.set(index, data);
        const good = drawn.filter((index) => samples.has(index));
        indices.push(...good);
        attempts -= drawn.length;
        if (good.length === 0 && attempts < 0) {
          const named = firstTen([...bad.values()].map(({ id }) => id));
          throw dataError('loader', `no clip that is drawn can be decoded: ${named}`);
        }
      }
      return { indices, samples };
    },
    get skipped() {
      return [...bad.values()];
    },
    get cachedBytes() {
      return cachedBytes;
    },
  };
}

/** Samples that a clip has more than are used; 0 where that is not known. */
function slackOf({ lengths, sampleRate, samplesPerClip }: Settings, index: number): number {
  const length = lengths[index] ?? Number.NaN;
  return Number.isNaN(length) ? 0 : Math.max(0, Math.floor(length * sampleRate) - samplesPerClip);
}

/** A stream of random numbers beside those of mixup. */
const PARTS = 1_000_003;

async function decodeClips(
  settings: Settings,
  indices: readonly number[],
  epoch: number,
): Promise<(Int16Array | Error)[]> {
  const { clips, decode, sampleRate, samplesPerClip, seed } = settings;
  const requests = indices.map((index): DecodeRequest => {
    const { path, start, duration } = clips[index] as Clip;
    const slack = slackOf(settings, index);
    if (slack > 0) {
      const offset = createRandom(seed, PARTS, index, epoch).integer(slack + 1) / sampleRate;
      const part = { start: (start ?? 0) + offset, duration: samplesPerClip / sampleRate };
      return { path, sampleRate, maxSamples: samplesPerClip, ...part };
    }
    return {
      path,
      sampleRate,
      maxSamples: samplesPerClip,
      ...(start === undefined ? {} : { start }),
      ...(duration === undefined ? {} : { duration }),
    };
  });
  const results = await decode(requests);
  if (results.length !== requests.length) {
    const what = `decode gave ${results.length} results for ${requests.length} requests`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'loader' });
  }
  return results.map((result, i) => {
    if (result instanceof Error) return result;
    if (result.length === 0) return new Error('it holds no samples');
    const bad = result.findIndex((sample) => !Number.isFinite(sample));
    if (bad >= 0) return new Error(`sample ${bad} is ${result[bad]}`);
    const { duration } = requests[i] as DecodeRequest;
    const asked = duration === undefined ? samplesPerClip : Math.round(duration * sampleRate);
    return toInt16(result.subarray(0, Math.min(samplesPerClip, Math.max(1, asked))));
  });
}

function assemble(
  { clips, classes, samplesPerClip }: Settings,
  indices: readonly number[],
  samples: ReadonlyMap<number, Int16Array>,
): { waveform: Int16Array; target: Float32Array } {
  const waveform = allocateInt16(indices.length * samplesPerClip);
  const target = new Float32Array(indices.length * classes);
  for (const [row, index] of indices.entries()) {
    waveform.set(samples.get(index) ?? [], row * samplesPerClip);
    for (const label of clips[index]?.labels ?? []) target[row * classes + label] = 1;
  }
  return { waveform, target };
}

function describe(clips: readonly Clip[], index: number, error: Error): SkippedClip {
  const { id, path } = clips[index] as Clip;
  return { id, path, reason: error.message };
}

function checkedSettings(options: LoaderOptions): Settings {
  checkOptions(options, OPTION_NAMES, 'loader');
  const settings: Settings = {
    ...options,
    lengths: options.lengths ?? [],
    mixup: options.mixup ?? false,
    mixupAlpha: options.mixupAlpha ?? 1,
    seed: options.seed ?? 0,
    cache: options.cache ?? 'memory-int16',
    cacheBytes: options.cacheBytes ?? DEFAULT_CACHE_BYTES,
    prefetch: options.prefetch ?? 2,
    onBadClip: options.onBadClip ?? 'throw',
  };
  const { clips, classes, mixupAlpha, cacheBytes } = settings;
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
