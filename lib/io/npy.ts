import { open } from 'node:fs/promises';
import { PannsError } from '../errors.js';
import { type Chunk, writeFileAtomic } from './atomic.js';
import { ioError } from './failure.js';

const MAGIC = '\x93NUMPY';

/** The magic, version 1.0, and the length of the header: 10 bytes before it. */
const PREFIX_BYTES = 10;

/** The header ends where the data can be aligned, as numpy writes it. */
const ALIGNMENT = 64;

/** numpy itself reads no header that is longer than a sixth of this. */
const MOST_HEADER_BYTES = 65_535;

/**
 * Writes an array as a .npy file, version 1.0, which numpy.load reads: little-endian,
 * row-major, of float32, or of float16 where the data are its 16 bits.
 *
 * @throws PannsError `ERR_PANNS_SHAPE` for a shape that does not fit its data; `ERR_PANNS_IO`
 */
export async function writeNpy(
  path: string,
  shape: readonly number[],
  data: Float32Array | Uint16Array,
): Promise<void> {
  await writeFileAtomic(path, encodeNpy(shape, data));
}

/** The bytes of a .npy file: the header, then the array's own memory, not copied. */
export function encodeNpy(shape: readonly number[], data: Float32Array | Uint16Array): Chunk[] {
  const counts = shape.every((n) => Number.isSafeInteger(n) && n >= 0);
  if (!counts || shape.reduce((product, n) => product * n, 1) !== data.length) {
    const what = `the shape [${shape}] does not fit ${data.length} values`;
    throw new PannsError('ERR_PANNS_SHAPE', what, { where: 'writeNpy', actual: shape });
  }
  return [npyHeader(`<f${data.BYTES_PER_ELEMENT}`, shape, ALIGNMENT), data];
}

/** What comes before the array of a .npy file, version 1.0: a multiple of `alignment` bytes. */
export function npyHeader(type: string, shape: readonly number[], alignment: number): Uint8Array {
  // A Python tuple: one number is followed by a comma.
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const text = `{'descr': '${type}', 'fortran_order': False, 'shape': (${tuple}), }`;
  const unpadded = PREFIX_BYTES + text.length + 1;
  const padding = ' '.repeat(Math.ceil(unpadded / alignment) * alignment - unpadded);
  const length = Buffer.alloc(2);
  length.writeUInt16LE(text.length + padding.length + 1);
  const magic = Buffer.from(`${MAGIC}\x01\x00`, 'latin1');
  return Buffer.concat([magic, length, Buffer.from(`${text}${padding}\n`, 'latin1')]);
}

/** What a .npy file says of its array. */
export interface NpyArray {
  /** As numpy writes it: `<i2` is little-endian int16. */
  readonly type: string;
  readonly fortranOrder: boolean;
  readonly shape: readonly number[];
  /** Where the array begins, in bytes. */
  readonly offset: number;
  /** How long the file is. */
  readonly fileBytes: number;
}

/**
 * Reads the header of a .npy file, version 1 to 3; whether the array is all there is not looked at.
 *
 * @throws PannsError `ERR_PANNS_DATA` for anything else; `ERR_PANNS_IO`
 */
export async function readNpyHeader(path: string): Promise<NpyArray> {
  const bad = (what: string) => new PannsError('ERR_PANNS_DATA', what, { where: path });
  const { head, fileBytes } = await readHead(path);
  if (head.toString('latin1', 0, MAGIC.length) !== MAGIC) throw bad('it is not a .npy file');
  const version = head[MAGIC.length] ?? 0;
  if (version < 1 || version > 3) throw bad(`version ${version} of .npy files is unknown`);
  // The length has 2 bytes in version 1, and 4 later.
  const start = version === 1 ? PREFIX_BYTES : PREFIX_BYTES + 2;
  if (head.length < start) throw bad(`the header is cut off after ${head.length} bytes`);
  const length = version === 1 ? head.readUInt16LE(8) : head.readUInt32LE(8);
  if (length > MOST_HEADER_BYTES) throw bad(`a header of ${length} bytes is none`);
  const offset = start + length;
  if (head.length < offset) throw bad(`the header is cut off after ${head.length} bytes`);
  const found = parseHeader(head.toString('latin1', start, offset));
  if (found === undefined) {
    throw bad('the header is not the dictionary of descr, fortran_order and shape');
  }
  return { ...found, offset, fileBytes };
}

async function readHead(path: string): Promise<{ head: Buffer; fileBytes: number }> {
  try {
    await using file = await open(path, 'r');
    const status = await file.stat();
    if (!status.isFile()) throw new PannsError('ERR_PANNS_IO', 'it is not a file', { where: path });
    const head = Buffer.alloc(Math.min(status.size, PREFIX_BYTES + 2 + MOST_HEADER_BYTES));
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    return { head: head.subarray(0, bytesRead), fileBytes: status.size };
  } catch (error) {
    throw ioError(error, 'read', path);
  }
}

/** The dictionary, which has these three keys and no other (numpy.lib.format). */
function parseHeader(
  header: string,
): Pick<NpyArray, 'type' | 'fortranOrder' | 'shape'> | undefined {
  const text = header.trim();
  if (!text.startsWith('{') || !text.endsWith('}')) return undefined;
  const inner = text.slice(1, -1).trimEnd();
  const entry = /\s*'(\w+)'\s*:\s*('[^']*'|True|False|\([^()]*\))\s*(?:,|$)/y;
  const values = new Map<string, string>();
  while (entry.lastIndex < inner.length) {
    const [, key = '', value = ''] = entry.exec(inner) ?? [];
    if (key === '' || values.has(key)) return undefined;
    values.set(key, value);
  }
  const type = /^'([^']+)'$/.exec(values.get('descr') ?? '')?.[1];
  const order = values.get('fortran_order');
  const tuple = /^\((.*)\)$/s.exec(values.get('shape') ?? '')?.[1]?.trim();
  if (values.size !== 3 || type === undefined || tuple === undefined) return undefined;
  if (order !== 'True' && order !== 'False') return undefined;
  const counts = tuple === '' ? [] : tuple.replace(/,$/, '').split(',');
  const shape = counts.map((count) => (/^\d+$/.test(count.trim()) ? Number(count) : Number.NaN));
  if (!shape.every(Number.isSafeInteger)) return undefined;
  return { type, fortranOrder: order === 'True', shape };
}
