import type { OptimizerOptions as NativeOptimizer } from '../addon.js';
import { checkOptions, optionCheck } from '../errors.js';
import type { Activation } from '../models/options.js';
import { checkPrefixes, type Freeze } from './freeze.js';
import { createSchedule, type Schedule } from './schedule.js';

const check = optionCheck('Trainer');

/** Adam as torch.optim has it; with `decoupled`, AdamW. */
export interface AdamOptions {
  kind: 'adam';
  /** Learning rate; default 1e-3. */
  lr?: number | undefined;
  /** Default [0.9, 0.999]. */
  betas?: readonly [number, number] | undefined;
  /** Default 1e-8. */
  eps?: number | undefined;
  /** Default 0. */
  weightDecay?: number | undefined;
  /** Default true, as PANNs trains. */
  amsgrad?: boolean | undefined;
  /** Whether weight decay is taken from the weights and not from the gradient; default false. */
  decoupled?: boolean | undefined;
}

/** Stochastic gradient descent as torch.optim has it. */
export interface SgdOptions {
  kind: 'sgd';
  /** Learning rate; default 1e-2. */
  lr?: number | undefined;
  /** Default 0.9. */
  momentum?: number | undefined;
  /** Default 0. */
  weightDecay?: number | undefined;
  /** Default false. */
  nesterov?: boolean | undefined;
}

/** How the learning rate moves from the optimizer's `lr`; a cosine ends with the training. */
export type ScheduleChoice =
  | { kind: 'constant'; warmup?: number | undefined }
  | {
      kind: 'cosine';
      warmup?: number | undefined;
      steps?: number | undefined;
      floor?: number | undefined;
    }
  | { kind: 'step'; every: number; factor?: number | undefined; warmup?: number | undefined };

/** How to train, without the data: plain values that a checkpoint stores. */
export interface RecipeOptions {
  /** Default `'bce'` for sigmoid models, `'cross_entropy'` for softmax and logits. */
  loss?: 'bce' | 'cross_entropy' | undefined;
  /** Default Adam as PANNs: lr 1e-3, amsgrad. */
  optimizer?: AdamOptions | SgdOptions | undefined;
  /** Examples a step; with mixup each is made of two clips. Default 32. */
  batchSize?: number | undefined;
  /** How often as many examples as the data set has clips are trained on. */
  epochs?: number | undefined;
  /** How many steps in all, instead of `epochs`. */
  steps?: number | undefined;
  /** Default constant. */
  schedule?: ScheduleChoice | undefined;
  /** Gradients of a greater norm are scaled down to it; 0, the default, for none. */
  clipGradNorm?: number | undefined;
  /** Whether pairs of clips are mixed, or the alpha of their Beta weights (true: 1); default false. */
  mixup?: boolean | number | undefined;
  /** Every clip equally often, or every class; default `'uniform'`. */
  sampler?: 'uniform' | 'balanced' | undefined;
  /** Longer clips are cut, shorter ones padded; default 10. */
  clipSeconds?: number | undefined;
  /**
   * Which part of longer clips is trained on: the beginning, the default, or another one each epoch that
   * the seed fixes. Evaluation takes the beginning.
   */
  crop?: 'start' | 'random' | undefined;
  /** Of the order of clips, mixup, dropout and SpecAugment; default 0. */
  seed?: number | undefined;
  /** In steps; default once an epoch. Only with `validation`. */
  evaluateEvery?: number | undefined;
  /**
   * What does not train: `'base'` is all but the classifier, `{ upTo: 'conv_block4' }` every layer up to
   * that one, a list the beginnings of parameters' names; default `'none'`.
   */
  freeze?: Freeze | undefined;
  /**
   * Norms whose parameters are frozen use their running statistics and leave them as they are (`'eval'`,
   * the default), or follow the batch as all others do (`'train'`, what PANNs' own code does).
   */
  frozenNorms?: 'eval' | 'train' | undefined;
  /**
   * With `distributed`, whether norms see the rows of all processes, as if one had them, or each those of
   * its own; default false.
   */
  syncNorms?: boolean | undefined;
  /**
   * What multiplies the learning rate of parameters whose names begin so, as `{ conv_block: 0.1 }`; the
   * longest beginning counts, all others have 1.
   */
  lrScale?: Readonly<Record<string, number>> | undefined;
  /**
   * What multiplies the learning rate once more for each layer between a parameter and the scores:
   * above 0, at most 1, the default. Layers are `conv_block3`, `features.7`, `bn0`.
   */
  layerDecay?: number | undefined;
  /**
   * Whether what the frozen part makes of each clip is computed once, as at inference (without dropout
   * and SpecAugment there), and only the head trains on it; default false. Needs all but the head
   * frozen, `frozenNorms: 'eval'`, `dataset` and no mixup; takes 4 E bytes a clip.
   */
  cacheFeatures?: boolean | undefined;
}

type Complete<T> = { readonly [K in keyof T]-?: Exclude<T[K], undefined> };

/** {@link RecipeOptions} with every choice made. */
export interface Recipe {
  readonly loss: 'bce' | 'cross_entropy';
  readonly optimizer: Complete<AdamOptions> | Complete<SgdOptions>;
  readonly batchSize: number;
  readonly epochs: number | undefined;
  readonly steps: number | undefined;
  readonly schedule: ScheduleChoice;
  readonly clipGradNorm: number;
  /** 0 for none. */
  readonly mixupAlpha: number;
  readonly sampler: 'uniform' | 'balanced';
  readonly clipSeconds: number;
  readonly crop: 'start' | 'random';
  readonly seed: number;
  readonly evaluateEvery: number | undefined;
  readonly freeze: Freeze;
  readonly frozenNorms: 'eval' | 'train';
  readonly syncNorms: boolean;
  readonly lrScale: Readonly<Record<string, number>>;
  readonly layerDecay: number;
  readonly cacheFeatures: boolean;
}

/** What PyTorch, Keras and scripts call options of a recipe that have another name or place here. */
const NAMES_ELSEWHERE: Readonly<Record<string, string>> = {
  learningRate: 'optimizer.lr',
  learning_rate: 'optimizer.lr',
  lr: 'optimizer.lr',
  weightDecay: 'optimizer.weightDecay',
  weight_decay: 'optimizer.weightDecay',
  momentum: 'optimizer.momentum',
  betas: 'optimizer.betas',
  scheduler: 'schedule',
  warmup: 'schedule',
  gradientClip: 'clipGradNorm',
};

/** The names of {@link RecipeOptions}. */
export const recipeOptionNames: readonly (keyof RecipeOptions)[] = [
  ...(['loss', 'optimizer', 'batchSize', 'epochs', 'steps', 'schedule', 'clipGradNorm'] as const),
  ...(['mixup', 'sampler', 'clipSeconds', 'crop', 'seed', 'evaluateEvery'] as const),
  ...(['freeze', 'frozenNorms', 'syncNorms', 'lrScale', 'layerDecay', 'cacheFeatures'] as const),
];

/** Throws ERR_PANNS_OPTION for names that are neither of a recipe nor among the `own` of `where`. */
export function checkRecipeNames(options: unknown, where: string, own: readonly string[] = []) {
  checkOptions(options, [...own, ...recipeOptionNames], where, NAMES_ELSEWHERE);
}

const ADAM = {
  kind: 'adam',
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  amsgrad: true,
  decoupled: false,
} as const satisfies Complete<AdamOptions>;

const SGD = {
  kind: 'sgd',
  lr: 1e-2,
  momentum: 0.9,
  weightDecay: 0,
  nesterov: false,
} as const satisfies Complete<SgdOptions>;

/**
 * Makes every choice of a recipe for a model with that activation and state dict.
 *
 * @throws PannsError `ERR_PANNS_OPTION`
 */
export function resolveRecipe(
  options: RecipeOptions,
  model: { activation: Activation; mixup: boolean; parameters: readonly string[] },
): Recipe {
  const { activation } = model;
  const loss = options.loss ?? (activation === 'sigmoid' ? 'bce' : 'cross_entropy');
  check('loss', loss, loss === 'bce' || loss === 'cross_entropy', '"bce" or "cross_entropy"');
  const suits = (loss === 'bce') === (activation === 'sigmoid');
  check(
    'loss',
    loss,
    suits,
    `bce with sigmoid, cross_entropy with softmax or logits (here ${activation})`,
  );
  const { batchSize = 32, epochs, steps, clipGradNorm = 0, sampler = 'uniform' } = options;
  const { clipSeconds = 10, seed = 0, evaluateEvery, mixup = false } = options;
  const { freeze = 'none', frozenNorms = 'eval', lrScale = {}, cacheFeatures = false } = options;
  const { layerDecay = 1, crop = 'start' } = options;
  const { syncNorms = false } = options;
  check('batchSize', batchSize, isWhole(batchSize, 1), 'a whole number >= 1');
  const both = epochs !== undefined && steps !== undefined;
  check('steps', steps, !both, 'absent beside epochs');
  check('epochs', epochs, epochs === undefined || epochs > 0, 'a number above 0');
  check('steps', steps, steps === undefined || isWhole(steps, 1), 'a whole number >= 1');
  check('clipGradNorm', clipGradNorm, isAtLeast(clipGradNorm, 0), 'a number >= 0');
  check(
    'sampler',
    sampler,
    sampler === 'uniform' || sampler === 'balanced',
    '"uniform" or "balanced"',
  );
  check('clipSeconds', clipSeconds, clipSeconds > 0 && clipSeconds <= 3600, 'a number in 0..3600');
  const parts = crop === 'start' || (crop === 'random' && !cacheFeatures);
  check('crop', crop, parts, '"start", or "random" without cacheFeatures');
  check('seed', seed, isWhole(seed, 0), 'a whole number in 0..2^53-1');
  const rare = evaluateEvery === undefined || isWhole(evaluateEvery, 1);
  check('evaluateEvery', evaluateEvery, rare, 'a whole number >= 1');
  const mixupAlpha = Number(mixup);
  check(
    'mixup',
    mixup,
    isAtLeast(mixupAlpha, 0),
    'true, false, or the alpha of Beta(alpha, alpha)',
  );
  const mixes = mixupAlpha === 0 || model.mixup;
  check('mixup', mixup, mixes, 'false for a model made with mixup: false');
  const follows = frozenNorms === 'train';
  check('frozenNorms', frozenNorms, follows || frozenNorms === 'eval', '"eval" or "train"');
  check('syncNorms', syncNorms, typeof syncNorms === 'boolean', 'true or false');
  checkPrefixes('lrScale', Object.keys(lrScale), model.parameters);
  for (const [prefix, scale] of Object.entries(lrScale)) {
    const positive = isAtLeast(scale, 0) && scale > 0;
    check(`lrScale["${prefix}"]`, scale, positive, 'a number above 0 (freeze has no rate at all)');
  }
  const shrinks = isAtLeast(layerDecay, 0) && layerDecay > 0 && layerDecay <= 1;
  check('layerDecay', layerDecay, shrinks, 'a number above 0, at most 1');
  check('cacheFeatures', cacheFeatures, typeof cacheFeatures === 'boolean', 'true or false');
  check('frozenNorms', frozenNorms, !(cacheFeatures && follows), '"eval" with cacheFeatures');
  check('mixup', mixup, !(cacheFeatures && mixupAlpha > 0), 'false with cacheFeatures');
  return {
    ...{ loss, batchSize, epochs, steps, clipGradNorm, mixupAlpha, sampler, clipSeconds, seed },
    ...{
      evaluateEvery,
      freeze,
      frozenNorms,
      syncNorms,
      lrScale: { ...lrScale },
      layerDecay,
      crop,
      cacheFeatures,
    },
    optimizer: resolveOptimizer(options.optimizer),
    schedule: options.schedule ?? { kind: 'constant' },
  };
}

/** The options that give the recipe again. */
export function recipeOptions(recipe: Recipe): RecipeOptions {
  const { mixupAlpha, ...rest } = recipe;
  return { ...rest, mixup: mixupAlpha };
}

function resolveOptimizer(
  options: AdamOptions | SgdOptions = { kind: 'adam' },
): Recipe['optimizer'] {
  const known = { adam: ADAM, sgd: SGD };
  const kind = options?.kind;
  check('optimizer.kind', kind, Object.hasOwn(known, kind), '"adam" or "sgd"');
  checkOptions(options, Object.keys(known[kind]), 'optimizer');
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const chosen = { ...known[kind], ...Object.fromEntries(given) } as Recipe['optimizer'];
  for (const name of ['lr', 'weightDecay'] as const) {
    check(`optimizer.${name}`, chosen[name], isAtLeast(chosen[name], 0), 'a number >= 0');
  }
  return chosen;
}

/** The optimizer in the core's words. */
export function nativeOptimizer(optimizer: Recipe['optimizer']): NativeOptimizer {
  if (optimizer.kind === 'sgd') {
    const { momentum, weightDecay, nesterov } = optimizer;
    return { kind: 'sgd', attrs: { momentum, weight_decay: weightDecay, nesterov } };
  }
  const { betas, eps, weightDecay, amsgrad, decoupled } = optimizer;
  const [beta1, beta2] = betas;
  return {
    kind: 'adam',
    attrs: { beta1, beta2, eps, weight_decay: weightDecay, amsgrad, decoupled },
  };
}

/** The learning rate of each step of a training of `steps` steps. */
export function recipeSchedule(recipe: Recipe, steps: number): Schedule {
  const { schedule, optimizer } = recipe;
  const rate = optimizer.lr;
  if (schedule.kind !== 'cosine') return createSchedule({ ...schedule, rate });
  return createSchedule({ ...schedule, rate, steps: schedule.steps ?? steps });
}

function isWhole(value: unknown, least: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= least;
}

function isAtLeast(value: unknown, least: number): boolean {
  return typeof value === 'number' && value >= least && Number.isFinite(value);
}
