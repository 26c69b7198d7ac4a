import type { SafetensorsTensor } from '../io/safetensors.js';
import { asFloat32 } from '../io/weights.js';
import type { StateEntry } from '../models/tensor.js';
import { allocate, callNative } from '../native/call.js';
import type { ModelInternals } from './model.js';
import { checkFinite } from './rows.js';
import { asComputed, checkDerived, counterOf, type StateReport } from './state.js';

/** Tensors that are read when they are asked for, where it can be into memory that is there already. */
export type ReadTensor = (name: string, memory?: Uint8Array) => Promise<SafetensorsTensor>;

/**
 * Checks all that a report found: that the numbers are finite, and that the front-end's tables are those
 * of the model. Nothing is changed.
 *
 * @throws PannsError `ERR_PANNS_NAN`, `ERR_PANNS_CHECKPOINT`
 */
export async function checkState(
  internals: ModelInternals,
  report: StateReport,
  read: ReadTensor,
): Promise<void> {
  const { description } = internals;
  await checkTables(internals, report, read);
  for (const { name, role } of description.stateDict) {
    if (!(role === 'parameter' || role === 'buffer') || !report.matched.includes(name)) continue;
    await checkAll(await asFloat32(await read(name)), `${description.name}/${name}`);
  }
}

/** The front-end's tables alone. @throws PannsError `ERR_PANNS_CHECKPOINT` */
export async function checkTables(
  internals: ModelInternals,
  { derived }: StateReport,
  read: ReadTensor,
): Promise<void> {
  if (derived.length === 0) return;
  const computed = await derivedTensors(internals);
  for (const name of derived) {
    const expected = computed.get(name) as Float32Array;
    await checkDerived(
      name,
      await asFloat32(await read(name)),
      expected,
      internals.description.name,
    );
  }
}

/**
 * Puts what a report found into a model, one tensor after another: beside the model there is memory for
 * the largest one, and of a file nothing else.
 *
 * @throws PannsError `ERR_PANNS_NAN`, `ERR_PANNS_CHECKPOINT`, and the model is then half loaded
 */
export async function applyState(
  { native, description, counters, unused }: ModelInternals,
  { matched, unused: stored }: StateReport,
  read: ReadTensor,
): Promise<void> {
  const { name: model } = description;
  const found = new Set([...matched, ...stored]);
  const entries = description.stateDict.filter(({ name }) => found.has(name));
  const sizeOf = ({ shape }: StateEntry) => shape.reduce((product, n) => product * n, 1);
  /** `memory` is shared, and the core reads it in place: other memory would be copied at once. */
  const put = async (entry: StateEntry, memory: Float32Array): Promise<void> => {
    const { name } = entry;
    if (entry.dtype === 'I64') {
      counters.set(name, counterOf(name, await read(name), model));
      return;
    }
    if (entry.role === 'unused') {
      unused.set(name, await asFloat32(await read(name)));
      return;
    }
    const placed = memory.subarray(0, sizeOf(entry));
    const bytes = new Uint8Array(placed.buffer, placed.byteOffset, placed.byteLength);
    const values = asComputed(entry, await asFloat32(await read(name, bytes), placed));
    const there = values.buffer === memory.buffer;
    await checkAll(values, `${model}/${name}`, (part, at) => there || placed.set(part, at));
    await callNative(model, () => native.set(name, placed));
  };
  // Norms and biases, most of the names: waiting for one after another takes longer than reading them.
  const small = entries.filter((entry) => sizeOf(entry) <= SMALL);
  const results = await Promise.allSettled(
    small.map((entry) => put(entry, allocate(sizeOf(entry)))),
  );
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  const large = entries.filter((entry) => sizeOf(entry) > SMALL);
  const memory = allocate(Math.max(0, ...large.map(sizeOf)));
  for (const entry of large) await put(entry, memory);
}

/** Values of a tensor that is read beside others. */
const SMALL = 1 << 16;

/** Numbers that are looked at without a pause: less than a millisecond. */
const AT_ONCE = 1 << 17;

/** @throws PannsError `ERR_PANNS_NAN` */
async function checkAll(
  values: Float32Array,
  where: string,
  each?: (part: Float32Array, at: number) => unknown,
): Promise<void> {
  for (let at = 0; at < values.length; at += AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    const part = values.subarray(at, at + AT_ONCE);
    checkFinite(part, where, at);
    each?.(part, at);
  }
}

/** The tables that PANNs store with their weights, from the options of the front-end. */
export async function derivedTensors({
  addon,
  description,
}: ModelInternals): Promise<Map<string, Float32Array>> {
  if (!description.stateDict.some(({ role }) => role === 'derived')) return new Map();
  const { sampleRate, windowSize, hopSize, melBins, fmin, fmax } = description.config;
  const options = { sampleRate, windowSize, hopSize, melBins, fmin, fmax };
  const { convReal, convImag, melW } = await callNative(description.name, () =>
    addon.frontendTensors(options),
  );
  return new Map([
    ['spectrogram_extractor.stft.conv_real.weight', convReal],
    ['spectrogram_extractor.stft.conv_imag.weight', convImag],
    ['logmel_extractor.melW', melW],
  ]);
}
