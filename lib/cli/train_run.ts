import { resolve } from 'node:path';
import { AbortError } from '../errors.js';
import { Trainer, type TrainingStep } from '../train/trainer.js';
import { chosenColumns, divide, openDataset } from './data.js';
import { formatNumber } from './format.js';
import { createProgress } from './progress.js';
import { scoreLine } from './results.js';
import {
  createRun,
  type EpochRecord,
  type RunConfig,
  type RunFolder,
  readRunConfig,
  reopenRun,
  type Scores,
} from './run_folder.js';
import { command, DEFAULTS, type TrainValues } from './train_command.js';
import { sharedRun, type TrainContext } from './train_distributed.js';
import { planDevice, planModel, planRecipe } from './train_options.js';
import { type Context, UsageError } from './verb.js';
import { packageVersion } from './version.js';

/** A training and the folder that it is kept in. */
export interface Run {
  readonly trainer: Trainer;
  readonly run: RunFolder;
}

/** Trains to the end, into the run folder; returns the last validation. Disposes of the trainer. */
export async function runTraining(
  trainer: Trainer,
  run: RunFolder,
  { json, resume, out }: TrainValues,
  context: Context,
): Promise<Scores | undefined> {
  const { model } = trainer;
  const say = (event: string, fields: object) => {
    if (json) context.print(JSON.stringify({ event, ...fields }));
  };
  const features = trainer.recipe.cacheFeatures
    ? createProgress({
        ...{ label: 'features', unit: 'clips', stream: context.messages, silent: json },
      })
    : undefined;
  trainer.on('features', (done, total) => features?.update(done, `of ${total}`));
  const progress = createProgress({
    label: resume ? 'resumed' : 'training',
    total: trainer.totalSteps,
    unit: 'steps',
    initial: trainer.step,
    stream: context.messages,
    silent: json,
  });
  try {
    say('start', {
      ...{ model: model.name, parameters: model.parameterCount(), classes: model.classes },
      ...{ step: trainer.step, steps: trainer.totalSteps, stepsPerEpoch: trainer.stepsPerEpoch },
      recipe: trainer.recipe,
    });
    const epoch = epochMeans();
    for await (const step of trainer) {
      features?.finish();
      epoch.add(step);
      const { index, loss, lr, clipsPerSecond, checkpoint } = step;
      say('step', { step: index, loss, lr, clipsPerSecond });
      progress.update(index, `epoch ${step.epoch}  loss ${formatNumber(loss)}`);
      if (checkpoint !== undefined) say('checkpoint', { step: index, path: checkpoint });
      const ends = index % trainer.stepsPerEpoch === 0 || index === trainer.totalSteps;
      if (!ends && step.evaluation === undefined) continue;
      const record = epoch.take(step);
      await run.add(record);
      await run.plot();
      say('epoch', record);
      progress.log(recordLine(record));
    }
    progress.finish();
    await run.keep(model);
    const last = run.records.findLast(({ validation }) => validation !== undefined)?.validation;
    const summary = { steps: trainer.step, best: trainer.best, validation: last };
    await run.summarise(summary);
    say('end', { ...summary, modelFile: run.model });
    if (!json) {
      if (last !== undefined) context.print(`validation: ${scoreLine(last)}`);
      context.print(`model: ${run.model}\nmetrics: ${run.metrics}\ncurves: ${run.curves}`);
    }
    return last;
  } catch (error) {
    // Features are not kept: before the first step on them there is nothing to go on from.
    const begun = trainer.step > 0 || !trainer.recipe.cacheFeatures;
    if (error instanceof AbortError && begun) {
      const path = await trainer.save();
      progress.finish('stopped');
      say('stopped', { step: trainer.step, checkpoint: path });
      const hint = `stopped after step ${trainer.step}; go on: panns train --resume --out ${out}\n`;
      if (!json) context.messages.write(hint);
    }
    throw error;
  } finally {
    features?.finish();
    progress.finish();
    trainer.dispose();
    model.dispose();
  }
}

/** A new training in a new run folder. */
export async function beginRun(values: TrainValues, context: TrainContext): Promise<Run> {
  const { signal, distributed, features } = context;
  const { out, seed = 0 } = values;
  if (values.data === undefined) throw new UsageError(command, 'the option --data is missing');
  const data = resolve(values.data);
  const split = {
    trainFolds: values['train-folds'],
    valFolds: values['val-folds'],
    valFraction: values['val-fraction'] ?? DEFAULTS['val-fraction'],
    seed,
  };
  const columns = chosenColumns(values);
  const dataset = await openDataset(data, columns, undefined, { ...context, json: values.json });
  const { training, validation } = divide(dataset, split);
  const { name, options, make } = await planModel(values, dataset, distributed);
  const recipe = await planRecipe(values, dataset);
  const model = await make(seed);
  let trainer: Trainer | undefined;
  try {
    const checkpointEpochs = values['checkpoint-epochs'] ?? DEFAULTS['checkpoint-epochs'];
    trainer = new Trainer(model, {
      ...{ ...recipe, dataset: training, validation, signal, distributed, features },
      checkpoint: checkpointChoice(
        out,
        checkpointEpochs,
        training.clips.length / ((recipe.batchSize ?? 1) * (distributed?.size ?? 1)),
      ),
    });
    const config: RunConfig = {
      version: 1,
      ...{ panns: packageVersion(), node: process.versions.node },
      platform: `${process.platform}-${process.arch}`,
      ...{ data, columns, split, classes: dataset.classes, checkpointEpochs },
      model: { name, options },
      recipe: trainer.recipe,
    };
    const run = await sharedRun(distributed, () => createRun(out, config));
    return { trainer, run };
  } catch (error) {
    trainer?.dispose();
    model.dispose();
    throw error;
  }
}

/** The training of a run folder, from its newest checkpoint on. */
export async function resumeRun(values: TrainValues, context: TrainContext): Promise<Run> {
  const { signal, distributed, features } = context;
  const { out, epochs } = values;
  const config = await readRunConfig(out);
  const dataset = await openDataset(config.data, config.columns, config.classes, {
    ...context,
    json: values.json,
  });
  const { training, validation } = divide(dataset, config.split);
  const { batchSize } = config.recipe as { batchSize: number };
  const trainer = await Trainer.resume(`${out}/checkpoints`, {
    ...{ dataset: training, validation, signal, distributed, features },
    ...planDevice(values, distributed),
    ...(epochs === undefined ? {} : { epochs }),
    checkpoint: checkpointChoice(
      out,
      config.checkpointEpochs,
      training.clips.length / (batchSize * (distributed?.size ?? 1)),
    ),
  });
  try {
    return { trainer, run: await sharedRun(distributed, () => reopenRun(out, trainer.step)) };
  } catch (error) {
    trainer.dispose();
    trainer.model.dispose();
    throw error;
  }
}

function checkpointChoice(out: string, epochs: number, stepsPerEpoch: number) {
  const every = Math.max(1, Math.round(epochs * Math.ceil(stepsPerEpoch)));
  return { folder: `${out}/checkpoints`, every };
}

/** Means over the steps since the last record. */
function epochMeans() {
  let losses = 0;
  let clips = 0;
  let seconds = 0;
  let count = 0;
  return {
    add(step: TrainingStep): void {
      losses += step.loss;
      clips += step.clipsPerSecond * step.seconds;
      seconds += step.seconds;
      count++;
    },
    take({ index, epoch, lr, evaluation }: TrainingStep): EpochRecord {
      const record = {
        step: index,
        epoch,
        loss: losses / count,
        lr,
        clipsPerSecond: clips / seconds,
      };
      losses = clips = seconds = count = 0;
      if (evaluation === undefined) return record;
      const { perClass: _perClass, scores: _scores, ...validation } = evaluation;
      return { ...record, validation };
    },
  };
}

function recordLine({ epoch, loss, clipsPerSecond, validation }: EpochRecord): string {
  const parts = [
    `epoch ${epoch}`,
    `loss ${formatNumber(loss)}`,
    `${formatNumber(clipsPerSecond)} clips/s`,
  ];
  if (validation !== undefined) parts.push(`| ${scoreLine(validation)}`);
  return parts.join('  ');
}
