import type { Source } from '../source.js';
import { badPth } from './values.js';

/** Reads a part of a source from front to back, through a window. */
export interface Cursor {
  readonly source: Source;
  /** The place of the next byte in the source. */
  position(): number;
  /** How many bytes the part still has. */
  rest(): number;
  /** Whether the window holds `count` more bytes, or all the rest. */
  holds(count: number): boolean;
  /** Moves the window on, so that it holds as many bytes as it can. */
  fill(): Promise<void>;
  /** The next bytes as a view of the window, which must hold them. */
  take(count: number): Uint8Array;
  skip(count: number): void;
  u8(): number;
  u16(): number;
  i32(): number;
  u32(): number;
  u64(): number;
  f64(): number;
}

/** Small enough that what happens between two reads of a file takes about a millisecond. */
const WINDOW_BYTES = 64 * 1024;

/** A cursor on the bytes `start` to `end` of a source. */
export function openCursor(source: Source, start: number, end: number): Cursor {
  let bytes: Uint8Array = new Uint8Array(0);
  let view = new DataView(bytes.buffer);
  let base = start;
  let at = 0;
  /** Advances over `count` bytes and returns where they begin in the window. */
  const pass = (count: number): number => {
    if (at + count > bytes.length) {
      throw badPth(source.name, `it ends at byte ${end}, within a value (truncated?)`);
    }
    at += count;
    return at - count;
  };
  return {
    source,
    position: () => base + at,
    rest: () => end - base - at,
    holds: (count) => at + count <= bytes.length || base + bytes.length >= end,
    async fill() {
      // Bytes in memory come without a turn of the event loop.
      if (base > start) await new Promise(setImmediate);
      base += at;
      at = 0;
      bytes = await source.read(base, Math.min(WINDOW_BYTES, end - base));
      view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    take: (count) => bytes.subarray(pass(count), at),
    skip(count) {
      if (count > end - base - at) {
        const what = `a value of ${count} bytes begins at byte ${base + at} of ${end} (truncated?)`;
        throw badPth(source.name, what);
      }
      at += count;
      if (at <= bytes.length) return;
      base += at;
      at = 0;
      bytes = new Uint8Array(0);
    },
    u8: () => view.getUint8(pass(1)),
    u16: () => view.getUint16(pass(2), true),
    i32: () => view.getInt32(pass(4), true),
    u32: () => view.getUint32(pass(4), true),
    u64: () => Number(view.getBigUint64(pass(8), true)),
    // The one number that pickles hold with the high byte first.
    f64: () => view.getFloat64(pass(8), false),
  };
}
