import { type Block, convBlock, convBlock5x5 } from './blocks.js';
import { logmelFrontend } from './frontends.js';
import { head } from './heads.js';
import type { ModelOptions } from './options.js';
import type { ModelRow, Published } from './row.js';
import type { Builder, Tensor } from './tensor.js';

/** What tells the plain convolutional models apart. */
interface CnnRow {
  readonly name: string;
  readonly trunk: Trunk;
  readonly defaults: ModelOptions;
  readonly published?: Published;
}

interface Trunk {
  readonly block: Block;
  /** Channels of each block, and how much its pool shrinks time and frequency. */
  readonly blocks: readonly (readonly [channels: number, pool: number])[];
}

const FOUR = [
  [64, 2],
  [128, 2],
  [256, 2],
  [512, 2],
] as const;
const SIX = [...FOUR, [1024, 2], [2048, 1]] as const;

const CNN6: Trunk = { block: convBlock5x5, blocks: FOUR };
const CNN10: Trunk = { block: convBlock, blocks: FOUR };
const CNN14: Trunk = { block: convBlock, blocks: SIX };

/** Log-mel, a row of blocks with dropout after each, the head. */
function cnn({ name, trunk, defaults, published }: CnnRow): ModelRow {
  return {
    name,
    defaults,
    ...(published && { published }),
    build(b, waveform, config) {
      const front = logmelFrontend(b, waveform, config);
      return head(b, blocks(b, front, trunk, config.dropout), front, config);
    },
  };
}

/** Blocks `first`.. of a trunk, named conv_block1.., with dropout after each. */
export function blocks(
  b: Builder,
  input: Tensor<'map'>,
  { block, blocks }: Trunk,
  dropout: number,
  first = 0,
): Tensor<'map'> {
  let x = input;
  for (const [i, [channels, pool]] of blocks.entries()) {
    if (i < first) continue;
    x = b.dropout(block(b, `conv_block${i + 1}`, x, channels, pool), dropout);
  }
  return x;
}

const cnn14 = (name: string, options: ModelOptions, published?: Published): ModelRow =>
  cnn({
    name,
    trunk: CNN14,
    defaults: { embeddingSize: 2048, ...options },
    ...(published && { published }),
  });

/** The trunk of Cnn14, which the Wavegram models share. */
export { CNN14 as cnn14Trunk };

/** Four blocks of one 5x5 convolution: (N, S) → (N, K). */
const Cnn6 = cnn({
  name: 'Cnn6',
  trunk: CNN6,
  defaults: { embeddingSize: 512 },
  published: { mAP: 0.343, multiplyAdds: 21.986 },
});

/** Four blocks of two 3x3 convolutions: (N, S) → (N, K). */
const Cnn10 = cnn({
  name: 'Cnn10',
  trunk: CNN10,
  defaults: { embeddingSize: 512 },
  published: { mAP: 0.38, multiplyAdds: 28.166 },
});

/** Six blocks of two 3x3 convolutions: (N, S) → (N, K); then what each variant changes. */
export const cnns: readonly ModelRow[] = [
  Cnn6,
  Cnn10,
  cnn14('Cnn14', {}, { mAP: 0.431, multiplyAdds: 42.22 }),
  cnn14('Cnn14_no_specaug', { specAugment: false }),
  cnn14('Cnn14_no_dropout', { dropout: false }),
  cnn14('Cnn14_mixup_time_domain', { mixup: 'waveform' }, { mAP: 0.425, multiplyAdds: 42.22 }),
  cnn14('Cnn14_emb512', { embeddingSize: 512 }, { mAP: 0.42 }),
  cnn14('Cnn14_emb128', { embeddingSize: 128 }, { mAP: 0.412 }),
  cnn14('Cnn14_emb32', { embeddingSize: 32 }, { mAP: 0.364 }),
  cnn14('Cnn14_mel32', { melBins: 32 }, { mAP: 0.413 }),
  cnn14('Cnn14_mel128', { melBins: 128 }, { mAP: 0.442 }),
  cnn14('Cnn14_16k', { sampleRate: 16000 }, { mAP: 0.438 }),
  cnn14('Cnn14_8k', { sampleRate: 8000 }, { mAP: 0.416 }),
];

/** Cnn14 that scores segments of 0.32 s: (N, S) → (N, T, K) and (N, K). */
export const decisionLevelCnns: readonly ModelRow[] = [
  cnn14('Cnn14_DecisionLevelMax', { head: 'max' }, { mAP: 0.385, multiplyAdds: 42.22 }),
  cnn14('Cnn14_DecisionLevelAvg', { head: 'avg' }),
  cnn14('Cnn14_DecisionLevelAtt', { head: 'att' }, { mAP: 0.425 }),
];
