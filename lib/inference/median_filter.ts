/** A median filter over numbers that come one by one. */
export interface MedianFilter {
  /** Takes a number; returns the median around the one `half` pushes ago, once there is one. */
  push(value: number): number | undefined;
  /** The last `half` medians, or all of them where fewer numbers came. */
  finish(): number[];
}

/** The median of each number and `half` on either side, ends mirrored: `half` is at least 1. */
export function createMedianFilter(half: number): MedianFilter {
  const size = 2 * half + 1;
  const ring = new Float64Array(size);
  const sorted = new Float64Array(size);
  let count = 0;
  let filled = 0;

  const at = (position: number): number => ring[position % size] ?? Number.NaN;
  /** The first place in the window whose number is not below `value`. */
  const place = (value: number): number => {
    let from = 0;
    let to = filled;
    while (from < to) {
      const middle = (from + to) >> 1;
      if ((sorted[middle] ?? 0) < value) from = middle + 1;
      else to = middle;
    }
    return from;
  };
  const insert = (value: number): void => {
    const to = place(value);
    sorted.copyWithin(to + 1, to, filled);
    sorted[to] = value;
    filled++;
  };
  const remove = (value: number): void => {
    const from = place(value);
    sorted.copyWithin(from, from + 1, filled);
    filled--;
  };
  return {
    push(value) {
      const position = count++;
      // What leaves the window: before the beginning lies the mirror image.
      const leaves = position < size ? at(2 * half - position) : at(position);
      ring[position % size] = value;
      if (position < half) return undefined;
      if (position === half) {
        for (let i = 0; i < 2 * half; i++) insert(at(i >> 1));
      } else {
        remove(leaves);
      }
      insert(value);
      return sorted[half];
    },
    finish() {
      const total = count;
      const rest: number[] = [];
      const mirrored = (position: number): number => {
        const folded = ((position % (2 * total)) + 2 * total) % (2 * total);
        return at(folded < total ? folded : 2 * total - 1 - folded);
      };
      for (let t = Math.max(0, total - half); t < total; t++) {
        if (filled === 0) {
          // So short that no window was whole yet.
          for (let i = t - half; i <= t + half; i++) insert(mirrored(i));
        } else {
          remove(mirrored(t - half - 1));
          insert(mirrored(t + half));
        }
        rest.push(sorted[half] ?? Number.NaN);
      }
      return rest;
    },
  };
}
