import { PannsError } from '../errors.js';
import { type SafetensorsTensor, toFloat32 } from '../io/safetensors.js';
import type { WritableTensor } from '../io/safetensors_writer.js';
import type { StateEntry } from '../models/tensor.js';

/** Tensors by PyTorch's names, row-major: float32, and int64 for num_batches_tracked. */
export type StateDict = ReadonlyMap<string, SafetensorsTensor>;

/** What was found in a state dict, ready for a model: values by name. */
export interface StateValues {
  readonly tensors: Map<string, Float32Array>;
  readonly counters: Map<string, bigint>;
  readonly derived: Map<string, Float32Array>;
  readonly unused: Map<string, Float32Array>;
}

/** How many names an error lists. */
const LISTED = 5;

/**
 * Matches a state dict with a model's entries.
 *
 * Derived and unused tensors and counters may be absent. Names that the model does not know are an error when
 * `strict`, and passed over otherwise, as are missing ones.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` naming what is missing, unknown or of another shape
 */
export function matchState(
  entries: readonly StateEntry[],
  state: StateDict,
  strict: boolean,
  where: string,
): StateValues {
  const found: StateValues = {
    tensors: new Map(),
    counters: new Map(),
    derived: new Map(),
    unused: new Map(),
  };
  const missing: string[] = [];
  for (const entry of entries) {
    const { name, role } = entry;
    const tensor = state.get(name);
    if (tensor === undefined) {
      if (role === 'parameter' || role === 'buffer') missing.push(name);
      continue;
    }
    checkShape(entry, tensor, where);
    if (entry.dtype === 'I64') found.counters.set(name, BigInt(tensor.data[0] ?? 0));
    else placeOf(found, role).set(name, toFloat32(tensor));
  }
  if (!strict) return found;
  const known = new Set(entries.map(({ name }) => name));
  const unknown = [...state.keys()].filter((name) => !known.has(name));
  if (missing.length > 0 || unknown.length > 0) {
    const parts = [
      ...(missing.length > 0 ? [`it lacks ${listed(missing)}`] : []),
      ...(unknown.length > 0 ? [`the model does not know ${listed(unknown)}`] : []),
    ];
    throw new PannsError(
      'ERR_PANNS_CHECKPOINT',
      `the state dict does not fit: ${parts.join('; ')}`,
      {
        where,
        expected: missing,
        actual: unknown,
      },
    );
  }
  return found;
}

function placeOf(found: StateValues, role: StateEntry['role']): Map<string, Float32Array> {
  return role === 'derived' ? found.derived : role === 'unused' ? found.unused : found.tensors;
}

/** The core's values in the order in which PyTorch keeps the tensor. */
export function asStored(entry: StateEntry, values: Float32Array): Float32Array {
  return entry.order === undefined ? values : transposed(entry.shape, values);
}

/** PyTorch's values in the order in which the core keeps the tensor. */
export function asComputed(entry: StateEntry | undefined, values: Float32Array): Float32Array {
  return entry?.order === undefined ? values : transposed(entry.shape, values);
}

/** (O, I, A, B) with its last two axes, which are of one length, exchanged. */
function transposed(shape: readonly number[], values: Float32Array): Float32Array {
  const size = shape.at(-1) ?? 1;
  const result = new Float32Array(values.length);
  for (let tap = 0; tap < values.length; tap += size * size) {
    for (let i = 0; i < size; i++) {
      for (let k = 0; k < size; k++) {
        result[tap + i * size + k] = values[tap + k * size + i] ?? Number.NaN;
      }
    }
  }
  return result;
}

/** What a tensor holds that the model never uses: what was loaded, or how PyTorch begins a norm. */
export function unusedValue(
  { name, shape, dtype }: StateEntry,
  unused: ReadonlyMap<string, Float32Array>,
  counters: ReadonlyMap<string, bigint>,
): Float32Array | bigint {
  if (dtype === 'I64') return counters.get(name) ?? 0n;
  const size = shape.reduce((product, n) => product * n, 1);
  const one = /(^|\.)running_var$/.test(name) || (shape.length === 1 && name.endsWith('.weight'));
  return unused.get(name) ?? new Float32Array(size).fill(one ? 1 : 0);
}

/** A tensor as it is written to a file. */
export function writable(entry: StateEntry, data: Float32Array | bigint): WritableTensor {
  const { shape } = entry;
  return typeof data === 'bigint'
    ? { dtype: 'I64', shape, data: BigInt64Array.of(data) }
    : { dtype: 'F32', shape, data };
}

/**
 * Checks derived tensors of a checkpoint against the front-end they should follow from.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` when the checkpoint was trained with another front-end
 */
export function checkDerived(
  name: string,
  stored: Float32Array,
  computed: Float32Array,
  where: string,
): void {
  let largest = 0;
  let worst = 0;
  for (let i = 0; i < computed.length; i++) {
    const value = computed[i] ?? 0;
    largest = Math.max(largest, Math.abs(value));
    // Not Math.max: a NaN in the file must not pass as "no difference".
    const difference = Math.abs(value - (stored[i] ?? Number.NaN));
    if (!(difference <= worst)) worst = difference;
  }
  // Float32 tables made in single precision differ by 1e-6 of the largest value; another window,
  // range or scale by far more.
  if (worst <= 1e-3 * largest) return;
  const what = `${name} is not that of this front-end (it differs by ${worst}); were sampleRate, windowSize, melBins, fmin or fmax others in training?`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where });
}

function checkShape(entry: StateEntry, tensor: SafetensorsTensor, where: string): void {
  const { name, shape } = entry;
  const same = shape.length === tensor.shape.length && shape.every((n, i) => n === tensor.shape[i]);
  if (same) return;
  const what = `${name} has the shape [${tensor.shape}], the model's is [${shape}]`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, {
    where,
    expected: shape,
    actual: tensor.shape,
  });
}

function listed(names: readonly string[]): string {
  const rest = names.length - LISTED;
  return names.slice(0, LISTED).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}
