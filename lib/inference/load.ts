import type { SafetensorsTensor } from '../io/safetensors.js';
import { asFloat32 } from '../io/weights.js';
import { allocate, callNative } from '../native/call.js';
import type { ModelInternals } from './model.js';
import { checkFinite } from './rows.js';
import { asComputed, checkDerived, counterOf, type StateReport } from './state.js';

/** Tensors that are read when they are asked for. */
export type ReadTensor = (name: string) => Promise<SafetensorsTensor>;

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
    checkDerived(name, await asFloat32(await read(name)), expected, internals.description.name);
  }
}

/**
 * Puts what a report found into a model, one tensor after another: of a file, no more than one is in
 * memory beside the model.
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
  for (const entry of description.stateDict) {
    const { name } = entry;
    if (!found.has(name)) continue;
    const tensor = await read(name);
    if (entry.dtype === 'I64') {
      counters.set(name, counterOf(name, tensor, model));
      continue;
    }
    const values = await asFloat32(tensor);
    if (entry.role === 'unused') {
      unused.set(name, values);
      continue;
    }
    const shared = await sharedCopy(asComputed(entry, values), `${model}/${name}`);
    await callNative(model, () => native.set(name, shared));
  }
}

/** Numbers that are looked at without a pause: less than a millisecond. */
const AT_ONCE = 1 << 17;

/** @throws PannsError `ERR_PANNS_NAN` */
async function checkAll(
  values: Float32Array,
  where: string,
  each?: (part: Float32Array, at: number) => void,
): Promise<void> {
  for (let at = 0; at < values.length; at += AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    const part = values.subarray(at, at + AT_ONCE);
    checkFinite(part, where);
    each?.(part, at);
  }
}

/** In memory that the core reads in place: it would copy other memory while the event loop waits. */
async function sharedCopy(values: Float32Array, where: string): Promise<Float32Array> {
  const shared = allocate(values.length);
  await checkAll(values, where, (part, at) => shared.set(part, at));
  return shared;
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
