import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { checkOptions, PannsError } from '../errors.js';
import { ioError, systemCode } from '../io/failure.js';
import { readNpyHeader } from '../io/npy.js';
import { columnOf, readCsv } from './csv.js';
import {
  type Clip,
  checkClassNames,
  type Dataset,
  dataError,
  type SkippedClip,
} from './dataset.js';

/**
 * The files of a packed data set: a row of samples for each clip, a line for each row, and what neither
 * of them can say. The last is written last.
 */
export const PACKED_FILES = { samples: 'clips.npy', lines: 'clips.csv', facts: 'pack.json' };

/** The type of the samples, as numpy names it: 16 bits, little-endian. */
export const PACKED_TYPE = '<i2';

/** What `pack.json` holds. */
export interface PackFacts {
  readonly version: 1;
  /** In Hz. */
  readonly sampleRate: number;
  /** S of a row. */
  readonly samples: number;
  /** N, the rows. */
  readonly clips: number;
  readonly classes: readonly string[];
  /** Between the labels of a cell. */
  readonly labelSeparator: string;
  /** Clips of the data set that could not be read, and have no row. */
  readonly skipped: readonly SkippedClip[];
}

/** Options of {@link fromPacked}. */
export interface PackedOptions {
  /** The classes and their order; default those that were packed. */
  classes?: readonly string[] | undefined;
  /** Keep only the clips of these folds. */
  folds?: readonly (string | number)[] | undefined;
}

/** Whether a folder says that it is a packed data set. */
export async function isPacked(folder: string): Promise<boolean> {
  try {
    return (await stat(join(folder, PACKED_FILES.facts))).isFile();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return false;
    throw ioError(error, 'read', folder);
  }
}

/**
 * Opens a data set that {@link packClips} wrote: labels, folds and the order of clips are those of the
 * data set that was packed, and its clips are read without decoding anything.
 *
 * A model takes them at the rate they were packed at, and up to the length.
 *
 * @throws PannsError `ERR_PANNS_DATA` for files that are damaged, cut off or do not belong together, and
 *   for absent folds; `ERR_PANNS_IO`; `ERR_PANNS_OPTION`
 */
export async function fromPacked(folder: string, options: PackedOptions = {}): Promise<Dataset> {
  checkOptions(options, ['classes', 'folds'], 'fromPacked');
  const facts = await readFacts(join(folder, PACKED_FILES.facts));
  const classes = options.classes ?? facts.classes;
  checkClassNames(classes, folder);
  const samples = join(folder, PACKED_FILES.samples);
  const clips = await readLines(folder, facts, classes, await findSamples(samples, facts));
  const { skipped } = facts;
  if (options.folds === undefined) return { classes, clips, skipped };
  const wanted = new Set(options.folds.map(String));
  const found = new Set(clips.map(({ fold }) => fold));
  const absent = [...wanted].filter((fold) => !found.has(fold));
  if (absent.length > 0 || wanted.size === 0) {
    const what = `no clip is in fold ${absent.join(', ') || '(no fold was asked for)'}`;
    throw dataError(folder, what, { expected: [...found], actual: [...wanted] });
  }
  return { classes, clips: clips.filter(({ fold }) => wanted.has(fold ?? '')), skipped };
}

async function readFacts(path: string): Promise<PackFacts> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw ioError(error, 'read', path);
  }
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch (cause) {
    throw dataError(path, 'it is not JSON', { cause });
  }
  const facts = (typeof found === 'object' && found !== null ? found : {}) as Partial<PackFacts>;
  const { version, sampleRate, samples, clips, classes, labelSeparator, skipped } = facts;
  if (version !== undefined && version !== 1) {
    const what = `version ${version} of packed data sets is unknown here`;
    throw new PannsError('ERR_PANNS_UNSUPPORTED', what, { where: path, expected: 1 });
  }
  const counts = [sampleRate, samples, clips].every(
    (n) => Number.isSafeInteger(n) && Number(n) > 0,
  );
  const named = isTexts(classes) && typeof labelSeparator === 'string' && labelSeparator !== '';
  const listed = Array.isArray(skipped) && skipped.every(isSkipped);
  if (version === 1 && counts && named && listed) return facts as PackFacts;
  throw dataError(path, 'it does not describe a packed data set: pack the clips again', {
    expected: 'version, sampleRate, samples, clips, classes, labelSeparator, skipped',
  });
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function isSkipped(value: Partial<SkippedClip> | null): boolean {
  return (
    typeof value === 'object' && value !== null && isTexts([value.id, value.path, value.reason])
  );
}

/** Where the first row of the samples begins, in bytes. */
async function findSamples(path: string, { clips, samples }: PackFacts): Promise<number> {
  const { type, fortranOrder, shape, offset, fileBytes } = await readNpyHeader(path);
  if (type !== PACKED_TYPE || fortranOrder || `${shape}` !== `${[clips, samples]}`) {
    const what = `expected (${clips}, ${samples}) of ${PACKED_TYPE} in C order, got (${shape}) of ${type}${fortranOrder ? ' in Fortran order' : ''}`;
    throw dataError(path, what, { expected: [clips, samples], actual: shape });
  }
  const bytes = offset + 2 * clips * samples;
  if (fileBytes === bytes) return offset;
  const how = fileBytes < bytes ? 'cut off' : 'too long';
  const what = `the file is ${how}: ${fileBytes} bytes of ${bytes}; pack the clips again`;
  throw dataError(path, what, { expected: bytes, actual: fileBytes });
}

async function readLines(
  folder: string,
  facts: PackFacts,
  classes: readonly string[],
  offset: number,
): Promise<Clip[]> {
  const path = join(folder, PACKED_FILES.lines);
  const { header, records } = await readCsv(path);
  const place = (name: string) => columnOf(header, name, [], name, path);
  const [row, samples, label] = [place('row'), place('samples'), place('label')];
  const [name, source] = [place('name'), place('source')];
  const fold = header.includes('fold') ? place('fold') : undefined;
  const { sampleRate, samples: most, labelSeparator } = facts;
  const known = new Map(classes.map((name, index) => [name, index]));
  const file = join(folder, PACKED_FILES.samples);
  const found = new Set<number>();
  const clips = records.map(({ line, cells }): Clip => {
    const at = (column: number) => cells[column] ?? '';
    const whole = (column: number, low: number, high: number): number => {
      const value = /^\d+$/.test(at(column)) ? Number(at(column)) : Number.NaN;
      if (value >= low && value <= high) return value;
      const what = `line ${line} has the ${header[column]} "${at(column)}"`;
      throw dataError(path, what, { expected: `${low}..${high}`, actual: at(column) });
    };
    const number = whole(row, 0, facts.clips - 1);
    found.add(number);
    const own = whole(samples, 1, most);
    const labels = at(label) === '' ? [] : at(label).split(labelSeparator);
    const indices = labels.map((text) => {
      const index = known.get(text);
      if (index !== undefined) return index;
      throw dataError(path, `line ${line} has the label "${text}", which is no class`);
    });
    return {
      id: at(name),
      path: file,
      labels: indices.sort((a, b) => a - b),
      duration: own / sampleRate,
      ...(fold !== undefined && at(fold) !== '' && { fold: at(fold) }),
      packed: {
        ...{ offset: offset + 2 * number * most, samples: own, room: most, sampleRate },
        source: at(source),
      },
    };
  });
  if (clips.length === facts.clips && found.size === facts.clips) return clips;
  const what = `${clips.length} lines name ${found.size} of ${facts.clips} rows: pack the clips again`;
  throw dataError(path, what, { expected: facts.clips, actual: found.size });
}
