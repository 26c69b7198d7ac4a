import { readFileSync } from 'node:fs';
import { inflateRawSync } from 'node:zlib';

/** One float32 array of a numpy archive. */
export interface NpzArray {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

const CENTRAL_ENTRY = 0x02014b50;
const END_OF_DIRECTORY = 0x06054b50;

/** The float32 arrays of an .npz file by name: a zip archive of .npy files. */
export function readNpz(path: string): Map<string, NpzArray> {
  const zip = readFileSync(path);
  const end = zip.lastIndexOf(Buffer.from([0x50, 0x4b, 5, 6]));
  if (end < 0 || zip.readUInt32LE(end) !== END_OF_DIRECTORY) throw new Error(`${path}: no zip`);
  const arrays = new Map<string, NpzArray>();
  let at = zip.readUInt32LE(end + 16);
  for (let left = zip.readUInt16LE(end + 10); left > 0; left--) {
    if (zip.readUInt32LE(at) !== CENTRAL_ENTRY) throw new Error(`${path}: damaged directory`);
    const method = zip.readUInt16LE(at + 10);
    const size = zip.readUInt32LE(at + 20);
    const nameLength = zip.readUInt16LE(at + 28);
    const extra = zip.readUInt16LE(at + 30) + zip.readUInt16LE(at + 32);
    const local = zip.readUInt32LE(at + 42);
    const name = zip.toString('utf8', at + 46, at + 46 + nameLength);
    const start = local + 30 + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28);
    const packed = zip.subarray(start, start + size);
    arrays.set(name.replace(/\.npy$/, ''), readNpy(method === 0 ? packed : inflateRawSync(packed)));
    at += 46 + nameLength + extra;
  }
  return arrays;
}

function readNpy(bytes: Buffer): NpzArray {
  // Version 1 has a length of 2 bytes, later ones of 4.
  const wide = bytes.readUInt8(6) > 1;
  const start = (wide ? 12 : 10) + (wide ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8));
  const header = bytes.toString('latin1', 10, start);
  if (!/'descr': '<f4', 'fortran_order': False/.test(header))
    throw new Error(`not float32: ${header}`);
  const shape = [...(/\(([\d, ]*)\)/.exec(header)?.[1] ?? '').matchAll(/\d+/g)].map(Number);
  const data = new Float32Array((bytes.length - start) / 4);
  Buffer.from(data.buffer).set(bytes.subarray(start));
  return { shape, data };
}
