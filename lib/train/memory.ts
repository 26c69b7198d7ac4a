import { type MemoryNeed, memoryNeed } from '../inference/memory.js';
import { type Model, modelInternals } from '../inference/model.js';
import { callNative } from '../native/call.js';
import { checkRecipeNames, type RecipeOptions } from './recipe.js';
import { planTraining, sessionOptions } from './session.js';

/**
 * What training a model needs of its device's memory, without taking it.
 *
 * The options are a {@link Trainer}'s: batch, length of clips, optimizer, mixup and what is frozen
 * count. Batches on their way and Node.js itself come on top, and with `validation` what {@link
 * Model.memory} says of 16 clips, which a Trainer keeps free.
 *
 * ```ts
 * const { total, largestBatch } = await trainingMemory(model, { batchSize: 32, clipSeconds: 5 });
 * ```
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_OUT_OF_MEMORY` for tensors that no memory holds
 */
export async function trainingMemory(
  model: Model,
  options: RecipeOptions = {},
): Promise<MemoryNeed> {
  checkRecipeNames(options, 'trainingMemory');
  const { native, description } = modelInternals(model);
  const session = sessionOptions(planTraining(model, options));
  const { batch, samples } = session;
  const need = await callNative('trainingMemory', () =>
    native.sessionMemory(description.spec, session, true),
  );
  return memoryNeed(need, { batch, samples });
}
