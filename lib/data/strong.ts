import { dirname, resolve } from 'node:path';
import { probeAudio } from '../audio/decode.js';
import { checkOptions, nearest, PannsError } from '../errors.js';
import { type CsvLines, columnOf, existing, readCsv } from './csv.js';
import {
  type Clip,
  checkClassNames,
  type Dataset,
  dataError,
  firstTen,
  type SkippedClip,
} from './dataset.js';

/** Options of {@link readStrong}; a column is named as in the header, letter case aside. */
export interface StrongOptions {
  /** Where relative paths start; default the folder of the labels. */
  root?: string | undefined;
  /** Default the first there is of filename, file, path, audio, fname. */
  fileColumn?: string | undefined;
  /** Default the first there is of event_label, label, class, category. */
  labelColumn?: string | undefined;
  /** Seconds; default the first there is of onset, start. */
  onsetColumn?: string | undefined;
  /** Seconds; default the first there is of offset, end. */
  offsetColumn?: string | undefined;
  /** The classes and their order; without it, the labels found, in code-unit order. */
  classes?: readonly string[] | undefined;
  /** Leave files that do not exist out, and list them in `skipped`, instead of failing. */
  skipMissing?: boolean | undefined;
}

/** Options of {@link fromStrong}. */
export interface StrongWindowOptions extends StrongOptions {
  /** Clips of this length; without it a clip is a whole file. */
  windowSeconds?: number | undefined;
  /** From one clip's begin to the next; default `windowSeconds`. */
  hopSeconds?: number | undefined;
  /** A clip has a label when so much of an event, or all of it, lies inside; default 0.1. */
  leastSeconds?: number | undefined;
  /**
   * Whether a clip has the labels of all that is heard inside, or of what is heard in its middle, for a
   * model of clips that scores a window around each frame; default `'inside'`.
   */
  labels?: 'inside' | 'middle' | undefined;
}

/** A sound in a file, in seconds; `label` indexes the classes. */
export interface StrongEvent {
  readonly onset: number;
  readonly offset: number;
  readonly label: number;
}

/** A file and all that sounds in it. */
export interface StrongFile {
  /** The path as the labels write it. */
  readonly id: string;
  /** Where the file lies. */
  readonly path: string;
  /** How long it is, in seconds. */
  readonly seconds: number;
  /** In the order of onsets; none where the labels name the file alone. */
  readonly events: readonly StrongEvent[];
}

/** Files with events; `label` of an event indexes `classes`. */
export interface StrongDataset {
  readonly classes: readonly string[];
  readonly files: readonly StrongFile[];
  readonly skipped: readonly SkippedClip[];
}

const USUAL = {
  file: ['filename', 'file', 'path', 'audio', 'fname'],
  label: ['event_label', 'label', 'class', 'category'],
  onset: ['onset', 'start'],
  offset: ['offset', 'end'],
};

const OPTION_NAMES: readonly (keyof StrongOptions)[] = [
  ...(['root', 'fileColumn', 'labelColumn', 'onsetColumn', 'offsetColumn'] as const),
  ...(['classes', 'skipMissing'] as const),
];

const WINDOW_NAMES = ['windowSeconds', 'hopSeconds', 'leastSeconds', 'labels'];

/** A shorter piece of an event is hardly heard. */
const LEAST_SECONDS = 0.1;

/** An annotation may end a little after the file: what people and codecs round. */
const BEYOND_SECONDS = 1;

/** Files that are opened at once, to learn how long they are. */
const PROBES = 32;

/**
 * Reads strong labels: a CSV or tab-separated file with a header and a row an event, as DCASE has them.
 *
 * A row with a file and neither times nor label is a file without events. Events that end after
 * their file are cut there.
 *
 * @throws PannsError `ERR_PANNS_DATA` for a malformed file, a missing column, times that are none or
 *   lie outside the file, labels that are not in `classes`, or missing audio files; `ERR_PANNS_IO`;
 *   `ERR_PANNS_AUDIO_*`; `ERR_PANNS_OPTION`
 */
export async function readStrong(
  path: string,
  options: StrongOptions = {},
): Promise<StrongDataset> {
  checkOptions(options, OPTION_NAMES, 'readStrong');
  const rows = readRows(await readCsv(path), options, path);
  const found = [...new Set(rows.flatMap(({ event }) => (event ? [event.label] : [])))].sort();
  const classes = options.classes ?? found;
  checkClassNames(classes, path);
  const unknown = found.filter((label) => !classes.includes(label));
  if (unknown.length > 0) {
    const guess = nearest(unknown[0] ?? '', classes);
    const what = `${unknown.length} labels are not among the ${classes.length} classes: ${firstTen(unknown)} (the nearest class to the first is "${guess}")`;
    throw dataError(path, what, { expected: classes.length, actual: unknown });
  }
  const byFile = new Map<string, Row[]>();
  for (const row of rows) {
    const own = byFile.get(row.file);
    if (own === undefined) byFile.set(row.file, [row]);
    else own.push(row);
  }
  const root = options.root ?? dirname(path);
  const all = [...byFile].map(([id, own]) => ({ id, path: resolve(root, id), rows: own }));
  const present = await existing(all);
  const missing = all.filter((_, i) => !present[i]);
  if (missing.length > 0 && !(options.skipMissing && missing.length < all.length)) {
    const named = firstTen(missing.map((file) => file.path));
    throw dataError(path, `${missing.length} of ${all.length} audio files are missing: ${named}`, {
      expected: 'existing files; set root if the paths start elsewhere, or skipMissing',
      actual: missing.length,
    });
  }
  const files: StrongFile[] = [];
  const there = all.filter((_, i) => present[i]);
  for (let at = 0; at < there.length; at += PROBES) {
    const part = there.slice(at, at + PROBES);
    files.push(...(await Promise.all(part.map((file) => toFile(file, classes, path)))));
  }
  const skipped = missing.map(({ id, path: file }) => {
    return { id, path: file, reason: 'the file does not exist' };
  });
  return { classes, files, skipped };
}

/**
 * Reads strong labels as clips for training and tagging: whole files, or windows of them, with the
 * labels that are heard inside.
 *
 * Windows begin every `hopSeconds`; the last one ends with the file. A clip may have no label.
 *
 * @throws PannsError as {@link readStrong}
 */
export async function fromStrong(
  path: string,
  options: StrongWindowOptions = {},
): Promise<Dataset> {
  checkOptions(options, [...OPTION_NAMES, ...WINDOW_NAMES], 'fromStrong');
  const { windowSeconds, hopSeconds, leastSeconds, labels, ...rest } = options;
  const windows = { windowSeconds, hopSeconds, leastSeconds, labels };
  return strongClips(await readStrong(path, rest), windows);
}

/** Clips of strong labels that have been read: see {@link fromStrong}. */
export function strongClips(
  { classes, files, skipped }: StrongDataset,
  options: Omit<StrongWindowOptions, keyof StrongOptions> = {},
): Dataset {
  checkOptions(options, WINDOW_NAMES, 'strongClips');
  const { windowSeconds = Infinity, leastSeconds, labels = 'inside' } = options;
  const { hopSeconds = windowSeconds } = options;
  const fits = windowSeconds > 0 && hopSeconds > 0 && hopSeconds <= windowSeconds;
  const middle = labels === 'middle';
  if (!middle && labels !== 'inside') {
    const what = `expected labels to be "inside" or "middle", got ${JSON.stringify(labels)}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'fromStrong', actual: labels });
  }
  if (middle && (leastSeconds !== undefined || windowSeconds === Infinity)) {
    const what = 'expected windowSeconds, and no leastSeconds, with labels "middle"';
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'fromStrong' });
  }
  const least = leastSeconds ?? LEAST_SECONDS;
  if (!fits || !(least >= 0)) {
    const what = `expected windowSeconds above 0, hopSeconds in 0..windowSeconds and leastSeconds >= 0, got ${windowSeconds}, ${hopSeconds} and ${least}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'fromStrong' });
  }
  const clips = files.flatMap((file): Clip[] => {
    const labelsIn = (from: number, to: number): number[] => {
      const heard = file.events.filter(({ onset, offset }) => {
        if (middle) return onset <= (from + to) / 2 && offset > (from + to) / 2;
        const inside = Math.min(offset, to) - Math.max(onset, from);
        return inside > 0 && inside >= Math.min(least, offset - onset) - 1e-9;
      });
      return [...new Set(heard.map(({ label }) => label))].sort((a, b) => a - b);
    };
    const { id, path, seconds } = file;
    if (seconds <= windowSeconds) return [{ id, path, labels: labelsIn(0, seconds) }];
    const last = seconds - windowSeconds;
    const count = Math.ceil(last / hopSeconds - 1e-9);
    return Array.from({ length: count + 1 }, (_, i) => {
      const start = Number(Math.min(i * hopSeconds, last).toFixed(6));
      const labels = labelsIn(start, start + windowSeconds);
      return { id: `${id}@${start}`, path, labels, start, duration: windowSeconds };
    });
  });
  return { classes, clips, skipped };
}

interface Row {
  readonly line: number;
  readonly file: string;
  readonly event: { onset: number; offset: number; label: string } | undefined;
}

function readRows({ header, records }: CsvLines, options: StrongOptions, path: string): Row[] {
  const column = (option: 'fileColumn' | 'labelColumn' | 'onsetColumn' | 'offsetColumn') => {
    const usual = USUAL[option.replace('Column', '') as keyof typeof USUAL];
    return columnOf(header, options[option], usual, option, path);
  };
  const places = [column('fileColumn'), column('onsetColumn'), column('offsetColumn')] as const;
  const labels = column('labelColumn');
  return records.map(({ line, cells }) => {
    const [file = '', from = '', to = ''] = places.map((place) => cells[place]);
    const label = cells[labels] ?? '';
    if (file === '') throw dataError(path, `line ${line} names no file`);
    if (from === '' && to === '' && label === '') return { line, file, event: undefined };
    if (label === '') throw dataError(path, `line ${line} has no label`);
    const onset = Number(from);
    const offset = Number(to);
    if (from !== '' && to !== '' && onset >= 0 && offset >= onset && offset < Infinity) {
      return { line, file, event: { onset, offset, label } };
    }
    throw dataError(path, `line ${line} lasts from "${from}" to "${to}"`, {
      expected: 'seconds, 0 <= onset <= offset',
      actual: [from, to],
    });
  });
}

async function toFile(
  { id, path: file, rows }: { id: string; path: string; rows: readonly Row[] },
  classes: readonly string[],
  path: string,
): Promise<StrongFile> {
  const { frames, sampleRate } = await probeAudio(file);
  // Some formats do not say how long they are: then the labels do.
  const known = frames >= 0;
  const latest = rows.reduce((most, { event }) => Math.max(most, event?.offset ?? 0), 0);
  const seconds = known ? frames / sampleRate : latest;
  const events: StrongEvent[] = [];
  for (const { line, event } of rows) {
    if (event === undefined) continue;
    const { onset, offset, label } = event;
    if (offset > seconds + BEYOND_SECONDS) {
      const what = `line ${line} ends at ${offset} s, and ${id} at ${seconds.toFixed(3)} s`;
      throw dataError(path, what, { expected: seconds, actual: offset });
    }
    const end = Math.min(offset, seconds);
    if (onset < end) events.push({ onset, offset: end, label: classes.indexOf(label) });
  }
  events.sort((a, b) => a.onset - b.onset || a.offset - b.offset);
  return { id, path: file, seconds, events };
}
