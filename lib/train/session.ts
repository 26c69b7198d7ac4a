import type { SessionOptions } from '../addon.js';
import { clipsAtOnce } from '../inference/memory.js';
import { type Model, modelInternals } from '../inference/model.js';
import { type Cut, cutBeforeTraining } from '../models/parts.js';
import { clipSamples, scoreOutputs } from './evaluate.js';
import { frozenParameters } from './freeze.js';
import { parameterRates } from './layer_rates.js';
import { nativeOptimizer, type Recipe, type RecipeOptions, resolveRecipe } from './recipe.js';

/** A recipe applied to a model. */
export interface TrainingPlan {
  readonly recipe: Recipe;
  /** The names of parameters that do not train. */
  readonly frozen: readonly string[];
  /** Where the network is cut, with `cacheFeatures`. */
  readonly cut: Cut | undefined;
  /** What multiplies the learning rate, by the beginnings of parameters' names. */
  readonly rates: Readonly<Record<string, number>>;
  /** S of a clip. */
  readonly samples: number;
}

/** Makes every choice. @throws PannsError `ERR_PANNS_OPTION` */
export function planTraining(model: Model, options: RecipeOptions): TrainingPlan {
  const { activation, mixup } = model.config;
  const parameters = model.parameters().flatMap(({ name, trainable }) => (trainable ? [name] : []));
  const recipe = resolveRecipe(options, { activation, mixup: mixup !== false, parameters });
  const { description } = modelInternals(model);
  const frozen = frozenParameters(recipe.freeze, description);
  const cut = recipe.cacheFeatures ? cutBeforeTraining(description, new Set(frozen)) : undefined;
  const rates = parameterRates(recipe, description);
  return { recipe, frozen, cut, rates, samples: clipSamples(model, recipe.clipSeconds) };
}

/** Clips that a trainer evaluates at once. */
export const EVALUATION_BATCH = 16;

/** The core's training session of a plan, between whose steps so many clips are evaluated. */
export function sessionOptions(
  { recipe, frozen, cut, rates, samples }: TrainingPlan,
  evaluated = 0,
): SessionOptions {
  const evaluationBatch = Math.min(evaluated, EVALUATION_BATCH, clipsAtOnce(samples));
  const { batchSize, mixupAlpha, loss, optimizer, frozenNorms, syncNorms } = recipe;
  return {
    batch: batchSize,
    samples: cut?.columns ?? samples,
    ...(cut && { from: cut.node }),
    mixup: mixupAlpha > 0,
    loss,
    optimizer: nativeOptimizer(optimizer),
    frozen: [...frozen],
    frozenNorms,
    syncNorms,
    rates: { ...rates },
    passesOff: [],
    ...(evaluationBatch > 0 &&
      cut === undefined && {
        evaluation: { batch: evaluationBatch, outputs: scoreOutputs(recipe.loss) },
      }),
  };
}
