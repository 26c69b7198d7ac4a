import { PannsError } from '../errors.js';
import { type SafetensorsTensor, toFloat32 } from '../io/safetensors.js';
import type { WritableTensor } from '../io/safetensors_writer.js';
import type { StateEntry } from '../models/graph.js';

/** Tensors by PyTorch's names, row-major: float32, and int64 for num_batches_tracked. */
export type StateDict = ReadonlyMap<string, SafetensorsTensor>;

/** What was found in a state dict, ready for a model: values by name. */
export interface StateValues {
  readonly tensors: Map<string, Float32Array>;
  readonly counters: Map<string, bigint>;
  readonly derived: Map<string, Float32Array>;
}

/** How many names an error lists. */
const LISTED = 5;

/**
 * Matches a state dict with a model's entries.
 *
 * Derived tensors and counters may be absent. Names that the model does not know are an error when
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
  const found: StateValues = { tensors: new Map(), counters: new Map(), derived: new Map() };
  const missing: string[] = [];
  for (const entry of entries) {
    const { name, role } = entry;
    const tensor = state.get(name);
    if (tensor === undefined) {
      if (role === 'parameter' || role === 'buffer') missing.push(name);
      continue;
    }
    checkShape(entry, tensor, where);
    if (role === 'counter') found.counters.set(name, BigInt(tensor.data[0] ?? 0));
    else (role === 'derived' ? found.derived : found.tensors).set(name, toFloat32(tensor));
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
