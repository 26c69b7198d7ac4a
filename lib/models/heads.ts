import type { NetworkOutputs } from './graph.js';
import type { ModelConfig } from './options.js';
import type { Builder, Tensor } from './tensor.js';

/** Of the two dropouts of the head; every published model has them. */
const HEAD_DROPOUT = 0.5;

/** The head that `config.head` names. `frames` is the map whose frames `framewise_output` follows. */
export function head(
  b: Builder,
  x: Tensor<'map'>,
  frames: Tensor<'map'>,
  config: ModelConfig,
): NetworkOutputs {
  return config.head === 'clip' ? clipHead(b, x, config) : decisionHead(b, x, frames, config);
}

/**
 * Feature map (N, C, T, F) to `embedding` (N, E), `logits` (N, K) and `clipwise_output` (N, K).
 *
 * The mean over frequency comes first, then maximum plus mean over time. The classifier reads fc1
 * before the embedding's dropout, as the published models do. `dropout` is that before fc1.
 */
export function clipHead(
  b: Builder,
  x: Tensor<'map'>,
  config: ModelConfig,
  dropout = HEAD_DROPOUT,
): NetworkOutputs {
  const pooled = b.reduceTime(b.meanOverFrequency(x), 'max+mean');
  const hidden = b.relu(b.linear('fc1', b.dropout(pooled, dropout), config.embeddingSize));
  const logits = b.linear('fc_audioset', classifierLayers(b, hidden, config), config.classes);
  return {
    embedding: b.dropout(hidden, HEAD_DROPOUT),
    logits,
    clipwise_output: activate(b, logits, config),
  };
}

/**
 * Feature map (N, C, S, F) to scores of each segment, `framewise_output` (N, T, K), and of the clip,
 * `clipwise_output` (N, K): their maximum, mean, or mean weighted by attention over time.
 */
function decisionHead(
  b: Builder,
  x: Tensor<'map'>,
  frames: Tensor<'map'>,
  config: ModelConfig,
): NetworkOutputs {
  const smoothed = b.pool(b.meanOverFrequency(x), 'avg+max', [3, 1], {
    stride: 1,
    padding: [1, 0],
  });
  const hidden = b.relu(b.linear('fc1', b.dropout(smoothed, HEAD_DROPOUT), config.embeddingSize));
  const dropped = b.dropout(hidden, HEAD_DROPOUT);
  const { classes } = config;
  if (config.head === 'att') {
    return b.scope('att_block', () => {
      const attention = b.conv1d('att', dropped, { channels: classes, kernel: 1, bias: true });
      const score = b.conv1d('cla', dropped, { channels: classes, kernel: 1, bias: true });
      b.unused('bn_att', { batchNorm: classes });
      const segments = b.sigmoid(score);
      return {
        framewise_output: b.upsample(segments, frames),
        clipwise_output: b.attentionPool(attention, segments),
      };
    });
  }
  const segments = b.sigmoid(b.linear('fc_audioset', dropped, classes));
  return {
    framewise_output: b.upsample(segments, frames),
    clipwise_output: b.reduceTime(segments, config.head === 'max' ? 'max' : 'mean'),
  };
}

/** (N, E) through the layers that `config.classifierLayers` adds: linear, ReLU, dropout. */
export function classifierLayers(
  b: Builder,
  embedding: Tensor<'vector'>,
  config: ModelConfig,
): Tensor<'vector'> {
  let x = embedding;
  for (const [i, width] of config.classifierLayers.entries()) {
    x = b.dropout(b.relu(b.linear(`fc_hidden${i + 1}`, x, width)), HEAD_DROPOUT);
  }
  return x;
}

/** Logits (N, K) to what `config.activation` makes of them. */
export function activate(
  b: Builder,
  logits: Tensor<'vector'>,
  config: ModelConfig,
): Tensor<'vector'> {
  switch (config.activation) {
    case 'sigmoid':
      return b.sigmoid(logits);
    case 'softmax':
      return b.softmax(logits);
    case 'logits':
      return logits;
  }
}
