import { resolve } from 'node:path';
import { AbortError } from '../errors.js';
import { createModel } from '../inference/model.js';
import { modelNames } from '../models/index.js';
import { HEADS } from '../models/options.js';
import { longestClipSeconds, singleLabels } from '../train/evaluate.js';
import type { ScheduleChoice } from '../train/recipe.js';
import { Trainer, type TrainingStep } from '../train/trainer.js';
import type { Values } from './args.js';
import { divide, openDataset } from './data.js';
import { formatNumber } from './format.js';
import { createProgress } from './progress.js';
import { scoreLine } from './results.js';
import {
  createRun,
  type EpochRecord,
  type RunFolder,
  readRunConfig,
  reopenRun,
} from './run_folder.js';
import { type Context, defineVerb, EXIT, UsageError } from './verb.js';
import { packageVersion } from './version.js';

/** Clips are used up to this length unless --seconds says more: that of the published models. */
const MOST_SECONDS = 10;

const DEFAULTS = {
  model: 'Cnn6',
  epochs: 30,
  'batch-size': 32,
  lr: 1e-3,
  schedule: 'cosine',
  'val-fraction': 0.2,
  'checkpoint-epochs': 1,
} as const;

const command = {
  name: 'panns train',
  summary: 'Train a model on labelled clips',
  options: {
    data: {
      type: 'string',
      value: 'path',
      help: 'a folder with one folder a class, or a CSV file',
    },
    out: {
      type: 'string',
      value: 'folder',
      required: true,
      short: 'o',
      help: 'where the run is kept',
    },
    resume: { type: 'boolean', help: 'go on with the run in --out' },
    model: { type: 'string', choices: modelNames, help: `default ${DEFAULTS.model}` },
    'train-folds': { type: 'list', value: '1,2,3', help: 'default all that do not validate' },
    'val-folds': { type: 'list', value: '4', help: 'folds to validate on' },
    'val-fraction': {
      type: 'number',
      min: 0,
      max: 0.9,
      help: `share to validate on where no folds are given; 0 for none; default ${DEFAULTS['val-fraction']}`,
    },
    epochs: { type: 'number', min: 0.001, help: `default ${DEFAULTS.epochs}` },
    'batch-size': { type: 'integer', min: 1, help: `default ${DEFAULTS['batch-size']}` },
    lr: { type: 'number', min: 0, help: `learning rate; default ${DEFAULTS.lr}` },
    schedule: {
      type: 'string',
      choices: ['constant', 'cosine'],
      help: `default ${DEFAULTS.schedule}`,
    },
    warmup: { type: 'integer', min: 0, help: 'steps of rising learning rate; default 0' },
    'weight-decay': { type: 'number', min: 0, help: 'decoupled (AdamW) when above 0; default 0' },
    'clip-norm': { type: 'number', min: 0, help: 'greatest norm of the gradient; default none' },
    mixup: { type: 'boolean', help: 'mix pairs of clips' },
    balanced: { type: 'boolean', help: 'draw every class equally often' },
    loss: {
      type: 'string',
      choices: ['bce', 'cross_entropy'],
      help: 'default cross_entropy where every clip has one label',
    },
    seconds: {
      type: 'number',
      min: 0.01,
      help: `length of a clip; default the longest, at most ${MOST_SECONDS}`,
    },
    head: {
      type: 'string',
      choices: HEADS,
      help: 'max, avg and att score segments, then the clip; default clip',
    },
    'sample-rate': { type: 'integer', min: 1000, help: "in Hz; default the model's" },
    'mel-bins': { type: 'integer', min: 1, help: "default the model's" },
    dropout: { type: 'number', min: 0, max: 0.99, help: "after each block; default the model's" },
    'no-augment': { type: 'boolean', help: 'without SpecAugment' },
    'checkpoint-epochs': { type: 'number', min: 0.001, help: 'between checkpoints; default 1' },
    seed: { type: 'integer', min: 0, help: 'of weights, order and augmentation; default 0' },
    threads: { type: 'integer', min: 0, max: 1024, default: 0, help: '0: one a core' },
    json: { type: 'boolean', help: 'print JSON lines' },
  },
} as const;

type TrainValues = Values<typeof command>;

/** What a run that is resumed may still be told. */
const RESUMABLE = ['out', 'resume', 'epochs', 'threads', 'json'];

/** `panns train`: trains into a run folder, and goes on with one. */
export const train = defineVerb(command, async (values, _, context) => {
  const { json, out } = values;
  const { trainer, run } = values.resume
    ? await resume(values, context)
    : await begin(values, context);
  const { model } = trainer;
  const say = (event: string, fields: object) => {
    if (json) context.print(JSON.stringify({ event, ...fields }));
  };
  const progress = createProgress({
    label: values.resume ? 'resumed' : 'training',
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
    await model.save(run.model);
    const last = run.records.findLast(({ validation }) => validation !== undefined)?.validation;
    const summary = { steps: trainer.step, best: trainer.best, validation: last };
    await run.summarise(summary);
    say('end', { ...summary, modelFile: run.model });
    if (!json) {
      if (last !== undefined) context.print(`validation: ${scoreLine(last)}`);
      context.print(`model: ${run.model}\nmetrics: ${run.metrics}\ncurves: ${run.curves}`);
    }
    return EXIT.ok;
  } catch (error) {
    if (error instanceof AbortError) {
      const path = await trainer.save();
      progress.finish('stopped');
      say('stopped', { step: trainer.step, checkpoint: path });
      const hint = `stopped after step ${trainer.step}; go on: panns train --resume --out ${out}\n`;
      if (!json) context.messages.write(hint);
    }
    throw error;
  } finally {
    progress.finish();
    trainer.dispose();
    model.dispose();
  }
});

async function begin(
  values: TrainValues,
  { signal }: Context,
): Promise<{ trainer: Trainer; run: RunFolder }> {
  if (values.data === undefined) throw new UsageError(command, 'the option --data is missing');
  const { out, loss, threads, seed = 0 } = values;
  const data = resolve(values.data);
  const split = {
    trainFolds: values['train-folds'],
    valFolds: values['val-folds'],
    valFraction: values['val-fraction'] ?? DEFAULTS['val-fraction'],
    seed,
  };
  const dataset = await openDataset(data);
  const { training, validation } = divide(dataset, split);
  const single = singleLabels(dataset.clips) !== undefined;
  // Heads that score segments give no logits of a clip.
  const logits = (values.head ?? 'clip') === 'clip';
  const chosenLoss = loss ?? (single && logits ? 'cross_entropy' : 'bce');
  const name = values.model ?? DEFAULTS.model;
  const architecture = {
    classes: dataset.classes,
    sampleRate: values['sample-rate'],
    melBins: values['mel-bins'],
    head: values.head,
    dropout: values.dropout,
    specAugment: values['no-augment'] ? false : undefined,
    activation: chosenLoss === 'bce' ? 'sigmoid' : 'softmax',
  } as const;
  const model = await createModel(name, { ...architecture, threads, seed });
  try {
    const kind = values.schedule ?? DEFAULTS.schedule;
    const schedule: ScheduleChoice = { kind, warmup: values.warmup ?? 0 };
    const decay = values['weight-decay'] ?? 0;
    const recipe = {
      loss: chosenLoss,
      optimizer: {
        kind: 'adam',
        lr: values.lr ?? DEFAULTS.lr,
        weightDecay: decay,
        decoupled: decay > 0,
      },
      batchSize: values['batch-size'] ?? DEFAULTS['batch-size'],
      epochs: values.epochs ?? DEFAULTS.epochs,
      schedule,
      clipGradNorm: values['clip-norm'] ?? 0,
      mixup: values.mixup,
      sampler: values.balanced ? 'balanced' : 'uniform',
      clipSeconds: values.seconds ?? (await longestClipSeconds(dataset, MOST_SECONDS)),
      seed,
    } as const;
    const checkpointEpochs = values['checkpoint-epochs'] ?? DEFAULTS['checkpoint-epochs'];
    const trainer = new Trainer(model, {
      ...{ ...recipe, dataset: training, validation, signal },
      checkpoint: checkpointChoice(out, checkpointEpochs, training.clips.length / recipe.batchSize),
    });
    const run = await createRun(out, {
      ...{ version: 1, panns: packageVersion(), node: process.versions.node },
      platform: `${process.platform}-${process.arch}`,
      ...{ data, split, classes: dataset.classes, checkpointEpochs },
      model: { name, options: architecture },
      recipe: trainer.recipe,
    });
    return { trainer, run };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

async function resume(
  values: TrainValues,
  { signal }: Context,
): Promise<{ trainer: Trainer; run: RunFolder }> {
  const fixed = Object.entries(values).find(
    ([name, value]) => value !== undefined && value !== false && !RESUMABLE.includes(name),
  );
  if (fixed !== undefined) {
    throw new UsageError(command, `--${fixed[0]} is settled by the run that is resumed`);
  }
  const { out, epochs, threads } = values;
  const config = await readRunConfig(out);
  const dataset = await openDataset(config.data, config.classes);
  const { training, validation } = divide(dataset, config.split);
  const { batchSize } = config.recipe as { batchSize: number };
  const trainer = await Trainer.resume(`${out}/checkpoints`, {
    ...{ dataset: training, validation, signal, threads },
    ...(epochs === undefined ? {} : { epochs }),
    checkpoint: checkpointChoice(out, config.checkpointEpochs, training.clips.length / batchSize),
  });
  return { trainer, run: await reopenRun(out, trainer.step) };
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
