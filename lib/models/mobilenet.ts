import { logmelFrontend } from './frontends.js';
import { clipHead, head } from './heads.js';
import type { ModelRow } from './row.js';
import type { Builder, Tensor } from './tensor.js';

type Relu = 'relu' | 'relu6';

/** 3x3 convolution, mean pool, norm, ReLU: modules 0, 1, 2, 3 of a Sequential. */
function convFirst(b: Builder, x: Tensor<'map'>, channels: number, relu: Relu): Tensor<'map'> {
  return b.scope('features.0', () => {
    const conv = b.conv('0', x, { channels, kernel: 3, padding: 1 });
    return b[relu](b.batchNorm('2', b.pool(conv, 'avg', 2)));
  });
}

/** A depthwise convolution whose stride is a mean pool after it: modules `at` (and `at` + 1), then a norm. */
function depthwise(b: Builder, x: Tensor<'map'>, at: number, stride: number): Tensor<'map'> {
  const { channels } = x;
  const conv = b.conv(`${at}`, x, { channels, kernel: 3, padding: 1, groups: channels });
  return b.batchNorm(`${at + 2}`, b.pool(conv, 'avg', stride));
}

function pointwise(b: Builder, x: Tensor<'map'>, at: number, channels: number): Tensor<'map'> {
  return b.batchNorm(`${at + 1}`, b.conv(`${at}`, x, { channels, kernel: 1 }));
}

const V1_BLOCKS = [
  ...([
    [64, 1],
    [128, 2],
    [128, 1],
    [256, 2],
    [256, 1],
    [512, 2],
  ] as const),
  ...([
    [512, 1],
    [512, 1],
    [512, 1],
    [512, 1],
    [512, 1],
    [1024, 2],
    [1024, 1],
  ] as const),
] as const;

/** Depthwise and pointwise convolutions in turn: (N, S) → (N, K). */
const MobileNetV1: ModelRow = {
  name: 'MobileNetV1',
  defaults: { embeddingSize: 1024, dropout: false },
  without: ['dropout'],
  published: { mAP: 0.389, multiplyAdds: 3.614 },
  build(b, waveform, config) {
    const front = logmelFrontend(b, waveform, config);
    let x = convFirst(b, front, 32, 'relu');
    for (const [i, [channels, stride]] of V1_BLOCKS.entries()) {
      x = b.scope(`features.${i + 1}`, () => {
        return b.relu(pointwise(b, b.relu(depthwise(b, x, 0, stride)), 4, channels));
      });
    }
    return head(b, x, front, config);
  },
};

/** Expansion, channels, how many, and the stride of the first. */
const V2_BLOCKS = [
  [1, 16, 1, 1],
  [6, 24, 2, 2],
  [6, 32, 3, 2],
  [6, 64, 4, 2],
  [6, 96, 3, 2],
  [6, 160, 3, 1],
  [6, 320, 1, 1],
] as const;

function invertedResidual(
  b: Builder,
  input: Tensor<'map'>,
  expansion: number,
  channels: number,
  stride: number,
): Tensor<'map'> {
  const expand = expansion !== 1;
  const inner = expand ? b.relu6(pointwise(b, input, 0, expansion * input.channels)) : input;
  const at = expand ? 3 : 0;
  const x = pointwise(b, b.relu6(depthwise(b, inner, at, stride)), at + 4, channels);
  return stride === 1 && input.channels === channels ? b.add(x, input) : x;
}

/** Inverted residuals: (N, S) → (N, K). */
const MobileNetV2: ModelRow = {
  name: 'MobileNetV2',
  defaults: { embeddingSize: 1024, dropout: false },
  without: ['dropout'],
  published: { mAP: 0.383, multiplyAdds: 2.81 },
  build(b, waveform, config) {
    const front = logmelFrontend(b, waveform, config);
    let x = convFirst(b, front, 32, 'relu6');
    let at = 1;
    for (const [expansion, channels, count, first] of V2_BLOCKS) {
      for (let k = 0; k < count; k++, at++) {
        x = b.scope(`features.${at}.conv`, () =>
          invertedResidual(b, x, expansion, channels, k === 0 ? first : 1),
        );
      }
    }
    x = b.scope(`features.${at}`, () => b.relu6(pointwise(b, x, 0, 1280)));
    // Unlike the other models, no dropout before fc1.
    return config.head === 'clip' ? clipHead(b, x, config, 0) : head(b, x, front, config);
  },
};

export const mobilenets: readonly ModelRow[] = [MobileNetV1, MobileNetV2];
