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
  meanOfNumbers,
} from './event.js';

/** Options of {@link segmentBasedMetrics}. */
export interface SegmentOptions {
  /** The length of a segment; default 1. */
  segmentSeconds?: number | undefined;
  /** What counts; default all labels in the events. */
  classes?: readonly string[] | undefined;
  /** The precision of a class that was never found; default `'zero'`. */
  emptyPrecision?: EmptyPrecision | undefined;
}

/** F-score and error rate. */
export interface DetectionScores extends FScore {
  /** (Substitutions + deletions + insertions) / reference; NaN without a reference. */
  readonly errorRate: number;
}

/** Scores of one class. */
export interface ClassDetection extends DetectionScores, Detected {
  readonly label: string;
}

/** Scores over all segments, as the mean over the classes, and of each class. */
export interface SegmentBasedMetrics {
  /** Of the counts of all classes together (micro-average). */
  readonly overall: DetectionScores &
    Detected & {
      readonly substitutions: number;
      readonly deletions: number;
      readonly insertions: number;
    };
  /** Means over the classes whose value is a number (macro-average). */
  readonly classAverage: DetectionScores;
  readonly perClass: readonly ClassDetection[];
}

/**
 * Compares what is active in each segment of each file: Mesaros, Heittola and Virtanen, *Metrics for
 * Polyphonic Sound Event Detection*, Applied Sciences 6(6), 2016, as sed_eval computes it.
 *
 * A class is active in every segment that one of its events touches. A class that is missed and one
 * that is false in the same segment are one substitution. The error rate of a class without
 * reference events is NaN.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_DATA`
 */
export function segmentBasedMetrics(
  reference: readonly FileEvent[],
  estimated: readonly FileEvent[],
  options: SegmentOptions = {},
): SegmentBasedMetrics {
  const where = 'segmentBasedMetrics';
  checkOptions(options, ['segmentSeconds', 'classes', 'emptyPrecision'], where);
  const { segmentSeconds = 1, emptyPrecision = 'zero' } = options;
  const { classes = labelsOf(reference, estimated) } = options;
  if (!(segmentSeconds > 0 && segmentSeconds < Infinity)) {
    const what = `expected segmentSeconds to be a number above 0, got ${segmentSeconds}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: segmentSeconds });
  }
  const truth = groupEvents(reference, where);
  const guess = groupEvents(estimated, where);
  const counts = classes.map(() => ({ hits: 0, reference: 0, estimated: 0 }));
  const total = { substitutions: 0, deletions: 0, insertions: 0 };
  for (const file of new Set([...truth.keys(), ...guess.keys()])) {
    // Per segment how many classes are in the reference, were found, and both.
    const segments = new Map<number, { hits: number; reference: number; estimated: number }>();
    for (const [k, label] of classes.entries()) {
      const real = activeSegments(truth.get(file)?.get(label) ?? [], segmentSeconds);
      const found = activeSegments(guess.get(file)?.get(label) ?? [], segmentSeconds);
      for (const segment of new Set([...real, ...found])) {
        const both = segments.get(segment) ?? { hits: 0, reference: 0, estimated: 0 };
        segments.set(segment, both);
        for (const count of [both, counts[k] ?? both]) {
          if (real.has(segment)) count.reference++;
          if (found.has(segment)) count.estimated++;
          if (real.has(segment) && found.has(segment)) count.hits++;
        }
      }
    }
    for (const { hits, reference, estimated } of segments.values()) {
      total.substitutions += Math.min(reference, estimated) - hits;
      total.deletions += Math.max(0, reference - estimated);
      total.insertions += Math.max(0, estimated - reference);
    }
  }
  const perClass = counts.map((count, k): ClassDetection => {
    const label = classes[k] ?? '';
    return { label, ...count, ...fScore(count, emptyPrecision), errorRate: classErrorRate(count) };
  });
  const sum = sumOf(counts);
  const errors = total.substitutions + total.deletions + total.insertions;
  const errorRate = sum.reference === 0 ? Number.NaN : errors / sum.reference;
  return {
    overall: { ...fScore(sum, emptyPrecision), errorRate, ...sum, ...total },
    classAverage: averageOf(perClass),
    perClass,
  };
}

/** The segments that intervals touch. */
function activeSegments(intervals: readonly Interval[], seconds: number): Set<number> {
  const active = new Set<number>();
  for (const { onset, offset } of intervals) {
    const last = Math.ceil(offset / seconds);
    for (let segment = Math.floor(onset / seconds); segment < last; segment++) active.add(segment);
  }
  return active;
}

/** Misses and false alarms over the reference: alone, a class has no substitutions. */
export function classErrorRate({ hits, reference, estimated }: Detected): number {
  return reference === 0 ? Number.NaN : (reference - hits + (estimated - hits)) / reference;
}

/** Counts together. */
export function sumOf(counts: readonly Detected[]): Detected {
  const sum = { hits: 0, reference: 0, estimated: 0 };
  for (const { hits, reference, estimated } of counts) {
    sum.hits += hits;
    sum.reference += reference;
    sum.estimated += estimated;
  }
  return sum;
}

/** Means over the classes. */
export function averageOf(perClass: readonly ClassDetection[]): DetectionScores {
  const mean = (key: keyof DetectionScores) => meanOfNumbers(perClass.map((own) => own[key]));
  return {
    f1: mean('f1'),
    precision: mean('precision'),
    recall: mean('recall'),
    errorRate: mean('errorRate'),
  };
}
