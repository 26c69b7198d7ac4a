import { checkOptions, optionCheck, throwIfAborted } from '../errors.js';
import type { DeviceChoice } from '../inference/device.js';
import { clipsAtOnce } from '../inference/memory.js';
import { modelInternals, placeModel } from '../inference/model.js';
import type { ModelDescription } from '../models/row.js';
import { callNative } from '../native/call.js';
import type { RecipeOptions } from './recipe.js';
import { planTraining, sessionOptions } from './session.js';

/** Options of {@link tunePlans}. */
export interface TunePlansOptions extends Pick<DeviceChoice, 'gpu' | 'precision'> {
  /** Clips of an inference; default 8. */
  batch?: number | undefined;
  /** Of an inference's clips; default 10. */
  seconds?: number | undefined;
  /** A training whose step is tuned too; default none. */
  recipe?: RecipeOptions | undefined;
  /** Convolutions done, of how many in all, and the last one's name. */
  onProgress?: ((done: number, total: number, node: string) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** How many convolutions {@link tunePlans} has chosen plans for. */
export interface TunedPlans {
  readonly inference: number;
  readonly training: number;
}

const OPTION_NAMES: readonly (keyof TunePlansOptions)[] = [
  ...(['gpu', 'precision', 'batch', 'seconds', 'recipe', 'onProgress', 'signal'] as const),
];

/** As many as `infer` computes at once of 10 s at 32 kHz. */
const BATCH = 8;

/**
 * Times cuDNN's engines for every convolution of a network on a GPU and keeps the fastest on disk,
 * where all later runs of these shapes and precision find them.
 *
 * Weights have no part in it. Takes seconds a convolution; after an abort what was done is kept, and a
 * second call goes on from there. Results then differ from those of before in the last bits.
 *
 * @throws PannsError `ERR_PANNS_CUDA_UNAVAILABLE`, `ERR_PANNS_OPTION`, `ERR_PANNS_OUT_OF_MEMORY`;
 *   AbortError
 */
export async function tunePlans(
  description: ModelDescription,
  options: TunePlansOptions = {},
): Promise<TunedPlans> {
  checkOptions(options, OPTION_NAMES, 'tunePlans');
  const { gpu, precision, batch = BATCH, seconds = 10, recipe, onProgress, signal } = options;
  const check = optionCheck('tunePlans');
  check('batch', batch, Number.isSafeInteger(batch) && batch >= 1, 'a whole number >= 1');
  check('seconds', seconds, seconds > 0 && seconds <= 3600, 'a number in 0..3600');
  throwIfAborted(signal);
  using model = await placeModel(description, { device: 'cuda', gpu, precision }, true);
  const { native } = modelInternals(model);
  const samples = model.lengthFor(Math.round(seconds * model.sampleRate));
  const size = Math.min(batch, clipsAtOnce(samples));
  const outputs = Object.keys(description.outputs);
  const session = recipe && sessionOptions(planTraining(model, recipe));
  const programs = [
    (index: number) =>
      callNative(
        model.name,
        (cancel) => native.chooseInferencePlan(size, samples, outputs, index, cancel),
        signal,
      ),
    ...(session === undefined
      ? []
      : [
          (index: number) =>
            callNative(
              model.name,
              (cancel) => native.chooseTrainingPlan(description.spec, session, index, cancel),
              signal,
            ),
        ]),
  ];
  // Asked for one behind the last, a program only says how many there are.
  const counts = await Promise.all(
    programs.map(async (choose) => (await choose(Number.MAX_SAFE_INTEGER)).count),
  );
  const total = counts.reduce((sum, count) => sum + count, 0);
  let done = 0;
  for (const [i, choose] of programs.entries()) {
    for (let index = 0; index < (counts[i] ?? 0); index++) {
      const { node } = await choose(index);
      onProgress?.(++done, total, node);
    }
  }
  return { inference: counts[0] ?? 0, training: counts[1] ?? 0 };
}
