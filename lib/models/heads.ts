import type { Builder, Tensor } from './graph.js';
import type { ModelConfig } from './options.js';

/** Of the two dropouts of the head; every published model has them. */
const HEAD_DROPOUT = 0.5;

/**
 * Feature map (N, C, T, F) to `embedding` (N, E), `logits` (N, K) and `clipwise_output` (N, K).
 *
 * The mean over frequency comes first, then maximum plus mean over time. The classifier reads fc1
 * before the embedding's dropout, as the published models do.
 */
export function taggingHead(
  b: Builder,
  x: Tensor<'map'>,
  embeddingSize: number,
  config: ModelConfig,
): Record<'embedding' | 'logits' | 'clipwise_output', Tensor<'vector'>> {
  const pooled = b.reduceTime(b.meanOverFrequency(x), 'max+mean');
  const hidden = b.relu(b.linear('fc1', b.dropout(pooled, HEAD_DROPOUT), embeddingSize));
  const logits = b.linear('fc_audioset', hidden, config.classes);
  return {
    embedding: b.dropout(hidden, HEAD_DROPOUT),
    logits,
    clipwise_output: activate(b, logits, config),
  };
}

function activate(b: Builder, logits: Tensor<'vector'>, config: ModelConfig): Tensor<'vector'> {
  switch (config.activation) {
    case 'sigmoid':
      return b.sigmoid(logits);
    case 'softmax':
      return b.softmax(logits);
    case 'logits':
      return logits;
  }
}
