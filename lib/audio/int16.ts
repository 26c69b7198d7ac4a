/** Mono samples: floats in [-1, 1], or integers of 16 bits, each of which stands for x / 32767. */
export type Samples = Float32Array | Int16Array;

/**
 * The 16-bit form in which PANNs stores clips: clip to [-1, 1], times 32767, truncated toward zero.
 *
 * NaN becomes 0. Source: the packing script of audioset_tagging_cnn.
 */
export function toInt16(samples: Float32Array, out = new Int16Array(samples.length)): Int16Array {
  const count = Math.min(samples.length, out.length);
  for (let i = 0; i < count; i++) {
    const sample = samples[i] ?? 0;
    const clipped = sample > 1 ? 1 : sample < -1 ? -1 : sample;
    // Storing to an Int16Array truncates toward zero, as ToInt16 does; the product is in range.
    out[i] = clipped * 32767;
  }
  return out;
}
