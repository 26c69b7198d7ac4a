import { resample } from '../audio/decode.js';
import { loadAudio } from '../audio/load.js';
import { checkOptions, PannsError, throwIfAborted } from '../errors.js';
import type { ReadSamples } from './windows.js';

/** What can be listened to: a file by its path or its bytes, or mono samples in [-1, 1]. */
export type AudioSource = string | Uint8Array | Float32Array;

/** Options of `openSource`. */
export interface SourceOptions {
  /** Of raw samples, in Hz; default that of the model. */
  sampleRate?: number | undefined;
  signal?: AbortSignal | undefined;
}

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
): Promise<ReadSamples> {
  checkOptions(options, ['sampleRate', 'signal'], where);
  const { sampleRate, signal } = options;
  throwIfAborted(signal);
  if (source instanceof Float32Array) {
    const samples = await resample(source, sampleRate ?? rate, rate);
    return async (start, count) => samples.subarray(start, start + count);
  }
  if (typeof source !== 'string' && !(source instanceof Uint8Array)) {
    const expected = 'a path, the bytes of a file, or samples as Float32Array';
    const what = `expected source to be ${expected}, got ${typeof source}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, expected, actual: typeof source });
  }
  if (sampleRate !== undefined) {
    const what = `expected sampleRate to be absent: a file knows its own, got ${sampleRate}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: sampleRate });
  }
  return async (start, count) => {
    try {
      const range = { start: start / rate, duration: count / rate, sampleRate: rate, signal };
      return (await loadAudio(source, range)).samples;
    } catch (error) {
      const past = error instanceof PannsError && error.code === 'ERR_PANNS_AUDIO_RANGE';
      if (past && start > 0) return new Float32Array(0);
      throw error;
    }
  };
}

/**
 * A reader of samples that come in pieces of any length, one reading after another; `close` tells the
 * source that no more is wanted.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for another sample rate than the model's. Reading throws
 *   `ERR_PANNS_SHAPE` for what is no Float32Array, AbortError, and what the source throws
 */
export function openStream(
  source: AsyncIterable<Float32Array>,
  rate: number,
  { sampleRate, signal }: SourceOptions,
  where: string,
): { read: ReadSamples; close: () => Promise<void> } {
  if (sampleRate !== undefined && sampleRate !== rate) {
    const what = `expected a stream at the model's ${rate} Hz, got ${sampleRate} Hz`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, expected: rate, actual: sampleRate });
  }
  const pieces = source[Symbol.asyncIterator]();
  let rest: Float32Array = new Float32Array(0);
  let ended = false;
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
      const { value, done } = await pieces.next();
      ended = done === true;
      if (!ended && !(value instanceof Float32Array)) {
        const what = `expected the stream to give Float32Arrays, got ${typeof value}`;
        throw new PannsError('ERR_PANNS_SHAPE', what, { where });
      }
      rest = ended ? new Float32Array(0) : value;
    }
  };
  return {
    read,
    async close() {
      if (!ended) await pieces.return?.();
    },
  };
}
