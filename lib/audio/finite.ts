/** Numbers that are looked at without a pause: less than a millisecond. */
const LOOKED_AT_ONCE = 1 << 17;

/** Where the first number is that is NaN or infinite, -1 where there is none. */
export function firstNotFinite(values: Float32Array): number {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) return i;
  }
  return -1;
}

/** Writes 0 in place of what is NaN or infinite, in slices between which the event loop turns. */
export async function zeroNotFinite(values: Float32Array): Promise<void> {
  for (let at = 0; at < values.length; at += LOOKED_AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    const end = Math.min(at + LOOKED_AT_ONCE, values.length);
    for (let i = at; i < end; i++) if (!Number.isFinite(values[i])) values[i] = 0;
  }
}

/** {@link firstNotFinite} in slices between which the event loop turns. */
export async function findNotFinite(values: Float32Array): Promise<number> {
  for (let at = 0; at < values.length; at += LOOKED_AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    const bad = firstNotFinite(values.subarray(at, at + LOOKED_AT_ONCE));
    if (bad >= 0) return at + bad;
  }
  return -1;
}
