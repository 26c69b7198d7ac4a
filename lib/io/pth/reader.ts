import { PannsError } from '../../errors.js';
import { ELEMENT_BYTES, type SafetensorsTensor, shapeBytes, tensorFrom } from '../safetensors.js';
import { readInto, type Source } from '../source.js';
import { checkSum, get, type Pickled } from './containers.js';
import { badPth, type Dict, isKind, type Tensor, type Value } from './values.js';
import type { ZipRecord } from './zip.js';

/** The state dict of a PyTorch file. */
export interface PthState {
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** The keys that led to it, such as `model`; empty where the file is the state dict itself. */
  readonly path: string;
  /** Text beside the state dict, by key. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Names of what else is there and of no use, such as `iteration` and `sampler`. */
  readonly ignored: readonly string[];
}

/** Where training programs put the state dict: PANNs, Lightning, others. */
const STATE_KEYS = ['model', 'state_dict', 'model_state_dict', 'net'] as const;

/** Of one text of metadata: that of a model's description is about 100 kB. */
const MOST_TEXT_BYTES = 1 << 24;

/** Shared and repeated elements count each time; files of weights come to once their own size. */
const MOST_EXPANSION = 4;
const LEAST_LIMIT_BYTES = 1 << 26;

/** Elements that are gathered without a pause: about a millisecond. */
const GATHERED_AT_ONCE = 1 << 16;

/**
 * Finds the state dict in what was saved: the object itself, or under one of the usual keys.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` when there is none, or its tensors are larger than the
 *   file by far
 */
export async function findState(source: Source, { root }: Pickled): Promise<PthState> {
  const where = source.name;
  if (!isKind(root, 'dict')) throw badPth(where, 'what was saved is no dict, but a single value');
  const key = hasTensors(root) ? '' : STATE_KEYS.find((name) => hasTensors(get(root, name)));
  if (key === undefined) {
    const keys = root.pairs.filter((_, i) => i % 2 === 0).slice(0, 10);
    const what = `there are no tensors under ${STATE_KEYS.join(', ')}; its keys are: ${keys.map(String).join(', ')}`;
    throw badPth(where, what);
  }
  const dict = key === '' ? root : (get(root, key) as Dict);
  const tensors = new Map<string, Tensor>();
  const ignored: string[] = [];
  const metadata = new Map<string, string>();
  for (const [name, value] of entriesOf(dict)) {
    if (typeof name === 'string' && isKind(value, 'tensor')) tensors.set(name, value);
    else ignored.push(shown(name));
  }
  if (key !== '') {
    for (const [name, value] of entriesOf(root)) {
      if (name === key) continue;
      const text = await textOf(source, value);
      if (typeof name === 'string' && text !== undefined) metadata.set(name, text);
      else ignored.push(shown(name));
    }
  }
  checkExpansion(source, tensors);
  return { tensors, path: key, metadata, ignored };
}

function hasTensors(value: Value | undefined): boolean {
  return (
    isKind(value, 'dict') && value.pairs.some((item, i) => i % 2 === 1 && isKind(item, 'tensor'))
  );
}

/** The last value of each key, at the place of the first. */
function entriesOf({ pairs }: Dict): Map<Value, Value> {
  const entries = new Map<Value, Value>();
  for (let i = 0; i < pairs.length; i += 2) {
    entries.set(pairs[i] as Value, pairs[i + 1] as Value);
  }
  return entries;
}

function shown(name: Value): string {
  return typeof name === 'object' ? '(an object)' : String(name);
}

async function textOf(source: Source, value: Value): Promise<string | undefined> {
  if (typeof value === 'string') return value;
  if (!isKind(value, 'text') || value.bytes > MOST_TEXT_BYTES) return undefined;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(
      await source.read(value.at, value.bytes),
    );
  } catch (error) {
    if (error instanceof PannsError) throw error;
    return undefined;
  }
}

/** Views may repeat elements of a storage: a small file could ask for any memory. */
function checkExpansion(source: Source, tensors: ReadonlyMap<string, Tensor>): void {
  let total = 0;
  for (const { dtype, shape } of tensors.values()) {
    total += shapeBytes(shape, ELEMENT_BYTES.get(dtype) ?? 1) ?? Number.NaN;
  }
  const limit = Math.max(LEAST_LIMIT_BYTES, MOST_EXPANSION * source.size);
  if (total <= limit) return;
  const what = `its tensors take ${total} bytes, and ${limit} are the most for a file of ${source.size}`;
  throw badPth(source.name, what, total);
}

/**
 * Reads one tensor, row-major, into memory of its own; given `memory`, an F32 tensor in one piece into
 * the beginning of that.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`
 */
export async function readTensor(
  source: Source,
  name: string,
  tensor: Tensor,
  record: ZipRecord | undefined,
  memory?: Uint8Array,
): Promise<SafetensorsTensor> {
  const { dtype, shape, stride, offset, storage } = tensor;
  if (record === undefined) throw badPth(source.name, `storage "${storage.key}" is missing`);
  const width = ELEMENT_BYTES.get(dtype) ?? 1;
  const byteLength = shapeBytes(shape, width) ?? 0;
  const from = record.at + offset * width;
  if (byteLength === 0 || isContiguous(shape, stride)) {
    const own = dtype === 'F32' ? memory : undefined;
    const bytes = await readInto(source, byteLength === 0 ? record.at : from, byteLength, own);
    if (byteLength === record.byteLength) await checkSum(source, record, name, bytes);
    return tensorFrom(dtype, shape, bytes);
  }
  const span = shape.reduce((sum, n, axis) => sum + (n - 1) * (stride[axis] ?? 0), 1);
  const stored = await source.read(from, span * width);
  return tensorFrom(dtype, shape, await gathered(stored, shape, stride, width));
}

function isContiguous(shape: readonly number[], stride: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] ?? 1;
    if (size !== 1 && stride[axis] !== expected) return false;
    expected *= size;
  }
  return true;
}

/** The elements of a view in row-major order. */
async function gathered(
  bytes: Uint8Array<ArrayBuffer>,
  shape: readonly number[],
  stride: readonly number[],
  width: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const count = shape.reduce((product, n) => product * n, 1);
  const result = new Uint8Array(count * width);
  // Elements of 8 bytes move as two of 4: as a double, a NaN could lose its bits.
  const pieces = width === 8 ? 2 : 1;
  const Words = width === 1 ? Uint8Array : width === 2 ? Uint16Array : Uint32Array;
  const from = new Words(bytes.buffer, 0, (bytes.length / width) * pieces);
  const to = new Words(result.buffer, 0, count * pieces);
  const index = shape.map(() => 0);
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (i % GATHERED_AT_ONCE === 0 && i > 0) await new Promise(setImmediate);
    for (let piece = 0; piece < pieces; piece++) {
      to[i * pieces + piece] = from[at * pieces + piece] as number;
    }
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const step = stride[axis] ?? 0;
      index[axis] = (index[axis] ?? 0) + 1;
      at += step;
      if ((index[axis] ?? 0) < (shape[axis] ?? 0)) break;
      at -= step * (shape[axis] ?? 0);
      index[axis] = 0;
    }
  }
  return result;
}
