import { globalNamed, integer, MARK, text, tuple } from '../../lib/io/pth/opcodes.js';

/** A pickle of protocol 2 from its opcodes; text stands for its bytes. */
export function pickle(...parts: (Buffer | string)[]): Buffer {
  const bytes = parts.map((part) =>
    typeof part === 'string' ? Buffer.from(part, 'latin1') : part,
  );
  return Buffer.concat([Buffer.from([0x80, 2]), ...bytes, Buffer.from('.')]);
}

/** LONG1 of PyTorch's magic number. */
const MAGIC = Buffer.from('8a0a6cfc9c46f9206aa85019', 'hex');

/** A file as PyTorch wrote it before 1.6, around a pickle and its storages. */
export function legacyFile(
  object: Buffer,
  storages: readonly (readonly [key: string, count: number, bytes: Uint8Array])[] = [],
): Buffer {
  const keys = storages.map(([key]) => text(key));
  return Buffer.concat([
    pickle(MAGIC),
    pickle(integer(1001)),
    pickle('}', text('little_endian'), '\x88', 's'),
    object,
    pickle(']', MARK, ...keys, 'e'),
    ...storages.flatMap(([, count, bytes]) => {
      const head = Buffer.alloc(8);
      head.writeBigInt64LE(BigInt(count));
      return [head, bytes];
    }),
  ]);
}

/** The persistent id of a storage, as opcodes. */
export function storage(key: string, count: Buffer, kind = 'FloatStorage'): Buffer {
  const type = globalNamed('torch', kind);
  return Buffer.concat([
    tuple([text('storage'), type, text(key), text('cpu'), count]),
    Buffer.from('Q'),
  ]);
}

/** `_rebuild_tensor_v2` of a storage, as opcodes. */
export function tensor(
  memory: Buffer,
  offset: Buffer,
  shape: readonly Buffer[],
  stride: readonly Buffer[],
): Buffer {
  const args = [memory, offset, tuple(shape), tuple(stride), Buffer.from([0x89]), Buffer.from('N')];
  return Buffer.concat([
    globalNamed('torch._utils', '_rebuild_tensor_v2'),
    tuple(args),
    Buffer.from('R'),
  ]);
}
