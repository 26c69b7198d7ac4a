import type { NativeSession } from '../addon.js';
import type { Dataset } from '../data/dataset.js';
import { type Batch, holdsInt16, type LoaderState } from '../data/loader.js';
import { PannsError, throwIfAborted } from '../errors.js';
import { type Model, modelInternals } from '../inference/model.js';
import { type LoadModelOptions, readModel } from '../inference/model_file.js';
import { callNative } from '../native/call.js';
import { type BatchesAhead, createBatchesAhead } from './batches_ahead.js';
import {
  type Best,
  checkProcesses,
  listCheckpoints,
  type OpenCheckpoint,
  openLatest,
  restoreOptimizer,
  type TrainingState,
  writeCheckpoint,
} from './checkpoint.js';
import { alone, type Processes } from './distributed.js';
import { TypedEmitter } from './emitter.js';
import type { Evaluation } from './evaluate.js';
import {
  checkRecipeNames,
  type Recipe,
  type RecipeOptions,
  recipeOptions,
  recipeSchedule,
} from './recipe.js';
import type { Schedule } from './schedule.js';
import { planTraining, sessionOptions, type TrainingPlan } from './session.js';
import {
  checkTraining,
  type TrainingOptions,
  trainerError,
  trainingOptionNames,
} from './training.js';
import { createTrainingData, type TrainingData } from './training_data.js';

/** Options of {@link Trainer}. */
export interface TrainerOptions extends TrainingOptions, RecipeOptions {}

/** A step that has been done. */
export interface TrainingStep {
  /** From 1 on. */
  readonly index: number;
  /** The epoch it belongs to, from 1 on. */
  readonly epoch: number;
  readonly loss: number;
  /** Before clipping; 0 without clipping. Not finite where fp16 overflowed: that step moved nothing. */
  readonly gradNorm: number;
  readonly lr: number;
  /** Of this step, waiting for data included; on a GPU since the step before was done. */
  readonly seconds: number;
  readonly clipsPerSecond: number;
  /** When one was made after this step. */
  readonly evaluation?: Evaluation;
  /** The checkpoint that was written after this step. */
  readonly checkpoint?: string;
}

/** A step that has begun and has not been given to whoever iterates. */
interface Flight {
  /** From 1 on. */
  readonly index: number;
  readonly batch: Batch;
  readonly lr: number;
  readonly began: number;
  /** Settles when the session has what it was given. */
  readonly begun: Promise<void>;
  /** Set by the first who waits for its end. */
  done?: Promise<TrainingStep>;
}

/** Events of a {@link Trainer}. */
export interface TrainerEvents {
  /** With `cacheFeatures`: clips whose features are computed, before the first step. */
  features: [done: number, total: number];
  step: [step: TrainingStep];
  evaluate: [evaluation: Evaluation, step: number];
  checkpoint: [path: string, step: number];
}

/** Recipes' seeds are below 2^53; masks of the process p are drawn from seed + p 2^53. */
const SEED_BITS = 53n;

/**
 * Trains a model: iterate over it, each round is a step.
 *
 * ```ts
 * const trainer = new Trainer(model, { dataset, epochs: 20, mixup: true });
 * for await (const { index, loss } of trainer) console.log(index, loss);
 * ```
 *
 * The same model, data and recipe give the same weights, bit for bit, on any number of threads, and
 * also through {@link Trainer.resume}. After an AbortError the trainer is whole: it can be saved, and
 * iterated again. After any other error of a step it cannot.
 *
 * On a GPU the next step is under way when one is given to the loop, unless an evaluation or a
 * checkpoint is due between them; `stepsInFlight: 1` keeps them apart, for a loop that looks at the
 * model's weights after each step. {@link Trainer.evaluate}, {@link Trainer.save} and leaving the loop
 * wait for it, and an aborted training still gives it.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_DATA`; while iterating also `ERR_PANNS_NAN`,
 *   `ERR_PANNS_IO`, `ERR_PANNS_OUT_OF_MEMORY`, AbortError
 */
export class Trainer extends TypedEmitter<TrainerEvents> implements AsyncIterable<TrainingStep> {
  readonly model: Model;
  readonly recipe: Recipe;
  /** Steps that train on as many examples as the data set has clips. */
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
  readonly #options: TrainingOptions;
  readonly #schedule: Schedule;
  readonly #processes: Processes;
  readonly #plan: TrainingPlan;
  readonly #data: TrainingData;
  #restored: OpenCheckpoint | undefined;
  #starting: Promise<NativeSession> | undefined;
  #session: NativeSession | undefined;
  #batches: BatchesAhead | undefined;
  /** Where the loader stands, of whose batches one may be here ahead of its step. */
  #loaderState: LoaderState | undefined;
  /** The batch whose clips the device has already. */
  #staged: Batch | undefined;
  /** Steps that have begun and were not given out yet, in order; those up to `#step` are done. */
  #flights: Flight[] = [];
  /** When the step before was done. */
  #lastDone = 0;
  #step = 0;
  #evaluatedStep = 0;
  #savedStep = 0;
  #best: Best | undefined;
  #running = false;
  #failure: unknown;

  constructor(model: Model, options: TrainerOptions) {
    super();
    checkRecipeNames(options, 'Trainer', trainingOptionNames);
    const {
      dataset,
      loader,
      validation,
      decode,
      cache,
      checkpoint,
      signal,
      distributed,
      features,
      stepsInFlight,
      ...own
    } = options;
    const data = { dataset, loader, validation, decode, cache, features };
    this.#options = { ...data, checkpoint, signal, distributed, stepsInFlight };
    this.#processes = distributed ?? alone;
    this.model = model;
    this.#plan = planTraining(model, own);
    this.recipe = this.#plan.recipe;
    this.stepsPerEpoch = checkTraining(model, this.recipe, this.#options);
    const { epochs = 1, steps } = this.recipe;
    this.totalSteps = steps ?? Math.max(1, Math.round(epochs * this.stepsPerEpoch));
    this.#schedule = recipeSchedule(this.recipe, this.totalSteps);
    this.#data = createTrainingData(model, this.#plan, this.#options, (done, total) =>
      this.emit('features', done, total),
    );
  }

  /**
   * Goes on from the newest checkpoint in a folder, exactly as if the training had never stopped.
   *
   * The model and the recipe come from the checkpoint, the data from `options`; recipe options given
   * here take the place of the stored ones; `model` is the row of a network of one's own. The trainer's `model` is the caller's to dispose of.
   *
   * @throws PannsError `ERR_PANNS_CHECKPOINT` when there is no whole checkpoint, or the data set is
   *   another one; and as the constructor and {@link createModel}
   */
  static async resume(
    folder: string,
    options: TrainerOptions & LoadModelOptions,
  ): Promise<Trainer> {
    const { device, threads, gpu, precision, model: row, ...rest } = options;
    const latest = await openLatest(folder);
    try {
      const model = await readModel(latest.file, latest.path, {
        ...{ device, threads, gpu, precision },
        model: row,
      });
      let trainer: Trainer | undefined;
      try {
        const stored = recipeOptions(latest.state.recipe);
        // A length given now takes the place of one given then, also in the other unit.
        if (rest.epochs !== undefined) stored.steps = undefined;
        if (rest.steps !== undefined) stored.epochs = undefined;
        trainer = new Trainer(model, { ...stored, checkpoint: { folder }, ...rest });
        trainer.#restored = latest;
        await trainer.#start();
        return trainer;
      } catch (error) {
        trainer?.dispose();
        model.dispose();
        throw error;
      }
    } finally {
      await latest.file.close();
    }
  }

  /** Steps done. */
  get step(): number {
    return this.#step;
  }

  /** The best evaluation so far. */
  get best(): Best | undefined {
    return this.#best;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TrainingStep, void, undefined> {
    if (this.#running) {
      const what = 'this trainer is being iterated already';
      throw new PannsError('ERR_PANNS_BUSY', what, { where: 'Trainer' });
    }
    this.#running = true;
    try {
      const session = await this.#start();
      // What an abort had left undone after the last step.
      if (this.#flights.length === 0) await this.#afterStep();
      for (;;) {
        await this.#beginSteps(session);
        const [first] = this.#flights;
        if (first === undefined) return;
        const done = await this.#finish(session, first);
        this.#flights.shift();
        this.emit('step', done);
        yield { ...done, ...(await this.#afterStep()) };
      }
    } finally {
      // After it the model is that of `step`. What fails here is told when the trainer is used again.
      await this.#drain().catch(() => undefined);
      this.#running = false;
    }
  }

  /**
   * Evaluates the model as it is, on the validation set or another.
   *
   * @throws PannsError `ERR_PANNS_OPTION` without a data set; and as {@link evaluate}
   */
  async evaluate(dataset?: Dataset): Promise<Evaluation> {
    await this.#drain();
    return this.#data.evaluate(dataset);
  }

  /**
   * Writes a checkpoint now, into the folder of the `checkpoint` option; returns its path. With
   * `distributed`, every process calls it, and the first writes.
   *
   * @throws PannsError `ERR_PANNS_OPTION` without that option; `ERR_PANNS_NAN`, and the error of a
   *   failed step, so that no damaged state is stored; `ERR_PANNS_IO`
   */
  async save(): Promise<string> {
    const { checkpoint } = this.#options;
    if (checkpoint === undefined) {
      const what = 'expected the option checkpoint: { folder }';
      throw new PannsError('ERR_PANNS_OPTION', what, { where: 'Trainer.save' });
    }
    await this.#drain();
    if (this.#failure !== undefined) throw this.#failure;
    const session = await this.#start();
    const { size } = this.#processes;
    const state: TrainingState = {
      version: 1,
      step: this.#step,
      recipe: this.recipe,
      loader: this.#loaderState as LoaderState,
      evaluatedStep: this.#evaluatedStep,
      best: this.#best,
      ...(size > 1 && { processes: size }),
    };
    const path = await this.#processes.first(() =>
      writeCheckpoint(checkpoint.folder, this.model, session, state, checkpoint.keep ?? 2),
    );
    this.#savedStep = this.#step;
    this.emit('checkpoint', path, this.#step);
    return path;
  }

  /** Frees the memory of training; the model stays. */
  dispose(): void {
    this.#batches?.close();
    this.#staged = undefined;
    this.#flights = [];
    this.#session?.dispose();
    this.#session = undefined;
    this.#failure ??= new PannsError('ERR_PANNS_DISPOSED', 'this trainer has been disposed of', {
      where: 'Trainer',
    });
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** What training needs, made once; after a failure it can be tried again. */
  async #start(): Promise<NativeSession> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#starting ??= this.#open();
    try {
      return await this.#starting;
    } catch (error) {
      this.#starting = undefined;
      throw error;
    }
  }

  async #open(): Promise<NativeSession> {
    const { addon, native, description } = modelInternals(this.model);
    const restored = this.#restored;
    if (restored === undefined) await this.#processes.first(() => this.#checkFolder());
    else checkProcesses(restored, this.#processes.size);
    if (this.#batches === undefined) {
      const loader = await this.#data.openLoader(restored?.state.loader);
      this.#loaderState = loader.state();
      this.#batches = createBatchesAhead(loader);
      if (this.#failure !== undefined) {
        // Disposed of meanwhile.
        this.#batches.close();
        throw this.#failure;
      }
    }
    const { validation } = this.#options;
    const options = sessionOptions(this.#plan, validation?.clips.length);
    const session = await callNative('Trainer', () =>
      addon.createSession(native, description.spec, options),
    );
    try {
      if (restored !== undefined) {
        await restoreOptimizer(restored, this.model, session);
        const { step, evaluatedStep, best } = restored.state;
        this.#step = this.#savedStep = step;
        this.#evaluatedStep = evaluatedStep;
        this.#best = best;
      }
      await this.#processes.join(session, [
        ...[description.spec, this.recipe, this.totalSteps, this.#step, this.#loaderState],
        ...[this.#options.dataset?.clips.length, this.#options.validation === undefined],
      ]);
      if (this.#failure !== undefined) throw this.#failure; // disposed of meanwhile
    } catch (error) {
      session.dispose();
      throw error;
    }
    this.#restored = undefined;
    this.#session = session;
    return session;
  }

  /** A new training among another's checkpoints would later be resumed from the wrong one. */
  async #checkFolder(): Promise<void> {
    const folder = this.#options.checkpoint?.folder;
    if (folder === undefined || (await listCheckpoints(folder)).length === 0) return;
    throw trainerError(
      `${folder} holds checkpoints of another training: resume that, or choose another folder`,
    );
  }

  /**
   * The batch of the step after this one, where the session brings its clips to the device and the
   * loader has it.
   */
  async #upcoming(
    session: NativeSession,
    index: number,
    { waveform }: Batch,
  ): Promise<Batch<Int16Array> | undefined> {
    if (!session.stages() || index >= this.totalSteps) return undefined;
    const batch = await this.#batches?.peek();
    return batch?.waveform.length === waveform.length && holdsInt16(batch) ? batch : undefined;
  }

  /** The batch of the next step; undefined when the data have come to an end. */
  async #nextBatch(): Promise<Batch | undefined> {
    const processes = this.#processes;
    // First, as a batch that was taken would be missing from a checkpoint.
    await processes.together(async () => {
      throwIfAborted(this.#options.signal);
      return true;
    });
    try {
      return await processes.together(async () => this.#batches?.take());
    } catch (error) {
      // The others have taken theirs.
      if (processes.size > 1) this.#failure = error;
      throw error;
    }
  }

  /** Begins the next step, and those behind it that need not wait: for data, or for what is due. */
  async #beginSteps(session: NativeSession): Promise<void> {
    const depth = Math.min(session.depth(), this.#options.stepsInFlight ?? session.depth());
    for (;;) {
      const last = this.#flights.at(-1)?.index ?? this.#step;
      if (last >= this.totalSteps) return;
      const began = performance.now();
      if (this.#flights.length === 0) {
        const batch = await this.#nextBatch();
        if (batch === undefined) return;
        await this.#begin(session, last + 1, batch, began);
      } else {
        if (this.#flights.length >= depth || this.#options.signal?.aborted) return;
        if (this.#evaluationDue(last) || this.#checkpointDue(last)) return;
        const batch = await this.#batches?.peek();
        if (batch === undefined) return;
        await this.#batches?.take();
        await this.#begin(session, last + 1, batch, began);
      }
    }
  }

  async #begin(session: NativeSession, index: number, batch: Batch, began: number): Promise<void> {
    const { rank } = this.#processes;
    const lr = this.#schedule(index - 1);
    const { waveform, target, lambda } = batch;
    const seed = BigInt(this.recipe.seed) + (BigInt(rank) << SEED_BITS);
    const maxNorm = this.recipe.clipGradNorm;
    const state = { seed, step: index - 1, lr, maxNorm, update: true };
    const next = await this.#upcoming(session, index, batch);
    const clips = this.#staged === batch ? undefined : waveform;
    const begun = callNative(`step ${index}`, () =>
      session.begin(clips, target, lambda, state, next?.waveform),
    );
    // Clips that went up during the step before were read by then. Whoever finishes the step hears of
    // a failure.
    begun.then(() => this.#batches?.release(batch)).catch(() => undefined);
    this.#staged = next;
    this.#flights.push({ index, batch, lr, began, begun });
  }

  /** Waits for a step, of those in flight the first that is not done. */
  #finish(session: NativeSession, flight: Flight): Promise<TrainingStep> {
    flight.done ??= this.#complete(session, flight);
    return flight.done;
  }

  async #complete(session: NativeSession, flight: Flight): Promise<TrainingStep> {
    const { index, batch, lr, began, begun } = flight;
    const ended = callNative(`step ${index}`, () => session.finish());
    try {
      const [{ loss, gradNorm, leftOut }] = await Promise.all([ended, begun]);
      if (!Number.isFinite(gradNorm) && !leftOut) {
        const what = `the gradient's norm became ${gradNorm} at step ${index}`;
        throw new PannsError('ERR_PANNS_NAN', what, { where: 'Trainer' });
      }
      this.#step = index;
      this.#loaderState = batch.stateAfter;
      this.#countBatch();
      const now = performance.now();
      const seconds = (now - Math.max(began, this.#lastDone)) / 1000;
      this.#lastDone = now;
      return {
        index,
        epoch: Math.ceil(index / this.stepsPerEpoch),
        ...{ loss, gradNorm, lr, seconds },
        clipsPerSecond: (this.#processes.size * batch.indices.length) / seconds,
      };
    } catch (error) {
      // The batch is used up and norms may have moved: there is no going on from here.
      this.#failure ??= error;
      // Those behind it have moved nothing, and fail as it did.
      const behind = this.#flights.filter(({ index: other }) => other > index);
      this.#flights = [];
      await Promise.allSettled(behind.map(() => callNative('step', () => session.finish())));
      throw error;
    }
  }

  /** Waits for all steps in flight; they are still to be given out. */
  async #drain(): Promise<void> {
    const session = this.#session;
    if (session === undefined) return;
    for (const flight of [...this.#flights]) await this.#finish(session, flight);
  }

  /** What is due after the step done last, and has not been done yet. */
  async #afterStep(): Promise<{ evaluation?: Evaluation; checkpoint?: string }> {
    const step = this.#step;
    const done: { evaluation?: Evaluation; checkpoint?: string } = {};
    if (this.#evaluationDue(step)) {
      done.evaluation = await this.#processes.first(() => this.evaluate());
      this.#evaluatedStep = step;
      this.#compare(done.evaluation);
      this.emit('evaluate', done.evaluation, step);
    }
    if (this.#checkpointDue(step)) done.checkpoint = await this.save();
    return done;
  }

  #evaluationDue(step: number): boolean {
    const { evaluateEvery = this.stepsPerEpoch } = this.recipe;
    const { validation } = this.#options;
    return (
      validation !== undefined && this.#evaluatedStep !== step && this.#due(step, evaluateEvery)
    );
  }

  #checkpointDue(step: number): boolean {
    const { checkpoint } = this.#options;
    if (checkpoint === undefined || this.#savedStep === step) return false;
    return this.#due(step, checkpoint.every ?? this.stepsPerEpoch);
  }

  #due(step: number, every: number): boolean {
    return step > 0 && (step % every === 0 || step === this.totalSteps);
  }

  #compare({ accuracy, mAP }: Evaluation): void {
    const metric = accuracy === undefined ? 'mAP' : 'accuracy';
    const value = accuracy ?? mAP;
    const better = this.#best === undefined || value > this.#best.value;
    if (better && Number.isFinite(value)) this.#best = { metric, value, step: this.#step };
  }

  /** PyTorch's num_batches_tracked counts the batches that moved a norm's running statistics. */
  #countBatch(): void {
    const { description, counters } = modelInternals(this.model);
    const still = new Set(this.recipe.frozenNorms === 'eval' ? this.#plan.frozen : []);
    for (const { name, role } of description.stateDict) {
      if (role !== 'counter') continue;
      const path = name.slice(0, name.lastIndexOf('.'));
      if (still.has(`${path}.weight`) && still.has(`${path}.bias`)) continue;
      counters.set(name, (counters.get(name) ?? 0n) + 1n);
    }
  }
}
