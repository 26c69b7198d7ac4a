/** Pieces of a pickle of protocol 2, as they are written. */
export const MARK = Buffer.from('(');
export const EMPTY_TUPLE = Buffer.from(')');
export const REDUCE = Buffer.from('R');
export const SETITEMS = Buffer.from('u');

/** A whole number from 0 to 2^53. */
export function integer(value: number): Buffer {
  if (value < 2 ** 8) return Buffer.from([0x4b, value]);
  if (value < 2 ** 31) {
    const four = Buffer.from('J\0\0\0\0');
    four.writeInt32LE(value, 1);
    return four;
  }
  // LONG1 of 8 bytes.
  const eight = Buffer.from([0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
  eight.writeBigInt64LE(BigInt(value), 2);
  return eight;
}

export function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'utf8');
  const length = Buffer.from('X\0\0\0\0');
  length.writeUInt32LE(bytes.length, 1);
  return Buffer.concat([length, bytes]);
}

export function tuple(items: readonly Buffer[]): Buffer {
  return items.length === 0 ? EMPTY_TUPLE : Buffer.concat([MARK, ...items, Buffer.from('t')]);
}

export function globalNamed(module: string, name: string): Buffer {
  return Buffer.from(`c${module}\n${name}\n`);
}
