import { isDeepStrictEqual } from 'node:util';
import { PannsError } from '../errors.js';
import { DESCRIPTION_KEY, type WeightsFile } from '../io/weights.js';
import { describeModel, modelNames, modelRows } from '../models/index.js';
import type { ModelOptions } from '../models/options.js';
import type { ModelDescription, ModelRow } from '../models/row.js';

/** Of the description. */
const VERSION = 1;

/** Tensors under this prefix belong to a training run, not to the model. */
export const OPTIMIZER_PREFIX = 'optimizer.';

/** The metadata that makes a file of weights a model. */
export function modelMetadata(description: ModelDescription): [string, string][] {
  return [[DESCRIPTION_KEY, JSON.stringify({ version: VERSION, ...stored(description) })]];
}

/**
 * What a file's metadata says of its model; undefined where it says nothing.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`
 */
export function readDescription(
  { path, metadata }: Pick<WeightsFile, 'path' | 'metadata'>,
  model: string | ModelRow | undefined,
): ModelDescription | undefined {
  const text = metadata.get(DESCRIPTION_KEY);
  if (text === undefined) return undefined;
  const row = typeof model === 'string' ? modelRows.find(({ name }) => name === model) : model;
  const damaged = (what: string) => new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw damaged('the description of the model is not JSON');
  }
  if (!isObject(value)) throw damaged('the description of the model is not an object');
  if (value.version !== VERSION) {
    throw damaged(`the model has format version ${value.version}, this package reads ${VERSION}`);
  }
  const { name, config, labels } = value;
  if (
    typeof name !== 'string' ||
    !isObject(config) ||
    !(labels === undefined || isTextList(labels))
  ) {
    throw damaged('the description of the model is incomplete');
  }
  if (row === undefined && !modelNames.includes(name)) {
    const what = `the file holds a network "${name}" that this package does not have; give it as the option \`model\``;
    throw damaged(what);
  }
  if (row !== undefined && row.name !== name) {
    throw damaged(`the file holds a model "${name}", the option \`model\` is "${row.name}"`);
  }
  // A file's own word on its graph, sizes and names is not taken: they could contradict each other,
  // or ask for any memory. They must be what the package itself makes of the same options.
  let rebuilt: ModelDescription;
  try {
    const classes = labels ?? config.classes;
    rebuilt = describeModel(row ?? name, { ...config, classes } as ModelOptions);
  } catch (cause) {
    const what = `the description of the model is not valid: ${(cause as Error).message}`;
    throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path, cause });
  }
  // Through JSON, which the file's description has been through. Options that are newer than the file
  // have their defaults in one and are absent in the other: their effect on the graph is compared.
  const { config: _, ...known } = JSON.parse(JSON.stringify(stored(rebuilt)));
  const { config: __, version: ___, ...told } = value;
  if (isDeepStrictEqual(known, told)) return rebuilt;
  throw damaged(`the description of the model is not that of ${name} with its options`);
}

/** What a file holds of a description, in this order whichever way it was made. */
function stored(description: ModelDescription) {
  const { name, config, labels, embeddingSize, minimumSamples, spec, stateDict } = description;
  return { name, config, labels, embeddingSize, minimumSamples, spec, stateDict };
}

function isTextList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
