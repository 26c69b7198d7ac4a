import { PannsError } from '../errors.js';
import { convBlock } from './blocks.js';
import type { ModelConfig, ModelOptions } from './options.js';
import type { Builder, Tensor } from './tensor.js';

/** The options of a front-end that networks which read the waveform do not have. */
export const LOGMEL_OPTIONS: readonly (keyof ModelOptions)[] = [
  ...(['windowSize', 'hopSize', 'melBins', 'fmin', 'fmax', 'specAugment'] as const),
];

/**
 * Waveform (N, S) to normalised log-mel (N, 1, T, F), T = S / hopSize + 1; in training with blanked
 * stripes, and pairs of clips mixed.
 */
export function logmelFrontend(
  b: Builder,
  waveform: Tensor<'waveform'>,
  config: ModelConfig,
): Tensor<'map'> {
  const { sampleRate, windowSize, hopSize, melBins, fmin, fmax, mixup } = config;
  const samples = mixup === 'waveform' ? b.mixup(waveform) : waveform;
  const logmel = b.logmel(samples, { sampleRate, windowSize, hopSize, melBins, fmin, fmax });
  const normed = b.batchNorm('bn0', logmel, { over: 'freq' });
  const blanked = config.specAugment ? b.specAugment(normed, config.specAugment) : normed;
  return mixup === true ? b.mixup(blanked) : blanked;
}

/** Waveform (N, S) to (N, 1, S, 1), pairs of clips mixed: for networks that learn their front-end. */
export function waveformFrontend(
  b: Builder,
  waveform: Tensor<'waveform'>,
  config: ModelConfig,
): Tensor<'map'> {
  return b.unsqueeze(config.mixup ? b.mixup(waveform) : waveform);
}

/** The samples that one frame of a wavegram stands for. */
const WAVEGRAM_HOP = 320;

/** Channels of a wavegram before its first 2-d block. */
const WAVEGRAM_GROUPS = 4;

/**
 * Waveform (N, S) to a learned spectrogram (N, 64, T / 2, F), F = melBins / 2 and T = S / 320.
 *
 * Convolutions in time, then channels arranged as frequency bins and one 2-d block that halves time.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for a hop that is not 320 samples, or an odd `melBins`
 */
export function wavegramFrontend(
  b: Builder,
  samples: Tensor<'waveform'>,
  { hopSize, melBins }: ModelConfig,
): Tensor<'map'> {
  if (hopSize !== WAVEGRAM_HOP || melBins % 2 !== 0) {
    const what = `a wavegram needs hopSize ${WAVEGRAM_HOP} and an even melBins, got ${hopSize} and ${melBins}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'model' });
  }
  const bins = melBins / 2;
  const conv0 = b.conv1d('pre_conv0', b.unsqueeze(samples), {
    channels: 64,
    kernel: 11,
    stride: 5,
    padding: 5,
  });
  let x = b.relu(b.batchNorm('pre_bn0', conv0));
  for (const [i, channels] of [64, 128, WAVEGRAM_GROUPS * bins].entries()) {
    x = preBlock(b, `pre_block${i + 1}`, x, channels);
  }
  return convBlock(b, 'pre_block4', b.fold(x, bins), 64, [2, 1]);
}

/** Two convolutions of three taps, the second dilated by 2, then the maximum of every four. */
function preBlock(b: Builder, name: string, x: Tensor<'map'>, channels: number): Tensor<'map'> {
  return b.scope(name, () => {
    b.register('conv1', 'conv2', 'bn1', 'bn2');
    const one = b.conv1d('conv1', x, { channels, kernel: 3, padding: 1 });
    const two = b.conv1d('conv2', b.relu(b.batchNorm('bn1', one)), {
      channels,
      kernel: 3,
      padding: 2,
      dilation: 2,
    });
    return b.pool(b.relu(b.batchNorm('bn2', two)), 'max', [4, 1]);
  });
}
