import type { Spec, SpecNode } from '../../addon.js';
import { PannsError } from '../../errors.js';
import type { ModelDescription } from '../../models/row.js';
import type { Tensor, TensorKind } from '../../models/tensor.js';
import { createGraph, type Weights } from './graph.js';
import type { OnnxModel } from './messages.js';
import { operators, trainingOnly } from './operators.js';

/** What an exported graph begins with. */
export type OnnxInput = 'waveform' | 'logmel';

/** Opsets that may be asked for, and the IR version that came with each. */
export const irVersions: ReadonlyMap<number, number> = new Map([
  [17, 8],
  [18, 8],
  [19, 9],
  [20, 9],
  [21, 10],
  [22, 10],
]);

export interface OnnxOptions {
  readonly input: OnnxInput;
  readonly opset: number;
  /** The version of this package. */
  readonly version: string;
}

/**
 * A model at inference as a graph of ONNX: every output of its spec, and what leads to them.
 *
 * @throws PannsError `ERR_PANNS_UNSUPPORTED` for log-mel into a model that reads the waveform, and for
 *   an op that has no form in ONNX here
 */
export function onnxModel(
  description: ModelDescription,
  weights: Weights,
  { input, opset, version }: OnnxOptions,
): OnnxModel {
  const { name, spec, values } = description;
  const outputs = Object.entries(description.outputs);
  const reserved: string[] = [input, ...outputs.map(([output]) => output)];
  const { builder, nodes, initializers } = createGraph(weights, opset, reserved);
  const made = new Map<string, string>([['waveform', input]]);
  const nameOf = (ref: string) => made.get(ref) as string;
  const emit = (node: SpecNode, result: Tensor<TensorKind>): string => {
    if (isInput(node, input)) return input;
    const inputs = inputsOf(node).map(nameOf);
    if (trainingOnly.has(node.op)) return inputs[0] as string;
    const write = operators.get(node.op);
    if (write !== undefined) return write(builder, node, inputs, result);
    throw new PannsError('ERR_PANNS_UNSUPPORTED', `the op "${node.op}" has no form in ONNX`, {
      where: `${name}/${node.path}`,
    });
  };
  const needed = neededNodes(spec, input);
  for (const [i, node] of spec.nodes.entries()) {
    if (needed.has(i)) made.set(`#${i}`, emit(node, values[i] as Tensor<TensorKind>));
  }
  for (const [output] of outputs) {
    // Two outputs may be one value: a dropout apart, or scores that are logits.
    const inputs = [nameOf(`#${spec.outputs[output]}`)];
    nodes.push({ op: 'Identity', name: output, inputs, output, attributes: {} });
  }
  const { text, shape, metadata } = describe(description, input);
  return {
    opset,
    irVersion: irVersions.get(opset) as number,
    producer: { name: 'panns', version },
    graph: {
      name,
      description: text,
      nodes,
      initializers: [...initializers.values()],
      inputs: [{ name: input, shape }],
      outputs: outputs.map(([output, { columns, frames }]) => {
        return { name: output, shape: ['batch', ...(frames ? ['frames'] : []), columns] };
      }),
    },
    metadata,
  };
}

/** Whether the graph's input stands for what this node makes. */
function isInput(node: SpecNode, input: OnnxInput): boolean {
  return node.op === 'logmel' && input === 'logmel';
}

/** What a node reads at inference. */
function inputsOf({ op, inputs }: SpecNode): readonly string[] {
  return trainingOnly.has(op) ? inputs.slice(0, 1) : inputs;
}

/** The nodes that lead from the input to an output. */
function neededNodes(spec: Spec, input: OnnxInput): Set<number> {
  const needed = new Set<number>();
  const rest = Object.values(spec.outputs);
  for (let i = rest.pop(); i !== undefined; i = rest.pop()) {
    const node = spec.nodes[i];
    if (needed.has(i) || node === undefined) continue;
    needed.add(i);
    if (isInput(node, input)) continue;
    for (const ref of inputsOf(node)) {
      if (ref.startsWith('#')) rest.push(Number(ref.slice(1)));
      else if (input === 'logmel') throw readsWaveform(spec.name);
    }
  }
  return needed;
}

function readsWaveform(name: string): PannsError {
  const what = 'the network reads the waveform itself; export it with input "waveform"';
  return new PannsError('ERR_PANNS_UNSUPPORTED', what, { where: name, expected: 'waveform' });
}

/** The input's shape, and what else a reader of the file must know: as text, and as metadata. */
function describe(description: ModelDescription, input: OnnxInput) {
  const { name, config, labels, minimumSamples, spec, values } = description;
  const metadata: [string, string][] = [
    ['model', name],
    ['sample_rate', String(config.sampleRate)],
    ...(labels === undefined ? [] : [['labels', JSON.stringify(labels)] as [string, string]]),
  ];
  if (input === 'waveform') {
    const step = lengthStep(description);
    metadata.push(['minimum_samples', String(minimumSamples)], ['length_multiple', String(step)]);
    const length = `at least ${minimumSamples}${step === 1 ? '' : `, a multiple of ${step}`}`;
    const text = `${name}: mono samples in -1..1 at ${config.sampleRate} Hz, ${length}; shorter clips are to be padded with zeros at their end.`;
    return { text, metadata, shape: ['batch', 'samples'] };
  }
  const at = spec.nodes.findIndex(({ op }) => op === 'logmel');
  const frames = values[at]?.framesOf(minimumSamples) ?? 0;
  metadata.push(
    ['minimum_frames', String(frames)],
    ['logmel', JSON.stringify(spec.nodes[at]?.attrs ?? {})],
  );
  const text = `${name}: log-mel spectrograms of ${config.sampleRate} Hz audio, at least ${frames} frames; "logmel" in the metadata describes the front-end.`;
  return { text, metadata, shape: ['batch', 1, 'frames', values[at]?.bins ?? 0] };
}

/**
 * 1 where the network takes every length from its minimum on; else a number of samples whose
 * multiples it takes: branches that meet have as many frames then.
 */
function lengthStep({ lengthFor, minimumSamples, config: { hopSize } }: ModelDescription): number {
  // Where lengths are refused, they repeat with the strides of the branches: some hops.
  const steps = [1, ...Array.from({ length: MOST_HOPS }, (_, i) => (i + 1) * hopSize)];
  const taken = (step: number) => {
    const first = Math.ceil(minimumSamples / step);
    return Array.from({ length: LENGTHS_TRIED }, (_, i) => (first + i) * step).every(
      (length) => lengthFor(length) === length,
    );
  };
  return steps.find(taken) ?? 1;
}

/** Wavegram models need two hops: their first block halves what the log-mel has in frames. */
const MOST_HOPS = 64;
/** More than two hops of 320 samples. */
const LENGTHS_TRIED = 1000;
