// MobileNetV3 for audio (Schmid, Koutini and Widmer, "Efficient Large-Scale Audio Tagging via
// Transformer-to-CNN Knowledge Distillation", 2023): names and numbers of the EfficientAT weights.
import { activate, classifierLayers, head } from './heads.js';
import type { ModelConfig } from './options.js';
import type { ModelRow, Published } from './row.js';
import type { BatchNormOptions, Builder, ConvOptions, Tensor } from './tensor.js';

const NORM: BatchNormOptions = { eps: 1e-3, momentum: 0.01 };

/** Channels are multiples of this; squeezed ones are a fourth of what they gate. */
const DIVISOR = 8;
const SQUEEZE = 4;

/** Rounds to a multiple of 8 without losing more than a tenth. */
function divisible(channels: number): number {
  const rounded = Math.max(DIVISOR, Math.floor((channels + DIVISOR / 2) / DIVISOR) * DIVISOR);
  return rounded < 0.9 * channels ? rounded + DIVISOR : rounded;
}

type Activation = 'relu' | 'hardSwish';

/** Kernel, expanded channels, channels, squeeze-and-excitation, activation, stride; at width 1. */
const BLOCKS: readonly (readonly [number, number, number, boolean, Activation, number])[] = [
  [3, 16, 16, false, 'relu', 1],
  [3, 64, 24, false, 'relu', 2],
  [3, 72, 24, false, 'relu', 1],
  [5, 72, 40, true, 'relu', 2],
  [5, 120, 40, true, 'relu', 1],
  [5, 120, 40, true, 'relu', 1],
  [3, 240, 80, false, 'hardSwish', 2],
  [3, 200, 80, false, 'hardSwish', 1],
  [3, 184, 80, false, 'hardSwish', 1],
  [3, 184, 80, false, 'hardSwish', 1],
  [3, 480, 112, true, 'hardSwish', 1],
  [3, 672, 112, true, 'hardSwish', 1],
  [5, 672, 160, true, 'hardSwish', 2],
  [5, 960, 160, true, 'hardSwish', 1],
  [5, 960, 160, true, 'hardSwish', 1],
];

/** Convolution (module 0) and norm (module 1) of a Sequential. */
function convNorm(
  b: Builder,
  name: string,
  x: Tensor<'map'>,
  options: Omit<ConvOptions, 'init' | 'order'>,
): Tensor<'map'> {
  return b.scope(name, () => {
    const conv = b.conv('0', x, { ...options, init: 'kaiming', order: 'freq-time' });
    return b.batchNorm('1', conv, NORM);
  });
}

/** Gates each channel by what two linear layers make of the means of all channels. */
function squeezeExcitation(b: Builder, x: Tensor<'map'>): Tensor<'map'> {
  const init = 'normal';
  const mean = b.reduceTime(b.meanOverFrequency(x), 'mean');
  const squeezed = divisible(Math.floor(x.channels / SQUEEZE));
  const inner = b.relu(b.linear('fc1', mean, squeezed, { init }));
  return b.scale(x, b.sigmoid(b.linear('fc2', inner, x.channels, { init })));
}

function invertedResidual(
  b: Builder,
  input: Tensor<'map'>,
  [kernel, inner, outer, gated, activation, stride]: (typeof BLOCKS)[number],
  width: number,
): Tensor<'map'> {
  const expanded = divisible(inner * width);
  const channels = divisible(outer * width);
  let module = 0;
  let x = input;
  if (expanded !== input.channels) {
    x = b[activation](convNorm(b, `${module++}`, x, { channels: expanded, kernel: 1 }));
  }
  const padding = (kernel - 1) / 2;
  const deep = { channels: expanded, kernel, stride, padding, groups: expanded };
  x = b[activation](convNorm(b, `${module++}`, x, deep));
  if (gated) {
    const y = x;
    x = b.scope(`${module++}.conc_se_layers.0`, () => squeezeExcitation(b, y));
  }
  x = convNorm(b, `${module}`, x, { channels, kernel: 1 });
  return stride === 1 && input.channels === channels ? b.add(x, input) : x;
}

/** Waveform (N, S) to log-mel (N, 1, T, F) as EfficientAT has it: pre-emphasis, Kaldi's mel bank, ln. */
function kaldiFrontend(
  b: Builder,
  waveform: Tensor<'waveform'>,
  config: ModelConfig,
): Tensor<'map'> {
  const { sampleRate, windowSize, hopSize, melBins, fmin, fmax, mixup } = config;
  const logmel = b.logmel(mixup === 'waveform' ? b.mixup(waveform) : waveform, {
    ...{ sampleRate, windowSize, hopSize, melBins, fmin, fmax },
    // 25 ms within a transform of 32 ms.
    windowLength: Math.round(sampleRate * 0.025),
    periodic: false,
    preemphasis: 0.97,
    melScale: 'kaldi',
    log: 'natural',
    shift: 4.5,
    scale: 0.2,
    stored: false,
  });
  const blanked = config.specAugment ? b.specAugment(logmel, config.specAugment) : logmel;
  return mixup === true ? b.mixup(blanked) : blanked;
}

/** Means over the map, `embedding`, then two linear layers. */
function mlpHead(b: Builder, x: Tensor<'map'>, config: ModelConfig) {
  const init = 'normal';
  const embedding = b.reduceTime(b.meanOverFrequency(x), 'mean');
  const hidden = b.hardSwish(b.linear('classifier.2', embedding, config.embeddingSize, { init }));
  const dropped = b.dropout(hidden, config.dropout);
  const layers = classifierLayers(b, dropped, config);
  const logits = b.linear('classifier.5', layers, config.classes, { init });
  return { embedding, logits, clipwise_output: activate(b, logits, config) };
}

/** `width` multiplies the channels of every layer. */
function mn(name: string, width: number, published: Published): ModelRow {
  return {
    name,
    defaults: {
      embeddingSize: divisible(1280 * width),
      melBins: 128,
      fmin: 0,
      fmax: 15000,
      specAugment: false,
    },
    published,
    build(b, waveform, config) {
      const front = kaldiFrontend(b, waveform, config);
      const stem = { channels: divisible(16 * width), kernel: 3, stride: 2, padding: 1 };
      let x = b.hardSwish(convNorm(b, 'features.0', front, stem));
      for (const [i, row] of BLOCKS.entries()) {
        x = b.scope(`features.${i + 1}.block`, () => invertedResidual(b, x, row, width));
      }
      const last = { channels: 6 * x.channels, kernel: 1 };
      x = b.hardSwish(convNorm(b, `features.${BLOCKS.length + 1}`, x, last));
      return config.head === 'clip' ? mlpHead(b, x, config) : head(b, x, front, config);
    },
  };
}

/** MobileNetV3 at several widths: (N, S) → (N, K), published with the name's suffix _as. */
export const mobilenetsV3: readonly ModelRow[] = [
  mn('mn04', 0.4, { mAP: 0.432, multiplyAdds: 0.11 }),
  mn('mn05', 0.5, { mAP: 0.443, multiplyAdds: 0.16 }),
  mn('mn10', 1, { mAP: 0.471, multiplyAdds: 0.54 }),
  mn('mn20', 2, { mAP: 0.478, multiplyAdds: 2.06 }),
  mn('mn30', 3, { mAP: 0.482, multiplyAdds: 4.55 }),
  mn('mn40', 4, { mAP: 0.484, multiplyAdds: 8.03 }),
];
