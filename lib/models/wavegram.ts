import { convBlock } from './blocks.js';
import { blocks, cnn14Trunk } from './cnn.js';
import { logmelFrontend, wavegramFrontend } from './frontends.js';
import { head } from './heads.js';
import type { ModelOptions } from './options.js';
import type { ModelRow, Published } from './row.js';

/** A learned spectrogram beside the log-mel, joined after the first block: (N, S) → (N, K). */
function wavegramLogmel(name: string, defaults: ModelOptions, published?: Published): ModelRow {
  return {
    name,
    defaults: { embeddingSize: 2048, ...defaults },
    ...(published && { published }),
    build(b, waveform, config) {
      const { dropout, mixup } = config;
      const mixed = mixup === 'waveform' ? b.mixup(waveform) : waveform;
      const wavegram = wavegramFrontend(b, mixed, config);
      const front = logmelFrontend(b, mixed, { ...config, mixup: mixup === true });
      const logmel = convBlock(b, 'conv_block1', front, 64, 2);
      const both = b.concat(logmel, mixup === true ? b.mixup(wavegram) : wavegram);
      const x = blocks(b, b.dropout(both, dropout), cnn14Trunk, dropout, 1);
      return head(b, x, front, config);
    },
  };
}

/** Cnn14 on a learned spectrogram alone: (N, S) → (N, K). */
const Wavegram_Cnn14: ModelRow = {
  name: 'Wavegram_Cnn14',
  defaults: { embeddingSize: 2048 },
  without: ['windowSize', 'fmin', 'fmax', 'specAugment'],
  published: { mAP: 0.389, multiplyAdds: 44.234 },
  build(b, waveform, config) {
    const { dropout, mixup } = config;
    const wavegram = wavegramFrontend(
      b,
      mixup === 'waveform' ? b.mixup(waveform) : waveform,
      config,
    );
    b.unused('bn0', { batchNorm: config.melBins });
    b.scope('conv_block1', () => {
      b.unused('conv1', { weight: [64, 1, 3, 3] });
      b.unused('conv2', { weight: [64, 64, 3, 3] });
      b.unused('bn1', { batchNorm: 64 });
      b.unused('bn2', { batchNorm: 64 });
    });
    const front = mixup === true ? b.mixup(wavegram) : wavegram;
    const x = blocks(b, b.dropout(front, dropout), cnn14Trunk, dropout, 1);
    return head(b, x, front, config);
  },
};

export const wavegrams: readonly ModelRow[] = [
  Wavegram_Cnn14,
  wavegramLogmel('Wavegram_Logmel_Cnn14', {}, { mAP: 0.439, multiplyAdds: 53.51 }),
  wavegramLogmel('Wavegram_Logmel128_Cnn14', { melBins: 128 }),
];
