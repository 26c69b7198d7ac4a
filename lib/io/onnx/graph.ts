import type { SpecNode } from '../../addon.js';
import type { Attributes, Initializer, Node } from './messages.js';

/** The tables of a log-mel front-end, as the addon makes them. */
export interface FrontendTables {
  /** (windowSize / 2 + 1, windowSize): the windowed transform, one row a frequency. */
  readonly convReal: Float32Array;
  readonly convImag: Float32Array;
  /** (windowSize / 2 + 1, melBins). */
  readonly melW: Float32Array;
}

/** Where the numbers of a model come from, one tensor at a time. */
export interface Weights {
  /** As the core has it: a filter of a 1-d convolution is (O, I, k, 1). */
  shape(name: string): readonly number[];
  read(name: string): Promise<Float32Array>;
  frontend(attrs: SpecNode['attrs']): Promise<FrontendTables>;
}

/** What the operators write into. */
export interface GraphBuilder {
  readonly weights: Weights;
  /** Adds a node and returns its output; both bear `name`, or that and a number if it is taken. */
  node(op: string, name: string, inputs: readonly string[], attributes?: Attributes): string;
  /** ReduceMean, ReduceMax or ReduceSum over axes, which stay with one element where `keep` is set. */
  reduce(op: string, name: string, input: string, axes: readonly number[], keep: boolean): string;
  /** A tensor of the model under its own name. */
  weight(name: string): string;
  /** A float32 tensor that is made when it is written. */
  tensor(name: string, shape: readonly number[], make: () => Promise<Float32Array>): string;
  /** A float32 scalar. */
  scalar(value: number): string;
  /** An int64 vector: axes, pads, a shape. */
  vector(...values: readonly number[]): string;
  /** An int64 scalar. */
  index(value: number): string;
}

/** ReduceMean and ReduceMax take their axes as an input from here on; ReduceSum always did. */
const AXES_AS_INPUT = 18;

/** A builder and what was built; `reserved` are names of inputs and outputs. */
export function createGraph(
  weights: Weights,
  opset: number,
  reserved: readonly string[],
): { builder: GraphBuilder; nodes: Node[]; initializers: Map<string, Initializer> } {
  const nodes: Node[] = [];
  const initializers = new Map<string, Initializer>();
  const taken = new Set(reserved);
  const free = (name: string): string => {
    let chosen = name;
    for (let i = 1; taken.has(chosen); i++) chosen = `${name}_${i}`;
    taken.add(chosen);
    return chosen;
  };
  /** Constants are shared by name. */
  const constant = (
    type: Initializer['type'],
    name: string,
    shape: readonly number[],
    read: () => Promise<ArrayBufferView>,
  ): string => {
    const bytes = type === 'float32' ? 4 : 8;
    const byteLength = shape.reduce((product, size) => product * size, bytes);
    initializers.set(name, { name, type, shape, data: { byteLength, read } });
    taken.add(name);
    return name;
  };
  const integers = (name: string, shape: readonly number[], values: readonly number[]) =>
    constant('int64', name, shape, async () => BigInt64Array.from(values, BigInt));

  const builder: GraphBuilder = {
    weights,
    node(op, name, inputs, attributes = {}) {
      const output = free(name);
      nodes.push({ op, name: output, inputs, output, attributes });
      return output;
    },
    reduce(op, name, input, axes, keep) {
      const keepdims = keep ? 1 : 0;
      return opset >= AXES_AS_INPUT || op === 'ReduceSum'
        ? builder.node(op, name, [input, builder.vector(...axes)], { keepdims })
        : builder.node(op, name, [input], { axes, keepdims });
    },
    weight: (name) => constant('float32', name, weights.shape(name), () => weights.read(name)),
    tensor: (name, shape, make) => constant('float32', name, shape, make),
    scalar: (value) =>
      constant('float32', `float32 ${value}`, [], async () => Float32Array.of(value)),
    vector: (...values) => integers(`int64 [${values}]`, [values.length], values),
    index: (value) => integers(`int64 ${value}`, [], [value]),
  };
  return { builder, nodes, initializers };
}
