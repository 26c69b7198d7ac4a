import type { Spec, SpecNode } from '../addon.js';
import { PannsError } from '../errors.js';
import type { GraphDescription } from './tensor.js';

/** Where the segments that a head scores lie in time. */
export interface SegmentGrid {
  /** The middle of the first one, in samples from the beginning of the waveform. */
  readonly first: number;
  /** From one middle to the next, in samples. */
  readonly step: number;
  /** Frames of `framewise_output` that repeat a segment's scores. */
  readonly ratio: number;
  /** How many segments a waveform of so many samples has. */
  readonly count: (samples: number) => number;
}

/**
 * The segments behind `framewise_output`, or undefined where a network scores its frames otherwise.
 *
 * The middle of a segment is that of what it is computed from, layer by layer. Pooling keeps segments
 * where the frames stand that repeat them; convolutions with a stride (MobileNetV3) do not: their
 * segments lie half a segment earlier.
 */
export function segmentGrid({ spec, values }: GraphDescription): SegmentGrid | undefined {
  const output = spec.nodes[spec.outputs.framewise_output ?? -1];
  if (output?.op !== 'upsample') return undefined;
  const segments = nodeOf(output.inputs[0]);
  const value = values[segments];
  if (value === undefined) return undefined;
  const { first, step } = middles(spec, segments);
  const ratio = Number(output.attrs.ratio);
  return { first, step, ratio, count: value.framesOf };
}

interface Middles {
  readonly first: number;
  readonly step: number;
}

/** Of what a node makes. Branches that meet have the same, so the first one tells. */
function middles(spec: Spec, index: number): Middles {
  const node = spec.nodes[index];
  // The waveform: a sample is a moment.
  if (node === undefined) return { first: 0, step: 1 };
  const before = middles(spec, nodeOf(node.inputs[0]));
  // Frames are centred on multiples of the hop; pre-emphasis takes the first sample away.
  if (node.op === 'logmel') {
    const lost = Number(node.attrs.preemphasis ?? 0) === 0 ? 0 : 1;
    return { first: before.first + lost, step: before.step * Number(node.attrs.hop_size) };
  }
  if (node.op !== 'conv' && node.op !== 'pool') return before;
  const kernel = inTime(node, 'kernel', 1);
  const stride = inTime(node, 'stride', node.op === 'pool' ? kernel : 1);
  const reach = inTime(node, 'dilation', 1) * (kernel - 1);
  return {
    first: before.first + before.step * (reach / 2 - inTime(node, 'padding', 0)),
    step: before.step * stride,
  };
}

function inTime({ attrs, op }: SpecNode, name: string, usual: number): number {
  const value = attrs[name];
  if (value === undefined) return usual;
  if (Array.isArray(value) && typeof value[0] === 'number') return value[0];
  throw new PannsError('ERR_PANNS_SPEC', `expected ${name} of a ${op} to be two numbers`);
}

/** The number in `#3`; -1 for an input of the graph. */
function nodeOf(ref: string | undefined): number {
  return ref?.startsWith('#') ? Number(ref.slice(1)) : -1;
}
