import { PannsError } from '../errors.js';
import type { WeightsFile } from '../io/weights.js';
import { describeModel } from '../models/index.js';
import type { ModelDescription, ModelRow } from '../models/row.js';
import { OPTIMIZER_PREFIX, readDescription } from './description.js';
import { isTransfer, recognise, withoutTransfer } from './foreign.js';

/** The model in an open file of weights. */
export interface StoredModel {
  readonly description: ModelDescription;
  /** The tensors under the model's names, without those of a training run. */
  readonly file: WeightsFile;
  /** What says which model it is: the file itself, or its tensors. */
  readonly source: 'description' | 'tensors';
  /** Models with the same tensors. */
  readonly alternatives: readonly string[];
}

/**
 * Finds out which model a file holds: by its own description, else by its tensors.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` for one that fits no model, or not `model`
 */
export async function storedModel(
  opened: WeightsFile,
  model?: string | ModelRow,
): Promise<StoredModel> {
  const own = readDescription(opened, model);
  if (own !== undefined) {
    const file = withoutOptimizer(opened);
    return { description: own, file, source: 'description', alternatives: [] };
  }
  const file = withoutTransfer(opened);
  const { row, options, alternatives, ...found } = await recognise(file, model);
  // PANNs' transfer models end in a softmax.
  const description = isTransfer(opened)
    ? describeModel(row, { ...options, activation: 'softmax' })
    : found.description;
  return { description, file, source: 'tensors', alternatives };
}

/** {@link storedModel}, or undefined for a file whose tensors fit no model. */
export async function storedModelIfAny(opened: WeightsFile): Promise<StoredModel | undefined> {
  try {
    return await storedModel(opened);
  } catch (error) {
    if (error instanceof PannsError && error.code === 'ERR_PANNS_CHECKPOINT') return undefined;
    throw error;
  }
}

function withoutOptimizer(file: WeightsFile): WeightsFile {
  const entries = [...file.entries].filter(([name]) => !name.startsWith(OPTIMIZER_PREFIX));
  return { ...file, entries: new Map(entries) };
}
