import type { ClipRequest } from '../addon.js';
import { checkOptions, fromNative, PannsError } from '../errors.js';
import { allocate, callNative } from '../native/call.js';
import { loadNative } from '../native.js';
import { type Audio, type DecodeAudioOptions, decodeAudio, decodeOptionNames } from './decode.js';
import { decodeWithFfmpeg, findFfmpeg } from './ffmpeg.js';

/**
 * Decodes any audio to mono samples: by libsndfile, and through the ffmpeg program for the formats
 * that libsndfile does not read (AAC, M4A, WMA, the sound of videos, ...), where there is one.
 *
 * @throws PannsError `ERR_PANNS_AUDIO_*`, `ERR_PANNS_IO`, `ERR_PANNS_OPTION`; AbortError
 */
export async function loadAudio(
  source: string | Uint8Array,
  options: Omit<DecodeAudioOptions, 'mono'> & { sampleRate: number },
): Promise<{ samples: Float32Array; sampleRate: number; truncated: boolean }> {
  checkOptions(
    options,
    decodeOptionNames.filter((name) => name !== 'mono'),
    'loadAudio',
  );
  let audio: Audio;
  try {
    audio = await decodeAudio(source, { ...options, mono: true });
  } catch (error) {
    if (!needsFfmpeg(error)) throw error;
    const { start, duration, sampleRate, maxSeconds, signal } = options;
    const request = { start, duration, sampleRate, maxSeconds, signal };
    return { ...(await decodeWithFfmpeg(source, request)), truncated: false };
  }
  const { channels, sampleRate, truncated } = audio;
  return { samples: channels[0] ?? new Float32Array(0), sampleRate, truncated };
}

/** One clip to decode, from `start` on, in seconds. */
export interface ClipToDecode {
  readonly path: string;
  readonly sampleRate: number;
  readonly start?: number;
  readonly duration?: number;
  /** More samples than this are not wanted. */
  readonly maxSamples: number;
}

/**
 * Decodes clips together on several threads: mono samples of each, or the Error of a bad file.
 *
 * All clips of a call have one rate and one `maxSamples`. 0 threads mean one a core.
 */
export async function decodeClips(
  clips: readonly ClipToDecode[],
  threads = 0,
): Promise<(Float32Array | Error)[]> {
  const first = clips[0];
  if (first === undefined) return [];
  const { sampleRate, maxSamples: samples } = first;
  const rows = allocate(clips.length * samples);
  const requests = clips.map(({ path, start = 0, duration = -1 }): ClipRequest => {
    return { path, start, duration };
  });
  const results = await callNative('decodeClips', () =>
    loadNative().loadClips(requests, { sampleRate, samples, nanToZero: false, threads }, rows),
  );
  return Promise.all(
    clips.map(async (clip, i) => {
      const result = results[i];
      if (result === undefined) return new PannsError('ERR_PANNS_INTERNAL', 'a clip got no result');
      const row = rows.subarray(i * samples, i * samples + result.frames);
      if (result.code === '') return row;
      const error = fromNative({ code: result.code, message: result.message }, clip.path);
      return needsFfmpeg(error) ? decodeOne(clip) : error;
    }),
  );
}

async function decodeOne(clip: ClipToDecode): Promise<Float32Array | Error> {
  const { path, sampleRate, start, maxSamples } = clip;
  const duration = Math.min(clip.duration ?? Number.POSITIVE_INFINITY, maxSamples / sampleRate);
  try {
    return (await decodeWithFfmpeg(path, { start, duration, sampleRate })).samples;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Without an ffmpeg program the first error says more than the missing program. */
function needsFfmpeg(error: unknown): boolean {
  const unknown = error instanceof PannsError && error.code === 'ERR_PANNS_AUDIO_FORMAT';
  return unknown && findFfmpeg() !== undefined;
}
