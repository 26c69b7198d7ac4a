import { modelNames } from '../models/index.js';
import { HEADS } from '../models/options.js';
import type { Values } from './args.js';
import { columnOptions } from './data.js';
import { deviceOptions } from './device.js';

/** Clips are used up to this length unless --seconds says more: that of the published models. */
export const MOST_SECONDS = 10;

export const DEFAULTS = {
  model: 'Cnn6',
  epochs: 30,
  'batch-size': 32,
  lr: 1e-3,
  schedule: 'cosine',
  'val-fraction': 0.2,
  'checkpoint-epochs': 1,
} as const;

/** The command line of `panns train`. */
export const command = {
  name: 'panns train',
  summary: 'Train a model on labelled clips',
  options: {
    data: {
      type: 'string',
      value: 'path',
      help: 'a folder with one folder a class, a packed one, a CSV or HDF5 file',
    },
    ...columnOptions,
    out: {
      type: 'string',
      value: 'folder',
      required: true,
      short: 'o',
      help: 'where the run is kept',
    },
    resume: { type: 'boolean', help: 'go on with the run in --out' },
    model: { type: 'string', choices: modelNames, help: `default ${DEFAULTS.model}` },
    from: {
      type: 'string',
      value: 'weights',
      help: 'weights to begin with: a file, or the name of a published model',
    },
    freeze: {
      type: 'string',
      value: 'what',
      help: 'none, base (all but the classifier), or the last layer that does not train; default none',
    },
    'frozen-norms': {
      type: 'string',
      choices: ['eval', 'train'],
      help: 'whether frozen norms keep their statistics or follow the batch; default eval',
    },
    'cache-features': {
      type: 'boolean',
      help: 'compute what the frozen part makes of each clip once',
    },
    'lr-scale': {
      type: 'list',
      value: 'conv_block=0.1',
      help: 'factors of the learning rate by the beginnings of names',
    },
    'layer-decay': {
      type: 'number',
      min: 0,
      max: 1,
      help: 'factor of the learning rate for each layer further from the scores; default 1',
    },
    'classifier-layers': {
      type: 'list',
      value: '512,512',
      help: 'widths of layers before the classifier; default none',
    },
    'train-folds': { type: 'list', value: '1,2,3', help: 'default all that do not validate' },
    'val-folds': { type: 'list', value: '4', help: 'folds to validate on' },
    'val-fraction': {
      type: 'number',
      min: 0,
      max: 0.9,
      help: `share to validate on where no folds are given; 0 for none; default ${DEFAULTS['val-fraction']}`,
    },
    folds: {
      type: 'list',
      value: 'all',
      help: 'cross-validate: a run for each of these folds, or for all, which validates on it',
    },
    shots: {
      type: 'list',
      value: '2,5,10',
      help: 'few-shot curve: train on so many clips of each class, and validate; keeps no models',
    },
    seeds: {
      type: 'integer',
      min: 1,
      help: 'draws of clips and weights for each of --shots; default 5',
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
    crop: {
      type: 'string',
      choices: ['random', 'start'],
      help: 'the part of longer clips: another one each epoch, or the beginning; default random',
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
    ...deviceOptions,
    gpu: {
      ...deviceOptions.gpu,
      help: "which GPU; default 0; with --distributed the process's number on its machine",
    },
    distributed: {
      type: 'boolean',
      help: 'one of several processes, started as mpirun -n 2 panns train ...',
    },
    'sync-norms': {
      type: 'boolean',
      help: 'with --distributed: norms see the rows of all processes',
    },
    json: { type: 'boolean', help: 'print JSON lines' },
  },
} as const;

export type TrainValues = Values<typeof command>;
