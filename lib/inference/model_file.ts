import { isDeepStrictEqual } from 'node:util';
import { checkOptions, PannsError } from '../errors.js';
import {
  openSafetensors,
  type SafetensorsFile,
  type SafetensorsTensor,
} from '../io/safetensors.js';
import type { StateEntry } from '../models/graph.js';
import { describeModel } from '../models/index.js';
import type { ModelDescription } from '../models/row.js';
import { type DeviceChoice, type Model, placeModel } from './model.js';

/** The key of a file's metadata under which the model is described, and the format's version. */
const KEY = 'panns';
const VERSION = 1;

/** Tensors under this prefix belong to a training run, not to the model. */
export const OPTIMIZER_PREFIX = 'optimizer.';

/** The metadata that makes a file of weights a model. */
export function modelMetadata(description: ModelDescription): [string, string][] {
  const { name, config, labels, embeddingSize, minimumSamples, spec, stateDict } = description;
  // In this order, whichever way the description was made: equal models give equal files.
  const ordered = { name, config, labels, embeddingSize, minimumSamples, spec, stateDict };
  return [[KEY, JSON.stringify({ version: VERSION, ...ordered })]];
}

/**
 * Rebuilds a model from a file that {@link Model.save} or a {@link Trainer} wrote.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` for a damaged file or one without a model's description;
 *   `ERR_PANNS_IO`; and as {@link createModel}
 */
export async function loadModel(path: string, options: DeviceChoice = {}): Promise<Model> {
  checkOptions(options, ['device', 'threads'], 'loadModel');
  const file = await openSafetensors(path);
  try {
    return await readModel(file, path, options);
  } finally {
    await file.close();
  }
}

/** @internal The model in an open file. */
export async function readModel(
  file: SafetensorsFile,
  path: string,
  options: DeviceChoice,
): Promise<Model> {
  const description = readDescription(file.metadata.get(KEY), path);
  const state = new Map<string, SafetensorsTensor>();
  for (const name of file.entries.keys()) {
    if (!name.startsWith(OPTIMIZER_PREFIX)) state.set(name, await file.read(name));
  }
  const model = await placeModel(description, options);
  try {
    await model.loadStateDict(state);
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

function readDescription(text: string | undefined, path: string): ModelDescription {
  const damaged = (what: string) => new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
  if (text === undefined) {
    throw damaged(
      'this file holds tensors and no model; createModel(name, options) and loadStateDict read such',
    );
  }
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
  const { name, config, labels, embeddingSize, spec, stateDict, minimumSamples } = value;
  const named = typeof name === 'string' && isObject(config) && isObject(spec);
  const counted =
    [config, value].every(isObject) && isCount(embeddingSize) && isCount(minimumSamples);
  const classes = isObject(config) ? config.classes : undefined;
  const labelled = labels === undefined || (isTextList(labels) && labels.length === classes);
  const graph = isObject(spec) && Array.isArray(spec.nodes) && isObject(spec.outputs);
  const entries = Array.isArray(stateDict) && stateDict.every(isEntry);
  const numbers =
    isObject(config) && CONFIG_NUMBERS.every((key) => typeof config[key] === 'number');
  if (!(named && counted && isCount(classes) && labelled && graph && entries && numbers)) {
    throw damaged('the description of the model is incomplete');
  }
  const known = { name, config, labels, embeddingSize, minimumSamples, spec, stateDict };
  return verified(known as unknown as ModelDescription, path);
}

const CONFIG_NUMBERS = ['sampleRate', 'windowSize', 'hopSize', 'melBins', 'fmin', 'fmax'];

/**
 * A description that the package itself would make of the same options. A file's own word on its
 * graph, sizes and names is not taken: they could contradict each other, or ask for any memory.
 */
function verified(description: ModelDescription, path: string): ModelDescription {
  const { name, config, labels } = description;
  let rebuilt: ModelDescription;
  try {
    rebuilt = describeModel(name, { ...config, classes: labels ?? config.classes });
  } catch (cause) {
    const what = `the description of the model is not valid: ${(cause as Error).message}`;
    throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path, cause });
  }
  // Through JSON, which the file's description has been through.
  if (isDeepStrictEqual(JSON.parse(JSON.stringify(rebuilt)), withoutUndefined(description))) {
    return rebuilt;
  }
  const what = `the description of the model is not that of ${name} with its options`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
}

function withoutUndefined(value: object): object {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined));
}

function isEntry(value: unknown): value is StateEntry {
  if (!isObject(value)) return false;
  const { name, shape, dtype, role } = value;
  return (
    typeof name === 'string' &&
    Array.isArray(shape) &&
    shape.every(isCount) &&
    (dtype === 'F32' || dtype === 'I64') &&
    ['parameter', 'buffer', 'counter', 'derived'].includes(role as string)
  );
}

function isTextList(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
