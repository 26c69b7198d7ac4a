import type { LogmelOptions, Spec, SpecNode } from '../addon.js';
import { PannsError } from '../errors.js';

/** What an op takes or makes: samples (N, S), a feature map (N, C, T, F), or a vector (N, C). */
export type TensorKind = 'waveform' | 'map' | 'vector';

/** A value of the graph under construction; only a {@link Builder} makes one. */
export interface Tensor<K extends TensorKind> {
  readonly kind: K;
  /** As a spec names it: `#3`, or an input of the graph. */
  readonly ref: string;
  readonly channels: number;
  /** F of a map; 1 elsewhere. */
  readonly bins: number;
  /** How many samples the waveform needs for this value to have `count` frames (samples, of itself). */
  readonly samplesFor: (count: number) => number;
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
   * ones follow from the front-end's options.
   */
  readonly role: 'parameter' | 'buffer' | 'counter' | 'derived';
}

/** A finished graph and what follows from it. */
export interface GraphDescription {
  readonly spec: Spec;
  /** In PyTorch's order: that of registration, not of execution. */
  readonly stateDict: readonly StateEntry[];
  /** The shortest clip that leaves a frame after every pool. */
  readonly minimumSamples: number;
}

/** The ops; each appends a node. Names are modules' names as PyTorch has them, below the scope. */
export interface Builder {
  /** Runs `body` with `name` before the names of its modules, as a submodule. */
  scope<T>(name: string, body: () => T): T;
  /** Fixes the order of modules in the state dict where they do not run in that order. */
  register(...names: string[]): void;
  logmel(x: Tensor<'waveform'>, options: LogmelOptions): Tensor<'map'>;
  batchNorm(name: string, x: Tensor<'map'>, over?: 'channel' | 'freq'): Tensor<'map'>;
  specAugment(x: Tensor<'map'>, options: SpecAugmentOptions): Tensor<'map'>;
  /** Mixes the clips 2i and 2i + 1 where the training step asks for it. */
  mixup<K extends 'waveform' | 'map'>(x: Tensor<K>): Tensor<K>;
  conv(name: string, x: Tensor<'map'>, options: ConvOptions): Tensor<'map'>;
  relu<K extends 'map' | 'vector'>(x: Tensor<K>): Tensor<K>;
  /** Windows next to each other, a rest at the end dropped; a kernel of 1 adds no node. */
  pool(x: Tensor<'map'>, kind: 'avg' | 'max' | 'avg+max', kernel: Extent): Tensor<'map'>;
  /** A probability of 0 adds no node. */
  dropout<K extends 'map' | 'vector'>(x: Tensor<K>, probability: number): Tensor<K>;
  meanOverFrequency(x: Tensor<'map'>): Tensor<'map'>;
  /** (N, C, T, 1) to (N, C). */
  reduceTime(x: Tensor<'map'>, kind: 'mean' | 'max' | 'max+mean'): Tensor<'vector'>;
  linear(name: string, x: Tensor<'vector'>, features: number): Tensor<'vector'>;
  add<K extends 'map' | 'vector'>(a: Tensor<K>, b: Tensor<K>): Tensor<K>;
  sigmoid(x: Tensor<'vector'>): Tensor<'vector'>;
  softmax(x: Tensor<'vector'>): Tensor<'vector'>;
}

/** Two stripes of each kind a clip; widths are drawn from 0 to the given number, which is excluded. */
export interface SpecAugmentOptions {
  /** In frames. */
  timeWidth: number;
  /** In mel bins. */
  freqWidth: number;
}

/** A convolution without bias, as PANNs has them before a norm. */
export interface ConvOptions {
  channels: number;
  kernel: Extent;
  padding?: Extent;
}

/**
 * Builds a graph: `body` gets the builder and the waveform, and returns the named outputs.
 *
 * @throws PannsError `ERR_PANNS_SPEC` for a module named twice or a map pooled to nothing
 */
export function buildGraph(
  name: string,
  body: (b: Builder, waveform: Tensor<'waveform'>) => Record<string, Tensor<'vector'>>,
): GraphDescription {
  const nodes: SpecNode[] = [];
  const modules = new Map<string, StateEntry[]>();
  let scopes: readonly string[] = [];

  const pathOf = (module: string): string => [...scopes, module].join('.');
  const fail = (path: string, what: string): never => {
    throw new PannsError('ERR_PANNS_SPEC', what, { where: `${name}/${path}` });
  };
  const append = (
    op: string,
    path: string,
    inputs: readonly string[],
    attrs: SpecNode['attrs'] = {},
  ): string => `#${nodes.push({ op, path, inputs: [...inputs], attrs }) - 1}`;
  /** A node without parameters: its path is only read by people, in errors and dumps. */
  const plain = (op: string, inputs: readonly string[], attrs?: SpecNode['attrs']): string =>
    append(op, pathOf(op), inputs, attrs);
  const own = (path: string, entries: readonly Omit<StateEntry, 'name'>[], names: string[]) => {
    if ((modules.get(path)?.length ?? 0) > 0) fail(path, 'a module of this name exists already');
    modules.set(
      path,
      entries.map((entry, i) => ({ name: `${path}.${names[i]}`, ...entry })),
    );
  };

  const b: Builder = {
    scope(scope, inside) {
      const outer = scopes;
      scopes = [...outer, scope];
      try {
        return inside();
      } finally {
        scopes = outer;
      }
    },
    register(...names) {
      for (const module of names) modules.set(pathOf(module), []);
    },
    logmel(x, options) {
      const { sampleRate, windowSize, hopSize, melBins, fmin, fmax } = options;
      const bins = windowSize / 2 + 1;
      const derived = (...shape: number[]) => ({ shape, dtype: 'F32', role: 'derived' }) as const;
      own(
        pathOf('spectrogram_extractor.stft'),
        [derived(bins, 1, windowSize), derived(bins, 1, windowSize)],
        ['conv_real.weight', 'conv_imag.weight'],
      );
      own(pathOf('logmel_extractor'), [derived(bins, melBins)], ['melW']);
      return {
        kind: 'map',
        ref: plain('logmel', [x.ref], {
          sample_rate: sampleRate,
          window_size: windowSize,
          hop_size: hopSize,
          mel_bins: melBins,
          fmin,
          fmax,
        }),
        channels: 1,
        bins: melBins,
        // Centred frames: the reflection at the edges needs more than half a window.
        samplesFor: (frames) => Math.max((frames - 1) * hopSize, windowSize / 2 + 1),
      };
    },
    batchNorm(module, x, over = 'channel') {
      const path = pathOf(module);
      const shape = [over === 'freq' ? x.bins : x.channels];
      const parameter = { shape, dtype: 'F32', role: 'parameter' } as const;
      const buffer = { shape, dtype: 'F32', role: 'buffer' } as const;
      const counter = { shape: [], dtype: 'I64', role: 'counter' } as const;
      own(
        path,
        [parameter, parameter, buffer, buffer, counter],
        ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'],
      );
      return { ...x, ref: append('batch_norm', path, [x.ref], { axis: over }) };
    },
    specAugment(x, { timeWidth, freqWidth }) {
      const attrs = { time_width: timeWidth, freq_width: freqWidth };
      return { ...x, ref: plain('spec_augment', [x.ref], attrs) };
    },
    mixup: (x) => ({ ...x, ref: plain('mixup', [x.ref, 'mixup_lambda']) }),
    conv(module, x, { channels, kernel, padding = 0 }) {
      const path = pathOf(module);
      const [height, width] = pair(kernel);
      const [top, left] = pair(padding);
      const bins = x.bins + 2 * left - width + 1;
      if (bins < 1) fail(path, `${x.bins} frequency bins are too few for a kernel of ${width}`);
      own(
        path,
        [{ shape: [channels, x.channels, height, width], dtype: 'F32', role: 'parameter' }],
        ['weight'],
      );
      const attrs = { out_channels: channels, kernel: [height, width], padding: [top, left] };
      return {
        kind: 'map',
        ref: append('conv', path, [x.ref], attrs),
        channels,
        bins,
        samplesFor: (frames) => x.samplesFor(Math.max(1, frames - 1 + height - 2 * top)),
      };
    },
    relu: (x) => ({ ...x, ref: plain('relu', [x.ref]) }),
    pool(x, kind, kernel) {
      const [height, width] = pair(kernel);
      if (height === 1 && width === 1) return x;
      const bins = Math.floor(x.bins / width);
      if (bins < 1) {
        fail(pathOf('pool'), `${x.bins} frequency bins are left, ${width} are pooled to one`);
      }
      return {
        kind: 'map',
        ref: plain('pool', [x.ref], { kind, kernel: [height, width] }),
        channels: x.channels,
        bins,
        samplesFor: (frames) => x.samplesFor(frames * height),
      };
    },
    dropout: (x, probability) =>
      probability === 0 ? x : { ...x, ref: plain('dropout', [x.ref], { p: probability }) },
    meanOverFrequency(x) {
      return { ...x, ref: plain('reduce', [x.ref], { axis: 'freq', kind: 'mean' }), bins: 1 };
    },
    reduceTime(x, kind) {
      if (x.bins !== 1) fail(pathOf('reduce'), 'frequency is reduced before time');
      const ref = plain('reduce', [x.ref], { axis: 'time', kind });
      const samples = x.samplesFor(1);
      return { kind: 'vector', ref, channels: x.channels, bins: 1, samplesFor: () => samples };
    },
    linear(module, x, features) {
      const path = pathOf(module);
      own(
        path,
        [
          { shape: [features, x.channels], dtype: 'F32', role: 'parameter' },
          { shape: [features], dtype: 'F32', role: 'parameter' },
        ],
        ['weight', 'bias'],
      );
      return {
        ...x,
        ref: append('linear', path, [x.ref], { out_features: features }),
        channels: features,
      };
    },
    add(a, other) {
      if (a.channels !== other.channels || a.bins !== other.bins) {
        const shapes = `${a.channels} x ${a.bins} and ${other.channels} x ${other.bins}`;
        fail(pathOf('add'), `the terms differ in channels or bins: ${shapes}`);
      }
      return {
        ...a,
        ref: plain('add', [a.ref, other.ref]),
        samplesFor: (frames) => Math.max(a.samplesFor(frames), other.samplesFor(frames)),
      };
    },
    sigmoid: (x) => ({ ...x, ref: plain('sigmoid', [x.ref]) }),
    softmax: (x) => ({ ...x, ref: plain('softmax', [x.ref]) }),
  };

  const waveform: Tensor<'waveform'> = {
    kind: 'waveform',
    ref: 'waveform',
    channels: 1,
    bins: 1,
    samplesFor: (samples) => samples,
  };
  const outputs: Record<string, number> = {};
  let minimumSamples = 1;
  for (const [output, tensor] of Object.entries(body(b, waveform))) {
    outputs[output] = Number(tensor.ref.slice(1));
    minimumSamples = Math.max(minimumSamples, tensor.samplesFor(1));
  }
  for (const [path, entries] of modules) {
    if (entries.length === 0) fail(path, 'this module was registered and never used');
  }
  return {
    spec: { name, nodes, outputs },
    stateDict: [...modules.values()].flat(),
    minimumSamples,
  };
}

function pair(extent: Extent): readonly [number, number] {
  return typeof extent === 'number' ? [extent, extent] : extent;
}
