import type { Builder, Tensor } from './graph.js';
import type { ModelConfig } from './options.js';

/**
 * Waveform (N, S) to normalised log-mel (N, 1, T, F), T = S / hopSize + 1; in training with blanked
 * stripes, and pairs of clips mixed.
 */
export function logmelFrontend(
  b: Builder,
  waveform: Tensor<'waveform'>,
  config: ModelConfig,
): Tensor<'map'> {
  const { sampleRate, windowSize, hopSize, melBins, fmin, fmax } = config;
  const logmel = b.logmel(waveform, { sampleRate, windowSize, hopSize, melBins, fmin, fmax });
  const normed = b.batchNorm('bn0', logmel, 'freq');
  const blanked = config.specAugment ? b.specAugment(normed, config.specAugment) : normed;
  return config.mixup ? b.mixup(blanked) : blanked;
}
