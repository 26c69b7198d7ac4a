import { PannsError } from '../errors.js';
import { type Chunk, writeFileAtomic } from './atomic.js';
import {
  ELEMENT_BYTES,
  isCountArray,
  MAX_HEADER_BYTES,
  METADATA,
  PREFIX_BYTES,
  type SafetensorsArrays,
  type SafetensorsDtype,
  type SafetensorsTensor,
  shapeBytes,
} from './safetensors.js';

const WHERE = 'writeSafetensors';

/** A tensor of a state dict: float32, and int64 for num_batches_tracked. */
export type WritableTensor =
  | { dtype: 'F32'; shape: readonly number[]; data: Float32Array }
  | { dtype: 'I64'; shape: readonly number[]; data: BigInt64Array };

/**
 * Writes a safetensors file atomically, streaming the tensors' own memory.
 *
 * The order is that of the format's reference writer (wider elements first, then by name), so that
 * every tensor is aligned and equal content gives equal bytes.
 *
 * @throws PannsError `ERR_PANNS_SHAPE` for a shape that does not fit its data, `ERR_PANNS_OPTION` for
 *   a name that cannot be written, `ERR_PANNS_IO`
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<readonly [string, SafetensorsTensor]>,
  metadata: Iterable<readonly [string, string]> = [],
): Promise<void> {
  await writeFileAtomic(path, encodeSafetensors(tensors, metadata));
}

/**
 * The bytes of a safetensors file in the order they are to be written: the header, then each
 * tensor's own memory, not copied.
 *
 * @throws PannsError `ERR_PANNS_SHAPE`, `ERR_PANNS_OPTION`
 */
export function encodeSafetensors(
  tensors: Iterable<readonly [string, SafetensorsTensor]>,
  metadata: Iterable<readonly [string, string]> = [],
): Chunk[] {
  const sorted = [...tensors].sort(([a, s], [b, t]) => {
    const width = (ELEMENT_BYTES.get(t.dtype) ?? 0) - (ELEMENT_BYTES.get(s.dtype) ?? 0);
    return width || (a < b ? -1 : a > b ? 1 : 0);
  });
  // Maps and hand-made JSON: an object would lose the order of names like "1", and "__proto__".
  const fields = new Map<string, string>();
  const strings = new Map<string, string>();
  for (const [key, value] of metadata) {
    checkText(value, WHERE);
    addField(strings, key, JSON.stringify(value));
  }
  if (strings.size > 0) fields.set(METADATA, joinFields(strings));
  const chunks: Chunk[] = [];
  let offset = 0;
  for (const [name, tensor] of sorted) {
    const { dtype, shape, data } = tensor;
    if (name === METADATA) {
      const what = `"${METADATA}" is not a tensor's name`;
      throw new PannsError('ERR_PANNS_OPTION', what, { where: WHERE });
    }
    checkWritable(name, tensor, WHERE);
    const end = offset + data.byteLength;
    addField(fields, name, JSON.stringify({ dtype, shape, data_offsets: [offset, end] }));
    if (data.byteLength > 0) chunks.push(data);
    offset = end;
  }
  const json = Buffer.from(joinFields(fields), 'utf8');
  const padded = Math.ceil(json.byteLength / 8) * 8;
  if (padded > MAX_HEADER_BYTES) {
    throw new PannsError('ERR_PANNS_OPTION', `the header would take ${padded} bytes`, {
      where: WHERE,
      expected: `at most ${MAX_HEADER_BYTES} bytes of names and metadata`,
      actual: padded,
    });
  }
  const header = Buffer.alloc(PREFIX_BYTES + padded, ' ');
  header.writeBigUInt64LE(BigInt(padded));
  json.copy(header, PREFIX_BYTES);
  return [header, ...chunks];
}

/** What holds each element type. */
const ARRAYS: { [D in SafetensorsDtype]: new (length: number) => SafetensorsArrays[D] } = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
};

/** @throws PannsError `ERR_PANNS_SHAPE`, `ERR_PANNS_OPTION` */
export function checkWritable(
  name: string,
  { dtype, shape, data }: SafetensorsTensor,
  where: string,
): void {
  checkText(name, where);
  const Expected = Object.hasOwn(ARRAYS, dtype) ? ARRAYS[dtype] : undefined;
  const fits = Expected !== undefined && data instanceof Expected;
  if (!fits || !isCountArray(shape) || shapeBytes(shape, 1) !== data.length) {
    const what = `tensor "${name}" of shape [${shape}] and type ${dtype} does not fit its data`;
    throw new PannsError('ERR_PANNS_SHAPE', what, {
      where,
      expected: `${Expected?.name ?? 'a known type'} of as many elements as the shape has`,
      actual: `${data.constructor.name} of length ${data.length}`,
    });
  }
}

function addField(fields: Map<string, string>, name: string, json: string): void {
  checkText(name, WHERE);
  if (fields.has(name)) {
    const what = `the name ${JSON.stringify(name)} stands twice`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: WHERE, actual: name });
  }
  fields.set(name, json);
}

/** Half of a surrogate pair has no UTF-8 form: it would be read back as another text. */
function checkText(text: string, where: string): void {
  if (typeof text === 'string' && !/\p{Surrogate}/u.test(text)) return;
  throw new PannsError('ERR_PANNS_OPTION', `${JSON.stringify(text)} is not well-formed text`, {
    where,
    actual: text,
  });
}

function joinFields(fields: ReadonlyMap<string, string>): string {
  return `{${[...fields].map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(',')}}`;
}
