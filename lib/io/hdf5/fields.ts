import { PannsError } from '../../errors.js';

/** A file that is damaged, or no HDF5. */
export function badHdf5(where: string, what: string): PannsError {
  return new PannsError('ERR_PANNS_DATA', what, { where });
}

/** A file that is sound, and has what is not read here. */
export function foreignHdf5(where: string, what: string): PannsError {
  return new PannsError('ERR_PANNS_UNSUPPORTED', what, { where });
}

/** Reads the little-endian fields of a piece of a file, one after another. */
export interface Fields {
  /** Of the next field. */
  readonly at: number;
  readonly left: number;
  skip(bytes: number): void;
  /** A number of 1 to 8 bytes. */
  number(bytes: number): number;
  /** A place in the file; undefined where the format says that there is none. */
  address(): number | undefined;
  /** Text of so many bytes, up to a zero. */
  text(bytes: number): string;
  /** Fields of the next so many bytes, which are passed over here. */
  part(bytes: number): Fields;
  bytes(count: number): Uint8Array;
}

/** The fields of bytes. @throws PannsError `ERR_PANNS_DATA` where one ends behind them */
export function fieldsOf(bytes: Uint8Array, where: string): Fields {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (count: number): number => {
    // Not at + count > length: a NaN must not pass.
    if (!(count >= 0 && at + count <= bytes.length)) {
      throw badHdf5(where, 'it is damaged: a part of it ends behind its own length');
    }
    at += count;
    return at - count;
  };
  const fields: Fields = {
    get at() {
      return at;
    },
    get left() {
      return bytes.length - at;
    },
    skip: take,
    number(count) {
      const first = take(count);
      let value = 0;
      for (let i = count - 1; i >= 0; i--) value = value * 256 + view.getUint8(first + i);
      if (Number.isSafeInteger(value)) return value;
      throw badHdf5(where, `it is damaged: it says ${value} where no file has so much`);
    },
    address() {
      const first = take(8);
      if (view.getBigUint64(first, true) === NOWHERE) return undefined;
      at = first;
      return fields.number(8);
    },
    text(count) {
      const found = fields.bytes(count);
      const end = found.indexOf(0);
      return Buffer.from(found.subarray(0, end < 0 ? count : end)).toString('utf8');
    },
    part: (count) => fieldsOf(fields.bytes(count), where),
    bytes(count) {
      const first = take(count);
      return bytes.subarray(first, first + count);
    },
  };
  return fields;
}

/** An address that is none. */
const NOWHERE = 0xffff_ffff_ffff_ffffn;
