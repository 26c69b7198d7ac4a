import { PannsError } from '../errors.js';
import type { SafetensorsTensor } from '../io/safetensors.js';
import type { WritableTensor } from '../io/safetensors_writer.js';
import type { StateEntry } from '../models/tensor.js';

/** Tensors by PyTorch's names, row-major: float32, and int64 for num_batches_tracked. */
export type StateDict = ReadonlyMap<string, SafetensorsTensor>;

/** What became of the names of a state dict. */
export interface StateReport {
  /** Parameters, running statistics and counters that were loaded. */
  readonly matched: readonly string[];
  /** Parameters and running statistics that the state dict lacks: they are as they were. */
  readonly missing: readonly string[];
  /** Names that the model does not know. */
  readonly unexpected: readonly string[];
  /** Tensors that a published model stores and never uses: kept, for saving. */
  readonly unused: readonly string[];
  /** The front-end's tables, which follow from the model's options: compared, not loaded. */
  readonly derived: readonly string[];
}

/** How many names an error lists. */
const LISTED = 5;

/**
 * Matches the names and shapes of a state dict with a model's entries.
 *
 * Derived and unused tensors and counters may be absent. Names that the model does not know are an
 * error when `strict`, and passed over otherwise, as are missing ones.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` naming what is missing, unknown or of another shape
 */
export function matchState(
  entries: readonly StateEntry[],
  state: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  strict: boolean,
  where: string,
): StateReport {
  const found = { matched: [], missing: [], unused: [], derived: [] } as Record<string, string[]>;
  for (const entry of entries) {
    const { name, role } = entry;
    const tensor = state.get(name);
    if (tensor !== undefined) checkShape(entry, tensor.shape, where);
    const kind = role === 'unused' || role === 'derived' ? role : 'matched';
    if (tensor !== undefined) found[kind]?.push(name);
    else if (role === 'parameter' || role === 'buffer') found.missing?.push(name);
  }
  const known = new Set(entries.map(({ name }) => name));
  const unexpected = [...state.keys()].filter((name) => !known.has(name));
  const { matched = [], missing = [], unused = [], derived = [] } = found;
  if (strict && (missing.length > 0 || unexpected.length > 0)) {
    throw new PannsError(
      'ERR_PANNS_CHECKPOINT',
      `the state dict does not fit: ${misfit({ missing, unexpected })}`,
      { where, expected: missing, actual: unexpected },
    );
  }
  return { matched, missing, unexpected, unused, derived };
}

/** What a state dict lacks and has too much, in words. */
export function misfit({
  missing,
  unexpected,
}: Pick<StateReport, 'missing' | 'unexpected'>): string {
  return [
    ...(missing.length > 0 ? [`it lacks ${listed(missing)}`] : []),
    ...(unexpected.length > 0 ? [`the model does not know ${listed(unexpected)}`] : []),
  ].join('; ');
}

/** The count in a num_batches_tracked. @throws PannsError `ERR_PANNS_CHECKPOINT` */
export function counterOf(name: string, { data }: SafetensorsTensor, where: string): bigint {
  const value = data[0];
  if (typeof value === 'bigint') return value;
  if (Number.isSafeInteger(value)) return BigInt(value as number);
  const what = `${name} is ${value}, and counts batches`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where });
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

/** Numbers that are compared without a pause: about half a millisecond. */
const COMPARED_AT_ONCE = 1 << 17;

/**
 * Checks derived tensors of a checkpoint against the front-end they should follow from.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` when the checkpoint was trained with another front-end
 */
export async function checkDerived(
  name: string,
  stored: Float32Array,
  computed: Float32Array,
  where: string,
): Promise<void> {
  let largest = 0;
  let worst = 0;
  for (let i = 0; i < computed.length; i++) {
    if (i % COMPARED_AT_ONCE === 0 && i > 0) await new Promise(setImmediate);
    const value = computed[i] ?? 0;
    largest = Math.max(largest, Math.abs(value));
    const difference = Math.abs(value - (stored[i] ?? Number.NaN));
    // A NaN in the file must not pass as "no difference", nor be forgotten after the next number.
    worst = Number.isNaN(difference) ? Infinity : Math.max(worst, difference);
  }
  // Float32 tables made in single precision differ by 1e-6 of the largest value; another window,
  // range or scale by far more.
  if (worst <= 1e-3 * largest) return;
  const what = `${name} is not that of this front-end (it differs by ${worst}); were sampleRate, windowSize, melBins, fmin or fmax others in training?`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where });
}

function checkShape({ name, shape }: StateEntry, actual: readonly number[], where: string): void {
  if (sameShape(shape, actual)) return;
  const what = `${name} has the shape [${actual}], the model's is [${shape}]`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where, expected: shape, actual });
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

function listed(names: readonly string[]): string {
  const rest = names.length - LISTED;
  return names.slice(0, LISTED).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}
