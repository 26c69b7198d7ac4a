import type { NativeAddon, NativeModel, NativeParameter } from '../addon.js';
import type { Samples } from '../audio/int16.js';
import { checkOptions, nearest, optionCheck, PannsError } from '../errors.js';
import type { SafetensorsTensor } from '../io/safetensors.js';
import type { WritableTensor } from '../io/safetensors_writer.js';
import { writeWeights } from '../io/weights_writer.js';
import { describeModel } from '../models/index.js';
import { type ModelConfig, type ModelOptions, modelOptionNames } from '../models/options.js';
import type { ModelDescription, ModelRow } from '../models/row.js';
import type { OutputShape, StateEntry } from '../models/tensor.js';
import { callNative } from '../native/call.js';
import { loadNative } from '../native.js';
import { modelMetadata } from './description.js';
import { type DeviceChoice, deviceOptionNames, resolveDevice } from './device.js';
import { applyState, checkState, derivedTensors } from './load.js';
import { clipsAtOnce, type MemoryNeed, memoryNeed } from './memory.js';
import { checkOutput, collect, type Output } from './outputs.js';
import { loadStart, planStart } from './pretrained.js';
import { arrangeRows, checkFinite, padded, type RowGroup } from './rows.js';
import {
  asComputed,
  asStored,
  matchState,
  type StateDict,
  type StateReport,
  unusedValue,
  writable,
} from './state.js';

/** Options of {@link createModel}. */
export interface CreateModelOptions extends ModelOptions, DeviceChoice {
  /** Of the initial weights: a whole number in 0..2^53-1, default 0. */
  seed?: number | undefined;
  /**
   * The weights to begin with: `true` for the published ones of this name ({@link downloadWeights}), or
   * a file's path ({@link openWeights} says what is read).
   *
   * Options that are not given follow from the file, `classes` too. Where `classes` differ from the
   * file's, the classifier keeps its random values, and all else has to fit.
   */
  pretrained?: true | string | undefined;
}

/** Options of {@link Model.infer}. */
export interface InferOptions<Name extends string> {
  /** N, when the waveforms come as one array; default 1. */
  batch?: number | undefined;
  /**
   * Default `clipwise_output` and `embedding`; `logits`, and `framewise_output` of models with a head
   * for segments. What else a network of one's own returns is named as there.
   */
  outputs?: readonly Name[] | undefined;
  signal?: AbortSignal | undefined;
}

/** Options of {@link Model.memory}. */
export interface MemoryOptions {
  /** Clips; default 1. */
  batch?: number | undefined;
  /** Of each clip; default 10. */
  seconds?: number | undefined;
  /** As those of {@link Model.infer}. */
  outputs?: readonly string[] | undefined;
}

/** What the rest of the package sees of a model. */
export interface ModelInternals {
  readonly addon: NativeAddon;
  readonly native: NativeModel;
  readonly description: ModelDescription;
  /** num_batches_tracked of each norm, by name. */
  readonly counters: Map<string, bigint>;
  /** Tensors that the model stores and never uses, by name. */
  readonly unused: Map<string, Float32Array>;
}

const DEFAULT_OUTPUTS = ['clipwise_output', 'embedding'] as const;

/** The outputs asked for, each once. */
function outputNames(asked: readonly string[] | undefined, known: readonly string[]): string[] {
  const names = [...new Set(asked ?? DEFAULT_OUTPUTS.filter((name) => known.includes(name)))];
  for (const name of names) checkOutput(name, known);
  return names;
}

let reveal: (model: Model) => ModelInternals;

/**
 * A network with its weights, on a device.
 *
 * Made by {@link createModel} or {@link loadModel}. Several calls may be under way at once; they run
 * one after another. Free the memory with `dispose()`, or declare it with `using`.
 */
export class Model {
  /** As the paper has it: `Cnn14`. */
  readonly name: string;
  /** All options of the architecture, defaults filled in. */
  readonly config: ModelConfig;
  /** The names of the classes in order; only their number where the names are not known. */
  readonly classes: readonly string[] | number;
  /** K. */
  readonly classCount: number;
  /** In Hz, of the waveforms that `infer` takes. */
  readonly sampleRate: number;
  /** Shorter clips are padded with zeros at the end to this many samples. */
  readonly minimumSamples: number;
  /** E, the columns of `embedding`; 0 where the model has none. */
  readonly embeddingSize: number;
  readonly #internals: ModelInternals;
  #disposed = false;

  static {
    reveal = (model) => model.#usable();
  }

  /** Use {@link createModel} or {@link loadModel}. */
  constructor(internals: ModelInternals) {
    const { description } = internals;
    this.name = description.name;
    this.config = description.config;
    this.classes = description.labels ?? description.config.classes;
    this.classCount = description.config.classes;
    this.sampleRate = description.config.sampleRate;
    this.minimumSamples = description.minimumSamples;
    this.embeddingSize = description.embeddingSize;
    this.#internals = internals;
  }

  /**
   * The samples that a clip of so many is padded to with zeros: at least `minimumSamples`, and a
   * length that the network takes (Wavegram-Logmel models do not take every one).
   */
  lengthFor(samples: number): number {
    return this.#internals.description.lengthFor(samples);
  }

  /**
   * Scores clips: waveforms (N, S) to the named outputs, each (N, columns).
   *
   * `waveforms` are mono samples in [-1, 1] at `sampleRate`, or 16-bit ones, which stand for x / 32767:
   * one array of `batch` clips of equal length, or a list of any lengths from one sample up. A clip is padded with zeros to
   * {@link lengthFor} its length; the clips beside it change its scores by rounding at most. Memory from
   * {@link allocate} is read in place and must not change meanwhile.
   *
   * @throws PannsError `ERR_PANNS_SHAPE`, `ERR_PANNS_NAN` for samples that are no numbers,
   *   `ERR_PANNS_OPTION`, `ERR_PANNS_OUT_OF_MEMORY`, `ERR_PANNS_DISPOSED`; AbortError
   */
  async infer<Name extends string = 'clipwise_output' | 'embedding'>(
    waveforms: Samples | readonly Samples[],
    options: InferOptions<Name> = {},
  ): Promise<Record<Name, Output>> {
    const { description } = this.#usable();
    checkOptions(options, ['batch', 'outputs', 'signal'], 'infer');
    const known = Object.keys(description.outputs);
    const names = outputNames(options.outputs, known);
    const groups = arrangeRows(waveforms, options.batch, description.lengthFor);
    const count = groups.reduce((sum, { rows }) => sum + rows.length, 0);
    const results = new Map(
      names.map((name) => {
        const { columns, frames } = description.outputs[name] as OutputShape;
        const most = frames && Math.max(...groups.map(({ samples }) => frames(samples)));
        return [name, collect(count, columns, most)] as const;
      }),
    );
    for (const group of groups) {
      await this.#inferGroup(group, names, options.signal, (answer, first, rows) => {
        for (const [name, result] of results) {
          const frames = description.outputs[name]?.frames?.(group.samples);
          result.put(
            answer[name] ?? new Float32Array(0),
            group.rows.slice(first, first + rows),
            frames,
          );
        }
      });
    }
    for (const [name, { output }] of results) {
      if (output.frames !== undefined || !output.data.includes(Number.NaN)) continue;
      const what = `expected numbers as ${name}, got NaN: samples lie far outside -1..1, or weights are not finite`;
      throw new PannsError('ERR_PANNS_NAN', what, { where: this.name });
    }
    return Object.fromEntries([...results].map(([name, { output }]) => [name, output])) as Record<
      Name,
      Output
    >;
  }

  /** Runs a group in parts that memory can hold; `take` gets each part's answer and first row. */
  async #inferGroup(
    { data, rows, samples }: RowGroup,
    names: readonly string[],
    signal: AbortSignal | undefined,
    take: (answer: Record<string, Float32Array>, first: number, rows: number) => void,
  ): Promise<void> {
    const { native } = this.#usable();
    const atOnce = clipsAtOnce(samples);
    for (let first = 0; first < rows.length; first += atOnce) {
      const count = Math.min(atOnce, rows.length - first);
      const part = data.subarray(first * samples, (first + count) * samples);
      // A rest is filled up with silence: the core has compiled for full batches, and rows are
      // independent of each other.
      const size = rows.length > atOnce ? atOnce : count;
      const input = size === count ? part : padded([part], size * samples, 1);
      const answer = await callNative(
        this.name,
        (cancel) => native.infer(input, size, samples, [...names], cancel),
        signal,
      );
      take(answer, first, count);
    }
  }

  /** Names, shapes and whether they train; norms' running statistics do not. In PyTorch's order. */
  parameters(): NativeParameter[] {
    return this.#usable().description.stateDict.flatMap(({ name, shape, role }) =>
      role === 'parameter' || role === 'buffer'
        ? [{ name, shape: [...shape], trainable: role === 'parameter' }]
        : [],
    );
  }

  /** How many numbers train. */
  parameterCount(): number {
    const sizes = this.parameters().map(({ shape, trainable }) => (trainable ? product(shape) : 0));
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  /** A copy of a parameter or running statistic, row-major. @throws PannsError `ERR_PANNS_OPTION` */
  async getParameter(name: string): Promise<Float32Array> {
    const { native } = this.#usable();
    const entry = this.#known(name);
    return asStored(entry, await callNative(this.name, () => native.get(name)));
  }

  /** Replaces one. @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_SHAPE`, `ERR_PANNS_NAN` */
  async setParameter(name: string, values: Float32Array): Promise<void> {
    const { native } = this.#usable();
    const entry = this.#known(name);
    const { shape } = entry;
    if (!(values instanceof Float32Array) || values.length !== product(shape)) {
      const what = `expected a Float32Array of ${product(shape)} values ([${shape}]), got ${values?.length}`;
      throw new PannsError('ERR_PANNS_SHAPE', what, { where: `${this.name}/${name}` });
    }
    checkFinite(values, `${this.name}/${name}`);
    await callNative(this.name, () => native.set(name, asComputed(entry, values)));
  }

  /** All tensors as PyTorch's `state_dict()` has them: names, shapes, types and order. */
  async stateDict(): Promise<Map<string, WritableTensor>> {
    const internals = this.#usable();
    const { native, description, counters, unused } = internals;
    const derived = await derivedTensors(internals);
    const state = new Map<string, WritableTensor>();
    for (const entry of description.stateDict) {
      const { name, role } = entry;
      if (role === 'counter') state.set(name, writable(entry, counters.get(name) ?? 0n));
      else if (role === 'derived')
        state.set(name, writable(entry, derived.get(name) as Float32Array));
      else if (role === 'unused')
        state.set(name, writable(entry, unusedValue(entry, unused, counters)));
      else {
        const values = await callNative(this.name, () => native.get(name));
        state.set(name, writable(entry, asStored(entry, values)));
      }
    }
    return state;
  }

  /**
   * Replaces all weights by those of a state dict, under PyTorch's names, and says what became of each.
   *
   * The front-end's own tensors may be absent, and are compared when present. Nothing changes when
   * this throws. `strict: false` passes over missing and unknown names.
   *
   * @throws PannsError `ERR_PANNS_CHECKPOINT` naming what does not fit; `ERR_PANNS_NAN`
   */
  async loadStateDict(state: StateDict, options: { strict?: boolean } = {}): Promise<StateReport> {
    checkOptions(options, ['strict'], 'loadStateDict');
    const internals = this.#usable();
    const { stateDict } = internals.description;
    const report = matchState(stateDict, state, options.strict ?? true, this.name);
    const read = async (name: string) => state.get(name) as SafetensorsTensor;
    await checkState(internals, report, read);
    await applyState(internals, report, read);
    return report;
  }

  /**
   * Writes a file from which {@link loadModel} rebuilds this model, and PyTorch its state dict:
   * safetensors, or what `torch.load(path, weights_only=True)` reads where the path ends in `.pth` or
   * `.pt`; there the state dict stands under `model`, as in PANNs' own files.
   *
   * @throws PannsError `ERR_PANNS_IO`
   */
  async save(path: string): Promise<void> {
    const { description } = this.#usable();
    await writeWeights(path, await this.stateDict(), modelMetadata(description));
  }

  /**
   * What {@link infer} needs of the device's memory for clips of so many seconds, without taking it.
   *
   * `seconds` is 10, `batch` 1, and `outputs` those of `infer`, unless given. A batch is computed in
   * parts of 8 clips of 10 s at 32 kHz: the answer is for such a part. Decoded clips and Node.js itself
   * come on top. For training see {@link trainingMemory}.
   *
   * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_OUT_OF_MEMORY` for tensors that no memory holds
   */
  async memory(options: MemoryOptions = {}): Promise<MemoryNeed> {
    const { native, description } = this.#usable();
    checkOptions(options, ['batch', 'seconds', 'outputs'], 'memory');
    const { batch = 1, seconds = 10, outputs } = options;
    const check = optionCheck('memory');
    check('batch', batch, Number.isSafeInteger(batch) && batch >= 1, 'a whole number >= 1');
    check('seconds', seconds, seconds > 0 && seconds <= 3600, 'a number in 0..3600');
    const names = outputNames(outputs, Object.keys(description.outputs));
    const samples = this.lengthFor(Math.round(seconds * this.sampleRate));
    const size = { batch: Math.min(batch, clipsAtOnce(samples)), samples };
    const need = await callNative(this.name, () => native.memory(size.batch, samples, names, true));
    return memoryNeed(need, size);
  }

  /** The compiled network as text: every op, where its result lies, and the work. */
  async text(
    options: { batch?: number; samples?: number; passesOff?: readonly string[] } = {},
  ): Promise<string> {
    const { native } = this.#usable();
    checkOptions(options, ['batch', 'samples', 'passesOff'], 'text');
    const { batch = 1, samples = 10 * this.sampleRate, passesOff = [] } = options;
    return callNative(this.name, () => native.text(batch, samples, [...passesOff]));
  }

  /** Frees the memory once the calls under way are done; later calls throw `ERR_PANNS_DISPOSED`. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#internals.native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #usable(): ModelInternals {
    if (!this.#disposed) return this.#internals;
    throw new PannsError('ERR_PANNS_DISPOSED', 'this model has been disposed of', {
      where: this.name,
    });
  }

  #known(name: string): StateEntry {
    const names = this.#internals.description.stateDict.filter(
      ({ role }) => role === 'parameter' || role === 'buffer',
    );
    const entry = names.find((candidate) => candidate.name === name);
    if (entry !== undefined) return entry;
    const guess = nearest(
      String(name),
      names.map((candidate) => candidate.name),
    );
    const what = `there is no parameter "${name}"; did you mean "${guess}"?`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: this.name, actual: name });
  }
}

/** @internal The parts of a model; throws ERR_PANNS_DISPOSED. */
export function modelInternals(model: Model): ModelInternals {
  return reveal(model);
}

/**
 * Makes a model with random weights, as its authors initialise: Xavier-uniform in PANNs, norms at 1
 * and 0. `name` is one of {@link modelNames}, or a network of one's own: a {@link ModelRow}.
 *
 * ```ts
 * using model = await createModel('Cnn6', { classes: ['dog', 'rain'], sampleRate: 16000 });
 * const { clipwise_output } = await model.infer(new Float32Array(32000));
 * ```
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_CUDA_UNAVAILABLE`, `ERR_PANNS_NATIVE_MISSING`,
 *   `ERR_PANNS_NATIVE_LOAD`, `ERR_PANNS_OUT_OF_MEMORY`; with `pretrained` also `ERR_PANNS_CHECKPOINT`,
 *   `ERR_PANNS_UNSUPPORTED`, `ERR_PANNS_IO`, `ERR_PANNS_DOWNLOAD`, `ERR_PANNS_OFFLINE`
 */
export async function createModel(
  name: string | ModelRow,
  options: CreateModelOptions = {},
): Promise<Model> {
  const known = [...modelOptionNames, ...deviceOptionNames, 'seed', 'pretrained'];
  checkOptions(options, known, 'createModel');
  const { device, threads, gpu, precision, seed = 0, pretrained, ...architecture } = options;
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new PannsError(
      'ERR_PANNS_OPTION',
      `expected seed to be a whole number >= 0, got ${seed}`,
      {
        where: 'createModel',
        actual: seed,
      },
    );
  }
  const place = { device, threads, gpu, precision };
  if (pretrained === undefined) return initialised(describeModel(name, architecture), place, seed);
  const start = await planStart(name, pretrained, architecture);
  try {
    const model = await initialised(start.description, place, seed);
    try {
      await loadStart(reveal(model), start);
      return model;
    } catch (error) {
      model.dispose();
      throw error;
    }
  } finally {
    await start.file.close();
  }
}

async function initialised(
  description: ModelDescription,
  place: DeviceChoice,
  seed: number,
): Promise<Model> {
  const model = await placeModel(description, place);
  await callNative(model.name, () => reveal(model).native.initialise(BigInt(seed)));
  return model;
}

/**
 * @internal A model whose weights are still to be set; `measurePlans` times cuDNN's engines where no
 * plan is kept that was.
 */
export async function placeModel(
  description: ModelDescription,
  choice: DeviceChoice,
  measurePlans = false,
): Promise<Model> {
  const device = { ...(await resolveDevice(choice, 'createModel')), measurePlans };
  const addon = loadNative();
  const { spec, minimumSamples } = description;
  const native = await callNative(description.name, () =>
    addon.createModel(spec, device, minimumSamples),
  );
  return new Model({ addon, native, description, counters: new Map(), unused: new Map() });
}

function product(shape: readonly number[]): number {
  return shape.reduce((sum, n) => sum * n, 1);
}
