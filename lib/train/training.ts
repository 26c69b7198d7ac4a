import type { Dataset } from '../data/dataset.js';
import { clipLengths } from '../data/lengths.js';
import { type BatchLoader, createBatchLoader, type LoaderState } from '../data/loader.js';
import type { ClipReader, Decode } from '../data/reader.js';
import { checkPackedLength } from '../data/reader.js';
import { balancedSampler, type Sampler, sharedSampler, uniformSampler } from '../data/sampler.js';
import { checkOptions, PannsError } from '../errors.js';
import type { Model } from '../inference/model.js';
import { alone, type Processes, type ProcessGroup } from './distributed.js';
import { checkClasses, clipSamples, singleLabels } from './evaluate.js';
import type { FeatureStore } from './features.js';
import type { Recipe } from './recipe.js';

/** Where checkpoints go. */
export interface CheckpointOptions {
  folder: string;
  /** In steps; default once an epoch. The last step is always kept. */
  every?: number | undefined;
  /** How many to keep; default 2. */
  keep?: number | undefined;
}

/** What to train on, and what goes along with it. */
export interface TrainingOptions {
  /** The clips to learn from. */
  dataset?: Dataset | undefined;
  /**
   * Instead of `dataset`: makes a loader of batches of the recipe's size that goes on from `state`.
   */
  loader?: ((state: LoaderState | undefined) => BatchLoader) | undefined;
  /** Clips to evaluate on. */
  validation?: Dataset | undefined;
  /** Reads clips; default audio files. */
  decode?: Decode | ClipReader | undefined;
  /** Whether decoded clips stay in memory; default `'memory-int16'`. */
  cache?: 'memory-int16' | 'none' | undefined;
  checkpoint?: CheckpointOptions | undefined;
  /** With `cacheFeatures`: where features are kept for other trainings ({@link createFeatureStore}). */
  features?: FeatureStore | undefined;
  /** Stops the training after the steps under way. */
  signal?: AbortSignal | undefined;
  /**
   * Steps that a GPU is given before the loss of the first is read, 1 or 2; default 2, so that it never
   * waits for the host. The results are the same, bit for bit. On a CPU, and in several processes, it is
   * always 1.
   */
  stepsInFlight?: 1 | 2 | undefined;
  /**
   * The processes that share this training, each with batches of the recipe's size: gradients are
   * averaged, so that a step trains on the batches of all. A `loader` gives this process's share.
   */
  distributed?: ProcessGroup | undefined;
}

/** The names of {@link TrainingOptions}. */
export const trainingOptionNames: readonly (keyof TrainingOptions)[] = [
  ...(['dataset', 'loader', 'validation', 'decode', 'cache', 'checkpoint', 'signal'] as const),
  ...(['distributed', 'features', 'stepsInFlight'] as const),
];

/**
 * Checks data against model and recipe; returns the steps of an epoch, which train on as many examples
 * as the data set has clips.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_DATA`
 */
export function checkTraining(model: Model, recipe: Recipe, options: TrainingOptions): number {
  const { dataset, loader, validation, checkpoint, stepsInFlight } = options;
  const { size }: Processes = options.distributed ?? alone;
  const { loss, batchSize, steps, clipSeconds, cacheFeatures } = recipe;
  if ((dataset === undefined) === (loader === undefined)) {
    throw trainerError('expected either dataset or loader');
  }
  if (cacheFeatures && dataset === undefined) {
    throw trainerError("expected dataset with cacheFeatures: a loader's clips are not known ahead");
  }
  if (stepsInFlight !== undefined && stepsInFlight !== 1 && stepsInFlight !== 2) {
    throw trainerError(`expected stepsInFlight to be 1 or 2, got ${stepsInFlight}`);
  }
  checkOptions(checkpoint, ['folder', 'every', 'keep'], 'checkpoint');
  const { every, keep } = checkpoint ?? {};
  for (const [name, value] of Object.entries({ every, keep })) {
    if (value === undefined || (Number.isSafeInteger(value) && value >= 1)) continue;
    throw trainerError(`expected checkpoint.${name} to be a whole number >= 1, got ${value}`);
  }
  for (const data of [dataset, validation]) {
    if (data === undefined) continue;
    checkClasses(model, data);
    checkPackedLength(data.clips, clipSeconds);
    if (loss === 'bce' || singleLabels(data.clips) !== undefined) continue;
    throw trainerError('expected one label a clip for cross_entropy; use bce with sigmoid');
  }
  if (dataset !== undefined) {
    return Math.max(1, Math.ceil(dataset.clips.length / (batchSize * size)));
  }
  if (steps !== undefined) return steps;
  throw trainerError('expected steps beside a loader, whose epochs have no known length');
}

/** The loader of a training's batches, which goes on from `state`. */
export async function createTrainingLoader(
  model: Model,
  recipe: Recipe,
  { dataset, loader, cache, decode, distributed }: TrainingOptions,
  state: LoaderState | undefined,
): Promise<BatchLoader> {
  if (dataset === undefined) return (loader as NonNullable<typeof loader>)(state);
  const { batchSize, mixupAlpha, seed, clipSeconds } = recipe;
  const { clips } = dataset;
  const { classCount: classes, sampleRate } = model;
  return createBatchLoader(
    {
      ...{ clips, classes, batchSize, seed, cache, sampleRate, decode },
      samplesPerClip: clipSamples(model, clipSeconds),
      lengths: recipe.crop === 'random' ? await clipLengths(dataset) : undefined,
      sampler: trainingSampler(recipe, dataset, distributed ?? alone),
      ...(mixupAlpha > 0 ? { mixup: true, mixupAlpha } : {}),
    },
    state,
  );
}

/** The order of a training's clips, as far as they are this process's. */
export function trainingSampler(
  { sampler, seed }: Recipe,
  { classes, clips }: Dataset,
  { rank, size }: Processes,
): Sampler {
  const labels = () => clips.map((clip) => clip.labels);
  const order =
    sampler === 'uniform'
      ? uniformSampler(clips.length, seed)
      : balancedSampler(labels(), classes.length, seed);
  return size === 1 ? order : sharedSampler(order, { rank, size });
}

/** An option that does not fit; `what` says what was expected. */
export function trainerError(what: string): PannsError {
  return new PannsError('ERR_PANNS_OPTION', what, { where: 'Trainer' });
}
