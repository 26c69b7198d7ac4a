import type { SpecNode } from '../../addon.js';
import type { Tensor, TensorKind } from '../../models/tensor.js';
import { choice, flag, number, pads, pair } from './attributes.js';
import { logmel } from './frontend.js';
import type { GraphBuilder } from './graph.js';
import type { Attributes } from './messages.js';

/**
 * Writes one node of a spec as nodes of ONNX, at inference, and returns the name of its result;
 * `result` is what the node makes. The core has read the same spec: all inputs are there.
 */
type Emit = (
  g: GraphBuilder,
  node: SpecNode,
  inputs: readonly string[],
  result: Tensor<TensorKind>,
) => string;

/** Ops that training alone runs: at inference their result is their first input. */
export const trainingOnly: ReadonlySet<string> = new Set(['dropout', 'spec_augment', 'mixup']);

/** One line an op that a spec may name; native/ops says what each means. */
const table: Readonly<Record<string, Emit>> = {
  logmel,
  unsqueeze: (g, { path }, [x = '']) => g.node('Unsqueeze', path, [x, g.vector(1, 3)]),
  batch_norm: batchNorm,
  conv,
  linear,
  pool,
  reduce,
  relu: plain('Relu'),
  relu6: (g, { path }, [x = '']) => g.node('Clip', path, [x, g.scalar(0), g.scalar(6)]),
  hard_swish: plain('HardSwish'),
  sigmoid: plain('Sigmoid'),
  softmax: plain('Softmax', { axis: 1 }),
  add: plain('Add'),
  concat: plain('Concat', { axis: 1 }),
  scale,
  fold,
  attention_pool: attentionPool,
  upsample,
};

export const operators: ReadonlyMap<string, Emit> = new Map(Object.entries(table));

/** One operator of ONNX on the same inputs. */
function plain(op: string, attributes: Attributes = {}): Emit {
  return (g, { path }, inputs) => g.node(op, path, inputs, attributes);
}

/** The names of a node's parameters in the graph. */
function parameters(g: GraphBuilder, { path }: SpecNode, suffixes: readonly string[]): string[] {
  return suffixes.map((suffix) => g.weight(`${path}.${suffix}`));
}

function conv(g: GraphBuilder, node: SpecNode, [x = '']: readonly string[]): string {
  const owned = flag(node, 'bias', false) ? ['weight', 'bias'] : ['weight'];
  return g.node('Conv', node.path, [x, ...parameters(g, node, owned)], {
    kernel_shape: pair(node, 'kernel', [1, 1]),
    strides: pair(node, 'stride', [1, 1]),
    pads: pads(pair(node, 'padding', [0, 0])),
    dilations: pair(node, 'dilation', [1, 1]),
    group: number(node, 'groups', 1),
  });
}

function linear(g: GraphBuilder, node: SpecNode, [x = '']: readonly string[]): string {
  const owned = flag(node, 'bias', true) ? ['weight', 'bias'] : ['weight'];
  return g.node('Gemm', node.path, [x, ...parameters(g, node, owned)], { transB: 1 });
}

const NORM = ['weight', 'bias', 'running_mean', 'running_var'] as const;

function batchNorm(g: GraphBuilder, node: SpecNode, [x = '']: readonly string[]): string {
  const { path } = node;
  const epsilon = number(node, 'eps', 1e-5);
  if (choice(node, 'axis', 'channel') === 'channel') {
    const inputs = [x, ...parameters(g, node, NORM)];
    return g.node('BatchNormalization', path, inputs, { epsilon: { float: epsilon } });
  }
  // A norm of ONNX goes over channels; over frequency it is a factor and a term for each bin.
  const perBin = (name: string, value: (factor: number, beta: number, mean: number) => number) =>
    g.tensor(`${path}.${name}`, g.weights.shape(`${path}.weight`), async () => {
      const [gamma, beta, mean, variance] = await Promise.all(
        NORM.map((suffix) => g.weights.read(`${path}.${suffix}`)),
      );
      const at = (values: Float32Array | undefined, i: number) => values?.[i] ?? Number.NaN;
      return Float32Array.from(gamma ?? [], (weight, i) =>
        value(weight / Math.sqrt(at(variance, i) + epsilon), at(beta, i), at(mean, i)),
      );
    });
  const factor = perBin('factor', (factor) => factor);
  const term = perBin('term', (factor, beta, mean) => beta - mean * factor);
  return g.node('Add', path, [g.node('Mul', `${path}.scaled`, [x, factor]), term]);
}

function pool(g: GraphBuilder, node: SpecNode, inputs: readonly string[]): string {
  const { path } = node;
  const kernel = pair(node, 'kernel', [2, 2]);
  const window = {
    kernel_shape: kernel,
    strides: pair(node, 'stride', kernel),
    pads: pads(pair(node, 'padding', [0, 0])),
  };
  return oneOrBoth(g, path, choice(node, 'kind', 'avg'), {
    avg: (name) => g.node('AveragePool', name, inputs, { ...window, count_include_pad: 1 }),
    max: (name) => g.node('MaxPool', name, inputs, window),
  });
}

function reduce(g: GraphBuilder, node: SpecNode, [x = '']: readonly string[]): string {
  const overFrequency = choice(node, 'axis', 'freq') === 'freq';
  // Over time the one frequency bin that is left goes too.
  const axes = overFrequency ? [3] : [2, 3];
  return oneOrBoth(g, node.path, choice(node, 'kind', 'mean'), {
    mean: (name) => g.reduce('ReduceMean', name, x, axes, overFrequency),
    max: (name) => g.reduce('ReduceMax', name, x, axes, overFrequency),
  });
}

/** The way that `kind` names, or the sum of several: `max+mean`. */
function oneOrBoth(
  g: GraphBuilder,
  path: string,
  kind: string,
  ways: Readonly<Record<string, (name: string) => string>>,
): string {
  const kinds = kind.split('+');
  const made = kinds.map((one) => ways[one]?.(kinds.length === 1 ? path : `${path}.${one}`) ?? '');
  return made.length === 1 ? (made[0] ?? '') : g.node('Add', path, made);
}

function scale(g: GraphBuilder, { path }: SpecNode, [x = '', factors = '']: readonly string[]) {
  const spread = g.node('Unsqueeze', `${path}.factors`, [factors, g.vector(2, 3)]);
  return g.node('Mul', path, [x, spread]);
}

/** Channel g * bins + f becomes bin f of channel g. */
function fold(
  g: GraphBuilder,
  { path }: SpecNode,
  [x = '']: readonly string[],
  { channels, bins }: Tensor<TensorKind>,
): string {
  // Zero keeps the number of clips, -1 takes the rest: the frames.
  const apart = g.node('Reshape', `${path}.apart`, [x, g.vector(0, channels, bins, -1)]);
  return g.node('Transpose', path, [apart], { perm: [0, 1, 3, 2] });
}

function attentionPool(g: GraphBuilder, { path }: SpecNode, [a = '', x = '']: readonly string[]) {
  const clamped = g.node('Clip', `${path}.clamped`, [a, g.scalar(-10), g.scalar(10)]);
  const weights = g.node('Softmax', `${path}.weights`, [clamped], { axis: 2 });
  const weighted = g.node('Mul', `${path}.weighted`, [weights, x]);
  return g.reduce('ReduceSum', path, weighted, [2, 3], false);
}

/** Segments (N, K, S, 1) to frames (N, T, K): frame t shows segment min(t / ratio, S - 1). */
function upsample(g: GraphBuilder, node: SpecNode, [x = '', like = '']: readonly string[]): string {
  const { path } = node;
  const time = (name: string, of: string) => {
    const shape = g.node('Shape', `${path}.${name}.shape`, [of]);
    return g.node('Gather', `${path}.${name}`, [shape, g.index(2)]);
  };
  const frames = g.node('Range', `${path}.range`, [g.index(0), time('frames', like), g.index(1)]);
  const last = g.node('Sub', `${path}.last`, [time('segments', x), g.index(1)]);
  const ratio = g.index(number(node, 'ratio', 1));
  const segment = g.node('Min', `${path}.segment`, [
    g.node('Div', `${path}.quotient`, [frames, ratio]),
    last,
  ]);
  const scores = g.node('Squeeze', `${path}.scores`, [x, g.vector(3)]);
  const spread = g.node('Gather', `${path}.spread`, [scores, segment], { axis: 2 });
  return g.node('Transpose', path, [spread], { perm: [0, 2, 1] });
}
