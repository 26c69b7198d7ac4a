import type { AudioInfo, DecodeOptions } from '../addon.js';
import { checkOptions, PannsError } from '../errors.js';
import { callNative } from '../native/call.js';
import { loadNative } from '../native.js';

/** Options of {@link decodeAudio}. */
export interface DecodeAudioOptions {
  /** Where to begin, in seconds; default 0. */
  start?: number | undefined;
  /** How much to decode, in seconds; default to the end. Less comes where the audio ends before. */
  duration?: number | undefined;
  /** Of the result, in Hz; default the file's own. */
  sampleRate?: number | undefined;
  /** Whether channels are averaged to one; default true. */
  mono?: boolean | undefined;
  /** Whether NaN and infinite samples become 0 instead of an error; default false. */
  nanToZero?: boolean | undefined;
  /** More audio than this, in seconds, is an error; default 6 hours. */
  maxSeconds?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** Decoded audio. */
export interface Audio {
  /** One array a channel, of equal length; values in about [-1, 1]. */
  readonly channels: readonly Float32Array[];
  /** In Hz. */
  readonly sampleRate: number;
  /** Whether the file ended before it says it does. */
  readonly truncated: boolean;
}

/** What to do about samples that are not finite, for a message. */
export const NAN_REMEDY = 'set nanToZero, on the command line --nan-to-zero';

/** The names of {@link DecodeAudioOptions}. */
export const decodeOptionNames: readonly (keyof DecodeAudioOptions)[] = [
  ...(['start', 'duration', 'sampleRate', 'mono', 'nanToZero', 'maxSeconds', 'signal'] as const),
];

/** As in native/audio/decode.h: a small file can unfold to days of silence. */
const MAX_SECONDS = 6 * 3600;

/**
 * Decodes WAV, FLAC, Ogg, Opus, MP3, AIFF and what else libsndfile reads, or a range of it.
 *
 * @throws PannsError `ERR_PANNS_AUDIO_*`, `ERR_PANNS_IO`, `ERR_PANNS_OPTION`; AbortError
 */
export async function decodeAudio(
  source: string | Uint8Array,
  options: DecodeAudioOptions = {},
): Promise<Audio> {
  checkOptions(options, decodeOptionNames, 'decodeAudio');
  const { start = 0, duration, sampleRate = 0, mono = true, nanToZero = false } = options;
  const { maxSeconds = MAX_SECONDS, signal } = options;
  if (!(start >= 0)) throw rangeError('start', start, '0 s or later');
  if (duration !== undefined && !(duration > 0))
    throw rangeError('duration', duration, 'above 0 s');
  const request: DecodeOptions = {
    ...{ start, duration: duration ?? -1, sampleRate, mono, nanToZero, maxSeconds },
  };
  try {
    const audio = await callNative(
      nameOf(source),
      (cancel) => loadNative().decode(source, request, cancel),
      signal,
    );
    return { channels: audio.channels, sampleRate: audio.sampleRate, truncated: audio.truncated };
  } catch (error) {
    throw withRemedy(error);
  }
}

/** The core cannot know what the option is called here that its message speaks of. */
function withRemedy(error: unknown): unknown {
  if (!(error instanceof PannsError) || error.code !== 'ERR_PANNS_AUDIO_NAN') return error;
  const { where, cause } = error;
  return new PannsError(error.code, `${error.message}: ${NAN_REMEDY}`, { where, cause });
}

/**
 * What an audio file says it holds; nothing is decoded. `frames` is -1 where it does not say.
 *
 * @throws PannsError `ERR_PANNS_AUDIO_*`, `ERR_PANNS_IO`
 */
export async function probeAudio(source: string | Uint8Array): Promise<AudioInfo> {
  return callNative(nameOf(source), () => loadNative().probe(source));
}

/** Converts mono samples from one rate to another, both in Hz. @throws PannsError `ERR_PANNS_AUDIO_RANGE` */
export async function resample(
  samples: Float32Array,
  from: number,
  to: number,
): Promise<Float32Array> {
  if (from === to) return samples;
  return callNative('resample', () => loadNative().resample(samples, from, to));
}

function nameOf(source: string | Uint8Array): string {
  return typeof source === 'string' ? source : 'audio in memory';
}

function rangeError(name: string, actual: number, expected: string): PannsError {
  const what = `expected ${name} to be ${expected}, got ${actual}`;
  return new PannsError('ERR_PANNS_AUDIO_RANGE', what, { where: 'decodeAudio', expected, actual });
}
