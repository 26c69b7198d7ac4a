import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Batch, BatchLoader } from '../data/loader.js';

/** A loader of whose batches one may be asked for before its step begins. */
export interface BatchesAhead {
  /** The next batch; undefined when the data have come to an end. */
  take(): Promise<Batch | undefined>;
  /**
   * The next batch as soon as it is ready, undefined while it is not: nothing waits for it, and it is
   * still to be taken. Its error is told to whoever takes it.
   */
  peek(): Promise<Batch | undefined>;
  /** Gives back the memory of a batch that has been read. */
  release(batch: Batch): void;
  close(): void;
}

export function createBatchesAhead(loader: BatchLoader): BatchesAhead {
  let coming: Promise<Batch | undefined> | undefined;
  const ask = async () => (await loader.next()).value as Batch | undefined;
  return {
    take() {
      const taken = coming ?? ask();
      coming = undefined;
      return taken;
    },
    peek() {
      coming ??= ask();
      const ready = coming.catch(() => undefined);
      return Promise.race([ready, nextTurn(undefined)]);
    },
    release: (batch) => loader.release?.(batch),
    close() {
      coming = undefined;
      loader.close();
    },
  };
}
