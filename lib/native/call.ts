import type { CancelFlag } from '../addon.js';
import { fromNative, throwIfAborted } from '../errors.js';

/**
 * Runs a job of the addon: what it throws becomes a PannsError, and an aborted signal cancels it.
 *
 * `where` places errors that do not say themselves where they happened.
 *
 * @throws PannsError, AbortError
 */
export async function callNative<T>(
  where: string,
  job: (cancel?: CancelFlag) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  throwIfAborted(signal);
  if (signal === undefined) return attempt(where, () => job());
  const cancel: CancelFlag = new Uint8Array<ArrayBufferLike>(new SharedArrayBuffer(1));
  const stop = () => Atomics.store(cancel, 0, 1);
  signal.addEventListener('abort', stop, { once: true });
  try {
    return await attempt(where, () => job(cancel));
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

async function attempt<T>(where: string, job: () => Promise<T>): Promise<T> {
  try {
    return await job();
  } catch (error) {
    throw fromNative(error, where);
  }
}

/** What `body` returns; what it throws becomes a PannsError. */
export function callNativeSync<T>(where: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw fromNative(error, where);
  }
}

/**
 * Zeros in memory that the addon reads in place; any other Float32Array is copied for each call.
 *
 * The addon reads while its promise is pending: write to the array again when that has settled.
 */
export function allocate(length: number): Float32Array {
  return new Float32Array<ArrayBufferLike>(new SharedArrayBuffer(4 * length));
}

/** Bytes that are copied without a pause: less than a millisecond. */
const COPIED_AT_ONCE = 1 << 20;

/**
 * Bytes in memory that the addon reads in place, for those that it reads again and again; they must not
 * change until this is done.
 */
export async function shareBytes(bytes: Uint8Array): Promise<Uint8Array> {
  if (bytes.buffer instanceof SharedArrayBuffer) return bytes;
  const shared = new Uint8Array<ArrayBufferLike>(new SharedArrayBuffer(bytes.length));
  for (let at = 0; at < bytes.length; at += COPIED_AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    shared.set(bytes.subarray(at, at + COPIED_AT_ONCE), at);
  }
  return shared;
}

/** {@link allocate} for samples of 16 bits. */
export function allocateInt16(length: number): Int16Array {
  return new Int16Array<ArrayBufferLike>(new SharedArrayBuffer(2 * length));
}
