import type { LogmelOptions, SpecNode } from '../addon.js';
import { checkOptions, PannsError, throwIfAborted } from '../errors.js';
import { type Chunk, writeFileAtomic } from '../io/atomic.js';
import type { FrontendTables, Weights } from '../io/onnx/graph.js';
import { encodeModel } from '../io/onnx/messages.js';
import { irVersions, type OnnxInput, onnxModel } from '../io/onnx/model.js';
import { chunksOf } from '../io/onnx/wire.js';
import { callNative, callNativeSync } from '../native/call.js';
import { type Model, type ModelInternals, modelInternals } from './model.js';

/** Options of {@link exportOnnx}. */
export interface ExportOptions {
  /**
   * What the graph takes: `'waveform'` (the default), samples (batch, samples), the front-end being
   * part of the graph; or `'logmel'`, spectrograms (batch, 1, frames, mel bins).
   */
  input?: OnnxInput | undefined;
  /** Version of ONNX's operators, 17..22; default 17, which ONNX Runtime reads since 1.12. */
  opset?: number | undefined;
  signal?: AbortSignal | undefined;
}

const INPUTS: readonly OnnxInput[] = ['waveform', 'logmel'];
const DEFAULT_OPSET = 17;
/** A protobuf message may not be larger, and an .onnx file is one. */
const MOST_BYTES = 2 ** 31 - 1;

/**
 * Writes a model as an ONNX file, for inference elsewhere: all outputs of {@link Model.infer}, for any
 * number of clips, of any length that {@link Model.lengthFor} gives.
 *
 * A graph does not pad: `minimum_samples` and `length_multiple` in the file's metadata say what it
 * takes, beside `model`, `sample_rate` and `labels` (a JSON list). The file is written as
 * {@link Model.save} writes: whole, or not at all.
 *
 * ```ts
 * await exportOnnx(model, 'cnn14.onnx');
 * ```
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_UNSUPPORTED` for log-mel into a model that reads
 *   the waveform, `ERR_PANNS_IO`, `ERR_PANNS_DISPOSED`; AbortError
 */
export async function exportOnnx(
  model: Model,
  path: string,
  options: ExportOptions = {},
): Promise<void> {
  checkOptions(options, ['input', 'opset', 'signal'], 'exportOnnx');
  const { input = 'waveform', opset = DEFAULT_OPSET, signal } = options;
  check('input', input, INPUTS);
  check('opset', opset, [...irVersions.keys()]);
  throwIfAborted(signal);
  const internals = modelInternals(model);
  const { description, addon } = internals;
  const version = addon.version;
  const graph = onnxModel(description, weightsOf(internals), { input, opset, version });
  const file = encodeModel(graph);
  if (file.byteLength > MOST_BYTES) {
    const what = `the file would take ${file.byteLength} bytes, and ONNX allows ${MOST_BYTES}`;
    throw new PannsError('ERR_PANNS_UNSUPPORTED', what, { where: model.name });
  }
  await writeFileAtomic(path, untilAborted(chunksOf(file), signal));
}

function check<T>(name: string, actual: T, expected: readonly T[]): void {
  if (expected.includes(actual)) return;
  const what = `expected ${name} to be one of ${expected.join(', ')}, got ${actual}`;
  throw new PannsError('ERR_PANNS_OPTION', what, { where: 'exportOnnx', expected, actual });
}

async function* untilAborted(chunks: AsyncIterable<Chunk>, signal: AbortSignal | undefined) {
  for await (const chunk of chunks) {
    throwIfAborted(signal);
    yield chunk;
  }
}

/** The weights in the core. The front-end's tables are made once, and kept till the file is there. */
function weightsOf({ addon, native, description: { name: where } }: ModelInternals): Weights {
  const parameters = callNativeSync(where, () => native.parameters());
  const shapes = new Map(parameters.map(({ name, shape }) => [name, shape]));
  const tables = new Map<SpecNode['attrs'], Promise<FrontendTables>>();
  return {
    shape(name) {
      const shape = shapes.get(name);
      if (shape !== undefined) return shape;
      throw new PannsError('ERR_PANNS_INTERNAL', `the core has no parameter "${name}"`, { where });
    },
    read: (name) => callNative(where, () => native.get(name)),
    frontend(attrs) {
      let made = tables.get(attrs);
      if (made === undefined) {
        made = callNative(where, () => addon.frontendTensors(frontendOptions(attrs)));
        tables.set(attrs, made);
      }
      return made;
    },
  };
}

/** A node's attributes under the names that the addon's own functions have: `windowSize`. */
function frontendOptions(attrs: SpecNode['attrs']): LogmelOptions {
  const named = Object.entries(attrs).map(([name, value]) => {
    return [name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), value] as const;
  });
  return Object.fromEntries(named) as unknown as LogmelOptions;
}
