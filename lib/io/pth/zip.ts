import { PannsError } from '../../errors.js';
import type { Source } from '../source.js';
import { badPth } from './values.js';

// Our own, and not a library: PyTorch stores its records uncompressed so that they can be read in
// place, and what is needed is where a record lies. Libraries give streams of what is inside, for
// features (compression, data descriptors, encodings of names) that are refused here.

/** Where the bytes of one record lie. */
export interface ZipRecord {
  readonly at: number;
  readonly byteLength: number;
  /** 0 where PyTorch was told to compute none. */
  readonly crc32: number;
}

/** An archive whose directory has been read. */
export interface ZipArchive {
  /** By name; `at` is that of the local header until {@link locate} has read it. */
  readonly entries: ReadonlyMap<string, ZipRecord>;
  /** Where the directory begins, and every record ends. */
  readonly end: number;
}

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END_64 = 0x06064b50;
const LOCATOR_64 = 0x07064b50;

const LOCAL_BYTES = 30;
const CENTRAL_BYTES = 46;
const END_BYTES = 22;
const END_64_BYTES = 56;
const LOCATOR_BYTES = 20;

/** A comment of the archive is at most this long, and stands after its last record. */
const COMMENT_BYTES = 0xffff;
/** Stands where the true value is in the ZIP64 field. */
const ELSEWHERE = 0xffffffff;
const ENCRYPTED = 1;

/** Of the directory: 100,000 records with names of 100 bytes take 15 MB. */
const MOST_DIRECTORY_BYTES = 1 << 24;

/**
 * Reads the directory of a ZIP archive of stored records, as PyTorch writes it, ZIP64 included.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` for a damaged archive; `ERR_PANNS_UNSUPPORTED` for a
 *   compressed or encrypted one; `ERR_PANNS_IO`
 */
export async function readDirectory(source: Source): Promise<ZipArchive> {
  const { start, length, count } = await findDirectory(source);
  if (length > MOST_DIRECTORY_BYTES) {
    throw badPth(source.name, `its directory has ${length} bytes (limit ${MOST_DIRECTORY_BYTES})`);
  }
  const bytes = await source.read(start, length);
  const view = new DataView(bytes.buffer);
  const entries = new Map<string, ZipRecord>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL_BYTES > length || view.getUint32(at, true) !== CENTRAL) {
      throw badPth(source.name, `its directory is damaged at record ${i} of ${count}`);
    }
    const nameEnd = at + CENTRAL_BYTES + view.getUint16(at + 28, true);
    const extraEnd = nameEnd + view.getUint16(at + 30, true);
    const next = extraEnd + view.getUint16(at + 32, true);
    if (next > length) throw badPth(source.name, 'its directory ends within a record');
    const name = Buffer.from(bytes.buffer, at + CENTRAL_BYTES, nameEnd - at - CENTRAL_BYTES);
    const key = name.toString('utf8');
    if (entries.has(key)) throw badPth(source.name, `record "${key}" stands in it twice`);
    entries.set(key, entryAt(view, at, nameEnd, extraEnd, start, key, source.name));
    at = next;
  }
  if (at !== length) throw badPth(source.name, 'its directory holds more than its records');
  return { entries, end: start };
}

function entryAt(
  view: DataView,
  at: number,
  extra: number,
  extraEnd: number,
  end: number,
  name: string,
  where: string,
): ZipRecord {
  const method = view.getUint16(at + 10, true);
  if (method !== 0 || (view.getUint16(at + 8, true) & ENCRYPTED) !== 0) {
    const what = `record "${name}" is compressed or encrypted, and PyTorch stores records as they are; unpack the archive and save the weights again`;
    throw new PannsError('ERR_PANNS_UNSUPPORTED', what, { where });
  }
  const sizes = { packed: 20, full: 24, header: 42 };
  const values = Object.values(sizes).map((field) => view.getUint32(at + field, true));
  let [packed = 0, full = 0, header = 0] = values;
  const wide = zip64Field(view, extra, extraEnd);
  // The field holds those values alone that did not fit, in this order.
  if (full === ELSEWHERE) full = wide() ?? Number.NaN;
  if (packed === ELSEWHERE) packed = wide() ?? Number.NaN;
  if (header === ELSEWHERE) header = wide() ?? Number.NaN;
  if (packed !== full || !(header + LOCAL_BYTES + full <= end)) {
    throw badPth(where, `record "${name}" does not lie in the archive`);
  }
  return { at: header, byteLength: full, crc32: view.getUint32(at + 16, true) };
}

/** Gives the numbers of the ZIP64 extra field one after another. */
function zip64Field(view: DataView, from: number, end: number): () => number | undefined {
  let at = from;
  while (at + 4 <= end && view.getUint16(at, true) !== 1) at += 4 + view.getUint16(at + 2, true);
  let left = at + 4 <= end ? view.getUint16(at + 2, true) : 0;
  if (at + 4 + left > end) left = 0;
  at += 4;
  return () => {
    if (left < 8) return undefined;
    left -= 8;
    at += 8;
    return Number(view.getBigUint64(at - 8, true));
  };
}

/**
 * Where the bytes of a record begin: its own header is read, and has to agree with the directory.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`, `ERR_PANNS_IO`
 */
export async function locate(
  source: Source,
  archive: ZipArchive,
  name: string,
): Promise<ZipRecord> {
  const entry = archive.entries.get(name);
  if (entry === undefined) throw badPth(source.name, `record "${name}" is missing`);
  const expected = Buffer.from(name);
  const bytes = await source.read(entry.at, LOCAL_BYTES + expected.length);
  const header = new DataView(bytes.buffer);
  const nameLength = header.getUint16(26, true);
  const at = entry.at + LOCAL_BYTES + nameLength + header.getUint16(28, true);
  const same = nameLength === expected.length && expected.equals(bytes.subarray(LOCAL_BYTES));
  if (header.getUint32(0, true) !== LOCAL || !same || at + entry.byteLength > archive.end) {
    throw badPth(source.name, `record "${name}" is not where the directory says`);
  }
  return { ...entry, at };
}

async function findDirectory(source: Source) {
  const tail = Math.min(source.size, END_BYTES + COMMENT_BYTES);
  const base = source.size - tail;
  const view = new DataView((await source.read(base, tail)).buffer);
  let at = tail - END_BYTES;
  // The comment's length has to lead exactly to the end of the file.
  while (at >= 0 && !isEnd(view, at, tail)) at--;
  if (at < 0) throw badPth(source.name, 'the end of the ZIP archive is missing (truncated?)');
  const directory = {
    count: view.getUint16(at + 10, true),
    length: view.getUint32(at + 12, true),
    start: view.getUint32(at + 16, true),
  };
  const locator = at - LOCATOR_BYTES;
  let last = base + at;
  if (locator >= 0 && view.getUint32(locator, true) === LOCATOR_64) {
    last = Number(view.getBigUint64(locator + 8, true));
    const wide = new DataView((await source.read(last, END_64_BYTES)).buffer);
    if (wide.getUint32(0, true) !== END_64) throw badPth(source.name, 'its ZIP64 end is damaged');
    directory.count = Number(wide.getBigUint64(32, true));
    directory.length = Number(wide.getBigUint64(40, true));
    directory.start = Number(wide.getBigUint64(48, true));
  }
  if (directory.start + directory.length !== last) {
    throw badPth(source.name, 'its directory does not lie before its end');
  }
  return directory;
}

function isEnd(view: DataView, at: number, tail: number): boolean {
  return (
    view.getUint32(at, true) === END && at + END_BYTES + view.getUint16(at + 20, true) === tail
  );
}
