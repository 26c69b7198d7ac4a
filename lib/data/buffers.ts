import { allocateInt16 } from '../native/call.js';

/** Memory of batches that goes round: fresh pages cost as much as filling them. */
export interface Buffers {
  /** One that nobody has. */
  take(): Int16Array;
  /** Its first samples, as a batch that can be taken back. */
  lend(buffer: Int16Array, samples: number): Int16Array;
  /** Of a batch that was lent, once; anything else is let be. */
  takeBack(batch: Int16Array): void;
  /** Keeps none. */
  drop(): void;
}

/** Buffers of so many samples. */
export function createBuffers(length: number): Buffers {
  const free: Int16Array[] = [];
  const lent = new WeakMap<Int16Array, Int16Array>();
  let dropped = false;
  return {
    take: () => free.pop() ?? allocateInt16(length),
    lend(buffer, samples) {
      const batch = buffer.subarray(0, samples);
      lent.set(batch, buffer);
      return batch;
    },
    takeBack(batch) {
      const buffer = lent.get(batch);
      lent.delete(batch);
      if (buffer !== undefined && !dropped) free.push(buffer);
    },
    drop() {
      dropped = true;
      free.length = 0;
    },
  };
}
