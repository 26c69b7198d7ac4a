import { PannsError } from '../errors.js';
import { writeFileAtomic } from '../io/atomic.js';

/** RIFF chunk header, WAVE tag, a 16-byte fmt chunk and a data chunk header. */
const HEADER_BYTES = 44;

/**
 * A mono 16-bit PCM WAV file of `samples` (1.0 is full scale) at `sampleRate` Hz.
 *
 * Samples are rounded to the nearest multiple of 1/32768, which is what decoders divide by; values
 * outside [-1, 1) are clipped.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for a rate that is not a whole number in 1..2^31,
 *   `ERR_PANNS_AUDIO_NAN` for NaN or infinite samples, `ERR_PANNS_AUDIO_TOO_LONG` past 4 GiB
 */
export function encodeWav16(samples: Float32Array, sampleRate: number): Uint8Array {
  if (!Number.isInteger(sampleRate) || sampleRate < 1 || sampleRate > 2 ** 31) {
    throw new PannsError(
      'ERR_PANNS_OPTION',
      `expected a whole number of Hz in 1..2^31, got ${sampleRate}`,
      {
        where: 'encodeWav16',
        expected: 'a whole number of Hz in 1..2^31',
        actual: sampleRate,
      },
    );
  }
  const dataBytes = 2 * samples.length;
  if (HEADER_BYTES + dataBytes >= 2 ** 32) {
    throw new PannsError('ERR_PANNS_AUDIO_TOO_LONG', `${samples.length} samples exceed 4 GiB`, {
      where: 'encodeWav16',
    });
  }
  const bytes = new Uint8Array(HEADER_BYTES + dataBytes);
  const view = new DataView(bytes.buffer);
  const tag = (offset: number, text: string) => {
    for (let i = 0; i < 4; i++) bytes[offset + i] = text.charCodeAt(i);
  };
  tag(0, 'RIFF');
  view.setUint32(4, HEADER_BYTES - 8 + dataBytes, true);
  tag(8, 'WAVE');
  tag(12, 'fmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // format 1: integer PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * sampleRate, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a frame
  view.setUint16(34, 16, true); // bits a sample
  tag(36, 'data');
  view.setUint32(40, dataBytes, true);
  for (let i = 0; i < samples.length; i++) {
    const sample = samples[i] ?? 0;
    if (!Number.isFinite(sample)) {
      throw new PannsError('ERR_PANNS_AUDIO_NAN', `sample ${i} is ${sample}`, {
        where: 'encodeWav16',
      });
    }
    const rounded = Math.round(sample * 32768);
    view.setInt16(HEADER_BYTES + 2 * i, Math.max(-32768, Math.min(32767, rounded)), true);
  }
  return bytes;
}

/**
 * Writes {@link encodeWav16}'s file atomically.
 *
 * @throws PannsError as {@link encodeWav16}, and `ERR_PANNS_IO`
 */
export async function writeWav16(
  path: string,
  samples: Float32Array,
  sampleRate: number,
): Promise<void> {
  await writeFileAtomic(path, [encodeWav16(samples, sampleRate)]);
}
