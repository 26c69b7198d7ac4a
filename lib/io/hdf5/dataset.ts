import { badHdf5, type Fields, fieldsOf, foreignHdf5 } from './fields.js';
import type { Hdf5File } from './file.js';
import { MESSAGE, type Message, readHeader } from './header.js';

/** The values of a data set: whole numbers, floats, text of a fixed length, or another kind. */
export interface Hdf5Type {
  readonly kind: 'integer' | 'float' | 'text' | 'other';
  /** Of one value. */
  readonly bytes: number;
  readonly littleEndian: boolean;
  /** Of whole numbers. */
  readonly signed: boolean;
}

/** Where the values lie: one behind the other, or in chunks that a tree names. */
export type Hdf5Layout =
  | { readonly kind: 'contiguous'; readonly address: number }
  | { readonly kind: 'compact'; readonly bytes: Uint8Array }
  | { readonly kind: 'chunked'; readonly tree: number; readonly chunk: readonly number[] };

/** An array of an HDF5 file. */
export interface Hdf5Dataset {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: Hdf5Type;
  /** Undefined where nothing was ever written. */
  readonly layout: Hdf5Layout | undefined;
}

/**
 * Reads what an object header says of a data set.
 *
 * @throws PannsError `ERR_PANNS_DATA` for what is none; `ERR_PANNS_UNSUPPORTED`, also for one that is
 *   compressed, with what to do; `ERR_PANNS_IO`
 */
export async function readDataset(
  file: Hdf5File,
  name: string,
  address: number,
): Promise<Hdf5Dataset> {
  const header = await readHeader(file, address);
  const find = (kind: number) => header.find((message) => message.kind === kind);
  const need = (kind: number): Fields => {
    const message = find(kind);
    if (message !== undefined) return fieldsOf(message.bytes, file.path);
    throw badHdf5(file.path, `expected "${name}" to be a data set, got something else`);
  };
  const shape = readShape(need(MESSAGE.dataspace));
  const type = readType(need(MESSAGE.datatype));
  if (type.bytes === 0)
    throw badHdf5(file.path, `it is damaged: values of "${name}" have no bytes`);
  if (find(MESSAGE.external)) {
    throw foreignHdf5(file.path, `"${name}" lies in other files, which is not read here`);
  }
  const filters = find(MESSAGE.filters);
  if (filters !== undefined && filters.bytes[1] !== 0) {
    throw foreignHdf5(file.path, `"${name}" is compressed: ${REPACK}`);
  }
  const layout = readLayout(need(MESSAGE.layout), name, file.path);
  if (layout?.kind !== 'chunked') return { name, shape, type, layout };
  // The last number is the bytes of a value.
  if (layout.chunk.length === shape.length + 1 && layout.chunk.at(-1) === type.bytes) {
    return { name, shape, type, layout: { ...layout, chunk: layout.chunk.slice(0, -1) } };
  }
  throw badHdf5(file.path, `it is damaged: the chunks of "${name}" do not fit its shape`);
}

/** What to do about a file in a form that is not read. */
export const REPACK = 'write it plainly (h5repack -f NONE -l CONTI old.h5 new.h5)';

function readShape(fields: Fields): number[] {
  const version = fields.number(1);
  const rank = fields.number(1);
  fields.skip(version === 1 ? 6 : 2);
  return Array.from({ length: rank }, () => fields.number(8));
}

const CLASSES = { integer: 0, float: 1, text: 3, enumeration: 8 };

function readType(fields: Fields): Hdf5Type {
  const read = () => ({
    ...{ kind: fields.number(1) & 15, flags: fields.number(3), bytes: fields.number(4) },
  });
  const own = read();
  // A truth value of h5py is an enumeration of 8-bit numbers.
  const { kind, flags } = own.kind === CLASSES.enumeration ? read() : own;
  const { bytes } = own;
  const littleEndian = (flags & 1) === 0;
  const signed = (flags & 8) !== 0;
  const known = { [CLASSES.integer]: 'integer', [CLASSES.float]: 'float', [CLASSES.text]: 'text' };
  return { kind: (known[kind] as Hdf5Type['kind']) ?? 'other', bytes, littleEndian, signed };
}

function readLayout(fields: Fields, name: string, path: string): Hdf5Layout | undefined {
  const version = fields.number(1);
  const kind = fields.number(1);
  const old = version === 3;
  if (!old && version !== 4) {
    throw foreignHdf5(path, `"${name}" is laid out in a way (${version}) that is not read here`);
  }
  if (kind === 0) return { kind: 'compact', bytes: fields.bytes(fields.number(2)) };
  if (kind === 1) {
    const address = fields.address();
    return address === undefined ? undefined : { kind: 'contiguous', address };
  }
  if (kind === 2 && old) {
    const rank = fields.number(1);
    const tree = fields.address();
    const chunk = Array.from({ length: rank }, () => fields.number(4));
    return tree === undefined ? undefined : { kind: 'chunked', tree, chunk };
  }
  const what = `"${name}" is virtual, or in chunks of libver='latest', which are not read here: ${REPACK}`;
  throw foreignHdf5(path, what);
}

/** The whole number that an attribute holds; undefined where there is none of this name. */
export function readNumber(
  file: Hdf5File,
  header: readonly Message[],
  wanted: string,
): number | undefined {
  for (const { kind, bytes } of header) {
    if (kind !== MESSAGE.attribute) continue;
    const fields = fieldsOf(bytes, file.path);
    const version = fields.number(1);
    fields.skip(1);
    const [name, type, space] = [fields.number(2), fields.number(2), fields.number(2)];
    if (version === 3) fields.skip(1);
    // Parts of version 1 fill up eights of bytes.
    const padded = (length: number) => (version === 1 ? 8 * Math.ceil(length / 8) : length);
    if (fields.text(padded(name)) !== wanted) continue;
    const found = readType(fields.part(padded(type)));
    fields.skip(padded(space));
    if (found.kind !== 'integer' || !found.littleEndian) return undefined;
    return fields.number(found.bytes);
  }
  return undefined;
}
