import { nearest, PannsError } from '../errors.js';
import { cnns, decisionLevelCnns } from './cnn.js';
import { buildGraph } from './graph.js';
import { mobilenets } from './mobilenet.js';
import { mobilenetsV3 } from './mobilenet_v3.js';
import { type ModelOptions, resolveOptions } from './options.js';
import { resnets } from './resnet.js';
import type { ModelDescription, ModelRow } from './row.js';
import { waveformModels } from './waveform.js';
import { wavegrams } from './wavegram.js';

/** The models there are, in the order of the paper's tables. */
export const modelRows: readonly ModelRow[] = [
  ...cnns,
  ...resnets,
  ...mobilenets,
  ...waveformModels,
  ...wavegrams,
  ...decisionLevelCnns,
  ...mobilenetsV3,
];

const rows: ReadonlyMap<string, ModelRow> = new Map(modelRows.map((row) => [row.name, row]));

/** Their names, those of the paper and of EfficientAT. */
export const modelNames: readonly string[] = [...rows.keys()];

/**
 * A model as data: its graph, its state dict and what else follows from the options.
 *
 * `model` is one of {@link modelNames}, or a row of one's own.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for an unknown model or option, naming the nearest;
 *   `ERR_PANNS_SPEC` for a network that does not fit together
 */
export function describeModel(
  model: string | ModelRow,
  options: ModelOptions = {},
): ModelDescription {
  const row = typeof model === 'string' ? rows.get(model) : model;
  if (row === undefined) {
    const guess = nearest(String(model), modelNames);
    const what = `there is no model "${model}"; did you mean "${guess}"? (${modelNames.join(', ')})`;
    throw new PannsError('ERR_PANNS_OPTION', what, {
      where: 'model',
      expected: modelNames,
      actual: model,
    });
  }
  const config = resolveOptions(options, row);
  const { classes } = options;
  const graph = buildGraph(row.name, (b, waveform) => row.build(b, waveform, config));
  const scores = graph.outputs.clipwise_output;
  if (scores?.columns !== config.classes || scores.frames !== undefined) {
    const came = scores === undefined ? 'none' : `${scores.columns} columns`;
    const what = `expected an output clipwise_output (N, ${config.classes}), got ${came}`;
    throw new PannsError('ERR_PANNS_SPEC', what, { where: row.name });
  }
  return {
    name: row.name,
    config,
    labels: typeof classes === 'object' ? [...classes] : undefined,
    embeddingSize: graph.outputs.embedding?.columns ?? 0,
    ...graph,
  };
}
