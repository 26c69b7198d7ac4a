import { nearest, PannsError } from '../errors.js';
import { Cnn6, Cnn10, Cnn14 } from './cnn.js';
import { type ModelOptions, resolveOptions } from './options.js';
import type { ModelDescription, ModelRow } from './row.js';

const rows: ReadonlyMap<string, ModelRow> = new Map(
  [Cnn6, Cnn10, Cnn14].map((row) => [row.name, row]),
);

/** The models there are, by the names of the paper. */
export const modelNames: readonly string[] = [...rows.keys()];

/**
 * A model as data: its graph, its state dict and what else follows from the options.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for an unknown model or option, naming the nearest
 */
export function describeModel(name: string, options: ModelOptions = {}): ModelDescription {
  const row = rows.get(name);
  if (row === undefined) {
    const guess = nearest(String(name), modelNames);
    const what = `there is no model "${name}"; did you mean "${guess}"? (${modelNames.join(', ')})`;
    throw new PannsError('ERR_PANNS_OPTION', what, {
      where: 'model',
      expected: modelNames,
      actual: name,
    });
  }
  const config = resolveOptions(options);
  const { classes } = options;
  return {
    name,
    config,
    labels: typeof classes === 'object' ? [...classes] : undefined,
    embeddingSize: row.embeddingSize,
    ...row.build(config),
  };
}
