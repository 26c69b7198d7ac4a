import { PannsError } from '../errors.js';
import { halfToNumber } from './half.js';
import { findDuplicateKey } from './json.js';
import { openFile, readInto, type Source } from './source.js';

/**
 * The safetensors format: 8 bytes of little-endian header length, a JSON header of names to
 * {dtype, shape, data_offsets}, then the tensors' bytes without a hole. Little-endian machines only,
 * as every platform this package is built for.
 */

/** The arrays that hold each element type; F16 and BF16 keep their 16 raw bits. */
export interface SafetensorsArrays {
  F64: Float64Array;
  F32: Float32Array;
  F16: Uint16Array;
  BF16: Uint16Array;
  I64: BigInt64Array;
  I32: Int32Array;
  I16: Int16Array;
  I8: Int8Array;
  U8: Uint8Array;
  BOOL: Uint8Array;
}

/** An element type this reader knows. */
export type SafetensorsDtype = keyof SafetensorsArrays;

/** One tensor: `data` is typed by `dtype` and holds the product of `shape` elements, row-major. */
export type SafetensorsTensor = {
  [D in SafetensorsDtype]: { dtype: D; shape: readonly number[]; data: SafetensorsArrays[D] };
}[SafetensorsDtype];

/** Where a tensor lies in its file: `byteOffset` counts from the start of the file. */
export interface SafetensorsEntry {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** The content of a whole safetensors file; tensors in the order of their places in it. */
export interface Safetensors {
  readonly metadata: Map<string, string>;
  readonly tensors: Map<string, SafetensorsTensor>;
}

/** A safetensors file of which only the header has been read. */
export interface SafetensorsFile {
  readonly metadata: Map<string, string>;
  readonly entries: Map<string, SafetensorsEntry>;
  /**
   * Reads one tensor into memory of its own; given `memory` that holds it, an F32 tensor into the
   * beginning of that, of which it is then a view.
   *
   * @throws PannsError `ERR_PANNS_OPTION` for a name that is not there, `ERR_PANNS_IO`,
   *   `ERR_PANNS_CHECKPOINT` when the file became shorter
   */
  read(name: string, memory?: Uint8Array): Promise<SafetensorsTensor>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Bytes an element. */
export const ELEMENT_BYTES: ReadonlyMap<string, number> = new Map(
  Object.entries({
    F64: 8,
    I64: 8,
    F32: 4,
    I32: 4,
    F16: 2,
    BF16: 2,
    I16: 2,
    I8: 1,
    U8: 1,
    BOOL: 1,
  }),
);

/** The limit of the format's reference reader; it bounds what a false length can allocate. */
export const MAX_HEADER_BYTES = 100_000_000;

/** The header's length comes first, as 64 bits. */
export const PREFIX_BYTES = 8;
/** The header's name for its own strings. */
export const METADATA = '__metadata__';

/**
 * Reads a whole safetensors file, from a path or from bytes already in memory.
 *
 * Bytes in memory are not copied: a tensor is a view of them where its offset suits its element
 * type, and a copy elsewhere. From a path every tensor gets memory of its own. Element values are not
 * checked.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` when the file is damaged or hostile; `ERR_PANNS_IO` when
 *   it cannot be read
 */
export async function readSafetensors(source: string | Uint8Array): Promise<Safetensors> {
  if (typeof source !== 'string') return parseSafetensors(source);
  const file = await openSafetensors(source);
  try {
    const tensors = new Map<string, SafetensorsTensor>();
    for (const name of file.entries.keys()) tensors.set(name, await file.read(name));
    return { metadata: file.metadata, tensors };
  } finally {
    await file.close();
  }
}

/**
 * Reads a safetensors file that is in memory; `where` names it in errors.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`
 */
export function parseSafetensors(bytes: Uint8Array, where = 'safetensors'): Safetensors {
  const headerBytes = headerLength(bytes, bytes.byteLength, where);
  const end = PREFIX_BYTES + headerBytes;
  const header = parseHeader(bytes.subarray(PREFIX_BYTES, end), end, bytes.byteLength, where);
  const tensors = new Map<string, SafetensorsTensor>();
  for (const [name, entry] of header.entries) {
    const { byteOffset, byteLength } = entry;
    const part = bytes.subarray(byteOffset, byteOffset + byteLength);
    tensors.set(name, tensorFrom(entry.dtype, entry.shape, part));
  }
  return { metadata: header.metadata, tensors };
}

/**
 * Opens a safetensors file and reads its header alone; tensors are read one by one when asked for.
 *
 * Call `close()`, or declare it with `await using`.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`, `ERR_PANNS_IO`
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const source = await openFile(path);
  try {
    return await safetensorsIn(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/**
 * Reads the header of a source, which the result closes with itself.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`, `ERR_PANNS_IO`
 */
export async function safetensorsIn(source: Source): Promise<SafetensorsFile> {
  const { name: path, size } = source;
  const prefix = await source.read(0, Math.min(PREFIX_BYTES, size));
  const headerBytes = headerLength(prefix, size, path);
  const text = await source.read(PREFIX_BYTES, headerBytes);
  const { metadata, entries } = parseHeader(text, PREFIX_BYTES + headerBytes, size, path);
  const close = () => source.close();
  const read = async (name: string, memory?: Uint8Array) => {
    const entry = entries.get(name);
    if (entry === undefined) {
      throw new PannsError('ERR_PANNS_OPTION', `there is no tensor named "${name}"`, {
        where: path,
        actual: name,
      });
    }
    const { dtype, shape, byteOffset, byteLength } = entry;
    const own = dtype === 'F32' ? memory : undefined;
    return tensorFrom(dtype, shape, await readInto(source, byteOffset, byteLength, own));
  };
  return { metadata, entries, read, close, [Symbol.asyncDispose]: close };
}

/**
 * The values of a tensor as float32, widened or rounded to nearest as needed (I64 and F64 lose what
 * float32 cannot hold); an F32 tensor's own data comes back, not a copy.
 */
export function toFloat32(tensor: SafetensorsTensor): Float32Array {
  switch (tensor.dtype) {
    case 'F32':
      return tensor.data;
    case 'BF16': {
      const bits = Uint32Array.from(tensor.data, (half) => half << 16);
      return new Float32Array(bits.buffer);
    }
    case 'F16':
      return Float32Array.from(tensor.data, halfToNumber);
    case 'I64': {
      const out = new Float32Array(tensor.data.length);
      for (let i = 0; i < out.length; i++) out[i] = Number(tensor.data[i]);
      return out;
    }
    default:
      return new Float32Array(tensor.data);
  }
}

function damaged(where: string, what: string, expected?: unknown, actual?: unknown): PannsError {
  return new PannsError('ERR_PANNS_CHECKPOINT', `not a valid safetensors file: ${what}`, {
    where,
    expected,
    actual,
  });
}

function headerLength(bytes: Uint8Array, fileBytes: number, where: string): number {
  if (bytes.byteLength < PREFIX_BYTES) {
    throw damaged(where, `it has ${fileBytes} bytes, and the header's length alone takes 8`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, PREFIX_BYTES);
  const length = view.getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw damaged(where, `it claims a header of ${length} bytes (limit ${MAX_HEADER_BYTES})`);
  }
  if (length > BigInt(fileBytes - PREFIX_BYTES)) {
    throw damaged(where, `it claims a header of ${length} bytes and has ${fileBytes} in all`);
  }
  return Number(length);
}

interface Header {
  metadata: Map<string, string>;
  entries: Map<string, SafetensorsEntry>;
}

function parseHeader(text: Uint8Array, start: number, fileBytes: number, where: string): Header {
  const parsed = parseJson(text, where);
  const metadata = new Map<string, string>();
  const entries = new Map<string, SafetensorsEntry>();
  for (const [name, value] of Object.entries(parsed)) {
    if (name !== METADATA) {
      entries.set(name, parseEntry(name, value, start, where));
      continue;
    }
    if (!isObject(value)) throw damaged(where, 'its metadata is not an object of strings');
    for (const [key, item] of Object.entries(value)) {
      if (typeof item !== 'string') {
        throw damaged(where, `its metadata "${key}" is not a string`, 'string', typeof item);
      }
      metadata.set(key, item);
    }
  }
  return { metadata, entries: byPlace(entries, start, fileBytes, where) };
}

function parseJson(text: Uint8Array, where: string): Record<string, unknown> {
  // The format asks for "{" as the first byte, which also refuses a byte order mark.
  if (text[0] !== 0x7b) throw damaged(where, 'its header does not begin with "{"');
  let json: string;
  let parsed: unknown;
  try {
    json = new TextDecoder('utf-8', { fatal: true }).decode(text);
    parsed = JSON.parse(json);
  } catch (error) {
    throw damaged(where, `its header is not JSON (${(error as Error).message})`);
  }
  if (!isObject(parsed)) throw damaged(where, 'its header is not a JSON object');
  const twice = findDuplicateKey(json);
  if (twice !== undefined) throw damaged(where, `its header has the name "${twice}" twice`);
  return parsed;
}

function parseEntry(name: string, value: unknown, start: number, where: string): SafetensorsEntry {
  if (!isObject(value)) throw damaged(where, `tensor "${name}" is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  const width = typeof dtype === 'string' ? ELEMENT_BYTES.get(dtype) : undefined;
  if (width === undefined) {
    const known = [...ELEMENT_BYTES.keys()];
    const shown = JSON.stringify(dtype);
    const what = `tensor "${name}" has the element type ${shown} (known: ${known.join(', ')})`;
    throw damaged(where, what, known, dtype);
  }
  if (!isCountArray(shape)) {
    throw damaged(where, `tensor "${name}" has a shape that is not a list of whole numbers >= 0`);
  }
  if (!isCountArray(offsets) || offsets.length !== 2) {
    throw damaged(where, `tensor "${name}" has data_offsets that are not two whole numbers >= 0`);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end)
    throw damaged(where, `tensor "${name}" ends (${end}) before it begins (${begin})`);
  const byteLength = shapeBytes(shape, width);
  if (byteLength !== end - begin) {
    const size = byteLength === undefined ? 'too many' : byteLength;
    const what = `tensor "${name}" of shape [${shape}] and type ${dtype} takes ${size} bytes, its data_offsets hold ${end - begin}`;
    throw damaged(where, what, byteLength, end - begin);
  }
  return { dtype: dtype as SafetensorsDtype, shape, byteOffset: start + begin, byteLength };
}

/** The bytes of a tensor, or undefined where a product on the way leaves the exact integers. */
export function shapeBytes(shape: readonly number[], width: number): number | undefined {
  let bytes = width;
  for (const size of shape) {
    bytes *= size;
    if (!Number.isSafeInteger(bytes)) return undefined;
  }
  return bytes;
}

/** Orders the tensors by place; they must tile the rest of the file: no hole, overlap or tail. */
function byPlace(
  entries: ReadonlyMap<string, SafetensorsEntry>,
  start: number,
  fileBytes: number,
  where: string,
): Map<string, SafetensorsEntry> {
  const ordered = [...entries].sort(
    ([, a], [, b]) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength,
  );
  let place = start;
  for (const [name, { byteOffset, byteLength }] of ordered) {
    if (byteOffset !== place) {
      const fault =
        byteOffset < place ? 'overlaps the tensor before it' : 'leaves a hole before it';
      throw damaged(where, `tensor "${name}" ${fault}`, place - start, byteOffset - start);
    }
    place += byteLength;
    if (place > fileBytes) {
      const what = `tensor "${name}" reaches to byte ${place} of a file of ${fileBytes} (truncated?)`;
      throw damaged(where, what, place, fileBytes);
    }
  }
  if (place !== fileBytes) {
    throw damaged(where, `${fileBytes - place} bytes follow the last tensor`, place, fileBytes);
  }
  return new Map(ordered);
}

/** A tensor over its bytes: a view of them where their place suits the element type, or a copy. */
export function tensorFrom(
  dtype: SafetensorsDtype,
  shape: readonly number[],
  bytes: Uint8Array,
): SafetensorsTensor {
  const width = ELEMENT_BYTES.get(dtype) ?? 1;
  // Not slice(): that of a Buffer shares its memory.
  const { buffer, byteOffset } = bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes);
  const length = bytes.byteLength / width;
  switch (dtype) {
    case 'F64':
      return { dtype, shape, data: new Float64Array(buffer, byteOffset, length) };
    case 'F32':
      return { dtype, shape, data: new Float32Array(buffer, byteOffset, length) };
    case 'F16':
    case 'BF16':
      return { dtype, shape, data: new Uint16Array(buffer, byteOffset, length) };
    case 'I64':
      return { dtype, shape, data: new BigInt64Array(buffer, byteOffset, length) };
    case 'I32':
      return { dtype, shape, data: new Int32Array(buffer, byteOffset, length) };
    case 'I16':
      return { dtype, shape, data: new Int16Array(buffer, byteOffset, length) };
    case 'I8':
      return { dtype, shape, data: new Int8Array(buffer, byteOffset, length) };
    case 'U8':
    case 'BOOL':
      return { dtype, shape, data: new Uint8Array(buffer, byteOffset, length) };
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whole numbers >= 0 that are exact. */
export function isCountArray(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.every((n) => Number.isSafeInteger(n) && n >= 0 && !Object.is(n, -0))
  );
}
