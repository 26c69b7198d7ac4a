import type { Dataset } from '../data/dataset.js';
import type { BatchLoader, LoaderState } from '../data/loader.js';
import { rememberClips } from '../data/reader.js';
import { PannsError } from '../errors.js';
import type { Model } from '../inference/model.js';
import type { Cut } from '../models/parts.js';
import { alone } from './distributed.js';
import { checkClasses, type Evaluation, evaluate } from './evaluate.js';
import {
  computeFeatures,
  createFeatureLoader,
  evaluateFeatures,
  type Features,
} from './features.js';
import { EVALUATION_BATCH, type TrainingPlan } from './session.js';
import { createTrainingLoader, type TrainingOptions, trainingSampler } from './training.js';

/** Decoded validation clips that stay in memory: 1,600 clips of 5 s at 32 kHz. */
const REMEMBERED_BYTES = 512 * 1024 ** 2;

/** What a training learns from and is evaluated on: clips, or their features where these are cached. */
export interface TrainingData {
  /** The batches to learn from, from `state` on. */
  openLoader(state: LoaderState | undefined): Promise<BatchLoader>;
  /** Evaluates the model as it is; default on the validation set. */
  evaluate(dataset: Dataset | undefined): Promise<Evaluation>;
}

/** `onFeatures` hears of clips whose features are computed, before they are read for the first time. */
export function createTrainingData(
  model: Model,
  plan: TrainingPlan,
  options: TrainingOptions,
  onFeatures: (done: number, total: number) => void,
): TrainingData {
  const { recipe, cut, samples } = plan;
  const { dataset: training, validation, decode, signal, features: store } = options;
  const remembered = typeof decode === 'object' ? decode : rememberClips(REMEMBERED_BYTES, decode);
  const known = new Map<Dataset, Features>();

  /** Kept for the two data sets of the training. */
  async function featuresOf(dataset: Dataset, cut: Cut): Promise<Features> {
    const found = known.get(dataset);
    if (found !== undefined) return found;
    const features = await computeFeatures(model, cut, dataset, {
      ...{ samples, decode, signal, store },
      onProgress: onFeatures,
    });
    if (dataset === training || dataset === validation) known.set(dataset, features);
    return features;
  }

  return {
    async openLoader(state) {
      if (cut === undefined || training === undefined) {
        return createTrainingLoader(model, recipe, options, state);
      }
      const features = await featuresOf(training, cut);
      const sampler = trainingSampler(recipe, training, options.distributed ?? alone);
      const { batchSize } = recipe;
      return createFeatureLoader(features, training, { sampler, batchSize }, state);
    },

    async evaluate(dataset = validation) {
      if (dataset === undefined) {
        const what = 'expected a data set to evaluate on: give validation, or an argument';
        throw new PannsError('ERR_PANNS_OPTION', what, { where: 'Trainer.evaluate' });
      }
      const { loss, clipSeconds } = recipe;
      if (cut !== undefined) {
        checkClasses(model, dataset);
        const features = await featuresOf(dataset, cut);
        return evaluateFeatures(model, features, dataset, loss, signal);
      }
      return evaluate(model, dataset, {
        ...{ clipSeconds, batchSize: EVALUATION_BATCH, loss, signal },
        decode: dataset === validation ? remembered : decode,
      });
    },
  };
}
