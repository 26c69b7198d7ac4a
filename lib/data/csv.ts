import { readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { parse } from 'csv-parse/sync';
import { checkOptions, nearest, optionCheck } from '../errors.js';
import { ioError } from '../io/failure.js';
import {
  type Clip,
  checkClassNames,
  type Dataset,
  dataError,
  firstTen,
  type SkippedClip,
} from './dataset.js';

/** Options of {@link fromCsv}; a column is named as in the header, letter case aside. */
export interface CsvOptions {
  /** Where relative paths start; default the folder of the CSV file. */
  root?: string | undefined;
  /** Default the first there is of file, filename, path, audio, fname. */
  fileColumn?: string | undefined;
  /** Default the first there is of label, labels, category, class, target_name. */
  labelColumn?: string | undefined;
  /** Between the labels of one cell, `;` or `,`; without it a cell is one label, commas included. */
  labelSeparator?: string | undefined;
  /** Default the first there is of fold, split; without one, clips have no fold. */
  foldColumn?: string | undefined;
  /** Keep only the clips of these folds. */
  folds?: readonly (string | number)[] | undefined;
  /** A column of seconds from the beginning of the file. */
  startColumn?: string | undefined;
  /** A column of seconds. */
  durationColumn?: string | undefined;
  /** The classes and their order; without it, the labels found, in code-unit order. */
  classes?: readonly string[] | undefined;
  /** Leave clips without a file out, and list them in `skipped`, instead of failing. */
  skipMissing?: boolean | undefined;
}

const check = optionCheck('fromCsv');

const USUAL = {
  file: ['file', 'filename', 'path', 'audio', 'fname'],
  label: ['label', 'labels', 'category', 'class', 'target_name'],
  fold: ['fold', 'split'],
};

const OPTION_NAMES = [
  'root',
  'fileColumn',
  'labelColumn',
  'labelSeparator',
  'foldColumn',
  'folds',
  'startColumn',
  'durationColumn',
  'classes',
  'skipMissing',
];

/** How many files are looked for at once: enough to hide a network disk, few for any handle limit. */
const LOOKUPS = 64;

interface Row {
  line: number;
  file: string;
  names: string[];
  fold: string | undefined;
  start: number | undefined;
  duration: number | undefined;
}

/**
 * Reads a data set from a CSV file with a header: one row a clip, with its file and its label.
 *
 * Comma, semicolon and tab separated files are told apart by the header. The whole file is read
 * before `folds` selects from it, so every fold has the same classes.
 *
 * @throws PannsError `ERR_PANNS_DATA` for a malformed file, a missing column, an empty label, labels
 *   that are not in `classes`, an absent fold, or missing audio files (all are counted, ten are
 *   named); `ERR_PANNS_IO`; `ERR_PANNS_OPTION`
 */
export async function fromCsv(path: string, options: CsvOptions = {}): Promise<Dataset> {
  checkOptions(options, OPTION_NAMES, 'fromCsv');
  const { labelSeparator, skipMissing = false } = options;
  const single = labelSeparator === undefined || labelSeparator.trim().length === 1;
  check('labelSeparator', JSON.stringify(labelSeparator), single, 'one character, such as ";"');
  const { header, records } = await readCsv(path);
  const rows = readRows(header, records, options, path);
  const classes = options.classes ?? [...new Set(rows.flatMap((row) => row.names))].sort();
  checkClassNames(classes, path);
  const chosen = selectFolds(rows, options.folds, path);
  const clips = toClips(chosen, rows, classes, options.root ?? dirname(path), path);

  const present = await existing(clips);
  const missing = clips.filter((_, i) => !present[i]);
  if (missing.length > 0 && !(skipMissing && missing.length < clips.length)) {
    const named = firstTen(missing.map((clip) => clip.path));
    throw dataError(
      path,
      `${missing.length} of ${clips.length} audio files are missing: ${named}`,
      {
        expected: 'existing files; set root if the paths start elsewhere, or skipMissing',
        actual: missing.length,
      },
    );
  }
  const skipped: SkippedClip[] = missing.map(({ id, path: file }) => {
    return { id, path: file, reason: 'the file does not exist' };
  });
  return { classes, clips: clips.filter((_, i) => present[i]), skipped };
}

interface Line {
  line: number;
  cells: string[];
}

/** A CSV file: the header, and the lines below it, each with as many cells. */
export interface CsvLines {
  readonly header: readonly string[];
  readonly records: readonly Line[];
}

/** Reads a CSV file. @throws PannsError `ERR_PANNS_DATA`, `ERR_PANNS_IO` */
export async function readCsv(path: string): Promise<CsvLines> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw ioError(error, 'read', path);
  }
  return parseCsv(bytes, path);
}

function parseCsv(bytes: Uint8Array, path: string): CsvLines {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw dataError(path, 'the file is not UTF-8 text', { cause });
  }
  const records: Line[] = [];
  try {
    parse(text, {
      delimiter: guessDelimiter(text),
      relax_column_count: true,
      skip_empty_lines: true,
      trim: true,
      on_record: (cells, { lines }) => {
        records.push({ line: lines, cells });
        return null;
      },
    });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw dataError(path, `the file is not well-formed CSV: ${why}`, { cause });
  }
  const header = records.shift()?.cells;
  if (header === undefined) throw dataError(path, 'the file is empty');
  if (records.length === 0) throw dataError(path, 'the file has a header and no rows');
  for (const { line, cells } of records) {
    if (cells.length === header.length) continue;
    throw dataError(
      path,
      `line ${line} has ${cells.length} columns and the header ${header.length} (${header.join(', ')})`,
      { expected: header.length, actual: cells.length },
    );
  }
  return { header, records };
}

/** The separator that the first line has most of. */
function guessDelimiter(text: string): string {
  const first = /[^\r\n]+/.exec(text)?.[0] ?? '';
  let best = ',';
  for (const candidate of [';', '\t']) {
    if (first.split(candidate).length > first.split(best).length) best = candidate;
  }
  return best;
}

function readRows(
  header: readonly string[],
  records: readonly Line[],
  options: CsvOptions,
  path: string,
): Row[] {
  const file = columnOf(header, options.fileColumn, USUAL.file, 'fileColumn', path);
  const label = columnOf(header, options.labelColumn, USUAL.label, 'labelColumn', path);
  const fold = optionalColumn(header, options.foldColumn, USUAL.fold, 'foldColumn', path);
  const start = optionalColumn(header, options.startColumn, [], 'startColumn', path);
  const duration = optionalColumn(header, options.durationColumn, [], 'durationColumn', path);
  return records.map(({ line, cells }) => {
    const cell = (index: number | undefined) => (index === undefined ? '' : (cells[index] ?? ''));
    const text = cell(label);
    const parts =
      options.labelSeparator === undefined ? [text] : splitLabels(text, options.labelSeparator);
    const names = parts.map((name) => name.trim()).filter((name) => name !== '');
    if (cell(file) === '') throw dataError(path, `line ${line} names no file`);
    if (names.length === 0) throw dataError(path, `line ${line} has no label`);
    return {
      line,
      file: cell(file),
      names,
      fold: cell(fold) || undefined,
      start: seconds(cell(start), 0, 'start', line, path),
      duration: seconds(cell(duration), Number.MIN_VALUE, 'duration', line, path),
    };
  });
}

function splitLabels(text: string, separator: string): string[] {
  return text.split(separator.trim());
}

/** Where the column is that is wanted, or the first of the usual ones. @throws PannsError `ERR_PANNS_DATA` */
export function columnOf(
  header: readonly string[],
  wanted: string | undefined,
  usual: readonly string[],
  option: string,
  path: string,
): number {
  const lower = header.map((name) => name.toLowerCase());
  for (const name of wanted === undefined ? usual : [wanted.toLowerCase()]) {
    const index = lower.indexOf(name);
    if (index < 0) continue;
    if (lower.indexOf(name, index + 1) < 0) return index;
    throw dataError(path, `the header has the column "${header[index]}" twice`);
  }
  const found = `the header has ${header.join(', ')}`;
  if (wanted === undefined) {
    throw dataError(
      path,
      `none of the columns ${usual.join(', ')} is there: set ${option} (${found})`,
    );
  }
  const guess = nearest(wanted, header);
  throw dataError(path, `there is no column "${wanted}"; did you mean "${guess}"? (${found})`);
}

function optionalColumn(
  header: readonly string[],
  wanted: string | undefined,
  usual: readonly string[],
  option: string,
  path: string,
): number | undefined {
  const lower = header.map((name) => name.toLowerCase());
  if (wanted === undefined && !usual.some((name) => lower.includes(name))) return undefined;
  return columnOf(header, wanted, usual, option, path);
}

function seconds(
  text: string,
  least: number,
  what: string,
  line: number,
  path: string,
): number | undefined {
  if (text === '') return undefined;
  const value = Number(text);
  if (Number.isFinite(value) && value >= least) return value;
  throw dataError(path, `line ${line} has the ${what} "${text}"`, {
    expected: least > 0 ? 'seconds > 0' : 'seconds >= 0',
    actual: text,
  });
}

function selectFolds(
  rows: readonly Row[],
  folds: CsvOptions['folds'],
  path: string,
): readonly Row[] {
  if (folds === undefined) return rows;
  const wanted = new Set(folds.map(String));
  const found = new Set(rows.map((row) => row.fold));
  const absent = [...wanted].filter((fold) => !found.has(fold));
  if (absent.length > 0 || wanted.size === 0) {
    const there = [...found].map((fold) => fold ?? '(none)').sort();
    throw dataError(path, `no clip is in fold ${absent.join(', ') || '(no fold was asked for)'}`, {
      expected: there,
      actual: [...wanted],
    });
  }
  return rows.filter((row) => row.fold !== undefined && wanted.has(row.fold));
}

function toClips(
  rows: readonly Row[],
  all: readonly Row[],
  classes: readonly string[],
  root: string,
  path: string,
): Clip[] {
  const indexOf = new Map(classes.map((name, index) => [name, index]));
  const unknown = [...new Set(all.flatMap((row) => row.names))].filter(
    (name) => !indexOf.has(name),
  );
  if (unknown.length > 0) {
    const guess = nearest(unknown[0] ?? '', classes);
    throw dataError(
      path,
      `${unknown.length} labels are not among the ${classes.length} classes: ${firstTen(unknown)} (the nearest class to the first is "${guess}")`,
      { expected: classes.length, actual: unknown },
    );
  }
  const times = new Map<string, number>();
  return rows.map(({ file, names, fold, start, duration }) => {
    const labels = [...new Set(names.map((name) => indexOf.get(name) ?? 0))].sort((a, b) => a - b);
    const place = start === undefined ? file : `${file}@${start}`;
    const time = (times.get(place) ?? 0) + 1;
    times.set(place, time);
    return {
      id: time === 1 ? place : `${place}#${time}`,
      path: resolve(root, file),
      labels,
      ...(start === undefined ? {} : { start }),
      ...(duration === undefined ? {} : { duration }),
      ...(fold === undefined ? {} : { fold }),
    };
  });
}

/** Which of the clips have a file. */
export async function existing(clips: readonly Pick<Clip, 'path'>[]): Promise<boolean[]> {
  const paths = [...new Set(clips.map((clip) => clip.path))];
  const found = new Set<string>();
  for (let at = 0; at < paths.length; at += LOOKUPS) {
    await Promise.all(
      paths.slice(at, at + LOOKUPS).map(async (path) => {
        const info = await stat(path).catch(() => undefined);
        if (info?.isFile()) found.add(path);
      }),
    );
  }
  return clips.map((clip) => found.has(clip.path));
}
