import type { Dataset } from '../data/dataset.js';
import { readDescription } from '../inference/description.js';
import type { DeviceChoice } from '../inference/device.js';
import { recognise } from '../inference/foreign.js';
import { createModel, type Model } from '../inference/model.js';
import { openWeights } from '../io/weights.js';
import { modelNames } from '../models/index.js';
import type { ProcessGroup } from '../train/distributed.js';
import { longestClipSeconds, singleLabels } from '../train/evaluate.js';
import type { Freeze } from '../train/freeze.js';
import type { RecipeOptions, ScheduleChoice } from '../train/recipe.js';
import { chosenDevice } from './device.js';
import { command, DEFAULTS, MOST_SECONDS, type TrainValues } from './train_command.js';
import { UsageError } from './verb.js';

/** Where the model of a command line is placed; of processes on one machine each takes a GPU. */
export function planDevice(
  values: TrainValues,
  distributed: ProcessGroup | undefined,
): DeviceChoice {
  return { ...chosenDevice(values), gpu: values.gpu ?? distributed?.localRank };
}

/** The model that a command line asks for, and how to make it. */
export interface ModelPlan {
  readonly name: string;
  readonly options: object;
  make(seed: number): Promise<Model>;
}

/** Whether the command line, or else the labels, ask for one class of many. */
function chosenLoss({ loss, head }: TrainValues, dataset: Dataset): 'bce' | 'cross_entropy' {
  if (loss !== undefined) return loss;
  const single = singleLabels(dataset.clips) !== undefined;
  // Heads that score segments give no logits of a clip.
  return single && (head ?? 'clip') === 'clip' ? 'cross_entropy' : 'bce';
}

/** The model of a command line over the classes of a data set. */
export async function planModel(
  values: TrainValues,
  dataset: Dataset,
  distributed?: ProcessGroup,
): Promise<ModelPlan> {
  const { from } = values;
  const device = planDevice(values, distributed);
  const published = from !== undefined && modelNames.includes(from);
  if (published && values.model !== undefined && values.model !== from) {
    throw new UsageError(command, `--model ${values.model} cannot begin with those of ${from}`);
  }
  const name =
    values.model ??
    (from === undefined ? DEFAULTS.model : published ? from : await modelInFile(from));
  const pretrained = published ? (true as const) : from;
  const widths = values['classifier-layers']?.map((text) => wholeNumber('classifier-layers', text));
  const options = {
    classes: dataset.classes,
    sampleRate: values['sample-rate'],
    melBins: values['mel-bins'],
    head: values.head,
    dropout: values.dropout,
    specAugment: values['no-augment'] ? false : undefined,
    classifierLayers: widths,
    activation: chosenLoss(values, dataset) === 'bce' ? 'sigmoid' : 'softmax',
    ...(pretrained !== undefined && { pretrained }),
  } as const;
  return { name, options, make: (seed) => createModel(name, { ...options, ...device, seed }) };
}

/** The name of the model whose weights a file holds. */
async function modelInFile(path: string): Promise<string> {
  const file = await openWeights(path);
  try {
    return readDescription(file, undefined)?.name ?? (await recognise(file)).row.name;
  } finally {
    await file.close();
  }
}

/** The recipe of a command line. */
export async function planRecipe(values: TrainValues, dataset: Dataset): Promise<RecipeOptions> {
  const { freeze, seed = 0 } = values;
  const decay = values['weight-decay'] ?? 0;
  const kind = values.schedule ?? DEFAULTS.schedule;
  const schedule: ScheduleChoice = { kind, warmup: values.warmup ?? 0 };
  return {
    loss: chosenLoss(values, dataset),
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
    // Cached features are those of one part.
    crop: values.crop ?? (values['cache-features'] ? 'start' : 'random'),
    seed,
    freeze: freezeChoice(freeze),
    frozenNorms: values['frozen-norms'],
    syncNorms: values['sync-norms'],
    cacheFeatures: values['cache-features'],
    layerDecay: values['layer-decay'],
    lrScale: Object.fromEntries((values['lr-scale'] ?? []).map(factor)),
  };
}

function freezeChoice(freeze = 'none'): Freeze {
  return freeze === 'none' || freeze === 'base' ? freeze : { upTo: freeze };
}

/** `name=0.1` */
function factor(text: string): [string, number] {
  const at = text.lastIndexOf('=');
  const value = Number(text.slice(at + 1));
  if (at > 0 && at < text.length - 1 && !Number.isNaN(value)) return [text.slice(0, at), value];
  throw new UsageError(command, `--lr-scale takes name=factor, got "${text}"`);
}

/** A whole number above 0 of an option's list. */
export function wholeNumber(option: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new UsageError(command, `--${option} takes whole numbers >= 1, got "${text}"`);
}
