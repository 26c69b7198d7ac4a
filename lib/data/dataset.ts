import { PannsError } from '../errors.js';

/** Where the samples of a packed clip lie: in 16 bits, one after another, in the file at its `path`. */
export interface PackedClip {
  /** Of the first, in bytes. */
  readonly offset: number;
  /** How many are the clip's own. */
  readonly samples: number;
  /** How many there is room for: a clip that has as many may have been cut when it was packed. */
  readonly room: number;
  /** In Hz. */
  readonly sampleRate: number;
  /** The file that the clip was packed from, as its data set wrote it. */
  readonly source: string;
}

/** One example: a file, or `duration` seconds of it from `start` on. */
export interface Clip {
  /** Names the clip in reports: the path as the data set writes it, with `@start` for a part. */
  readonly id: string;
  /** Where the file lies. */
  readonly path: string;
  /** Class indices, ascending; one for single-label data. */
  readonly labels: readonly number[];
  /** In seconds from the beginning of the file. */
  readonly start?: number;
  /** In seconds. */
  readonly duration?: number;
  /** As the data set names it: `'1'`, `'train'`. */
  readonly fold?: string;
  /** Of a packed data set ({@link fromPacked}). */
  readonly packed?: PackedClip;
}

/** The file that a clip came from: clips of one file may sound alike. */
export function sourceOf({ path, packed }: Clip): string {
  return packed?.source ?? path;
}

/** A clip that was left out, and why. */
export interface SkippedClip {
  readonly id: string;
  readonly path: string;
  readonly reason: string;
}

/** Labelled clips; `labels` of a clip index `classes`. */
export interface Dataset {
  readonly classes: readonly string[];
  readonly clips: readonly Clip[];
  readonly skipped: readonly SkippedClip[];
}

/** How many names an error lists before it only counts. */
const LISTED = 10;

/** The first ten of a list for a message, with the number of those left out. */
export function firstTen(names: readonly string[]): string {
  const shown = names.slice(0, LISTED).join(', ');
  const rest = names.length - LISTED;
  return rest > 0 ? `${shown} and ${rest} more` : shown;
}

/** A data set that cannot be used as it is; `where` is its folder or file. */
export function dataError(
  where: string,
  message: string,
  detail: { expected?: unknown; actual?: unknown; cause?: unknown } = {},
): PannsError {
  return new PannsError('ERR_PANNS_DATA', message, { where, ...detail });
}

/**
 * Checks a list of class names: not empty, no empty name, none twice.
 *
 * @throws PannsError `ERR_PANNS_DATA`
 */
export function checkClassNames(classes: readonly string[], where: string): void {
  if (classes.length === 0) throw dataError(where, 'the list of classes is empty');
  const seen = new Set<string>();
  for (const name of classes) {
    if (name.trim() === '') throw dataError(where, 'the list of classes has an empty name');
    if (seen.has(name)) throw dataError(where, `the class "${name}" stands twice`);
    seen.add(name);
  }
}

/**
 * Checks that a data set has exactly the classes, in the order, that a model was trained with.
 *
 * @throws PannsError `ERR_PANNS_DATA` giving both counts, or the first difference
 */
export function requireClasses(dataset: Dataset, expected: readonly string[]): void {
  const { classes } = dataset;
  if (classes.length !== expected.length) {
    throw dataError(
      'classes',
      `the model has ${expected.length} classes and the data set ${classes.length}`,
      { expected: expected.length, actual: classes.length },
    );
  }
  const at = classes.findIndex((name, index) => name !== expected[index]);
  if (at < 0) return;
  throw dataError(
    'classes',
    `class ${at} is "${expected[at]}" in the model and "${classes[at]}" in the data set`,
    { expected: expected[at], actual: classes[at] },
  );
}
