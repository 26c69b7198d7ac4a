/** Mono samples: floats in [-1, 1], or integers of 16 bits, each of which stands for x / 32767. */
export type Samples = Float32Array | Int16Array;

/**
 * The 16-bit form in which PANNs stores clips: clip to [-1, 1], times 32767, truncated toward zero.
 *
 * NaN becomes 0. Source: the packing script of audioset_tagging_cnn.
 */
export function toInt16(
  samples: Float32Array,
  out: Int16Array = new Int16Array(samples.length),
): Int16Array {
  const count = Math.min(samples.length, out.length);
  for (let i = 0; i < count; i++) {
    const sample = samples[i] ?? 0;
    const clipped = sample > 1 ? 1 : sample < -1 ? -1 : sample;
    // Storing to an Int16Array truncates toward zero, as ToInt16 does; the product is in range.
    out[i] = clipped * 32767;
  }
  return out;
}

/** Samples that are converted without a pause: about a third of a millisecond. */
const CONVERTED_AT_ONCE = 1 << 17;

/**
 * {@link toInt16} in slices between which the event loop turns; zeros come behind the samples.
 *
 * Returns where the first sample is that is not finite, -1 where there is none.
 */
export async function fillInt16(samples: Float32Array, out: Int16Array): Promise<number> {
  const count = Math.min(samples.length, out.length);
  for (let at = 0; at < count; at += CONVERTED_AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    const part = samples.subarray(at, Math.min(count, at + CONVERTED_AT_ONCE));
    let sum = 0;
    for (let i = 0; i < part.length; i++) sum += (part[i] ?? 0) * 0;
    // A zero for every finite sample.
    if (sum !== 0) return at + part.findIndex((sample) => !Number.isFinite(sample));
    toInt16(part, out.subarray(at));
  }
  out.fill(0, count);
  return -1;
}

/** @internal */
export function isSamples(value: unknown): value is Samples {
  return value instanceof Float32Array || value instanceof Int16Array;
}

/**
 * Samples as floats, floats as they are, in slices between which the event loop turns; and the greatest
 * magnitude among them, infinite where one is no finite number.
 */
export async function toFloats(
  samples: Samples,
): Promise<{ readonly floats: Float32Array; readonly peak: number }> {
  const floats = samples instanceof Float32Array ? samples : new Float32Array(samples.length);
  let peak = 0;
  for (let at = 0; at < samples.length; at += CONVERTED_AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    const end = Math.min(samples.length, at + CONVERTED_AT_ONCE);
    for (let i = at; i < end; i++) {
      const given = samples[i] ?? 0;
      const sample = samples === floats ? given : given / 32767;
      if (samples !== floats) floats[i] = sample;
      const size = Math.abs(sample);
      // NaN fails every comparison.
      if (!(size <= peak)) peak = size <= Number.MAX_VALUE ? size : Number.POSITIVE_INFINITY;
    }
  }
  return { floats, peak };
}
