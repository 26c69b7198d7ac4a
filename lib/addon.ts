/**
 * What the native addon exports. The one description of that boundary: native/bindings implements
 * it, lib/ calls it and nothing else.
 *
 * Everything that takes longer than about a millisecond returns a promise; its work runs on an
 * engine thread of the addon, one job after another, never on the event loop or its thread pool.
 * An array over a SharedArrayBuffer is read in place while the job runs; any other is copied before
 * the call returns. Arrays that come back are new. Errors carry `code` and `where`
 * (`nativeError` in errors.ts makes a PannsError of them).
 */

/** One operation of a model. `inputs` are `#3` for the spec's node 3, or a graph input's name. */
export interface SpecNode {
  op: string;
  /** PyTorch's module path, which prefixes the names of the node's parameters; may be ''. */
  path: string;
  inputs: string[];
  attrs: Record<string, number | boolean | string | number[]>;
}

/** A model as plain data: what a checkpoint stores, and what the core compiles. */
export interface Spec {
  name: string;
  nodes: SpecNode[];
  /** Named results: the index of the node that makes each. */
  outputs: Record<string, number>;
}

export interface DeviceOptions {
  device: 'cpu' | 'cuda' | 'null';
  /** Threads that compute; 0 means one a core. */
  threads: number;
  /** Of the GPU, in the driver's order. */
  index?: number;
  precision?: 'fp32' | 'tf32' | 'bf16' | 'fp16';
  /** The same bits from run to run on a GPU; default true. */
  deterministic?: boolean;
  /** Time cuDNN's engines instead of taking the one it proposes first; default false. */
  measurePlans?: boolean;
  /**
   * Whether convolutions over two bins are computed over pairs of them: where it was measured to be
   * faster, the default, or wherever it can be done, or nowhere.
   */
  pairBins?: 'measured' | 'always' | 'never';
  /** Bytes that the null device has in all; default 0, no limit. */
  memoryLimit?: number;
}

/** What computing needs of a device's memory, in bytes. */
export interface NativeMemory {
  device: DeviceOptions['device'];
  /** Parameters and running statistics: there already. */
  weights: number;
  gradients: number;
  /** The optimizer's state. */
  optimizer: number;
  /** Inputs, and what layers pass on. */
  activations: number;
  /** Of kernels while they run. */
  scratch: number;
  /** What kernels keep: packed weights, tables. */
  kernels: number;
  /** For all but the weights; absent where the system does not say. */
  free?: number;
  /** 0 where not even one clip fits; at most 65536. Absent unless it was searched for. */
  largestBatch?: number;
}

export interface CudaDeviceStatus {
  index: number;
  name: string;
  /** 90 for compute capability 9.0. */
  architecture: number;
  multiprocessors: number;
  memoryBytes: number;
  /** Why it cannot be used; '' when it can. */
  reason: string;
}

export interface CudaLibraryStatus {
  name: string;
  path: string;
  version: string;
  /** Why it cannot be used, with every place tried; '' when it can. */
  reason: string;
}

/** What keeps CUDA from being used. */
export type CudaProblem =
  /** panns_cuda.so: not there, cut off or no library, of another build than the addon. */
  | 'backend-missing'
  | 'backend-damaged'
  | 'backend-foreign'
  /** libcuda.so.1: none, too old, the toolkit's stand-in, not the kernel's, or it does not start. */
  | 'driver-missing'
  | 'driver-old'
  | 'driver-stub'
  | 'driver-mismatch'
  | 'driver-failed'
  /** No GPU is visible, or none with a compute capability of 8.0 or more. */
  | 'device-missing'
  | 'device-old'
  /** cuDNN 9: not found, or found and too old or not complete. */
  | 'cudnn-missing'
  | 'cudnn-unfit'
  /** The NVRTC or cuBLASLt of cuDNN's major version of CUDA was not found. */
  | 'nvrtc-missing'
  | 'cublas-missing';

/** What is there of CUDA. Texts that do not apply are ''. */
export interface CudaStatus {
  available: boolean;
  /** The first that was found; '' when CUDA is available. */
  problem: CudaProblem | '';
  /** The same in words, with every place where a library was looked for. */
  reason: string;
  /** The command or the step that mends it. */
  mend: string;
  /** The newest CUDA that the driver takes, for example '13.0'. */
  driver: string;
  /** The CUDA that the backend was built with. */
  runtime: string;
  devices: CudaDeviceStatus[];
  /** The backend's own, the driver's, cuDNN, NVRTC: as far as it is known what to look for. */
  libraries: CudaLibraryStatus[];
}

export interface NativeParameter {
  name: string;
  shape: number[];
  /** False for buffers such as running means. */
  trainable: boolean;
}

/** A flag that the job's thread polls: set element 0 to 1 to cancel. Over a SharedArrayBuffer. */
export type CancelFlag = Uint8Array;

export interface NativeModel {
  parameters(): NativeParameter[];
  initialise(seed: bigint): Promise<void>;
  get(name: string): Promise<Float32Array>;
  set(name: string, values: Float32Array): Promise<void>;
  /**
   * waveform (batch, samples); returns each named output, row-major. `#3` names what the spec's node 3
   * makes. With `from`, the number of a node, its results, floats, take the place of the waveform.
   */
  infer(
    waveform: Float32Array | Int16Array,
    batch: number,
    samples: number,
    outputs: string[],
    cancel?: CancelFlag,
    from?: number,
  ): Promise<Record<string, Float32Array>>;
  /** What `infer` needs, without taking it. */
  memory(batch: number, samples: number, outputs: string[], search: boolean): Promise<NativeMemory>;
  /** What a session of the model needs, without taking it. */
  sessionMemory(spec: Spec, options: SessionOptions, search: boolean): Promise<NativeMemory>;
  /**
   * Chooses the plan of the `index`-th node of `infer` that has one, and keeps it. Says which node it was
   * ('' behind the last), and how many there are.
   */
  chooseInferencePlan(
    batch: number,
    samples: number,
    outputs: string[],
    index: number,
    cancel?: CancelFlag,
  ): Promise<ChosenPlan>;
  /** The same for a session's step. */
  chooseTrainingPlan(
    spec: Spec,
    options: SessionOptions,
    index: number,
    cancel?: CancelFlag,
  ): Promise<ChosenPlan>;
  /** What the model's device reaches in a second, measured now. */
  rates(cancel?: CancelFlag): Promise<NativeRates>;
  /** Two inferences of noise: one node by node, one as usual. */
  profile(
    batch: number,
    samples: number,
    outputs: string[],
    cancel?: CancelFlag,
  ): Promise<NativeProfile>;
  /** Bytes of device memory that the model and its sessions hold; on a GPU those of the process. */
  held(): Promise<number>;
  /** The compiled program (inference) as text: graph, memory plan, work. */
  text(batch: number, samples: number, passesOff: string[]): Promise<string>;
  /** Frees the memory; jobs under way finish first. */
  dispose(): void;
}

export interface NativeRates {
  device: DeviceOptions['device'];
  name: string;
  /** Instruction set, or driver and precision. */
  detail: string;
  /** Operations of a large product of matrices, in the device's precision. */
  flops: number;
  /** Of two large maps and their sum. */
  bytes: number;
}

export interface NativeProfile {
  nodes: {
    pass: 'forward' | 'backward' | 'optimizer';
    path: string;
    op: string;
    /** Its attributes, with what is fused to it. */
    detail: string;
    /** Of the first result; of an optimizer's node, of what it updates. */
    shape: number[];
    /** Whether it runs only when weights change. */
    once: boolean;
    flops: number;
    bytes: number;
    seconds: number;
  }[];
  /** Of the step that was run as usual. */
  stepSeconds: number;
}

export interface ChosenPlan {
  node: string;
  count: number;
}

export interface OptimizerOptions {
  kind: 'adam' | 'sgd';
  attrs: Record<string, number | boolean>;
}

export interface SessionOptions {
  batch: number;
  samples: number;
  mixup: boolean;
  loss: 'bce' | 'cross_entropy';
  optimizer: OptimizerOptions;
  /** Parameters whose names start with one of these do not train. */
  frozen: string[];
  /** Whether norms whose parameters are frozen use their running statistics; default 'train': no. */
  frozenNorms?: 'eval' | 'train';
  /** Multiplies the learning rate of parameters whose names start so; the longest name counts. */
  rates?: Record<string, number>;
  /** Once joined with other processes, norms see the rows of all; default false. */
  syncNorms?: boolean;
  /** An inference on clips of as many samples, whose memory stays free beside the session's. */
  evaluation?: { batch: number; outputs: string[] };
  /** A node of the spec, by number: its results (batch, samples) are the input, not a waveform. */
  from?: number;
  passesOff: string[];
  /**
   * Passes that are off unless they are named. `early_update`: the optimizer's part for the gradients
   * that come first runs beside the rest of the backward pass, on devices that can; the same bits.
   */
  passesOn?: 'early_update'[];
  /** Bytes of parameters that `early_update` takes at once, at most; default 8 MiB. */
  earlyBytes?: number;
}

export interface StepState {
  seed: bigint;
  step: number;
  lr: number;
  /** 0: no clipping of the gradient norm. */
  maxNorm: number;
  /** False: compute gradients, change no parameter. */
  update: boolean;
}

export interface StepResult {
  loss: number;
  /** Before clipping; 0 without clipping. */
  gradNorm: number;
  /** Gradients overflowed, and nothing but the loss scale (fp16) has moved. */
  leftOut: boolean;
}

/** Processes that train together; what one calls, all call, in the same order. */
export interface NativeGroup {
  readonly rank: number;
  readonly size: number;
  readonly engine: string;
  /** The sums over all processes. */
  sum(values: Float64Array): Promise<Float64Array>;
  /** The root's bytes, in every process. */
  broadcast(bytes: Uint8Array, root: number): Promise<Uint8Array>;
  leave(): Promise<void>;
}

/** How the gradients of several processes are averaged. */
export interface JoinOptions {
  /** Beside the rest of the backward pass; default true. */
  overlap?: boolean;
  /** At most so many at once; default 8 MiB. */
  bucketBytes?: number;
}

export interface NativeSession {
  /** Takes over the first process's state; from here on steps are those of all processes. */
  join(group: NativeGroup, options: JoinOptions): Promise<void>;
  /**
   * waveform (clips, samples), target (clips, classes); clips is twice the batch with mixup. Samples
   * of 16 bits stand for x / 32767; with `from` there are floats. Without a waveform the samples are
   * those that the step before was given as `next`, where {@link NativeSession.stages} allows it:
   * they go to the device while that step computes.
   */
  step(
    waveform: Float32Array | Int16Array | undefined,
    target: Float32Array,
    lambda: Float32Array | undefined,
    state: StepState,
    next?: Int16Array,
  ): Promise<StepResult>;
  /**
   * The two halves of a step, so that a device that works by itself has the next one before this one's
   * loss is read. `begin` gives the step to the device: when its promise settles, what it was given may
   * be reused. It rejects with ERR_PANNS_BUSY when {@link NativeSession.depth} steps are in flight.
   */
  begin(
    waveform: Float32Array | Int16Array | undefined,
    target: Float32Array,
    lambda: Float32Array | undefined,
    state: StepState,
    next?: Int16Array,
  ): Promise<void>;
  /**
   * Waits for the step that was begun first, and gives or throws what `step` would. Steps that were
   * begun behind one that fails, or that clips by a norm that is not finite, move nothing and fail too.
   */
  finish(): Promise<StepResult>;
  /** How many steps may be in flight: 1 where a step is done when it has begun. */
  depth(): number;
  /** Whether a step takes the samples of the next one: on a device with memory of its own. */
  stages(): boolean;
  /** Two steps on noise, `state.step` and the next: one node by node, one as usual. */
  profile(state: StepState, cancel?: CancelFlag): Promise<NativeProfile>;
  gradient(parameter: string): Promise<Float32Array>;
  /** Names of the optimizer's state arrays, as in torch.optim. */
  slots(): string[];
  getSlot(slot: string, parameter: string): Promise<Float32Array>;
  setSlot(slot: string, parameter: string, values: Float32Array): Promise<void>;
  trains(parameter: string): boolean;
  /** Bytes of device memory beside the parameters, and operations of one step. */
  cost(): { bytes: number; flops: number };
  text(): string;
  dispose(): void;
}

export interface LogmelOptions {
  sampleRate: number;
  windowSize: number;
  hopSize: number;
  melBins: number;
  fmin: number;
  fmax: number;
  /** Samples of the Hann window, centred in windowSize; default windowSize. */
  windowLength?: number;
  /** The Hann window; default true, false is symmetric. */
  periodic?: boolean;
  /** Default 0; else y[i] = x[i + 1] - preemphasis * x[i] comes first, one sample shorter than x. */
  preemphasis?: number;
  /** Triangles of area one over Hz, or of height one over mel; default 'slaney'. */
  melScale?: 'slaney' | 'kaldi';
  /** 10 log10(max(x, 1e-10)), or ln(x + 1e-5); default 'decibel'. */
  log?: 'decibel' | 'natural';
  /** The result is (log + shift) * scale; default 0. */
  shift?: number;
  /** Default 1. */
  scale?: number;
}

export interface NativeFeatures {
  /** (batch, samples) to log-mel (batch, frames, melBins), or power (…, windowSize / 2 + 1). */
  run(
    waveform: Float32Array | Int16Array,
    batch: number,
    samples: number,
    output: 'logmel' | 'spectrogram',
  ): Promise<Float32Array>;
  dispose(): void;
}

export interface AudioInfo {
  frames: number;
  sampleRate: number;
  channels: number;
  format: string;
  subtype: string;
}

export interface DecodeOptions {
  /** Seconds. */
  start: number;
  /** Seconds; negative: to the end. */
  duration: number;
  /** Hz; 0: the file's own. */
  sampleRate: number;
  mono: boolean;
  nanToZero: boolean;
  /** Seconds of output at most (ERR_PANNS_AUDIO_TOO_LONG). */
  maxSeconds: number;
}

export interface DecodedAudio {
  channels: Float32Array[];
  sampleRate: number;
  truncated: boolean;
  info: AudioInfo;
}

/**
 * A row of a batch, and the clip to fill it with: samples in memory, samples of 16 bits that lie in a
 * file from a byte on, or a range of a file to decode (seconds; a negative duration: to the end). Of the
 * clip at most `most` samples are taken; zeros come behind it.
 */
export type RowRequest = {
  /** Over a SharedArrayBuffer, as `samples` is. */
  row: Int16Array;
  most: number;
} & (
  | { samples: Int16Array }
  | { path: string; offset: number }
  | { path: string; start: number; duration: number }
);

/** The samples of a row that are its clip's, or why there are none: then the row is zeros. */
export type RowResult = number | { code: string; message: string };

/** For tests: one op on a device, inputs and outputs in logical, row-major order. */
export interface OpTensor {
  shape: number[];
  form: 'dense' | 'map' | 'filter';
  data: Float32Array;
}

export interface NativeAddon {
  version: string;
  cpu(): { name: string; tier: string; cores: number; memoryBytes: number };
  cudaStatus(): Promise<CudaStatus>;
  /** Which libsndfile is in use, or why none is. */
  audioLibrary(): { path: string; version: string; error: string };
  /** A folder in which libsndfile is looked for first; no effect once the library is in use. */
  setAudioLibraryFolder(folder: string): void;

  createModel(spec: Spec, device: DeviceOptions, samples: number): Promise<NativeModel>;
  createSession(model: NativeModel, spec: Spec, options: SessionOptions): Promise<NativeSession>;
  createFeatures(options: LogmelOptions, threads: number): NativeFeatures;
  /** Libraries are tried in order; `size` is what the launcher says. 0 seconds: wait without end. */
  openMpi(options: {
    libraries: string[];
    size: number;
    timeoutSeconds: number;
  }): Promise<NativeGroup>;
  /** Finds NCCL, and makes what process 0 tells all before they open; empty where it is not to be made. */
  ncclId(make: boolean): Promise<Uint8Array>;
  /** `index` is the GPU's. */
  openNccl(options: {
    index: number;
    rank: number;
    size: number;
    id: Uint8Array;
    timeoutSeconds: number;
  }): Promise<NativeGroup>;
  /** Tensors that PANNs checkpoints store and the front-end derives. */
  frontendTensors(options: LogmelOptions): Promise<{
    convReal: Float32Array;
    convImag: Float32Array;
    melW: Float32Array;
  }>;

  probe(source: string | Uint8Array): Promise<AudioInfo>;
  decode(
    source: string | Uint8Array,
    options: DecodeOptions,
    cancel?: CancelFlag,
  ): Promise<DecodedAudio>;
  /**
   * Fills rows on several threads; one thread goes through them in order. Decoded clips are converted to
   * `sampleRate` and rounded as `toInt16` does; 0 threads: one a core.
   */
  fillRows(
    rows: RowRequest[],
    options: { sampleRate: number; threads: number },
    cancel?: CancelFlag,
  ): Promise<RowResult[]>;
  resample(samples: Float32Array, from: number, to: number): Promise<Float32Array>;
  resamplerInfo(from: number, to: number): { passbandHz: number; taps: number };

  /** Stops the engine threads; called when the process exits. */
  stop(): void;

  runOp(
    op: string,
    attrs: Record<string, number | boolean | string | number[]>,
    inputs: OpTensor[],
    state: Partial<StepState>,
    /** Default: the CPU. `eager`: kernel by kernel, not as a recording. */
    device?: DeviceOptions & { eager?: true },
  ): Promise<OpTensor[]>;
  /** Runs the planner and a captured training step on the null backend. */
  nullStep(spec: Spec, options: SessionOptions): { text: string; runs: number[]; bytes: number };
  fusions(): string[];
}
