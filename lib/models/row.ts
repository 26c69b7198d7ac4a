import type { NetworkOutputs } from './graph.js';
import type { ModelConfig, ModelOptions } from './options.js';
import type { Builder, GraphDescription, Tensor } from './tensor.js';

/** What the authors of a model published about it; AudioSet's evaluation set, clips of 10 s. */
export interface Published {
  /** Mean average precision. */
  readonly mAP: number;
  /** In 10^9 for 10 s, as the source counts them. */
  readonly multiplyAdds?: number;
}

/** A model as data: its name, its defaults, and its network as a function over a builder. */
export interface ModelRow {
  readonly name: string;
  /** Where they differ from those of {@link ModelOptions}. */
  readonly defaults?: ModelOptions;
  /** Options that have no meaning here; giving one is an error. */
  readonly without?: readonly (keyof ModelOptions)[];
  readonly published?: Published;
  /**
   * Waveform (N, S) to outputs: `clipwise_output` (N, K) at least; `logits` (N, K) for training with
   * cross-entropy; `embedding` (N, E) and `framewise_output` (N, T, K) where there are any.
   */
  readonly build: (b: Builder, waveform: Tensor<'waveform'>, config: ModelConfig) => NetworkOutputs;
}

/** Everything that a checkpoint stores to be read without this package's own table of models. */
export interface ModelDescription extends GraphDescription {
  readonly name: string;
  readonly config: ModelConfig;
  /** The classes in order, where their names are known. */
  readonly labels: readonly string[] | undefined;
  /** E, the columns of `embedding`; 0 where the model has none. */
  readonly embeddingSize: number;
}
