import type { LogmelOptions, SpecNode } from '../addon.js';
import { kindOf, PannsError } from '../errors.js';
import { checkTensors, isTensor } from './arguments.js';
import type {
  Builder,
  Extent,
  GraphDescription,
  OutputShape,
  StateEntry,
  Tensor,
  TensorKind,
  UnusedTensors,
} from './tensor.js';

/** What a network returns: scores, and whatever else callers may ask for by name. */
export type NetworkOutputs = Record<string, Tensor<'vector' | 'frames'>>;

/** How many lengths are tried until branches that meet agree; published models need 320 at most. */
const MOST_LENGTHS = 1 << 16;

type Entry = Omit<StateEntry, 'name'>;

/**
 * Builds a graph: `body` gets the builder and the waveform, and returns the named outputs.
 *
 * @throws PannsError `ERR_PANNS_SPEC`, naming the layer, for a module named twice, a shape that does
 *   not fit, or a map pooled to nothing
 */
export function buildGraph(
  name: string,
  body: (b: Builder, waveform: Tensor<'waveform'>) => NetworkOutputs,
): GraphDescription {
  const nodes: SpecNode[] = [];
  const values: Tensor<TensorKind>[] = [];
  const modules = new Map<string, StateEntry[]>();
  /** Pairs of values that must have as many frames: of one sum, or one concatenation. */
  const meeting: (readonly [Tensor<TensorKind>, Tensor<TensorKind>])[] = [];
  let scopes: readonly string[] = [];

  const pathOf = (module: string): string => [...scopes, module].join('.');
  const fail = (path: string, what: string): never => {
    throw new PannsError('ERR_PANNS_SPEC', what, { where: `${name}/${path}` });
  };
  const whole = (path: string, what: string, value: number, least: number): void => {
    if (Number.isSafeInteger(value) && value >= least) return;
    fail(path, `expected ${what} to be a whole number >= ${least}, got ${value}`);
  };

  /** Appends a node and returns what it makes: `shape` says how that differs from `x`. */
  const append = <K extends TensorKind, R extends TensorKind = K>(
    op: string,
    path: string,
    inputs: readonly Tensor<TensorKind>[],
    x: Tensor<K>,
    shape: Partial<Tensor<R>> & { kind?: R },
    attrs: SpecNode['attrs'] = {},
  ): Tensor<R> => {
    const refs = inputs.map(({ ref }) => ref);
    const ref = `#${nodes.push({ op, path, inputs: refs, attrs }) - 1}`;
    const value = { ...x, ...shape, ref } as Tensor<R>;
    values.push(value);
    return value;
  };
  /** A node without parameters that keeps the shape: its path is only read by people. */
  const same = <K extends TensorKind>(op: string, x: Tensor<K>, attrs?: SpecNode['attrs']) =>
    append<K>(op, pathOf(op), [x], x, {}, attrs);

  const own = (path: string, entries: Readonly<Record<string, Entry>>): void => {
    if ((modules.get(path)?.length ?? 0) > 0) fail(path, 'a module of this name exists already');
    modules.set(
      path,
      Object.entries(entries).map(([suffix, entry]) => ({ name: `${path}.${suffix}`, ...entry })),
    );
  };
  const oneBin = (op: string, x: Tensor<'map'>, what: string): void => {
    if (x.bins !== 1) fail(pathOf(op), `expected ${what}, got a map with ${x.bins} bins`);
  };

  /** A convolution with each number given for both axes; `shape` is PyTorch's of the weight. */
  const convolve = (
    path: string,
    x: Tensor<'map'>,
    options: FullConv,
    shape: readonly number[],
  ): Tensor<'map'> => {
    const { channels, kernel, stride, padding, dilation, groups, bias, init, order } = options;
    whole(path, 'channels', channels, 1);
    if (x.channels % groups !== 0 || channels % groups !== 0) {
      fail(path, `${groups} groups do not divide ${x.channels} channels in and ${channels} out`);
    }
    const axes = [0, 1].map((i) => axisOf(kernel[i], stride[i], padding[i], dilation[i]));
    const [time, freq] = axes as [Axis, Axis];
    const bins = freq.size(x.bins);
    if (!(bins >= 1)) {
      fail(path, `${x.bins} frequency bins are too few for a kernel of ${kernel[1]}`);
    }
    const parameter = { dtype: 'F32', role: 'parameter' } as const;
    own(path, {
      weight: { shape, ...parameter, ...(order && { order }) },
      ...(bias && { bias: { shape: [channels], ...parameter } }),
    });
    return append(
      'conv',
      path,
      [x],
      x,
      {
        channels,
        bins,
        samplesFor: (frames) => x.samplesFor(time.needed(frames)),
        framesOf: (samples) => time.size(x.framesOf(samples)),
      },
      {
        out_channels: channels,
        kernel: [...kernel],
        padding: [...padding],
        ...(differs(stride, 1) && { stride: [...stride] }),
        ...(differs(dilation, 1) && { dilation: [...dilation] }),
        ...(groups !== 1 && { groups }),
        ...(bias && { bias }),
        ...(init !== 'xavier' && { init }),
      },
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
    unused: (module, tensors) => own(pathOf(module), unusedEntries(tensors)),
    logmel(x, { stored = true, ...options }) {
      const { windowSize, hopSize, melBins, preemphasis = 0 } = options;
      const bins = windowSize / 2 + 1;
      if (stored) {
        const derived = (...shape: number[]) => ({ shape, dtype: 'F32', role: 'derived' }) as const;
        own(pathOf('spectrogram_extractor.stft'), {
          'conv_real.weight': derived(bins, 1, windowSize),
          'conv_imag.weight': derived(bins, 1, windowSize),
        });
        own(pathOf('logmel_extractor'), { melW: derived(bins, melBins) });
      }
      // Pre-emphasis takes one sample away.
      const lost = preemphasis === 0 ? 0 : 1;
      return append<'waveform', 'map'>(
        'logmel',
        pathOf('logmel'),
        [x],
        x,
        {
          kind: 'map',
          bins: melBins,
          // Centred frames: the reflection at the edges needs more than half a window.
          samplesFor: (frames) => Math.max((frames - 1) * hopSize, windowSize / 2 + 1) + lost,
          framesOf: (samples) =>
            samples - lost > windowSize / 2 ? Math.floor((samples - lost) / hopSize) + 1 : 0,
        },
        logmelAttrs(options),
      );
    },
    unsqueeze: (x) =>
      append<'waveform', 'map'>('unsqueeze', pathOf('unsqueeze'), [x], x, { kind: 'map' }),
    batchNorm(module, x, { over = 'channel', eps, momentum, zeroInit = false } = {}) {
      const path = pathOf(module);
      own(path, normEntries(over === 'freq' ? x.bins : x.channels));
      const attrs = {
        axis: over,
        ...(eps !== undefined && { eps }),
        ...(momentum !== undefined && { momentum }),
        ...(zeroInit && { zero_gamma: true }),
      };
      return append('batch_norm', path, [x], x, {}, attrs);
    },
    specAugment: (x, { timeWidth, freqWidth }) =>
      same('spec_augment', x, { time_width: timeWidth, freq_width: freqWidth }),
    mixup: (x) => append('mixup', pathOf('mixup'), [x, { ...x, ref: 'mixup_lambda' }], x, {}),
    conv(module, x, { channels, kernel, order, groups = 1, bias = false, ...rest }) {
      const size = pair(kernel);
      return convolve(
        pathOf(module),
        x,
        {
          channels,
          kernel: size,
          stride: pair(rest.stride ?? 1),
          padding: pair(rest.padding ?? 0),
          dilation: pair(rest.dilation ?? 1),
          groups,
          bias,
          init: rest.init ?? 'xavier',
          order,
        },
        [channels, x.channels / groups, ...(order === undefined ? size : [size[1], size[0]])],
      );
    },
    conv1d(module, x, { channels, kernel, stride = 1, padding = 0, dilation = 1, bias = false }) {
      oneBin(module, x, 'a signal of one frequency bin');
      return convolve(
        pathOf(module),
        x,
        {
          channels,
          kernel: [kernel, 1],
          stride: [stride, 1],
          padding: [padding, 0],
          dilation: [dilation, 1],
          groups: 1,
          bias,
          init: 'xavier',
          order: undefined,
        },
        [channels, x.channels, kernel],
      );
    },
    relu: (x) => same('relu', x),
    relu6: (x) => same('relu6', x),
    hardSwish: (x) => same('hard_swish', x),
    sigmoid: (x) => same('sigmoid', x),
    softmax: (x) => same('softmax', x),
    pool(x, kind, kernel, options = {}) {
      const size = pair(kernel);
      const stride = pair(options.stride ?? size);
      const padding = pair(options.padding ?? 0);
      if (!differs(size, 1) && !differs(stride, 1)) return x;
      const [time, freq] = [0, 1].map((i) => axisOf(size[i], stride[i], padding[i], 1)) as [
        Axis,
        Axis,
      ];
      const bins = freq.size(x.bins);
      if (!(bins >= 1)) {
        fail(pathOf('pool'), `${x.bins} frequency bins are left, ${size[1]} are pooled to one`);
      }
      return append(
        'pool',
        pathOf('pool'),
        [x],
        x,
        {
          bins,
          samplesFor: (frames) => x.samplesFor(time.needed(frames)),
          framesOf: (samples) => time.size(x.framesOf(samples)),
        },
        {
          kind,
          kernel: [...size],
          ...(options.stride !== undefined && { stride: [...stride] }),
          ...(differs(padding, 0) && { padding: [...padding] }),
        },
      );
    },
    dropout: (x, probability) => (probability === 0 ? x : same('dropout', x, { p: probability })),
    meanOverFrequency: (x) =>
      append('reduce', pathOf('reduce'), [x], x, { bins: 1 }, { axis: 'freq', kind: 'mean' }),
    reduceTime(x, kind) {
      oneBin('reduce', x, 'frequency to be reduced before time');
      const attrs = { axis: 'time', kind };
      return append<'map', 'vector'>('reduce', pathOf('reduce'), [x], x, vectorOf(x), attrs);
    },
    linear(module, x, features, { init = 'xavier' } = {}) {
      const path = pathOf(module);
      if (x.kind === 'map') {
        const map = x as Tensor<'map'>;
        oneBin(module, map, 'a map of one frequency bin');
        return convolve(path, map, { ...POINTWISE, channels: features, bias: true, init }, [
          features,
          x.channels,
        ]) as typeof x;
      }
      whole(path, 'features', features, 1);
      const parameter = { dtype: 'F32', role: 'parameter' } as const;
      own(path, {
        weight: { shape: [features, x.channels], ...parameter },
        bias: { shape: [features], ...parameter },
      });
      const attrs = { out_features: features, ...(init !== 'xavier' && { init }) };
      return append('linear', path, [x], x, { channels: features }, attrs);
    },
    add(a, other) {
      if (a.channels !== other.channels || a.bins !== other.bins) {
        const shapes = `${a.channels} x ${a.bins} and ${other.channels} x ${other.bins}`;
        fail(pathOf('add'), `the terms differ in channels or bins: ${shapes}`);
      }
      meeting.push([a, other]);
      return append('add', pathOf('add'), [a, other], a, { samplesFor: longer(a, other) });
    },
    concat(a, other) {
      if (a.bins !== other.bins) {
        fail(pathOf('concat'), `the maps differ in bins: ${a.bins} and ${other.bins}`);
      }
      meeting.push([a, other]);
      return append('concat', pathOf('concat'), [a, other], a, {
        channels: a.channels + other.channels,
        samplesFor: longer(a, other),
      });
    },
    scale(x, factors) {
      if (x.channels !== factors.channels) {
        fail(pathOf('scale'), `${factors.channels} factors do not fit ${x.channels} channels`);
      }
      return append('scale', pathOf('scale'), [x, factors], x, {});
    },
    fold(x, bins) {
      oneBin('fold', x, 'one frequency bin');
      if (x.channels % bins !== 0) {
        fail(pathOf('fold'), `${bins} bins do not divide ${x.channels} channels`);
      }
      const shape = { channels: x.channels / bins, bins };
      return append('fold', pathOf('fold'), [x], x, shape, { bins });
    },
    attentionPool(attention, x) {
      oneBin('attention_pool', x, 'one frequency bin');
      const inputs = [attention, x];
      return append<'map', 'vector'>(
        'attention_pool',
        pathOf('attention_pool'),
        inputs,
        x,
        vectorOf(x),
      );
    },
    upsample(x, like) {
      oneBin('upsample', x, 'one frequency bin');
      // Frames of `like` that a segment covers; their numbers of samples are proportional.
      const step = (of: Tensor<'map'>) => of.samplesFor(1001) - of.samplesFor(1000);
      const ratio = step(x) / step(like);
      whole(pathOf('upsample'), 'the frames a segment stands for', ratio, 1);
      const shape = { kind: 'frames', framesOf: like.framesOf } as const;
      return append<'map', 'frames'>('upsample', pathOf('upsample'), [x, like], x, shape, {
        ratio,
      });
    },
  };

  const waveform: Tensor<'waveform'> = {
    kind: 'waveform',
    ref: 'waveform',
    channels: 1,
    bins: 1,
    samplesFor: (samples) => samples,
    framesOf: (samples) => samples,
  };
  const made: Record<string, number> = {};
  const outputs: Record<string, OutputShape> = {};
  let least = 1;
  for (const [output, tensor] of Object.entries(body(checkTensors(b, fail, pathOf), waveform))) {
    if (!isTensor(tensor)) fail(output, `expected a tensor for this output, got ${kindOf(tensor)}`);
    made[output] = Number(tensor.ref.slice(1));
    const columns = tensor.channels;
    outputs[output] = tensor.kind === 'frames' ? { columns, frames: tensor.framesOf } : { columns };
    least = Math.max(least, tensor.samplesFor(1));
  }
  for (const [path, entries] of modules) {
    if (entries.length === 0) fail(path, 'this module was registered and never used');
  }
  const lengthFor = (samples: number): number => {
    const from = Math.max(samples, least);
    for (let length = from; length < from + MOST_LENGTHS; length++) {
      if (meeting.every(([x, y]) => x.framesOf(length) === y.framesOf(length))) return length;
    }
    return fail('add', `no length from ${from} samples on gives its two terms as many frames`);
  };
  return {
    spec: { name, nodes, outputs: made },
    values,
    outputs,
    stateDict: [...modules.values()].flat(),
    minimumSamples: lengthFor(1),
    lengthFor,
  };
}

type Pair = readonly [number, number];

interface FullConv {
  readonly channels: number;
  readonly kernel: Pair;
  readonly stride: Pair;
  readonly padding: Pair;
  readonly dilation: Pair;
  readonly groups: number;
  readonly bias: boolean;
  readonly init: string;
  readonly order: 'freq-time' | undefined;
}

const POINTWISE: Omit<FullConv, 'channels'> = {
  kernel: [1, 1],
  stride: [1, 1],
  padding: [0, 0],
  dilation: [1, 1],
  groups: 1,
  bias: false,
  init: 'xavier',
  order: undefined,
};

/** How a window moves along one axis. */
interface Axis {
  /** Of the output, from that of the input. */
  readonly size: (input: number) => number;
  /** Of the input at least, for so many of the output. */
  readonly needed: (output: number) => number;
}

function axisOf(kernel = 1, stride = 1, padding = 0, dilation = 1): Axis {
  const span = dilation * (kernel - 1) + 1 - 2 * padding;
  return {
    size: (input) => Math.floor((input - span) / stride) + 1,
    needed: (output) => Math.max(1, (output - 1) * stride + span),
  };
}

function normEntries(features: number): Readonly<Record<string, Entry>> {
  const shape = [features];
  const parameter = { shape, dtype: 'F32', role: 'parameter' } as const;
  const buffer = { shape, dtype: 'F32', role: 'buffer' } as const;
  return {
    weight: parameter,
    bias: parameter,
    running_mean: buffer,
    running_var: buffer,
    num_batches_tracked: { shape: [], dtype: 'I64', role: 'counter' },
  };
}

function unusedEntries(tensors: UnusedTensors): Readonly<Record<string, Entry>> {
  const entries: Readonly<Record<string, Omit<Entry, 'role'>>> =
    typeof tensors.batchNorm === 'number'
      ? normEntries(tensors.batchNorm)
      : Object.fromEntries(
          Object.entries(tensors as Record<string, readonly number[]>).map(([suffix, shape]) => {
            return [suffix, { shape, dtype: 'F32' }];
          }),
        );
  return Object.fromEntries(
    Object.entries(entries).map(([suffix, entry]) => [suffix, { ...entry, role: 'unused' }]),
  );
}

const LOGMEL_ATTRS: readonly (keyof LogmelOptions)[] = [
  ...(['sampleRate', 'windowSize', 'hopSize', 'melBins', 'fmin', 'fmax'] as const),
  ...(['windowLength', 'periodic', 'preemphasis', 'melScale', 'log', 'shift', 'scale'] as const),
];

/** The front-end's options that are given, under the names that the core has for them. */
function logmelAttrs(options: LogmelOptions): SpecNode['attrs'] {
  return Object.fromEntries(
    LOGMEL_ATTRS.flatMap((key) => {
      const value = options[key];
      return value === undefined
        ? []
        : [[key.replace(/[A-Z]/, (c) => `_${c.toLowerCase()}`), value]];
    }),
  );
}

function vectorOf(x: Tensor<'map'>): Partial<Tensor<'vector'>> & { kind: 'vector' } {
  const samples = x.samplesFor(1);
  return { kind: 'vector', bins: 1, samplesFor: () => samples, framesOf: () => 1 };
}

/** Remembered: every sum asks both ways, and asking each time doubles the work block by block. */
function longer(a: Tensor<TensorKind>, b: Tensor<TensorKind>): (count: number) => number {
  const known = new Map<number, number>();
  return (count) => {
    const samples = known.get(count) ?? Math.max(a.samplesFor(count), b.samplesFor(count));
    known.set(count, samples);
    return samples;
  };
}

function differs([a, b]: Pair, value: number): boolean {
  return a !== value || b !== value;
}

function pair(extent: Extent): Pair {
  return typeof extent === 'number' ? [extent, extent] : extent;
}
