import type { LogmelOptions, Spec } from '../addon.js';

/**
 * What an op takes or makes: samples (N, S), a feature map (N, C, T, F), a vector (N, C), or scores of
 * frames (N, T, K). One-dimensional networks are maps with F = 1.
 */
export type TensorKind = 'waveform' | 'map' | 'vector' | 'frames';

/** A value of the graph under construction; only a {@link Builder} makes one. */
export interface Tensor<K extends TensorKind> {
  readonly kind: K;
  /** As a spec names it: `#3`, or an input of the graph. */
  readonly ref: string;
  /** C of a map or vector, K of scores; 1 of a waveform. */
  readonly channels: number;
  /** F of a map; 1 elsewhere. */
  readonly bins: number;
  /** How many samples the waveform needs for this value to have `count` frames (samples, of itself). */
  readonly samplesFor: (count: number) => number;
  /** How many frames this value has when the waveform has so many samples; below 1: too short. */
  readonly framesOf: (samples: number) => number;
}

/** A (time, frequency) pair; one number means both. */
export type Extent = number | readonly [number, number];

/** One tensor of PyTorch's state dict. */
export interface StateEntry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: 'F32' | 'I64';
  /**
   * `parameter` and `buffer` live in the core; a `counter` is a norm's num_batches_tracked; `derived`
   * ones follow from the front-end's options; `unused` ones are stored with a published model and
   * change nothing.
   */
  readonly role: 'parameter' | 'buffer' | 'counter' | 'derived' | 'unused';
  /** Set where PyTorch keeps a filter as (O, I, frequency, time), the core as (O, I, time, frequency). */
  readonly order?: 'freq-time';
}

/** An output: (N, columns), or (N, frames, columns) where `frames` is given. */
export interface OutputShape {
  readonly columns: number;
  readonly frames?: (samples: number) => number;
}

/** A finished graph and what follows from it. */
export interface GraphDescription {
  readonly spec: Spec;
  /** What each node of the spec makes. */
  readonly values: readonly Tensor<TensorKind>[];
  readonly outputs: Readonly<Record<string, OutputShape>>;
  /** In PyTorch's order: that of registration, not of execution. */
  readonly stateDict: readonly StateEntry[];
  /** The shortest clip that leaves a frame after every pool. */
  readonly minimumSamples: number;
  /**
   * The least length, in samples, at or above the given one that the network takes: at least
   * `minimumSamples`, and one at which branches that meet have as many frames.
   */
  readonly lengthFor: (samples: number) => number;
}

/** The ops; each appends a node. Names are modules' names as PyTorch has them, below the scope. */
export interface Builder {
  /** Runs `body` with `name` before the names of its modules, as a submodule. */
  scope<T>(name: string, body: () => T): T;
  /** Fixes the order of modules in the state dict where they do not run in that order. */
  register(...names: string[]): void;
  /** Tensors that a published model stores under this module and never uses. */
  unused(name: string, tensors: UnusedTensors): void;
  logmel(x: Tensor<'waveform'>, options: LogmelNodeOptions): Tensor<'map'>;
  /** (N, S) to (N, 1, S, 1): the waveform as a one-dimensional map. */
  unsqueeze(x: Tensor<'waveform'>): Tensor<'map'>;
  batchNorm(name: string, x: Tensor<'map'>, options?: BatchNormOptions): Tensor<'map'>;
  specAugment(x: Tensor<'map'>, options: SpecAugmentOptions): Tensor<'map'>;
  /** Mixes the clips 2i and 2i + 1 where the training step asks for it. */
  mixup<K extends 'waveform' | 'map'>(x: Tensor<K>): Tensor<K>;
  conv(name: string, x: Tensor<'map'>, options: ConvOptions): Tensor<'map'>;
  /** torch.nn.Conv1d on a map with one frequency bin. */
  conv1d(name: string, x: Tensor<'map'>, options: Conv1dOptions): Tensor<'map'>;
  relu<K extends 'map' | 'vector'>(x: Tensor<K>): Tensor<K>;
  /** min(max(x, 0), 6) */
  relu6<K extends 'map' | 'vector'>(x: Tensor<K>): Tensor<K>;
  /** x min(max(x + 3, 0), 6) / 6 */
  hardSwish<K extends 'map' | 'vector'>(x: Tensor<K>): Tensor<K>;
  sigmoid<K extends 'map' | 'vector'>(x: Tensor<K>): Tensor<K>;
  /** Over the channels of (N, K). */
  softmax(x: Tensor<'vector'>): Tensor<'vector'>;
  /** Windows next to each other unless a stride is given, a rest at the end dropped; 1 adds no node. */
  pool(x: Tensor<'map'>, kind: PoolKind, kernel: Extent, options?: PoolOptions): Tensor<'map'>;
  /** A probability of 0 adds no node. */
  dropout<K extends 'map' | 'vector'>(x: Tensor<K>, probability: number): Tensor<K>;
  meanOverFrequency(x: Tensor<'map'>): Tensor<'map'>;
  /** (N, C, T, 1) to (N, C). */
  reduceTime(x: Tensor<'map'>, kind: 'mean' | 'max' | 'max+mean'): Tensor<'vector'>;
  /** torch.nn.Linear on vectors, or on every frame of a map with one frequency bin. */
  linear<K extends 'map' | 'vector'>(
    name: string,
    x: Tensor<K>,
    features: number,
    options?: LinearOptions,
  ): Tensor<K>;
  add<K extends 'map' | 'vector'>(a: Tensor<K>, b: Tensor<K>): Tensor<K>;
  /** The channels of a, then those of b. */
  concat(a: Tensor<'map'>, b: Tensor<'map'>): Tensor<'map'>;
  /** A map times one factor a channel. */
  scale(x: Tensor<'map'>, factors: Tensor<'vector'>): Tensor<'map'>;
  /** (N, G bins, T, 1) to (N, G, T, bins): channel g bins + f becomes bin f of channel g. */
  fold(x: Tensor<'map'>, bins: number): Tensor<'map'>;
  /** (N, K, T, 1) twice to (N, K): the mean of x over time, weighted by softmax of the attention. */
  attentionPool(attention: Tensor<'map'>, x: Tensor<'map'>): Tensor<'vector'>;
  /** (N, K, S, 1) to (N, T, K) with T of `like`: each frame reads its segment, the last the rest. */
  upsample(x: Tensor<'map'>, like: Tensor<'map'>): Tensor<'frames'>;
}

export type PoolKind = 'avg' | 'max' | 'avg+max';

/** Shapes by name; `batchNorm` stands for the five tensors of a norm. */
export type UnusedTensors =
  | { readonly batchNorm: number }
  | { readonly [tensor: string]: readonly number[] };

export interface LogmelNodeOptions extends LogmelOptions {
  /** Whether the checkpoint holds the transform and the filter bank, as PANNs' do; default true. */
  stored?: boolean;
}

export interface BatchNormOptions {
  /** Default `'channel'`; `'freq'` normalises each mel bin. */
  over?: 'channel' | 'freq';
  /** Default 1e-5. */
  eps?: number;
  /** Default 0.1. */
  momentum?: number;
  /** Whether the weight begins at 0, so that a residual branch begins as nothing. */
  zeroInit?: boolean;
}

/** Two stripes of each kind a clip; widths are drawn from 0 to the given number, which is excluded. */
export interface SpecAugmentOptions {
  /** In frames. */
  timeWidth: number;
  /** In mel bins. */
  freqWidth: number;
}

/** How weights begin: Xavier uniform (the default), Kaiming normal by fan-out, normal 0.01. */
export type Initialisation = 'xavier' | 'kaiming' | 'normal';

/** As torch.nn.Conv2d, without bias unless asked for. */
export interface ConvOptions {
  channels: number;
  kernel: Extent;
  stride?: Extent;
  padding?: Extent;
  dilation?: Extent;
  groups?: number;
  bias?: boolean;
  init?: Initialisation;
  /** `'freq-time'`: the state dict keeps this square filter with frequency first. */
  order?: 'freq-time';
}

/** As torch.nn.Conv1d, without bias unless asked for. */
export interface Conv1dOptions {
  channels: number;
  kernel: number;
  stride?: number;
  padding?: number;
  dilation?: number;
  bias?: boolean;
}

export interface PoolOptions {
  stride?: Extent;
  padding?: Extent;
}

export interface LinearOptions {
  init?: Initialisation;
}
