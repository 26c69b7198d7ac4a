import type { SpecNode } from '../../addon.js';
import { choice, number } from './attributes.js';
import type { GraphBuilder } from './graph.js';

/** Below -100 dB there is silence. Reference: torchlibrosa's amin. */
const LEAST_POWER = 1e-10;
/** What the natural logarithm adds to a power. Reference: EfficientAT. */
const LOG_OFFSET = 1e-5;

/**
 * Waveform (N, S) to log-mel (N, 1, T, F): reflected edges, frames and their transform by two
 * convolutions with the windowed sine and cosine tables, power, filter bank, logarithm.
 */
export function logmel(
  g: GraphBuilder,
  node: SpecNode,
  [waveform = '']: readonly string[],
): string {
  const { path } = node;
  const window = number(node, 'window_size', 1024);
  const hop = number(node, 'hop_size', 320);
  const bins = number(node, 'mel_bins', 64);
  const half = window / 2;
  const frequencies = half + 1;
  const table = (name: string, shape: number[], key: 'convReal' | 'convImag' | 'melW') =>
    g.tensor(name, shape, async () => (await g.weights.frontend(node.attrs))[key]);
  const square = (name: string, x: string) => g.node('Mul', name, [x, x]);

  let x = g.node('Unsqueeze', `${path}.channel`, [waveform, g.vector(1)]);
  x = emphasised(g, node, x);
  const edges = g.vector(0, 0, half, 0, 0, half);
  const padded = g.node('Pad', `${path}.padded`, [x, edges], { mode: 'reflect' });
  const part = (name: 'real' | 'imag') => {
    const weight = table(
      `spectrogram_extractor.stft.conv_${name}.weight`,
      [frequencies, 1, window],
      name === 'real' ? 'convReal' : 'convImag',
    );
    const y = g.node('Conv', `${path}.${name}`, [padded, weight], { strides: [hop] });
    return square(`${path}.${name}2`, y);
  };
  const power = g.node('Add', `${path}.power`, [part('real'), part('imag')]);
  const frames = g.node('Transpose', `${path}.frames`, [power], { perm: [0, 2, 1] });
  const bank = table('logmel_extractor.melW', [frequencies, bins], 'melW');
  const mel = g.node('MatMul', `${path}.mel`, [frames, bank]);
  const scaled = standardised(g, node, logarithm(g, node, mel));
  return g.node('Unsqueeze', path, [scaled, g.vector(1)]);
}

/** y[i] = x[i + 1] - preemphasis * x[i], one sample shorter. */
function emphasised(g: GraphBuilder, node: SpecNode, x: string): string {
  const preemphasis = number(node, 'preemphasis', 0);
  if (preemphasis === 0) return x;
  const kernel = g.tensor('preemphasis', [1, 1, 2], async () => Float32Array.of(-preemphasis, 1));
  return g.node('Conv', `${node.path}.emphasised`, [x, kernel]);
}

function logarithm(g: GraphBuilder, node: SpecNode, power: string): string {
  const { path } = node;
  if (choice(node, 'log', 'decibel') === 'natural') {
    return g.node('Log', `${path}.log`, [
      g.node('Add', `${path}.offset`, [power, g.scalar(LOG_OFFSET)]),
    ]);
  }
  const floored = g.node('Max', `${path}.floored`, [power, g.scalar(LEAST_POWER)]);
  const log = g.node('Log', `${path}.log`, [floored]);
  return g.node('Mul', `${path}.decibel`, [log, g.scalar(10 / Math.LN10)]);
}

/** y = (x + shift) * scale. */
function standardised(g: GraphBuilder, node: SpecNode, x: string): string {
  const shift = number(node, 'shift', 0);
  const scale = number(node, 'scale', 1);
  if (shift === 0 && scale === 1) return x;
  const shifted = g.node('Add', `${node.path}.shifted`, [x, g.scalar(shift)]);
  return g.node('Mul', `${node.path}.scaled`, [shifted, g.scalar(scale)]);
}
