import { PannsError } from '../errors.js';

/** A sound in a file, from `onset` to `offset` in seconds. */
export interface FileEvent {
  readonly file: string;
  readonly onset: number;
  readonly offset: number;
  readonly label: string;
}

/** From one time to another, in seconds. */
export interface Interval {
  readonly onset: number;
  readonly offset: number;
}

/** Four months: no recording is longer, and what goes over segments comes to an end. */
const MOST_SECONDS = 1e7;

/**
 * Events by file, then by label, each list in the order of onsets.
 *
 * @throws PannsError `ERR_PANNS_DATA` for times that are no numbers, below 0, beyond four months or in
 *   the wrong order
 */
export function groupEvents(
  events: readonly FileEvent[],
  where: string,
): Map<string, Map<string, Interval[]>> {
  const files = new Map<string, Map<string, Interval[]>>();
  for (const [i, { file, onset, offset, label }] of events.entries()) {
    if (!(onset >= 0 && offset >= onset && offset <= MOST_SECONDS)) {
      const what = `event ${i} (${label} in ${file}) lasts from ${onset} to ${offset}`;
      const expected = `0 <= onset <= offset <= ${MOST_SECONDS}, in seconds`;
      throw new PannsError('ERR_PANNS_DATA', `${what}; expected ${expected}`, { where, expected });
    }
    const labels = files.get(file) ?? new Map<string, Interval[]>();
    files.set(file, labels);
    const own = labels.get(label) ?? [];
    labels.set(label, own);
    own.push({ onset, offset });
  }
  for (const labels of files.values()) {
    for (const own of labels.values()) own.sort((a, b) => a.onset - b.onset || a.offset - b.offset);
  }
  return files;
}

/** The labels in the events, sorted, each once. */
export function labelsOf(...lists: readonly (readonly FileEvent[])[]): string[] {
  return [...new Set(lists.flatMap((events) => events.map(({ label }) => label)))].sort();
}

/** Intervals in the order of onsets with those that overlap made one. */
export function merged(intervals: readonly Interval[]): Interval[] {
  const result: Interval[] = [];
  for (const interval of intervals) {
    const last = result.at(-1);
    if (last === undefined || interval.onset >= last.offset) result.push(interval);
    else if (interval.offset > last.offset) {
      result[result.length - 1] = { onset: last.onset, offset: interval.offset };
    }
  }
  return result;
}

/** How a system did that named some of what was there. */
export interface Detected {
  /** True positives. */
  readonly hits: number;
  /** How many there are in the reference. */
  readonly reference: number;
  /** How many the system found. */
  readonly estimated: number;
}

/** Precision, recall and their harmonic mean, in 0..1; NaN where there is nothing to divide by. */
export interface FScore {
  readonly f1: number;
  readonly precision: number;
  readonly recall: number;
}

/** What the precision of a system is that found nothing: no number, or 0. */
export type EmptyPrecision = 'nan' | 'zero';

/** The scores that follow from counts. */
export function fScore({ hits, reference, estimated }: Detected, empty: EmptyPrecision): FScore {
  const precision = estimated === 0 && empty === 'zero' ? 0 : hits / estimated;
  const recall = hits / reference;
  const f1 = precision === 0 && recall === 0 ? 0 : (2 * precision * recall) / (precision + recall);
  return { f1, precision, recall };
}

/** The mean of the values that are numbers; NaN when none is. */
export function meanOfNumbers(values: readonly number[]): number {
  const numbers = values.filter((value) => !Number.isNaN(value));
  return numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}
