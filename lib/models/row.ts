import type { GraphDescription } from './graph.js';
import type { ModelConfig } from './options.js';

/** A model as data: its name and how its graph follows from a configuration. */
export interface ModelRow {
  readonly name: string;
  /** E, the columns of `embedding`. */
  readonly embeddingSize: number;
  readonly build: (config: ModelConfig) => GraphDescription;
}

/** Everything that a checkpoint stores to be read without this package's own table of models. */
export interface ModelDescription extends GraphDescription {
  readonly name: string;
  readonly config: ModelConfig;
  /** The classes in order, where their names are known. */
  readonly labels: readonly string[] | undefined;
  readonly embeddingSize: number;
}
