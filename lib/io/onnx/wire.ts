import { PannsError } from '../../errors.js';
import type { Chunk } from '../atomic.js';

/** Bytes that are made when they are written, so that no file has to fit into memory. */
export interface Deferred {
  readonly byteLength: number;
  read(): Promise<ArrayBufferView>;
}

/** A run of encoded fields; a message is one too, and is embedded as the value of a field. */
export interface Fields {
  readonly byteLength: number;
  readonly pieces: readonly (Uint8Array | Deferred)[];
}

/** How a field's value is laid out, in the three lowest bits of its tag. */
const WIRE = { varint: 0, lengthDelimited: 2, fixed32: 5 } as const;

/** Fields one after another. */
export function fields(...parts: readonly Fields[]): Fields {
  return {
    byteLength: parts.reduce((sum, { byteLength }) => sum + byteLength, 0),
    pieces: parts.flatMap(({ pieces }) => pieces),
  };
}

/** An int64 or enum. */
export function integer(field: number, value: number): Fields {
  return bytesOf([...varint(8 * field + WIRE.varint), ...varint(value)]);
}

/** A float, rounded to single precision. */
export function float(field: number, value: number): Fields {
  const encoded = new DataView(new ArrayBuffer(4));
  encoded.setFloat32(0, value, true);
  const four = new Uint8Array(encoded.buffer);
  return bytesOf([...varint(8 * field + WIRE.fixed32), ...four]);
}

/** A string as UTF-8. */
export function text(field: number, value: string): Fields {
  return blob(field, Buffer.from(value, 'utf8'));
}

/** Bytes, there already or still to be read. */
export function blob(field: number, value: Uint8Array | Deferred): Fields {
  return message(field, { byteLength: value.byteLength, pieces: [value] });
}

/** An embedded message. */
export function message(field: number, value: Fields): Fields {
  const head = [...varint(8 * field + WIRE.lengthDelimited), ...varint(value.byteLength)];
  return fields(bytesOf(head), value);
}

/**
 * The bytes in order: what is small in one piece up to the next deferred value, and that value.
 *
 * @throws PannsError `ERR_PANNS_INTERNAL` for a value of another length than it promised
 */
export async function* chunksOf({ pieces }: Fields): AsyncGenerator<Chunk> {
  let small: Uint8Array[] = [];
  for (const piece of pieces) {
    if (piece instanceof Uint8Array) {
      small.push(piece);
      continue;
    }
    yield Buffer.concat(small);
    small = [];
    const bytes = await piece.read();
    // The lengths before it are written already, and hold only if this one does.
    if (bytes.byteLength !== piece.byteLength) {
      const what = `expected a tensor of ${piece.byteLength} bytes, got ${bytes.byteLength}`;
      throw new PannsError('ERR_PANNS_INTERNAL', what, { where: 'onnx' });
    }
    yield bytes;
  }
  yield Buffer.concat(small);
}

function bytesOf(bytes: readonly number[]): Fields {
  return { byteLength: bytes.length, pieces: [Uint8Array.from(bytes)] };
}

/** Seven bits a byte, lowest first; the top bit says that more follow. */
function varint(value: number): number[] {
  // A negative int64 takes its two's complement, ten bytes long.
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return [...bytes, Number(rest)];
}
