import type { ClipReader, Decode } from '../data/reader.js';
import type { Fold } from '../data/split.js';
import { PannsError } from '../errors.js';
import type { Model } from '../inference/model.js';
import type { Evaluation } from './evaluate.js';
import { createFeatureStore, type FeatureStore } from './features.js';
import { checkRecipeNames, type RecipeOptions } from './recipe.js';
import { Trainer, type TrainingStep } from './trainer.js';

/** Options of {@link crossValidate}: a recipe, and what is trained on. */
export interface CrossValidateOptions extends RecipeOptions {
  /** The rounds, as `kFold` makes them. */
  folds: readonly Fold[];
  /** Makes the model of a round, fresh; it is disposed of after the round. */
  model: (fold: Fold) => Promise<Model>;
  /** Reads clips; default audio files. */
  decode?: Decode | ClipReader | undefined;
  /** Whether decoded clips stay in memory during a round; default `'memory-int16'`. */
  cache?: 'memory-int16' | 'none' | undefined;
  /**
   * With `cacheFeatures`: features that other trainings have left, or will use. The rounds share theirs
   * without it: of each clip they are computed once, as long as the models' frozen parts are equal.
   */
  features?: FeatureStore | undefined;
  /** Called after every step. */
  onStep?: ((fold: Fold, step: TrainingStep, totalSteps: number) => void) | undefined;
  /** Called after every round. */
  onFold?: ((result: FoldResult) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** What one round gave: the evaluation on its test set after the last step. */
export interface FoldResult {
  readonly name: string;
  /** Clips that it trained on. */
  readonly clips: number;
  readonly steps: number;
  readonly seconds: number;
  readonly evaluation: Evaluation;
}

/** Mean and standard deviation (of a sample: n - 1; NaN of one value) of n values. */
export interface Spread {
  readonly mean: number;
  readonly sd: number;
  readonly n: number;
}

/** Results over all rounds. */
export interface CrossValidation {
  readonly folds: readonly FoldResult[];
  readonly loss: Spread;
  readonly mAP: Spread;
  readonly mAUC: Spread;
  /** Undefined for clips with several labels. */
  readonly accuracy: Spread | undefined;
}

const OWN_OPTIONS = [
  ...(['folds', 'model', 'decode', 'cache', 'features', 'onStep', 'onFold', 'signal'] as const),
] as const;

/**
 * Trains a fresh model on each fold's training set and evaluates it on the test set.
 *
 * The test sets choose nothing: every round ends with its last step, and that is what is evaluated.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, and as {@link Trainer}; AbortError
 */
export async function crossValidate(options: CrossValidateOptions): Promise<CrossValidation> {
  checkRecipeNames(options, 'crossValidate', OWN_OPTIONS);
  const { folds, model: make, decode, cache, onStep, onFold, signal, ...rest } = options;
  const { features = createFeatureStore(), ...recipe } = rest;
  if (folds.length === 0) {
    const what = 'expected at least one fold';
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'crossValidate' });
  }
  const results: FoldResult[] = [];
  for (const fold of folds) {
    const began = performance.now();
    using model = await make(fold);
    using trainer = new Trainer(model, {
      ...{ ...recipe, decode, cache, features, signal },
      ...{ dataset: fold.train, validation: fold.test },
      // Once, after the last step.
      evaluateEvery: Number.MAX_SAFE_INTEGER,
    });
    let evaluation: Evaluation | undefined;
    for await (const step of trainer) {
      evaluation = step.evaluation ?? evaluation;
      onStep?.(fold, step, trainer.totalSteps);
    }
    const result = {
      name: fold.name,
      clips: fold.train.clips.length,
      steps: trainer.step,
      seconds: (performance.now() - began) / 1000,
      evaluation: evaluation ?? (await trainer.evaluate()),
    };
    results.push(result);
    onFold?.(result);
  }
  return summarise(results);
}

/** Means and spreads of rounds that were run one by one. */
export function summarise(folds: readonly FoldResult[]): CrossValidation {
  const of = (value: (evaluation: Evaluation) => number | undefined) =>
    spreadOf(folds.map(({ evaluation }) => value(evaluation) ?? Number.NaN));
  const single = folds.every(({ evaluation }) => evaluation.accuracy !== undefined);
  return {
    folds,
    loss: of(({ loss }) => loss),
    mAP: of(({ mAP }) => mAP),
    mAUC: of(({ mAUC }) => mAUC),
    accuracy: single ? of(({ accuracy }) => accuracy) : undefined,
  };
}

/** Mean and standard deviation of values. */
export function spreadOf(values: readonly number[]): Spread {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, sd: n > 1 ? Math.sqrt(squares / (n - 1)) : Number.NaN, n };
}
