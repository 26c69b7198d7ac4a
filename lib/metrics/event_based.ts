import { checkOptions, PannsError } from '../errors.js';
import {
  type Detected,
  type EmptyPrecision,
  type FileEvent,
  type FScore,
  fScore,
  groupEvents,
  type Interval,
  labelsOf,
} from './event.js';
import {
  averageOf,
  type ClassDetection,
  classErrorRate,
  type DetectionScores,
  sumOf,
} from './segment_based.js';

/** Options of {@link eventBasedMetrics}. */
export interface EventOptions {
  /** How far an onset may be off, and an offset at least may, in seconds; default 0.2. */
  collar?: number | undefined;
  /** An offset may also be off by this share of the reference's length; default 0.2. */
  offsetShare?: number | undefined;
  /** Whether onsets alone decide; default false. */
  onsetOnly?: boolean | undefined;
  /** What counts; default all labels in the events. */
  classes?: readonly string[] | undefined;
  /** The precision of a class that was never found; default `'zero'`. */
  emptyPrecision?: EmptyPrecision | undefined;
}

/** Scores of events. */
export interface EventBasedMetrics {
  /** Of the counts of all classes together (micro-average). */
  readonly overall: FScore & Detected;
  /** Means over the classes whose value is a number (macro-average). */
  readonly classAverage: DetectionScores;
  readonly perClass: readonly ClassDetection[];
}

/**
 * Pairs the events found with those of the reference: Mesaros, Heittola and Virtanen, *Metrics for
 * Polyphonic Sound Event Detection*, Applied Sciences 6(6), 2016, as sed_eval computes it with its
 * optimal matching.
 *
 * A pair has one label, onsets at most `collar` apart, and offsets at most
 * max(`collar`, `offsetShare` * length of the reference). Every event is in one pair at most, and
 * there are as many pairs as possible. The defaults are those of DCASE's task 4.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_DATA`
 */
export function eventBasedMetrics(
  reference: readonly FileEvent[],
  estimated: readonly FileEvent[],
  options: EventOptions = {},
): EventBasedMetrics {
  const where = 'eventBasedMetrics';
  const known = ['collar', 'offsetShare', 'onsetOnly', 'classes', 'emptyPrecision'];
  checkOptions(options, known, where);
  const { collar = 0.2, offsetShare = 0.2, onsetOnly = false, emptyPrecision = 'zero' } = options;
  const { classes = labelsOf(reference, estimated) } = options;
  if (!(collar >= 0 && offsetShare >= 0)) {
    const what = `expected collar and offsetShare to be numbers >= 0, got ${collar}, ${offsetShare}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where });
  }
  const truth = groupEvents(reference, where);
  const guess = groupEvents(estimated, where);
  const fits = (a: Interval, b: Interval): boolean => {
    if (Math.abs(a.onset - b.onset) > collar) return false;
    const allowed = Math.max(collar, offsetShare * (a.offset - a.onset));
    return onsetOnly || Math.abs(a.offset - b.offset) <= allowed;
  };
  const files = new Set([...truth.keys(), ...guess.keys()]);
  const perClass = classes.map((label): ClassDetection => {
    const count = { hits: 0, reference: 0, estimated: 0 };
    for (const file of files) {
      const real = truth.get(file)?.get(label) ?? [];
      const found = guess.get(file)?.get(label) ?? [];
      count.reference += real.length;
      count.estimated += found.length;
      count.hits += mostPairs(candidates(real, found, collar, fits), found.length);
    }
    return { label, ...count, ...fScore(count, emptyPrecision), errorRate: classErrorRate(count) };
  });
  const sum = sumOf(perClass);
  return {
    overall: { ...fScore(sum, emptyPrecision), ...sum },
    classAverage: averageOf(perClass),
    perClass,
  };
}

/** For each event of the reference those that it may be paired with; both lists in order of onset. */
function candidates(
  real: readonly Interval[],
  found: readonly Interval[],
  collar: number,
  fits: (a: Interval, b: Interval) => boolean,
): number[][] {
  // Onsets further away than the collar need no look; twice it, so that rounding decides nothing.
  const reach = 2 * collar + 1e-6;
  let from = 0;
  return real.map((a) => {
    while ((found[from]?.onset ?? Infinity) < a.onset - reach) from++;
    const own: number[] = [];
    for (let i = from; i < found.length; i++) {
      const b = found[i];
      if (b === undefined || b.onset > a.onset + reach) break;
      if (fits(a, b)) own.push(i);
    }
    return own;
  });
}

/** The size of a largest matching: one augmenting path after another, each found breadth first. */
function mostPairs(edges: readonly (readonly number[])[], count: number): number {
  // Of each node on the right, and of each on the left.
  const partner = new Int32Array(count).fill(-1);
  const own = new Int32Array(edges.length).fill(-1);
  let pairs = 0;
  for (const root of edges.keys()) {
    // From which node on the left each one on the right was reached.
    const reached = new Map<number, number>();
    const queue = [root];
    let free = -1;
    for (let at = 0; at < queue.length && free < 0; at++) {
      const left = queue[at] ?? -1;
      for (const right of edges[left] ?? []) {
        if (reached.has(right)) continue;
        reached.set(right, left);
        const next = partner[right] ?? -1;
        if (next >= 0) queue.push(next);
        else {
          free = right;
          break;
        }
      }
    }
    if (free < 0) continue;
    pairs++;
    // Back along the path, each left node takes the right one that it reached.
    for (let right = free; right >= 0; ) {
      const left = reached.get(right) ?? -1;
      const before = own[left] ?? -1;
      partner[right] = left;
      own[left] = right;
      right = before;
    }
  }
  return pairs;
}
