import { open } from 'node:fs/promises';
import { PannsError } from '../../errors.js';
import { ioError } from '../failure.js';
import { openFile, type Source } from '../source.js';
import { badHdf5, type Fields, fieldsOf, foreignHdf5 } from './fields.js';

// Our own, and not a library: a training needs to know at which byte samples lie, to read them as any
// other packed clips, and that is what libraries do not tell. What is read is what h5py writes of its
// own accord; the rest of the format is refused by name (the HDF5 File Format Specification, 3.0).

/** An HDF5 file whose beginning has been read. */
export interface Hdf5File {
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  /** Where the object header of the root group begins, as the file counts. */
  readonly root: number;
  /**
   * Bytes from an address of the file on.
   *
   * @throws PannsError `ERR_PANNS_DATA` where the file has none, `ERR_PANNS_IO`
   */
  read(address: number, length: number): Promise<Uint8Array>;
  /** The place of an address among the bytes of the file. */
  place(address: number): number;
  close(): Promise<void>;
}

const SIGNATURE = Buffer.from('\x89HDF\r\n\x1a\n', 'latin1');

/** A file may begin with something else: the signature then stands at 512 bytes, or twice as many, ... */
const FIRST_BLOCK = 512;

/** The longest superblock, with its entry of the root group. */
const SUPERBLOCK_BYTES = 100;

/** Whether a file begins as HDF5 does. @throws PannsError `ERR_PANNS_IO` */
export async function isHdf5(path: string): Promise<boolean> {
  try {
    await using file = await open(path, 'r');
    const head = Buffer.alloc(SIGNATURE.length);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    return bytesRead === head.length && head.equals(SIGNATURE);
  } catch (error) {
    throw ioError(error, 'read', path);
  }
}

/**
 * Opens an HDF5 file.
 *
 * @throws PannsError `ERR_PANNS_DATA` for a damaged file, or another kind; `ERR_PANNS_UNSUPPORTED`;
 *   `ERR_PANNS_IO`
 */
export async function openHdf5(path: string): Promise<Hdf5File> {
  const source = await openFile(path);
  try {
    return await readSuperblock(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function readSuperblock(source: Source): Promise<Hdf5File> {
  const { name: path, size } = source;
  const start = await findSignature(source);
  const head = await source.read(start, Math.min(SUPERBLOCK_BYTES, size - start));
  const fields = fieldsOf(head, path);
  fields.skip(SIGNATURE.length);
  const version = fields.number(1);
  if (version > 3) throw foreignHdf5(path, `version ${version} of HDF5 files is not read here`);
  const { base, end, root } =
    version < 2 ? oldBlock(fields, version, path) : newBlock(fields, path);
  if (end > size) throw badHdf5(path, `the file is cut off: ${size} bytes of ${end}`);
  return {
    ...{ path, size, root, place: (address) => base + address, close: source.close },
    async read(address, length) {
      const at = base + address;
      if (!(address >= 0 && length >= 0 && at + length <= size)) {
        const what = `the file is damaged or cut off: it ends at byte ${size}, and bytes ${at} to ${at + length} are needed`;
        throw badHdf5(path, what);
      }
      try {
        return await source.read(at, length);
      } catch (error) {
        if (!(error instanceof PannsError) || error.code === 'ERR_PANNS_IO') throw error;
        throw new PannsError('ERR_PANNS_DATA', error.message, { where: path, cause: error });
      }
    },
  };
}

async function findSignature(source: Source): Promise<number> {
  for (let at = 0; at + SUPERBLOCK_BYTES <= source.size; at = at === 0 ? FIRST_BLOCK : 2 * at) {
    if (SIGNATURE.equals(await source.read(at, SIGNATURE.length))) return at;
  }
  throw badHdf5(source.name, 'it is no HDF5 file: the signature is missing');
}

interface Superblock {
  readonly base: number;
  readonly end: number;
  readonly root: number;
}

/** Versions 0 and 1: the default of HDF5 up to 1.14. */
function oldBlock(fields: Fields, version: number, path: string): Superblock {
  fields.skip(4);
  checkWidths(fields, path);
  // The shape of group trees, which their nodes tell themselves, and flags; version 1 has one more.
  fields.skip(version === 0 ? 9 : 13);
  const base = fields.number(8);
  fields.address();
  const end = fields.number(8);
  fields.address();
  // The entry of the root group begins with a name that it does not have.
  fields.skip(8);
  return { base, end, root: fields.number(8) };
}

/** Versions 2 and 3: the default of HDF5 2, and `libver='latest'` before. */
function newBlock(fields: Fields, path: string): Superblock {
  checkWidths(fields, path);
  fields.skip(1);
  const base = fields.number(8);
  fields.address();
  return { base, end: fields.number(8), root: fields.number(8) };
}

function checkWidths(fields: Fields, path: string): void {
  const widths = [fields.number(1), fields.number(1)];
  if (widths.every((width) => width === 8)) return;
  throw foreignHdf5(path, `addresses and lengths of ${widths} bytes are not read here, 8 are`);
}
