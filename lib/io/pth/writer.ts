import { crc32 } from 'node:zlib';
import { PannsError } from '../../errors.js';
import { type Chunk, writeFileAtomic } from '../atomic.js';
import type { SafetensorsDtype, SafetensorsTensor } from '../safetensors.js';
import { checkWritable } from '../safetensors_writer.js';
import {
  EMPTY_TUPLE,
  globalNamed,
  integer,
  MARK,
  REDUCE,
  SETITEMS,
  text,
  tuple,
} from './opcodes.js';

/** Options of {@link writePth}. */
export interface PthOptions {
  /**
   * The key under which the file has the state dict; default `'model'`, as PANNs' own files, `''` for
   * the state dict by itself.
   */
  stateKey?: string | undefined;
  /** Text beside the state dict, where that has a key. */
  metadata?: Iterable<readonly [string, string]> | undefined;
}

const CLASSES: Readonly<Record<SafetensorsDtype, string>> = {
  F64: 'DoubleStorage',
  F32: 'FloatStorage',
  F16: 'HalfStorage',
  BF16: 'BFloat16Storage',
  I64: 'LongStorage',
  I32: 'IntStorage',
  I16: 'ShortStorage',
  I8: 'CharStorage',
  U8: 'ByteStorage',
  BOOL: 'BoolStorage',
};

/** Records begin at multiples of this, so that PyTorch can map them. */
const ALIGNMENT = 64;
/** Sizes and places are 32 bits here; the largest published file has 0.4 GB. */
const MOST_BYTES = 2 ** 32 - 2 ** 20;
/** Of which a checksum is made without a pause. */
const PIECE_BYTES = 1 << 20;
/** The 1st of January 1980, the first date that the format has: equal content gives equal bytes. */
const DATE = 0x21;
/** Of PyTorch's own files: names are UTF-8. */
const FLAGS = 0x800;

/**
 * Writes a state dict as `torch.save` does, atomically: `torch.load(path, weights_only=True)` reads it.
 *
 * The names keep their order. Equal content gives equal bytes.
 *
 * @throws PannsError `ERR_PANNS_SHAPE` for a shape that does not fit its data; `ERR_PANNS_OPTION` for
 *   a name that cannot be written; `ERR_PANNS_UNSUPPORTED` above 4 GiB; `ERR_PANNS_IO`
 */
export async function writePth(
  path: string,
  state: Iterable<readonly [string, SafetensorsTensor]>,
  options: PthOptions = {},
): Promise<void> {
  await writeFileAtomic(path, encodePth(state, options));
}

interface Written {
  readonly name: string;
  readonly bytes: number;
  readonly crc: number;
  readonly at: number;
}

/** The bytes of a PyTorch file in their order; the tensors' own memory, not copied. */
export async function* encodePth(
  state: Iterable<readonly [string, SafetensorsTensor]>,
  { stateKey = 'model', metadata = [] }: PthOptions = {},
): AsyncGenerator<Chunk> {
  const tensors = [...state];
  const records: (readonly [string, ArrayBufferView])[] = [
    ['data.pkl', pickled(tensors, stateKey, metadata)],
    ['byteorder', Buffer.from('little')],
    ...tensors.map(([, { data }], i) => [`data/${i}`, data] as const),
    ['version', Buffer.from('3\n')],
  ];
  const total = records.reduce((sum, [name, { byteLength }]) => sum + byteLength + name.length, 0);
  if (total > MOST_BYTES) {
    const what = `the file would take ${total} bytes, and ${MOST_BYTES} are the most; write safetensors instead`;
    throw new PannsError('ERR_PANNS_UNSUPPORTED', what, { where: 'writePth' });
  }
  const written: Written[] = [];
  let at = 0;
  for (const [name, data] of records) {
    const record = { name: `archive/${name}`, bytes: data.byteLength, crc: await sumOf(data), at };
    const header = localHeader(record);
    yield header;
    if (data.byteLength > 0) yield data;
    written.push(record);
    at += header.length + data.byteLength;
  }
  const directory = Buffer.concat(written.map(centralHeader));
  yield directory;
  yield endRecord(written.length, directory.length, at);
}

function pickled(
  tensors: readonly (readonly [string, SafetensorsTensor])[],
  stateKey: string,
  metadata: Iterable<readonly [string, string]>,
): Buffer {
  const dict = [globalNamed('collections', 'OrderedDict'), EMPTY_TUPLE, REDUCE];
  const names = new Set<string>();
  const parts: Buffer[] = [...dict, MARK];
  for (const [i, [name, tensor]] of tensors.entries()) {
    checkWritable(name, tensor, 'writePth');
    if (names.has(name)) {
      const what = `the name ${JSON.stringify(name)} stands twice`;
      throw new PannsError('ERR_PANNS_OPTION', what, { where: 'writePth', actual: name });
    }
    names.add(name);
    parts.push(text(name), ...rebuilt(tensor, String(i), dict));
  }
  parts.push(SETITEMS);
  const start = Buffer.from([0x80, 2]);
  const stop = Buffer.from('.');
  if (stateKey === '') return Buffer.concat([start, ...parts, stop]);
  const beside = [...metadata].flatMap(([key, value]) => [text(key), text(value)]);
  const root = [Buffer.from('}'), MARK, text(stateKey), ...parts, ...beside, SETITEMS];
  return Buffer.concat([start, ...root, stop]);
}

/** `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())` */
function rebuilt({ dtype, shape, data }: SafetensorsTensor, key: string, hooks: Buffer[]) {
  const strides = shape.map((_, axis) => {
    return shape.slice(axis + 1).reduce((product, n) => product * Math.max(1, n), 1);
  });
  const storage = tuple([
    text('storage'),
    globalNamed('torch', CLASSES[dtype]),
    text(key),
    text('cpu'),
    integer(data.length),
  ]);
  const persistent = Buffer.concat([storage, Buffer.from('Q')]);
  const args = [
    persistent,
    integer(0),
    tuple(shape.map(integer)),
    tuple(strides.map(integer)),
    Buffer.from([0x89]),
    ...hooks,
  ];
  return [globalNamed('torch._utils', '_rebuild_tensor_v2'), tuple(args), REDUCE];
}

async function sumOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Promise<number> {
  let sum = 0;
  for (let at = 0; at < byteLength; at += PIECE_BYTES) {
    if (at > 0) await new Promise(setImmediate);
    const length = Math.min(PIECE_BYTES, byteLength - at);
    sum = crc32(new Uint8Array(buffer, byteOffset + at, length), sum);
  }
  return sum;
}

/** The fields that a local header shares with the directory. */
function common(target: Buffer, from: number, { name, bytes, crc }: Written): void {
  target.writeUInt16LE(FLAGS, from);
  target.writeUInt16LE(DATE, from + 6);
  target.writeUInt32LE(crc, from + 8);
  target.writeUInt32LE(bytes, from + 12);
  target.writeUInt32LE(bytes, from + 16);
  target.writeUInt16LE(Buffer.byteLength(name), from + 20);
}

/** With an extra field of zeros that moves the data to a multiple of {@link ALIGNMENT}. */
function localHeader(record: Written): Buffer {
  const name = Buffer.from(record.name);
  const bare = record.at + 30 + name.length + 4;
  const padding = (ALIGNMENT - (bare % ALIGNMENT)) % ALIGNMENT;
  const header = Buffer.alloc(30 + name.length + 4 + padding);
  header.writeUInt32LE(0x04034b50, 0);
  common(header, 6, record);
  header.writeUInt16LE(4 + padding, 28);
  name.copy(header, 30);
  // "FB", under which PyTorch pads as well.
  header.writeUInt16LE(0x4246, 30 + name.length);
  header.writeUInt16LE(padding, 32 + name.length);
  return header;
}

function centralHeader(record: Written): Buffer {
  const name = Buffer.from(record.name);
  const header = Buffer.alloc(46 + name.length);
  header.writeUInt32LE(0x02014b50, 0);
  common(header, 8, record);
  header.writeUInt32LE(record.at, 42);
  name.copy(header, 46);
  return header;
}

function endRecord(count: number, length: number, start: number): Buffer {
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(count, 8);
  end.writeUInt16LE(count, 10);
  end.writeUInt32LE(length, 12);
  end.writeUInt32LE(start, 16);
  return end;
}
