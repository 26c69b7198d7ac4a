import type { NativeProfile } from '../addon.js';
import { checkOptions, optionCheck, PannsError, throwIfAborted } from '../errors.js';
import { type DeviceChoice, deviceOptionNames } from '../inference/device.js';
import { clipsAtOnce } from '../inference/memory.js';
import { type Model, modelInternals, placeModel } from '../inference/model.js';
import type { ModelDescription } from '../models/row.js';
import { callNative } from '../native/call.js';
import { checkRecipeNames, type RecipeOptions } from './recipe.js';
import { planTraining, sessionOptions, type TrainingPlan } from './session.js';

/** Options of {@link profileModel}. */
export interface ProfileOptions extends DeviceChoice {
  /** Clips of an inference; default 8. */
  batch?: number | undefined;
  /** Of an inference's clips; default 10. */
  seconds?: number | undefined;
  /** A training, whose step is profiled instead of an inference; default none. */
  recipe?: RecipeOptions | undefined;
  /** Timed runs, 1..1000, beside one that warms up; default 5. */
  runs?: number | undefined;
  /** Runs done, of how many in all, the one that warms up counted. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** What some work has to do at the least, and how long it takes. */
export interface ProfiledWork {
  /** The median over the runs. */
  readonly seconds: number;
  /** Operations; a multiply-add counts as two. 0 where values are only moved. */
  readonly flops: number;
  /** Inputs and results, each once, as the device stores them. */
  readonly bytes: number;
  /**
   * The longer of the times that the operations and the bytes take at the device's measured rates. A
   * method that multiplies less than is counted, as Winograd's does, can be faster.
   */
  readonly floorSeconds: number;
}

/** A node of a network's program: what one kernel does, or several that only run as one. */
export interface ProfiledNode extends ProfiledWork {
  readonly pass: 'forward' | 'backward' | 'optimizer';
  /** The layer, as its parameters are named: `conv_block1.conv1`. */
  readonly path: string;
  /** The module that has the layer: `conv_block1`; the layer itself where no module has it. */
  readonly block: string;
  /** `conv_backward_data`. */
  readonly op: string;
  /** Its attributes, and what is fused to it: `3x3 pad=1x1 +bias +relu`. */
  readonly detail: string;
  /** Of its first result; of an optimizer's node, of what it updates. */
  readonly shape: readonly number[];
  /** Whether it runs only when weights change; it is then in no sum. */
  readonly once: boolean;
}

/** Nodes that have something in common, added up. */
export interface ProfileSum extends ProfiledWork {
  readonly name: string;
  readonly nodes: number;
}

/** Where the time of a network's step goes. */
export interface ModelProfile {
  readonly model: string;
  readonly device: 'cpu' | 'cuda';
  /** The hardware, and its instruction set, or driver and precision. */
  readonly hardware: string;
  readonly training: boolean;
  /** Clips that were computed at once: of an inference 8 of 10 s at 32 kHz at most. */
  readonly batch: number;
  /** Of each clip, with the zeros that it is padded with. */
  readonly samples: number;
  readonly runs: number;
  /** What the device reached in a large product of matrices, and in adding two large maps. */
  readonly rates: { readonly flopsPerSecond: number; readonly bytesPerSecond: number };
  /** In the order they run. */
  readonly nodes: readonly ProfiledNode[];
  /** Each with the longest first. */
  readonly byPass: readonly ProfileSum[];
  readonly byOp: readonly ProfileSum[];
  readonly byBlock: readonly ProfileSum[];
  /** All nodes that are not `once`. */
  readonly total: ProfileSum;
  /** The same step run as usual, from the samples to the scores or the loss: the median. */
  readonly stepSeconds: number;
}

const OPTION_NAMES: readonly (keyof ProfileOptions)[] = [
  ...deviceOptionNames,
  ...(['batch', 'seconds', 'recipe', 'runs', 'onProgress', 'signal'] as const),
];

/** As many as `infer` computes at once of 10 s at 32 kHz. */
const BATCH = 8;

/**
 * Times a network's inference, or a training step of it, node by node, beside what the device could do.
 *
 * Weights are random and clips are noise. A node is timed between two marks in the device's own order
 * of work, on a GPU without a captured graph: there a node that takes less than its launch, some 5 us,
 * shows the launch, and `stepSeconds` may be less than the sum. The machine should be idle.
 *
 * ```ts
 * const { byOp, total, stepSeconds } = await profileModel(describeModel('Cnn6'), { batch: 1 });
 * ```
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_CUDA_UNAVAILABLE`, `ERR_PANNS_OUT_OF_MEMORY`;
 *   AbortError
 */
export async function profileModel(
  description: ModelDescription,
  options: ProfileOptions = {},
): Promise<ModelProfile> {
  checkOptions(options, OPTION_NAMES, 'profileModel');
  const { batch = BATCH, seconds = 10, recipe, runs = 5, onProgress, signal } = options;
  const { device, threads, gpu, precision } = options;
  const check = optionCheck('profileModel');
  check('batch', batch, Number.isSafeInteger(batch) && batch >= 1, 'a whole number >= 1');
  check('seconds', seconds, seconds > 0 && seconds <= 3600, 'a number in 0..3600');
  const counts = Number.isSafeInteger(runs) && runs >= 1 && runs <= 1000;
  check('runs', runs, counts, 'a whole number in 1..1000');
  checkRecipeNames(recipe, 'recipe');
  throwIfAborted(signal);
  using model = await placeModel(description, { device, threads, gpu, precision });
  const { native } = modelInternals(model);
  const plan = recipe && planTraining(model, recipe);
  if (plan?.cut !== undefined) {
    const what = 'expected a recipe without cacheFeatures: what is profiled begins with samples';
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'profileModel' });
  }
  // First, while nothing else has taken the memory that they are measured in.
  const rates = await callNative(model.name, (cancel) => native.rates(cancel), signal);
  await callNative(model.name, () => native.initialise(0n), signal);
  const { once, ...program } = plan
    ? await trainingRound(model, plan, signal)
    : inferenceRound(model, batch, seconds, signal);
  try {
    const rounds: NativeProfile[] = [];
    for (let run = 0; run <= runs; run++) {
      const round = await once(run);
      if (run > 0) rounds.push(round);
      onProgress?.(run + 1, runs + 1);
    }
    return {
      model: model.name,
      // The null device is for tests, which see its name.
      device: rates.device as ModelProfile['device'],
      hardware: `${rates.name}, ${rates.detail}`,
      training: plan !== undefined,
      batch: program.batch,
      samples: program.samples,
      runs,
      ...summary(rounds, { flopsPerSecond: rates.flops, bytesPerSecond: rates.bytes }),
    };
  } finally {
    program.dispose();
  }
}

/** A program that can be run, and what it is run on. */
interface Round {
  readonly batch: number;
  readonly samples: number;
  once(index: number): Promise<NativeProfile>;
  dispose(): void;
}

function inferenceRound(
  model: Model,
  batch: number,
  seconds: number,
  signal: AbortSignal | undefined,
): Round {
  const { native, description } = modelInternals(model);
  const samples = model.lengthFor(Math.round(seconds * model.sampleRate));
  const size = Math.min(batch, clipsAtOnce(samples));
  const outputs = Object.keys(description.outputs);
  return {
    batch: size,
    samples,
    once: () =>
      callNative(model.name, (cancel) => native.profile(size, samples, outputs, cancel), signal),
    dispose() {},
  };
}

async function trainingRound(
  model: Model,
  plan: TrainingPlan,
  signal: AbortSignal | undefined,
): Promise<Round> {
  const { addon, native, description } = modelInternals(model);
  const { seed, clipGradNorm, optimizer } = plan.recipe;
  const session = await callNative(
    model.name,
    () => addon.createSession(native, description.spec, sessionOptions(plan)),
    signal,
  );
  return {
    batch: plan.recipe.batchSize,
    samples: plan.samples,
    // Two steps each.
    once: (index) =>
      callNative(
        model.name,
        (cancel) =>
          session.profile(
            {
              ...{ seed: BigInt(seed), step: 2 * index, lr: optimizer.lr },
              ...{ maxNorm: clipGradNorm, update: true },
            },
            cancel,
          ),
        signal,
      ),
    dispose: () => session.dispose(),
  };
}

type Summary = Pick<
  ModelProfile,
  'rates' | 'nodes' | 'byPass' | 'byOp' | 'byBlock' | 'total' | 'stepSeconds'
>;

/** @internal The rounds' medians, beside the floors that the rates set. */
export function summary(rounds: readonly NativeProfile[], rates: ModelProfile['rates']): Summary {
  const paths = new Set((rounds[0]?.nodes ?? []).map(({ path }) => path));
  const modules = new Set([...paths].map(parent));
  const nodes = (rounds[0]?.nodes ?? []).map(
    ({ pass, path, op, detail, shape, once, ...work }, i) => ({
      ...{ pass, path, block: modules.has(path) ? path : parent(path), op, detail, shape, once },
      seconds: median(rounds.map((round) => round.nodes[i]?.seconds ?? 0)),
      ...{ flops: work.flops, bytes: work.bytes },
      floorSeconds: Math.max(work.flops / rates.flopsPerSecond, work.bytes / rates.bytesPerSecond),
    }),
  );
  const each = nodes.filter(({ once }) => !once);
  return {
    rates,
    nodes,
    byPass: sums(each, ({ pass }) => pass),
    byOp: sums(each, ({ op }) => op),
    byBlock: sums(each, ({ block }) => block),
    total: sum('all', each),
    stepSeconds: median(rounds.map(({ stepSeconds }) => stepSeconds)),
  };
}

/** The path of the module that has it. */
function parent(path: string): string {
  return path.includes('.') ? path.slice(0, path.lastIndexOf('.')) : path;
}

function sums(nodes: readonly ProfiledNode[], keyOf: (node: ProfiledNode) => string): ProfileSum[] {
  const groups = new Map<string, ProfiledNode[]>();
  for (const node of nodes) {
    const key = keyOf(node);
    groups.set(key, [...(groups.get(key) ?? []), node]);
  }
  const list = [...groups].map(([name, members]) => sum(name, members));
  return list.sort((a, b) => b.seconds - a.seconds);
}

function sum(name: string, nodes: readonly ProfiledNode[]): ProfileSum {
  const of = (key: keyof ProfiledWork) => nodes.reduce((all, node) => all + node[key], 0);
  return {
    ...{ name, nodes: nodes.length, seconds: of('seconds') },
    ...{ flops: of('flops'), bytes: of('bytes'), floorSeconds: of('floorSeconds') },
  };
}

/** The middle one, or the mean of both. */
function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}
