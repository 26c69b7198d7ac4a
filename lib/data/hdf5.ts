import { basename, join, resolve } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { checkOptions, PannsError, throwIfAborted } from '../errors.js';
import { readRows, rowBytes } from '../io/hdf5/blocks.js';
import { type Hdf5Dataset, REPACK, readDataset, readNumber } from '../io/hdf5/dataset.js';
import { foreignHdf5 } from '../io/hdf5/fields.js';
import { type Hdf5File, openHdf5 } from '../io/hdf5/file.js';
import { readLinks } from '../io/hdf5/group.js';
import { readHeader } from '../io/hdf5/header.js';
import { audiosetLabels } from '../labels.js';
import { existing } from './csv.js';
import {
  type Clip,
  checkClassNames,
  type Dataset,
  dataError,
  firstTen,
  type SkippedClip,
} from './dataset.js';

/** Options of {@link fromHdf5}. */
export interface Hdf5Options {
  /** The names of the columns of `target`, in their order; default AudioSet's, where there are 527. */
  classes?: readonly string[] | undefined;
  /** Of an index: the folder of its packs, where they are elsewhere than it says. */
  root?: string | undefined;
  /** Of packs that do not say it, in Hz. */
  sampleRate?: number | undefined;
  /**
   * What to do about rows without a name, clips that were missing when the file was packed, and are
   * silence without labels: PANNs count them where they evaluate. Default `'skip'`.
   */
  unnamed?: 'skip' | 'keep' | undefined;
  signal?: AbortSignal | undefined;
}

const OPTION_NAMES: readonly (keyof Hdf5Options)[] = [
  ...(['classes', 'root', 'sampleRate', 'unnamed', 'signal'] as const),
];

/** Clips that are made in a turn of the event loop. */
const CLIPS_AT_ONCE = 2000;

/**
 * Opens AudioSet as the scripts of audioset_tagging_cnn pack it: an HDF5 file with `waveform` (N, S) of
 * int16, `audio_name` and `target` (N, K), or an index of several, with `hdf5_path`, `index_in_hdf5`,
 * `audio_name` and `target`. A `fold` (N) of whole numbers becomes the clips' folds.
 *
 * Names and labels are read once; clips are read where they lie, as those of {@link fromPacked}, at the
 * rate that the file says. The packs of an index are looked for where it says, then, if it lies in a folder
 * `hdf5s` as the scripts make it, at the same place below that. Their names have to be the index's.
 *
 * @throws PannsError `ERR_PANNS_DATA` for files that are damaged, cut off, laid out otherwise or do not
 *   belong together; `ERR_PANNS_UNSUPPORTED` for forms of HDF5 that are not read, compressed ones among
 *   them; `ERR_PANNS_IO`; `ERR_PANNS_OPTION`; AbortError
 */
export async function fromHdf5(path: string, options: Hdf5Options = {}): Promise<Dataset> {
  checkOptions(options, OPTION_NAMES, 'fromHdf5');
  const { unnamed = 'skip', signal } = options;
  if (unnamed !== 'skip' && unnamed !== 'keep') {
    const what = `expected unnamed to be "skip" or "keep", got ${JSON.stringify(unnamed)}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'fromHdf5' });
  }
  const found = await opened(path, signal, async (file, arrays) => {
    const isPack = arrays.has('waveform');
    const parts = isPack ? PACK_PARTS : INDEX_PARTS;
    const missing = parts.filter((name) => !arrays.has(name));
    if (missing.length > 0) {
      const what = `expected ${PACK_PARTS.join(', ')}, or ${INDEX_PARTS.join(', ')}; the file has ${[...arrays.keys()].join(', ') || 'nothing'}`;
      throw dataError(path, what, { expected: parts, actual: [...arrays.keys()] });
    }
    const target = await array(file, arrays, 'target');
    const classes = classesOf(target, options.classes, path);
    const names = await readTexts(file, await array(file, arrays, 'audio_name'));
    const labels = await readLabels(file, target);
    const folds = arrays.has('fold')
      ? (await readNumbers(file, await array(file, arrays, 'fold'))).map(String)
      : undefined;
    const rows = { names, labels, folds };
    if (isPack) {
      const pack = await readPack(file, arrays, options.sampleRate);
      return { classes, rows, packs: [pack], places: undefined };
    }
    const paths = await readTexts(file, await array(file, arrays, 'hdf5_path'));
    const indices = await readNumbers(file, await array(file, arrays, 'index_in_hdf5'));
    return { classes, rows, packs: undefined, places: { paths, indices } };
  });
  const { classes, rows, packs, places } = found;
  for (const [name, values] of Object.entries({ ...rows, ...places })) {
    if (values === undefined || values.length === rows.names.length) continue;
    const what = `there are ${rows.names.length} names and ${values.length} of ${name}`;
    throw dataError(path, what, { expected: rows.names.length, actual: values.length });
  }
  const rowOf =
    places === undefined
      ? rowsOfPack(packs[0] as Pack, rows.names.length)
      : await rowsOfIndex(path, rows.names, places, options);
  const clips: Clip[] = [];
  const skipped: SkippedClip[] = [];
  for (const [i, name] of rows.names.entries()) {
    if (i % CLIPS_AT_ONCE === 0) await setImmediate();
    const { pack, row } = rowOf(i);
    const { samples, sampleRate } = pack;
    const id = name || `${basename(pack.path)}#${row}`;
    if (name === '' && unnamed === 'skip') {
      skipped.push({ id, path: pack.path, reason: 'it was missing when the file was packed' });
      continue;
    }
    clips.push({
      ...{ id, path: pack.path, labels: rows.labels[i] ?? [], duration: samples / sampleRate },
      ...(rows.folds !== undefined && { fold: rows.folds[i] ?? '' }),
      packed: {
        offset: pack.offset + 2 * row * samples,
        ...{ samples, room: samples, sampleRate, source: id },
      },
    });
  }
  if (clips.length > 0) return { classes, clips, skipped };
  throw dataError(path, `there is no clip: ${skipped.length} were missing when it was packed`);
}

const PACK_PARTS = ['waveform', 'audio_name', 'target'];
const INDEX_PARTS = ['hdf5_path', 'index_in_hdf5', 'audio_name', 'target'];

type Arrays = ReadonlyMap<string, number>;

/** Opens a file for as long as `body` takes. */
async function opened<T>(
  path: string,
  signal: AbortSignal | undefined,
  body: (file: Hdf5File, arrays: Arrays) => Promise<T>,
): Promise<T> {
  throwIfAborted(signal);
  const plain = await openHdf5(path);
  const read = (address: number, length: number) => {
    throwIfAborted(signal);
    return plain.read(address, length);
  };
  const file = { ...plain, read };
  try {
    return await body(file, await readLinks(file, await readHeader(file, file.root)));
  } finally {
    await file.close();
  }
}

function array(file: Hdf5File, arrays: Arrays, name: string): Promise<Hdf5Dataset> {
  return readDataset(file, name, arrays.get(name) ?? Number.NaN);
}

/** Where the samples of a pack lie. */
interface Pack {
  readonly path: string;
  readonly clips: number;
  readonly samples: number;
  readonly sampleRate: number;
  /** Of the first row, in bytes. */
  readonly offset: number;
}

async function readPack(file: Hdf5File, arrays: Arrays, told: number | undefined): Promise<Pack> {
  const { path, size } = file;
  const { shape, type, layout } = await array(file, arrays, 'waveform');
  const { kind, bytes, littleEndian, signed } = type;
  if (kind !== 'integer' || bytes !== 2 || !littleEndian || !signed || shape.length !== 2) {
    const sign = kind === 'integer' && !signed ? 'unsigned ' : '';
    const came = `(${shape}) of ${sign}${8 * bytes}-bit ${kind}${littleEndian ? '' : ', big-endian'}`;
    const what = `expected waveform to be (N, S) of int16, little-endian, got ${came}: pack the clips again`;
    throw dataError(path, what, { expected: '(N, S) of int16', actual: came });
  }
  const [clips = 0, samples = 0] = shape;
  if (clips < 1 || samples < 1) throw dataError(path, `waveform is empty: (${shape})`);
  if (layout === undefined) throw dataError(path, 'nothing was ever written to waveform');
  if (layout.kind !== 'contiguous') {
    throw foreignHdf5(path, `waveform lies in pieces (${layout.kind}): ${REPACK}`);
  }
  const offset = file.place(layout.address);
  const end = offset + 2 * clips * samples;
  if (!(end <= size)) {
    const what = `the file is damaged or cut off: ${size} bytes of the ${end} that waveform (${shape}) takes`;
    throw dataError(path, what, { expected: end, actual: size });
  }
  const said = readNumber(file, await readHeader(file, file.root), 'sample_rate');
  const sampleRate = said ?? told;
  if (sampleRate === undefined) {
    throw dataError(path, 'it has no attribute sample_rate: set the option sampleRate');
  }
  if (!(Number.isSafeInteger(sampleRate) && sampleRate > 0) || (told ?? said) !== sampleRate) {
    const what = `the attribute sample_rate is ${said}, the option ${told}`;
    throw dataError(path, what, { expected: told, actual: said });
  }
  return { path, clips, samples, sampleRate, offset };
}

function classesOf(
  { shape }: Hdf5Dataset,
  wanted: readonly string[] | undefined,
  path: string,
): readonly string[] {
  const columns = shape[1] ?? 0;
  const classes = wanted ?? audiosetLabels;
  checkClassNames(classes, path);
  if (shape.length === 2 && columns === classes.length) return classes;
  const what = `target is (${shape}), and there are names of ${classes.length} classes${wanted === undefined ? ", AudioSet's: set the option classes" : ''}`;
  throw dataError(path, what, { expected: classes.length, actual: columns });
}

/** Which pack a clip is in, and which row of it. */
type RowOf = (clip: number) => { readonly pack: Pack; readonly row: number };

function rowsOfPack(pack: Pack, names: number): RowOf {
  if (names === pack.clips) return (row) => ({ pack, row });
  const what = `there are ${pack.clips} waveforms and ${names} names`;
  throw dataError(pack.path, what, { expected: pack.clips, actual: names });
}

async function rowsOfIndex(
  path: string,
  names: readonly string[],
  { paths, indices }: { readonly paths: readonly string[]; readonly indices: readonly number[] },
  { root, sampleRate, signal }: Hdf5Options,
): Promise<RowOf> {
  const clipsOf = new Map<string, number[]>();
  for (const [i, said] of paths.entries()) {
    if (i % CLIPS_AT_ONCE === 0) await setImmediate();
    const own = clipsOf.get(said);
    if (own === undefined) clipsOf.set(said, [i]);
    else own.push(i);
  }
  const places = await findPacks([...clipsOf.keys()], path, root);
  const packs = new Map<string, Pack>();
  for (const [said, place] of places) {
    const { pack, own } = await opened(place, signal, async (file, arrays) => {
      const missing = PACK_PARTS.find((name) => !arrays.has(name));
      if (missing !== undefined) throw dataError(place, `the pack has no ${missing}`);
      const pack = await readPack(file, arrays, sampleRate);
      return { pack, own: await readTexts(file, await array(file, arrays, 'audio_name')) };
    });
    packs.set(said, pack);
    for (const [k, i] of (clipsOf.get(said) ?? []).entries()) {
      if (k % CLIPS_AT_ONCE === 0) await setImmediate();
      const index = indices[i] ?? -1;
      if (index >= 0 && index < pack.clips && own[index] === names[i]) continue;
      const what = `clip ${i} is "${names[i]}", and row ${index} of ${place} is ${own[index] === undefined ? 'none' : `"${own[index]}"`}: make the index again`;
      throw dataError(path, what, { expected: names[i], actual: own[index] });
    }
  }
  return (i) => ({ pack: packs.get(paths[i] ?? '') as Pack, row: indices[i] ?? 0 });
}

/** Where the packs of an index are, by the paths that it names them with. */
async function findPacks(
  paths: readonly string[],
  index: string,
  root: string | undefined,
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const missing: string[] = [];
  for (const path of paths) {
    const candidates = root === undefined ? placesOf(path, index) : placesBelow(path, root);
    const present = await existing(candidates.map((path) => ({ path })));
    const place = candidates[present.indexOf(true)];
    if (place === undefined) missing.push(path);
    else found.set(path, place);
  }
  if (missing.length === 0) return found;
  const what = `${missing.length} of ${paths.length} packs are missing: ${firstTen(missing)}`;
  throw dataError(index, what, {
    expected: 'existing files; the option root says where they are',
    actual: missing.length,
  });
}

/** The folder that the scripts keep packs and indexes in. */
const TREE = 'hdf5s';

function placesOf(path: string, index: string): string[] {
  const parts = path.split(/[\\/]/);
  const own = resolve(index).split(/[\\/]/);
  const [at, top] = [parts.lastIndexOf(TREE), own.lastIndexOf(TREE)];
  const moved = at < 0 || top < 0 ? [] : [[...own.slice(0, top), ...parts.slice(at)].join('/')];
  return [resolve(path), ...moved];
}

/** The longest end of a path first. */
function placesBelow(path: string, root: string): string[] {
  const parts = path.split(/[\\/]/).filter((part) => part !== '' && part !== '..');
  return parts.map((_, first) => join(root, ...parts.slice(first)));
}

async function readTexts(file: Hdf5File, dataset: Hdf5Dataset): Promise<string[]> {
  requireColumn(file, dataset, dataset.type.kind === 'text', 'text of a fixed length (S20)');
  const width = rowBytes(dataset);
  const texts: string[] = [];
  let last: { bytes: Buffer; text: string } = { bytes: Buffer.alloc(0), text: '' };
  for await (const { count, bytes } of readRows(file, dataset)) {
    const rows = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < count * width; at += width) {
      const row = rows.subarray(at, at + width);
      // The paths of an index are the same for thousands of clips.
      if (!row.equals(last.bytes)) {
        const end = row.indexOf(0);
        last = { bytes: row, text: row.toString('utf8', 0, end < 0 ? width : end) };
      }
      texts.push(last.text);
    }
  }
  return texts;
}

async function readNumbers(file: Hdf5File, dataset: Hdf5Dataset): Promise<number[]> {
  const { kind, bytes: width, littleEndian, signed } = dataset.type;
  const fits = kind === 'integer' && littleEndian && [1, 2, 4, 8].includes(width);
  requireColumn(file, dataset, fits, 'whole numbers, little-endian');
  const numbers: number[] = [];
  for await (const { count, bytes } of readRows(file, dataset)) {
    const rows = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < count; i++) {
      const at = i * width;
      if (width === 8) numbers.push(Number(rows.readBigInt64LE(at)));
      else numbers.push(signed ? rows.readIntLE(at, width) : rows.readUIntLE(at, width));
    }
  }
  return numbers;
}

/** The indices of the ones in each row. */
async function readLabels(file: Hdf5File, dataset: Hdf5Dataset): Promise<number[][]> {
  const { name, shape, type } = dataset;
  const isBytes = type.kind === 'integer' && type.bytes === 1;
  if (!isBytes && !(type.kind === 'float' && type.bytes === 4 && type.littleEndian)) {
    const what = `expected ${name} to be of bool or float32, got ${8 * type.bytes}-bit ${type.kind}`;
    throw dataError(file.path, what);
  }
  const columns = shape[1] ?? 0;
  const labels: number[][] = [];
  for await (const { first, count, bytes } of readRows(file, dataset)) {
    const values = isBytes ? bytes : new Float32Array(bytes.slice().buffer);
    for (let row = 0; row < count; row++) {
      const own: number[] = [];
      for (let column = 0; column < columns; column++) {
        const value = values[row * columns + column];
        if (value === 0) continue;
        if (value !== 1) {
          const what = `${name} is ${value} in row ${first + row}, column ${column}`;
          throw dataError(file.path, what, { expected: '0 or 1', actual: value });
        }
        own.push(column);
      }
      labels.push(own);
    }
  }
  return labels;
}

function requireColumn(
  { path }: Hdf5File,
  { name, shape, type }: Hdf5Dataset,
  fits: boolean,
  expected: string,
): void {
  if (fits && shape.length === 1) return;
  const came = `(${shape}) of ${8 * type.bytes}-bit ${type.kind}`;
  throw dataError(path, `expected ${name} to be (N) of ${expected}, got ${came}`);
}
