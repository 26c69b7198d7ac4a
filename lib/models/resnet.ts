import { convBlock } from './blocks.js';
import { logmelFrontend } from './frontends.js';
import { head } from './heads.js';
import type { ModelRow, Published } from './row.js';
import type { Builder, Tensor } from './tensor.js';

/** One residual block: (N, C, T, F) to (N, expansion * planes, T / stride, F / stride). */
interface ResidualBlock {
  /** Channels out for each of its inner ones. */
  readonly expansion: number;
  readonly branch: (b: Builder, x: Tensor<'map'>, planes: number, dropout: number) => Tensor<'map'>;
}

/** Two 3x3 convolutions. */
const basic: ResidualBlock = {
  expansion: 1,
  branch(b, x, channels, dropout) {
    const one = b.conv('conv1', x, { channels, kernel: 3, padding: 1 });
    const inner = b.dropout(b.relu(b.batchNorm('bn1', one)), dropout);
    const two = b.conv('conv2', inner, { channels, kernel: 3, padding: 1 });
    return b.batchNorm('bn2', two, { zeroInit: true });
  },
};

/** A 3x3 convolution between two of 1x1. */
const bottleneck: ResidualBlock = {
  expansion: 4,
  branch(b, x, channels, dropout) {
    const one = b.relu(b.batchNorm('bn1', b.conv('conv1', x, { channels, kernel: 1 })));
    const two = b.conv('conv2', one, { channels, kernel: 3, padding: 1 });
    const inner = b.dropout(b.relu(b.batchNorm('bn2', two)), dropout);
    const three = b.conv('conv3', inner, { channels: 4 * channels, kernel: 1 });
    return b.batchNorm('bn3', three, { zeroInit: true });
  },
};

/** Planes of the four stages and how much each shrinks its input: by a mean pool before the block. */
const STAGES = [
  [64, 1],
  [128, 2],
  [256, 2],
  [512, 2],
] as const;

function residual(
  b: Builder,
  name: string,
  input: Tensor<'map'>,
  { expansion, branch }: ResidualBlock,
  [planes, stride]: readonly [number, number],
  dropout: number,
): Tensor<'map'> {
  return b.scope(name, () => {
    const channels = expansion * planes;
    const pooled = b.pool(input, 'avg', stride);
    const x = branch(b, pooled, planes, dropout);
    if (stride === 1 && input.channels === channels) return b.relu(b.add(x, input));
    // PyTorch numbers the modules of `downsample`; the pool is one of them where there is one.
    const [conv, norm] = stride === 1 ? ['0', '1'] : ['1', '2'];
    const shortcut = b.scope('downsample', () =>
      b.batchNorm(norm, b.conv(conv, pooled, { channels, kernel: 1 })),
    );
    return b.relu(b.add(x, shortcut));
  });
}

function resnet(
  name: string,
  block: ResidualBlock,
  counts: readonly [number, number, number, number],
  published: Published,
): ModelRow {
  return {
    name,
    defaults: { embeddingSize: 2048 },
    published,
    build(b, waveform, config) {
      const { dropout } = config;
      const front = logmelFrontend(b, waveform, config);
      let x = b.dropout(convBlock(b, 'conv_block1', front, 64, 2), dropout);
      b.scope('resnet', () => {
        for (const [i, [planes, stride]] of STAGES.entries()) {
          for (let k = 0; k < (counts[i] ?? 0); k++) {
            const stage = [planes, k === 0 ? stride : 1] as const;
            // 0.1 inside a block where it is 0.2 between stages.
            x = residual(b, `layer${i + 1}.${k}`, x, block, stage, dropout / 2);
          }
        }
      });
      x = b.dropout(b.pool(x, 'avg', 2), dropout);
      x = b.dropout(convBlock(b, 'conv_block_after1', x, 2048, 1), dropout);
      return head(b, x, front, config);
    },
  };
}

/** Residual networks between two blocks of Cnn14: (N, S) → (N, K). */
export const resnets: readonly ModelRow[] = [
  resnet('ResNet22', basic, [2, 2, 2, 2], { mAP: 0.43, multiplyAdds: 30.081 }),
  // biome-ignore lint/suspicious/noApproximativeNumericConstant: a published score, not log10(e)
  resnet('ResNet38', basic, [3, 4, 6, 3], { mAP: 0.434, multiplyAdds: 48.962 }),
  resnet('ResNet54', bottleneck, [3, 4, 6, 3], { mAP: 0.429, multiplyAdds: 54.563 }),
];
