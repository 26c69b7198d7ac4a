import { crc32 } from 'node:zlib';
import { PannsError } from '../../errors.js';
import type { Source } from '../source.js';
import { openCursor } from './cursor.js';
import { allowedIn } from './globals.js';
import { unpickle, unpickleRange } from './pickle.js';
import { badPth, type Dict, isKind, type Storage, type Value } from './values.js';
import { locate, readDirectory, type ZipRecord } from './zip.js';

/** What a PyTorch file holds, before anything of its tensors has been read. */
export interface Pickled {
  readonly format: 'pth' | 'pth-legacy';
  /** What was saved. */
  readonly root: Value;
  /** Where the bytes of each storage lie, by key. */
  readonly storages: ReadonlyMap<string, ZipRecord>;
}

/** What begins a file of PyTorch before 1.6. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
const LEGACY_PROTOCOL = 1001;

const PIECE_BYTES = 1 << 20;

/**
 * Reads a ZIP archive as `torch.save` writes it since 1.6: `X/data.pkl`, and a record `X/data/KEY` for
 * each storage.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`, `ERR_PANNS_UNSUPPORTED`, `ERR_PANNS_IO`
 */
export async function readArchive(source: Source): Promise<Pickled> {
  const where = source.name;
  const archive = await readDirectory(source);
  const pickles = [...archive.entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  const [name = ''] = pickles;
  if (pickles.length !== 1) {
    throw badPth(where, `expected one record X/data.pkl, found ${pickles.length}`);
  }
  const folder = name.slice(0, -'data.pkl'.length);
  if (archive.entries.has(`${folder}constants.pkl`)) {
    const what = 'it is a TorchScript program; save model.state_dict() in PyTorch instead';
    throw new PannsError('ERR_PANNS_UNSUPPORTED', what, { where });
  }
  if (archive.entries.has(`${folder}byteorder`)) {
    const order = await locate(source, archive, `${folder}byteorder`);
    const text = await source.read(order.at, Math.min(order.byteLength, 16));
    if (Buffer.from(text).toString() !== 'little') throw bigEndian(where);
  }
  const pickle = await locate(source, archive, name);
  await checkSum(source, pickle, name);
  const mentioned = new Map<string, Storage>();
  const end = pickle.at + pickle.byteLength;
  const root = await unpickleRange(source, pickle.at, end, allowedIn(where, mentioned));
  const storages = new Map<string, ZipRecord>();
  for (const [key, { byteLength }] of mentioned) {
    const record = await locate(source, archive, `${folder}data/${key}`);
    if (record.byteLength !== byteLength) {
      const what = `storage "${key}" has ${record.byteLength} bytes, and should have ${byteLength}`;
      throw badPth(where, what);
    }
    storages.set(key, record);
  }
  return { format: 'pth', root, storages };
}

/**
 * Reads a stream as `torch.save` wrote it before 1.6: magic number, protocol, facts about the machine,
 * what was saved, the storages' keys, then each storage behind its count of elements.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`, `ERR_PANNS_UNSUPPORTED`, `ERR_PANNS_IO`
 */
export async function readLegacy(source: Source): Promise<Pickled> {
  const where = source.name;
  const cursor = openCursor(source, 0, source.size);
  const mentioned = new Map<string, Storage>();
  const allowed = allowedIn(where, mentioned);
  const magic = await unpickle(cursor, allowed);
  if (magic !== LEGACY_MAGIC) throw badPth(where, 'it does not begin as PyTorch files do');
  const protocol = await unpickle(cursor, allowed);
  if (protocol !== LEGACY_PROTOCOL) {
    throw badPth(where, `its protocol is ${String(protocol)}, and should be ${LEGACY_PROTOCOL}`);
  }
  const machine = await unpickle(cursor, allowed);
  if (!isKind(machine, 'dict')) throw badPth(where, 'it does not say on which machine it was made');
  if (get(machine, 'little_endian') !== true) throw bigEndian(where);
  const root = await unpickle(cursor, allowed);
  const keys = await unpickle(cursor, allowed);
  if (!isKind(keys, 'list') || keys.items.length !== mentioned.size) {
    throw badPth(where, 'its list of storages is not that of its tensors');
  }
  const storages = new Map<string, ZipRecord>();
  for (const key of keys.items) {
    const storage = typeof key === 'string' ? mentioned.get(key) : undefined;
    if (storage === undefined || storages.has(storage.key)) {
      throw badPth(where, 'its list of storages names one twice, or one that no tensor has');
    }
    if (!cursor.holds(8)) await cursor.fill();
    const count = cursor.u64();
    const { byteLength } = storage;
    // The count is of elements; an untyped storage's elements are its bytes.
    const width = count === 0 ? 1 : byteLength / count;
    if (![1, 2, 4, 8].includes(width) || (count === 0 && byteLength !== 0)) {
      throw badPth(where, `storage "${storage.key}" has ${count} elements in ${byteLength} bytes`);
    }
    storages.set(storage.key, { at: cursor.position(), byteLength, crc32: 0 });
    cursor.skip(byteLength);
  }
  return { format: 'pth-legacy', root, storages };
}

/** The value of a key in a dict; the last one counts. */
export function get(dict: Dict, key: string): Value | undefined {
  for (let i = dict.pairs.length - 2; i >= 0; i -= 2) {
    if (dict.pairs[i] === key) return dict.pairs[i + 1];
  }
  return undefined;
}

/**
 * Compares a record's checksum with its bytes, read here piece by piece unless they are given.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`
 */
export async function checkSum(
  source: Source,
  record: ZipRecord,
  name: string,
  bytes?: Uint8Array,
): Promise<void> {
  // PyTorch writes 0 when it is told to compute none.
  if (record.crc32 === 0) return;
  let sum = 0;
  for (let at = 0; at < record.byteLength; at += PIECE_BYTES) {
    const length = Math.min(PIECE_BYTES, record.byteLength - at);
    if (bytes === undefined) {
      sum = crc32(await source.read(record.at + at, length), sum);
    } else {
      if (at > 0) await new Promise(setImmediate);
      sum = crc32(bytes.subarray(at, at + length), sum);
    }
  }
  if (sum !== record.crc32) throw badPth(source.name, `the checksum of "${name}" is wrong`);
}

function bigEndian(where: string): PannsError {
  const what = 'it was written on a big-endian machine; save it again on another one';
  return new PannsError('ERR_PANNS_UNSUPPORTED', what, { where });
}
