import { checkOptions, PannsError } from '../errors.js';
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
    return { ...(await decodeWithFfmpeg(source, options)), truncated: false };
  }
  const { channels, sampleRate, truncated } = audio;
  return { samples: channels[0] ?? new Float32Array(0), sampleRate, truncated };
}

/**
 * Whether ffmpeg may read what libsndfile refused with this error. Without the program the error says
 * more than that it is missing.
 */
export function needsFfmpeg(error: unknown): boolean {
  const unknown = error instanceof PannsError && error.code === 'ERR_PANNS_AUDIO_FORMAT';
  return unknown && findFfmpeg() !== undefined;
}
