import { crc32 } from 'node:zlib';

/** A ZIP archive of stored records with the given content; `change` may falsify the directory's fields. */
export function zipOf(
  records: readonly (readonly [name: string, content: Uint8Array])[],
  { sums = true, zip64 = false }: { sums?: boolean; zip64?: boolean } = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, content] of records) {
    const fields = Buffer.alloc(26);
    const sum = sums ? crc32(content) : 0;
    fields.writeUInt32LE(sum, 10);
    fields.writeUInt32LE(content.length, 14);
    fields.writeUInt32LE(content.length, 18);
    fields.writeUInt16LE(Buffer.byteLength(name), 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), fields, Buffer.from(name)]);
    const entry = Buffer.alloc(46);
    entry.write('PK\x01\x02', 'latin1');
    entry.writeUInt32LE(sum, 16);
    entry.writeUInt32LE(zip64 ? 0xffffffff : content.length, 20);
    entry.writeUInt32LE(zip64 ? 0xffffffff : content.length, 24);
    entry.writeUInt16LE(Buffer.byteLength(name), 28);
    entry.writeUInt32LE(zip64 ? 0xffffffff : at, 42);
    const extra = Buffer.alloc(zip64 ? 28 : 0);
    if (zip64) {
      entry.writeUInt16LE(extra.length, 30);
      extra.writeUInt16LE(1, 0);
      extra.writeUInt16LE(24, 2);
      for (const [i, value] of [content.length, content.length, at].entries()) {
        extra.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
      }
    }
    directory.push(entry, Buffer.from(name), extra);
    parts.push(local, Buffer.from(content));
    at += local.length + content.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(zip64 ? 0xffff : records.length, 10);
  end.writeUInt32LE(zip64 ? 0xffffffff : central.length, 12);
  end.writeUInt32LE(zip64 ? 0xffffffff : at, 16);
  if (!zip64) return Buffer.concat([...parts, central, end]);
  const wide = Buffer.alloc(56);
  wide.write('PK\x06\x06', 'latin1');
  wide.writeBigUInt64LE(BigInt(records.length), 32);
  wide.writeBigUInt64LE(BigInt(central.length), 40);
  wide.writeBigUInt64LE(BigInt(at), 48);
  const locator = Buffer.alloc(20);
  locator.write('PK\x06\x07', 'latin1');
  locator.writeBigUInt64LE(BigInt(at + central.length), 8);
  return Buffer.concat([...parts, central, wide, locator, end]);
}
