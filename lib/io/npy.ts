import { PannsError } from '../errors.js';
import { type Chunk, writeFileAtomic } from './atomic.js';

/** The magic, version 1.0, and the length of the header: 10 bytes before it. */
const PREFIX_BYTES = 10;

/** The header ends where the data can be aligned, as numpy writes it. */
const ALIGNMENT = 64;

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
  // A Python tuple: one number is followed by a comma.
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const text = `{'descr': '<f${data.BYTES_PER_ELEMENT}', 'fortran_order': False, 'shape': (${tuple}), }`;
  const unpadded = PREFIX_BYTES + text.length + 1;
  const padding = ' '.repeat(Math.ceil(unpadded / ALIGNMENT) * ALIGNMENT - unpadded);
  const length = Buffer.alloc(2);
  length.writeUInt16LE(text.length + padding.length + 1);
  const magic = Buffer.from('\x93NUMPY\x01\x00', 'latin1');
  return [Buffer.concat([magic, length, Buffer.from(`${text}${padding}\n`, 'latin1')]), data];
}
