import { type FileHandle, open, readdir, rm } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { checkOptions, PannsError, throwIfAborted } from '../errors.js';
import { publishFolder, writeAll, writeFileAtomic } from '../io/atomic.js';
import { ioError, systemCode } from '../io/failure.js';
import { makeFolder } from '../io/folder.js';
import { removeLeftovers, temporaryBeside } from '../io/leftovers.js';
import { npyHeader } from '../io/npy.js';
import { allocateInt16 } from '../native/call.js';
import {
  type Clip,
  type Dataset,
  dataError,
  firstTen,
  type SkippedClip,
  sourceOf,
} from './dataset.js';
import { PACKED_FILES, PACKED_TYPE, type PackFacts } from './packed.js';
import {
  type ClipReader,
  checkPackedLength,
  checkPackedRate,
  clipRequest,
  type Decode,
  readerOf,
} from './reader.js';

/** Options of {@link packClips}. */
export interface PackOptions {
  /** Longer clips are cut, shorter ones padded with zeros; default 10. */
  seconds?: number | undefined;
  /** Of the samples, in Hz: that of the models they are for; default 32000. */
  sampleRate?: number | undefined;
  /** Reads clips; default audio files. */
  decode?: Decode | undefined;
  /** What to do about clips that cannot be read; default `'throw'`. */
  onBadClip?: 'throw' | 'skip' | undefined;
  /** Called with the number of clips done, and that of all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** What {@link packClips} has written. */
export interface PackReport {
  /** N, the rows. */
  readonly clips: number;
  /** S of a row. */
  readonly samples: number;
  /** Of the samples' file. */
  readonly bytes: number;
  /** Clips that could not be read, with the reasons. */
  readonly skipped: readonly SkippedClip[];
}

const OPTION_NAMES: readonly (keyof PackOptions)[] = [
  ...(['seconds', 'sampleRate', 'decode', 'onBadClip', 'onProgress', 'signal'] as const),
];

/** Samples begin with a page, so that a row of whole pages lies in whole pages. */
const PAGE_BYTES = 4096;

/** Of the rows that are read at once; as much is written meanwhile. */
const CHUNK_BYTES = 32 * 1024 ** 2;
const MOST_ROWS = 256;

/** One row: an hour and a half at 192 kHz. */
const MOST_SAMPLES = 2 ** 30;

/** What may stand between the labels of a cell. */
const SEPARATORS = [';', '|', '/', '\t', '+', '&'];

/**
 * Decodes a data set once, into a folder that {@link fromPacked} opens: `clips.npy`, an array (N, S) of
 * int16 that numpy can map, `clips.csv` with a line for each row, and `pack.json`.
 *
 * A sample x is stored as PANNs do: 32767 x, cut toward zero. A training that takes clips whole has the
 * bits of one on the files. The folder appears when it is whole. Memory is bounded, whatever the data
 * set: two pieces of 32 MiB, or of one clip each, and what it takes to list the clips.
 *
 * @throws PannsError `ERR_PANNS_DATA` for clips that cannot be read, and when none is left;
 *   `ERR_PANNS_IO`, also where the folder holds something; `ERR_PANNS_OPTION`; AbortError
 */
export async function packClips(
  dataset: Dataset,
  folder: string,
  options: PackOptions = {},
): Promise<PackReport> {
  checkOptions(options, OPTION_NAMES, 'packClips');
  const { signal, sampleRate = 32000 } = options;
  const samples = rowSamples(options);
  if (dataset.clips.length === 0) throw dataError(folder, 'there is no clip to pack');
  checkPackedRate(dataset.clips, sampleRate);
  checkPackedLength(dataset.clips, samples / sampleRate);
  throwIfAborted(signal);
  const target = resolve(folder);
  await checkEmpty(target);
  await removeLeftovers(target);
  const temporary = await temporaryBeside(target);
  try {
    await makeFolder(temporary);
    const { clips, skipped } = await writeSamples(dataset, target, temporary, samples, options);
    const labelSeparator = separatorFor(dataset.classes);
    const lines = csvLines(clips, dataset.classes, labelSeparator);
    await writeFileAtomic(join(temporary, PACKED_FILES.lines), lines);
    const facts: PackFacts = {
      ...{ version: 1, sampleRate, samples, clips: clips.length },
      ...{ classes: dataset.classes, labelSeparator, skipped },
    };
    const text = `${JSON.stringify(facts, null, 2)}\n`;
    await writeFileAtomic(join(temporary, PACKED_FILES.facts), [text]);
    throwIfAborted(signal);
    await publishFolder(temporary, target);
    const bytes = PAGE_BYTES + 2 * clips.length * samples;
    return { clips: clips.length, samples, bytes, skipped };
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

/** S of a row. */
function rowSamples(options: PackOptions): number {
  const { seconds = 10, sampleRate = 32000, onBadClip = 'throw' } = options;
  const fail = (what: string) => {
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'packClips' });
  };
  if (!(Number.isSafeInteger(sampleRate) && sampleRate >= 1 && sampleRate <= 768_000)) {
    fail(`expected sampleRate to be a whole number of Hz in 1..768000, got ${sampleRate}`);
  }
  const samples = Math.round(seconds * sampleRate);
  if (!(samples >= 1 && samples <= MOST_SAMPLES)) {
    fail(`expected seconds that make 1..${MOST_SAMPLES} samples, got ${seconds}`);
  }
  if (onBadClip !== 'throw' && onBadClip !== 'skip') {
    fail(`expected onBadClip to be "throw" or "skip", got ${JSON.stringify(onBadClip)}`);
  }
  return samples;
}

async function checkEmpty(folder: string): Promise<void> {
  let found: string[];
  try {
    found = await readdir(folder);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return;
    throw ioError(error, 'write', folder);
  }
  if (found.length === 0) return;
  const what = 'this folder holds something already: choose another, or remove it first';
  throw new PannsError('ERR_PANNS_IO', what, { where: folder, actual: found.length });
}

/** A clip that has a row, and its samples there. */
interface PackedRow {
  readonly clip: Clip;
  readonly samples: number;
}

async function writeSamples(
  { clips }: Dataset,
  target: string,
  temporary: string,
  samples: number,
  options: PackOptions,
): Promise<{ clips: PackedRow[]; skipped: SkippedClip[] }> {
  const { onBadClip = 'throw', onProgress, signal, sampleRate = 32000 } = options;
  const cancel = new Uint8Array(new SharedArrayBuffer(1));
  const stop = () => Atomics.store(cancel, 0, 1);
  const chunk = Math.max(1, Math.min(MOST_ROWS, Math.floor(CHUNK_BYTES / (2 * samples))));
  const reader = readerOf(options.decode);
  // One is read into while the other is written.
  const buffers = [allocateInt16(chunk * samples), allocateInt16(chunk * samples)] as const;
  const read = (number: number) => {
    const part = clips.slice(number * chunk, (number + 1) * chunk);
    const rows = buffers[number % 2 === 0 ? 0 : 1];
    const reading = readRows(reader, part, rows, { sampleRate, samples }, cancel);
    reading.catch(() => undefined);
    return reading;
  };
  const packed: PackedRow[] = [];
  const skipped: SkippedClip[] = [];
  const file = await attempt(open(join(temporary, PACKED_FILES.samples), 'wx'), target);
  signal?.addEventListener('abort', stop, { once: true });
  let reading = read(0);
  try {
    // The number of rows is known in the end.
    await writeAll(file, new Uint8Array(PAGE_BYTES), target);
    for (let number = 0; number * chunk < clips.length; number++) {
      const { rows, bad } = await reading;
      throwIfAborted(signal);
      if (bad.length > 0 && onBadClip === 'throw') throw unreadable(bad, target);
      if ((number + 1) * chunk < clips.length) reading = read(number + 1);
      skipped.push(...bad);
      for (const { clip, samples: own } of rows) packed.push({ clip, samples: own });
      await writeRuns(file, rows, target);
      onProgress?.(Math.min(clips.length, (number + 1) * chunk), clips.length);
    }
    if (packed.length === 0) throw unreadable(skipped, target);
    const header = npyHeader(PACKED_TYPE, [packed.length, samples], PAGE_BYTES);
    await writeAll(file, header, target, 0);
    await attempt(file.sync(), target);
    return { clips: packed, skipped };
  } finally {
    stop();
    signal?.removeEventListener('abort', stop);
    // What is under way still writes to the other buffer.
    await reading.catch(() => undefined);
    await attempt(file.close(), target);
  }
}

interface ReadRow extends PackedRow {
  readonly row: Int16Array;
}

async function readRows(
  reader: ClipReader,
  clips: readonly Clip[],
  buffer: Int16Array,
  shape: { readonly sampleRate: number; readonly samples: number },
  cancel: Uint8Array,
): Promise<{ rows: ReadRow[]; bad: SkippedClip[] }> {
  const { samples } = shape;
  const places = clips.map((_, i) => buffer.subarray(i * samples, (i + 1) * samples));
  const requests = clips.map((clip, i) => clipRequest(clip, places[i] as Int16Array, shape));
  const rows: ReadRow[] = [];
  const bad: SkippedClip[] = [];
  for (const [i, result] of (await reader.read(requests, cancel)).entries()) {
    const clip = clips[i] as Clip;
    if (typeof result === 'number') {
      rows.push({ clip, samples: result, row: places[i] as Int16Array });
    } else {
      bad.push({ id: clip.id, path: clip.path, reason: result.message });
    }
  }
  return { rows, bad };
}

/** Writes rows, those that lie one behind the other at once. */
async function writeRuns(
  file: FileHandle,
  rows: readonly ReadRow[],
  target: string,
): Promise<void> {
  for (let first = 0; first < rows.length; ) {
    const { buffer, byteOffset, byteLength } = (rows[first] as ReadRow).row;
    let end = first + 1;
    while (rows[end]?.row.byteOffset === byteOffset + (end - first) * byteLength) end++;
    await writeAll(file, new Uint8Array(buffer, byteOffset, (end - first) * byteLength), target);
    first = end;
  }
}

function unreadable(bad: readonly SkippedClip[], target: string): PannsError {
  const named = firstTen(bad.map(({ id, reason }) => `${id} (${reason})`));
  const what = `${bad.length} clips cannot be read: ${named}`;
  return dataError(target, what, {
    expected: "clips that can be read; onBadClip 'skip' leaves the others out",
    actual: bad,
  });
}

function separatorFor(classes: readonly string[]): string {
  const free = SEPARATORS.find((mark) => !classes.some((name) => name.includes(mark)));
  // Names of classes are text: no one writes this into them.
  return free ?? '\u001f';
}

/** Lines that are written at once: about 100 kB. */
const LINES_AT_ONCE = 1000;

function* csvLines(
  rows: readonly PackedRow[],
  classes: readonly string[],
  separator: string,
): Generator<string> {
  const nameOf = sourceNames(rows.map(({ clip }) => sourceOf(clip)));
  const folds = rows.some(({ clip }) => clip.fold !== undefined);
  yield `file,row,samples,label,${folds ? 'fold,' : ''}name,source\n`;
  for (let first = 0; first < rows.length; first += LINES_AT_ONCE) {
    const lines = rows.slice(first, first + LINES_AT_ONCE).map(({ clip, samples }, i) => {
      const label = clip.labels.map((index) => classes[index] ?? '').join(separator);
      const cells = [PACKED_FILES.samples, String(first + i), String(samples), label];
      if (folds) cells.push(clip.fold ?? '');
      cells.push(clip.id, nameOf(sourceOf(clip)));
      return `${cells.map(cell).join(',')}\n`;
    });
    yield lines.join('');
  }
}

/** A cell of a CSV file (RFC 4180); blanks at its ends would be taken for the file's own. */
function cell(text: string): string {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Names files without the folder that all of them lie in. */
function sourceNames(sources: readonly string[]): (source: string) => string {
  if (!sources.every(isAbsolute)) return (source) => source;
  let common = dirname(sources[0] ?? '');
  for (const source of sources) {
    while (!source.startsWith(common.endsWith(sep) ? common : `${common}${sep}`)) {
      common = dirname(common);
    }
  }
  return (source) => relative(common, source).split(sep).join('/');
}

async function attempt<T>(operation: Promise<T>, path: string): Promise<T> {
  try {
    return await operation;
  } catch (error) {
    throw ioError(error, 'write', path);
  }
}
