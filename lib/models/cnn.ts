import { type Block, convBlock, convBlock5x5 } from './blocks.js';
import { logmelFrontend } from './frontends.js';
import { buildGraph } from './graph.js';
import { taggingHead } from './heads.js';
import type { ModelRow } from './row.js';

/** What tells the plain convolutional models apart. */
interface CnnRow {
  readonly name: string;
  readonly block: Block;
  /** Channels of each block, and how much its pool shrinks time and frequency. */
  readonly blocks: readonly (readonly [channels: number, pool: number])[];
  readonly embeddingSize: number;
}

/** Log-mel, a row of blocks with dropout after each, the tagging head. */
function cnn({ name, block, blocks, embeddingSize }: CnnRow): ModelRow {
  return {
    name,
    embeddingSize,
    build: (config) =>
      buildGraph(name, (b, waveform) => {
        let x = logmelFrontend(b, waveform, config);
        for (const [i, [channels, pool]] of blocks.entries()) {
          x = b.dropout(block(b, `conv_block${i + 1}`, x, channels, pool), config.dropout);
        }
        return taggingHead(b, x, embeddingSize, config);
      }),
  };
}

/** Four blocks of one 5x5 convolution: (N, S) → (N, K). Published mAP 0.343 on AudioSet. */
export const Cnn6 = cnn({
  name: 'Cnn6',
  block: convBlock5x5,
  blocks: [
    [64, 2],
    [128, 2],
    [256, 2],
    [512, 2],
  ],
  embeddingSize: 512,
});

/** Four blocks of two 3x3 convolutions: (N, S) → (N, K). Published mAP 0.380 on AudioSet. */
export const Cnn10 = cnn({
  name: 'Cnn10',
  block: convBlock,
  blocks: [
    [64, 2],
    [128, 2],
    [256, 2],
    [512, 2],
  ],
  embeddingSize: 512,
});

/** Six blocks of two 3x3 convolutions: (N, S) → (N, K). Published mAP 0.431 on AudioSet. */
export const Cnn14 = cnn({
  name: 'Cnn14',
  block: convBlock,
  blocks: [
    [64, 2],
    [128, 2],
    [256, 2],
    [512, 2],
    [1024, 2],
    [2048, 1],
  ],
  embeddingSize: 2048,
});
