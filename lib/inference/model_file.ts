import { stat } from 'node:fs/promises';
import { checkOptions, nearest, PannsError } from '../errors.js';
import { openWeights, type WeightsFile } from '../io/weights.js';
import { publishedFiles } from '../models/pretrained.js';
import type { ModelDescription, ModelRow } from '../models/row.js';
import { OPTIMIZER_PREFIX, readDescription } from './description.js';
import { type DeviceChoice, deviceOptionNames } from './device.js';
import { downloadWeights } from './download.js';
import { applyState, checkTables } from './load.js';
import { type Model, modelInternals, placeModel } from './model.js';
import { matchState } from './state.js';
import { storedModel } from './stored.js';

/** Options of {@link loadModel}. */
export interface LoadModelOptions extends DeviceChoice {
  /**
   * The network that the file holds: a row of one's own, or the name of one of {@link modelNames} where
   * the file does not say it.
   */
  model?: string | ModelRow | undefined;
}

/**
 * Rebuilds a model from a file that {@link Model.save} or a {@link Trainer} wrote, or from the weights of
 * another program: `torch.save`, safetensors ({@link openWeights} says what is read).
 *
 * `source` is a path, or where there is no such file the name of published weights ({@link
 * publishedFiles}), which are fetched once. A file without a description of its model is recognised by the names and shapes of its tensors, and
 * by its own name where several models have the same; 527 classes are AudioSet's.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` for a damaged or hostile file, or one that fits no model;
 *   `ERR_PANNS_UNSUPPORTED`, `ERR_PANNS_IO`; and as {@link createModel} and {@link downloadWeights}
 */
export async function loadModel(source: string, options: LoadModelOptions = {}): Promise<Model> {
  checkOptions(options, [...deviceOptionNames, 'model'], 'loadModel');
  await using opened = await openWeights(await pathOf(source));
  const { model, ...device } = options;
  const { description, file } = await storedModel(opened, model);
  return await fillModel(description, file, device);
}

async function pathOf(source: string): Promise<string> {
  const published = publishedFiles.some(({ name }) => name === source);
  if ((await stat(source).catch(() => undefined)) !== undefined) return source;
  if (published) return downloadWeights(source);
  // A bare word was meant as a name; anything else as a path, whose error the reader has.
  if (!/^\w+$/.test(source)) return source;
  const names = publishedFiles.map(({ name }) => name);
  const what = `there is no file "${source}", nor published weights of that name; did you mean "${nearest(source, names)}"? (panns download --list)`;
  throw new PannsError('ERR_PANNS_IO', what, { where: 'loadModel', actual: source });
}

/** @internal The model in an open file that describes it. */
export async function readModel(
  file: Stored,
  path: string,
  { model: row, ...options }: LoadModelOptions,
): Promise<Model> {
  const description = readDescription({ path, metadata: file.metadata }, row);
  if (description !== undefined) return fillModel(description, { ...file, path }, options);
  throw new PannsError('ERR_PANNS_CHECKPOINT', 'this file does not describe its model', {
    where: path,
  });
}

/** What a model is read from. */
type Stored = Pick<WeightsFile, 'metadata' | 'entries' | 'read'>;

async function fillModel(
  description: ModelDescription,
  file: Pick<WeightsFile, 'path' | 'entries' | 'read'>,
  device: DeviceChoice,
): Promise<Model> {
  const entries = new Map([...file.entries].filter(([name]) => !name.startsWith(OPTIMIZER_PREFIX)));
  const report = matchState(description.stateDict, entries, true, file.path);
  const model = await placeModel(description, device);
  try {
    const internals = modelInternals(model);
    await checkTables(internals, report, file.read);
    await applyState(internals, report, file.read);
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}
