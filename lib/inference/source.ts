import { resample } from '../audio/decode.js';
import { isSamples, type Samples, toFloats } from '../audio/int16.js';
import { loadAudio } from '../audio/load.js';
import { createStreamResampler } from '../audio/stream.js';
import { AbortError, checkOptions, kindOf, PannsError, throwIfAborted } from '../errors.js';
import { shareBytes } from '../native/call.js';
import type { ReadSamples } from './windows.js';

/** What can be listened to: a file by its path or its bytes, or mono samples. */
export type AudioSource = string | Uint8Array | Samples;

/** As native/audio/resample.h has it. */
const MOST_RATE = 768_000;

/** Options of `openSource`. */
export interface SourceOptions {
  /** Of raw samples, in Hz; default that of the model. */
  sampleRate?: number | undefined;
  /** Of a file: whether NaN and infinite samples are read as 0 instead of an error; default false. */
  nanToZero?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** The names of {@link SourceOptions}. */
export const sourceOptionNames: readonly (keyof SourceOptions)[] = [
  ...(['sampleRate', 'nanToZero', 'signal'] as const),
];

/** Audio that is read range by range. */
export interface OpenSource {
  readonly read: ReadSamples;
  /** Whether the end was met of a file that is cut off: it says that it holds more. */
  readonly truncated: () => boolean;
}

/** How far before a range, in seconds, another one begins that is to reach over its beginning. */
const STEP_BACK_SECONDS = 0.1;

/**
 * A reader of `source` at `rate` Hz; files are decoded range by range, so memory does not grow.
 *
 * @throws PannsError `ERR_PANNS_OPTION`; AbortError. Reading throws `ERR_PANNS_AUDIO_*`, `ERR_PANNS_IO`
 */
export async function openSource(
  source: AudioSource,
  rate: number,
  options: SourceOptions,
  where: string,
): Promise<OpenSource> {
  checkOptions(options, sourceOptionNames, where);
  const { sampleRate, nanToZero, signal } = options;
  throwIfAborted(signal);
  checkRate(sampleRate, where);
  if (isSamples(source)) {
    checkFileOption(nanToZero, where);
    const samples = await resample(await audible(source, where), sampleRate ?? rate, rate);
    const read: ReadSamples = async (start, count) => samples.subarray(start, start + count);
    return { read, truncated: () => false };
  }
  if (typeof source !== 'string' && !(source instanceof Uint8Array)) {
    const expected =
      'a path, the bytes of a file as Uint8Array, or samples as Float32Array or Int16Array';
    const actual = kindOf(source);
    const what = `expected source to be ${expected}, got ${actual}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, expected, actual });
  }
  if (sampleRate !== undefined) {
    const what = `expected sampleRate to be absent: a file knows its own, got ${sampleRate}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: sampleRate });
  }
  // Every range is read from the same bytes, which would else be copied each time.
  const file = typeof source === 'string' ? source : await shareBytes(source);
  let truncated = false;
  const load = async (start: number, seconds: number) => {
    const range = { start, duration: seconds, sampleRate: rate };
    const audio = await loadAudio(file, { ...range, nanToZero, signal });
    truncated ||= audio.truncated;
    return audio.samples;
  };
  const read: ReadSamples = async (start, count) => {
    try {
      return await load(start / rate, count / rate);
    } catch (error) {
      if (!isPastEnd(error) || start === 0) throw error;
    }
    // Nothing comes of a range that begins where the file is cut: one that reaches over it says so.
    const before = Math.max(0, start / rate - STEP_BACK_SECONDS);
    try {
      if (!truncated) await load(before, 2 * STEP_BACK_SECONDS);
    } catch (error) {
      if (!isPastEnd(error)) throw error;
    }
    return new Float32Array(0);
  };
  return { read, truncated: () => truncated };
}

/**
 * A reader of samples that come in pieces of any length, one reading after another; `close` tells the
 * source that no more is wanted. Another `sampleRate` than `rate` is converted as the pieces come.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for a rate that is none. Reading throws `ERR_PANNS_SHAPE` for
 *   pieces that are no samples, `ERR_PANNS_OPTION` for floats far outside [-1, 1], AbortError, and what
 *   the source throws
 */
export function openStream(
  source: AsyncIterable<Samples>,
  rate: number,
  { sampleRate = rate, nanToZero, signal }: SourceOptions,
  where: string,
): { read: ReadSamples; close: () => Promise<void> } {
  checkRate(sampleRate, where);
  checkFileOption(nanToZero, where);
  const resampler = createStreamResampler(sampleRate, rate);
  const pieces = source[Symbol.asyncIterator]();
  let rest: Float32Array = new Float32Array(0);
  let ended = false;
  let waiting = false;
  const next = async () => {
    waiting = true;
    try {
      return await pieces.next();
    } finally {
      waiting = false;
    }
  };
  const read: ReadSamples = async (_start, count) => {
    const samples = new Float32Array(count);
    let filled = 0;
    for (;;) {
      const part = rest.subarray(0, count - filled);
      samples.set(part, filled);
      filled += part.length;
      rest = rest.subarray(part.length);
      if (filled === count || ended) return samples.subarray(0, filled);
      throwIfAborted(signal);
      const { value, done } = await unlessAborted(next(), signal);
      ended = done === true;
      if (!ended && !isSamples(value)) {
        const what = `expected the stream to give Float32Arrays or Int16Arrays, got ${kindOf(value)}`;
        throw new PannsError('ERR_PANNS_SHAPE', what, { where });
      }
      rest = ended ? await resampler.end() : await resampler.push(await audible(value, where));
    }
  };
  return {
    read,
    async close() {
      if (ended) return;
      const told = pieces.return?.();
      // A generator hears of it when its wait is over, which may be never.
      if (waiting) Promise.resolve(told).catch(() => undefined);
      else await told;
    },
  };
}

/** What a promise comes to, but an AbortError as soon as the signal is aborted. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(new AbortError(undefined, { cause: signal.reason }));
    signal.addEventListener('abort', stop, { once: true });
  });
  if (signal.aborted) stop();
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function checkFileOption(nanToZero: boolean | undefined, where: string): void {
  if (nanToZero === undefined) return;
  const what = `expected nanToZero to be absent: it is for files, got ${nanToZero}`;
  throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: nanToZero });
}

function isPastEnd(error: unknown): boolean {
  return error instanceof PannsError && error.code === 'ERR_PANNS_AUDIO_RANGE';
}

/** Floats that reach this are 16-bit integers in disguise: no recording is 40 dB over full scale. */
const FAR_OUTSIDE = 100;

/** Samples as floats, whose scale is that of audio. */
async function audible(samples: Samples, where: string): Promise<Float32Array> {
  const { floats, peak } = await toFloats(samples);
  if (!Number.isFinite(peak) || peak < FAR_OUTSIDE) return floats;
  const what = `expected samples in -1..1, they reach ${peak}; divide 16-bit integers by 32768, or pass them as Int16Array`;
  throw new PannsError('ERR_PANNS_OPTION', what, { where, expected: '-1..1', actual: peak });
}

function checkRate(sampleRate: number | undefined, where: string): void {
  const valid = Number.isInteger(sampleRate ?? 1);
  if (valid && (sampleRate ?? 1) >= 1 && (sampleRate ?? 1) <= MOST_RATE) return;
  const expected = `a whole number of Hz in 1..${MOST_RATE}`;
  const what = `expected sampleRate to be ${expected}, got ${sampleRate}`;
  throw new PannsError('ERR_PANNS_OPTION', what, { where, expected, actual: sampleRate });
}
