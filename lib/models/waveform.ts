import { LOGMEL_OPTIONS, waveformFrontend } from './frontends.js';
import { head } from './heads.js';
import type { ModelOptions } from './options.js';
import type { ModelRow, Published } from './row.js';
import type { Builder, Tensor } from './tensor.js';

/** A row of a network that reads the waveform; `trunk` is all of it but the head. */
function waveformModel(
  name: string,
  defaults: ModelOptions,
  published: Published,
  trunk: (b: Builder, x: Tensor<'map'>, dropout: number) => Tensor<'map'>,
  without: readonly (keyof ModelOptions)[] = [],
): ModelRow {
  return {
    name,
    defaults,
    without: [...LOGMEL_OPTIONS, ...without],
    published,
    build(b, waveform, config) {
      const front = waveformFrontend(b, waveform, config);
      return head(b, trunk(b, front, config.dropout), front, config);
    },
  };
}

/** `count` times convolution of three taps, norm, ReLU; the first moves by `stride`. */
function leeBlock(
  b: Builder,
  name: string,
  input: Tensor<'map'>,
  channels: number,
  { count, stride }: { count: number; stride: number },
): Tensor<'map'> {
  return b.scope(name, () => {
    const numbers = Array.from({ length: count }, (_, i) => i + 1);
    b.register(...numbers.map((i) => `conv${i}`), ...numbers.map((i) => `bn${i}`));
    let x = input;
    for (const i of numbers) {
      const step = i === 1 ? stride : 1;
      x = b.conv1d(`conv${i}`, x, { channels, kernel: 3, stride: step, padding: 1 });
      x = b.relu(b.batchNorm(`bn${i}`, x));
    }
    return x;
  });
}

const thirds = (b: Builder, x: Tensor<'map'>): Tensor<'map'> =>
  b.pool(x, 'max', [3, 1], { padding: [1, 0] });

const LeeNet11 = waveformModel(
  'LeeNet11',
  { embeddingSize: 512, dropout: false },
  { mAP: 0.266, multiplyAdds: 4.741 },
  (b, input) => {
    let x = leeBlock(b, 'conv_block1', input, 64, { count: 1, stride: 3 });
    for (const [i, channels] of [64, 64, 128, 128, 128, 128, 128, 256].entries()) {
      x = thirds(b, leeBlock(b, `conv_block${i + 2}`, x, channels, { count: 1, stride: 1 }));
    }
    return x;
  },
  ['dropout'],
);

const LeeNet24 = waveformModel(
  'LeeNet24',
  { embeddingSize: 1024, dropout: 0.1 },
  { mAP: 0.336, multiplyAdds: 26.369 },
  (b, input, dropout) => {
    let x = leeBlock(b, 'conv_block1', input, 64, { count: 2, stride: 3 });
    x = b.dropout(x, dropout);
    for (const [i, channels] of [96, 128, 128, 256, 256, 512, 512].entries()) {
      const block = leeBlock(b, `conv_block${i + 2}`, x, channels, { count: 2, stride: 1 });
      x = b.dropout(thirds(b, block), dropout);
    }
    return leeBlock(b, 'conv_block9', x, 1024, { count: 2, stride: 1 });
  },
);

/** Four convolutions of three taps and a shortcut; `downsample` is stored even where unused. */
function daiBlock(b: Builder, name: string, input: Tensor<'map'>, channels: number): Tensor<'map'> {
  return b.scope(name, () => {
    const shortcut = input.channels !== channels;
    b.register('conv1', 'conv2', 'conv3', 'conv4', ...(shortcut ? ['downsample'] : []));
    if (!shortcut) b.unused('downsample', { weight: [channels, channels, 1] });
    b.register('bn1', 'bn2', 'bn3', 'bn4');
    let x = input;
    for (const i of [1, 2, 3, 4]) {
      x = b.conv1d(`conv${i}`, x, { channels, kernel: 3, padding: 1 });
      x = b.batchNorm(`bn${i}`, x, { zeroInit: i === 4 });
      if (i < 4) x = b.relu(x);
    }
    if (!shortcut) {
      b.unused('bn_downsample', { batchNorm: channels });
      return b.relu(b.add(x, input));
    }
    const down = b.conv1d('downsample', input, { channels, kernel: 1 });
    return b.relu(b.add(x, b.batchNorm('bn_downsample', down)));
  });
}

const DaiNet19 = waveformModel(
  'DaiNet19',
  { embeddingSize: 512, dropout: false },
  { mAP: 0.295, multiplyAdds: 30.395 },
  (b, input) => {
    const conv0 = b.conv1d('conv0', input, { channels: 64, kernel: 80, stride: 4 });
    let x = b.batchNorm('bn0', conv0);
    for (const [i, channels] of [64, 128, 256, 512].entries()) {
      x = daiBlock(b, `conv_block${i + 1}`, i === 0 ? x : b.pool(x, 'max', [4, 1]), channels);
    }
    return x;
  },
  ['dropout'],
);

/** The main path shrinks by maximum, the shortcut by mean, as the published weights expect. */
function res1dBlock(
  b: Builder,
  name: string,
  input: Tensor<'map'>,
  channels: number,
  stride: number,
  dropout: number,
): Tensor<'map'> {
  return b.scope(name, () => {
    const pooled = b.pool(input, 'max', [stride, 1]);
    const one = b.conv1d('conv1', pooled, { channels, kernel: 3, padding: 1 });
    const inner = b.dropout(b.relu(b.batchNorm('bn1', one)), dropout);
    const two = b.conv1d('conv2', inner, { channels, kernel: 3, padding: 2, dilation: 2 });
    const x = b.batchNorm('bn2', two, { zeroInit: true });
    if (stride === 1 && input.channels === channels) return b.relu(b.add(x, input));
    const [conv, norm] = stride === 1 ? ['0', '1'] : ['1', '2'];
    const shortcut = b.scope('downsample', () => {
      const mean = b.pool(input, 'avg', [stride, 1]);
      return b.batchNorm(norm, b.conv1d(conv, mean, { channels, kernel: 1 }));
    });
    return b.relu(b.add(x, shortcut));
  });
}

const RES1D_PLANES = [64, 128, 256, 512, 1024, 1024, 2048] as const;

const res1d = (name: string, counts: readonly number[], published: Published): ModelRow =>
  waveformModel(name, { embeddingSize: 2048, dropout: 0.1 }, published, (b, input, dropout) => {
    const conv0 = b.conv1d('conv0', input, { channels: 64, kernel: 11, stride: 5, padding: 5 });
    let x = b.batchNorm('bn0', conv0);
    b.scope('resnet', () => {
      for (const [i, planes] of RES1D_PLANES.entries()) {
        for (let k = 0; k < (counts[i] ?? 0); k++) {
          const stride = i > 0 && k === 0 ? 4 : 1;
          x = res1dBlock(b, `layer${i + 1}.${k}`, x, planes, stride, dropout);
        }
      }
    });
    return x;
  });

/** One-dimensional networks on the waveform: (N, S) → (N, K). */
export const waveformModels: readonly ModelRow[] = [
  LeeNet11,
  LeeNet24,
  DaiNet19,
  res1d('Res1dNet31', [2, 2, 2, 2, 2, 2, 2], { mAP: 0.365, multiplyAdds: 32.688 }),
  res1d('Res1dNet51', [2, 3, 4, 6, 4, 3, 2], { mAP: 0.355, multiplyAdds: 61.833 }),
];
