/** Reads `count` mono samples from `start` on; fewer only where the audio ends. */
export type ReadSamples = (start: number, count: number) => Promise<Float32Array>;

/** Windows of equal length, one after another, and where each begins, in samples. */
export interface WindowBatch {
  /** (starts.length, length) */
  readonly samples: Float32Array;
  readonly length: number;
  readonly starts: readonly number[];
}

/** Windows that go through a model together: enough to use its weights well, small in memory. */
export const WINDOWS_AT_ONCE = 4;

/** A rest shorter than this, in seconds, gets no window of its own: it is mostly a codec's padding. */
export const NEGLIGIBLE_SECONDS = 0.1;

/** What decoders round at the end of a range, in samples: less is missing, not the end. */
export const ROUNDING = 2;

/**
 * Cuts audio of any length into windows, holding only `atOnce` of them in memory.
 *
 * Windows begin every `hop` samples (1..window). Audio shorter than one window comes whole; else the
 * last window is moved back to end with the audio, unless it would add no more than `negligible`
 * samples. The memory of a batch is used again for the next.
 */
export async function* cutWindows(
  read: ReadSamples,
  window: number,
  hop: number,
  atOnce: number,
  negligible: number,
): AsyncGenerator<WindowBatch> {
  const span = window + (atOnce - 1) * hop;
  const batch = new Float32Array(atOnce * window);
  let buffer: Float32Array = new Float32Array(0);
  // Where the buffer begins, where the next window does, and what windows have covered so far.
  let base = 0;
  let next = 0;
  let covered = 0;
  for (let ended = false; !ended; ) {
    const end = base + buffer.length;
    const wanted = next + span - end;
    const more = await read(end, wanted);
    ended = more.length === 0 || more.length < wanted - ROUNDING;
    buffer = joined(buffer, more);
    const total = base + buffer.length;

    const starts: number[] = [];
    for (; next + window <= total && starts.length < atOnce; next += hop) starts.push(next);
    if (starts.length > 0) {
      covered = (starts.at(-1) ?? 0) + window;
      yield fill(batch, buffer, base, starts, window);
    }
    if (ended && covered === 0 && total > 0) {
      yield { samples: buffer, length: total, starts: [0] };
    } else if (ended && total - covered > negligible) {
      yield fill(batch, buffer, base, [total - window], window);
    }
    // A window's length of the past stays, for the last window to reach back.
    const keep = Math.max(base, Math.min(next, total - window));
    buffer = buffer.slice(keep - base);
    base = keep;
  }
}

function fill(
  batch: Float32Array,
  buffer: Float32Array,
  base: number,
  starts: readonly number[],
  window: number,
): WindowBatch {
  for (const [row, start] of starts.entries()) {
    batch.set(buffer.subarray(start - base, start - base + window), row * window);
  }
  return { samples: batch.subarray(0, starts.length * window), length: window, starts };
}

function joined(a: Float32Array, b: Float32Array): Float32Array {
  if (a.length === 0) return b;
  const both = new Float32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
