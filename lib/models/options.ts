import type { LogmelOptions } from '../addon.js';
import { checkOptions, optionCheck } from '../errors.js';
import type { ModelRow } from './row.js';
import type { SpecAugmentOptions } from './tensor.js';

const check = optionCheck('model');

/** What turns logits into `clipwise_output`: scores of each class, of one of them, or nothing. */
export type Activation = 'sigmoid' | 'softmax' | 'logits';

/**
 * What makes scores of features: the head for clips, or a head that scores segments of the time axis
 * first and takes their maximum, mean, or attention-weighted mean as the clip's score.
 */
export type Head = 'clip' | 'max' | 'avg' | 'att';

/** What every model takes; the defaults are those of the published checkpoints. */
export interface ModelOptions {
  /** How many classes, or their names in order; default 527, AudioSet's. */
  classes?: number | readonly string[] | undefined;
  /** In Hz; default 32000. */
  sampleRate?: number | undefined;
  /** In samples, even; default 32 ms. */
  windowSize?: number | undefined;
  /** In samples; default 10 ms. */
  hopSize?: number | undefined;
  /** Default 64. */
  melBins?: number | undefined;
  /** In Hz; default 50. */
  fmin?: number | undefined;
  /** In Hz, at most half the sample rate; default 14000 or that half. */
  fmax?: number | undefined;
  /** Probability after each block, `false` for none; default the paper's. The head's 0.5 stays. */
  dropout?: number | false | undefined;
  /** `false` for none; default stripes of 0..63 frames and 0..melBins/8-1 bins, two of each. */
  specAugment?: boolean | Partial<SpecAugmentOptions> | undefined;
  /** Whether a training step may mix clips, after the front-end (true, the default) or before it. */
  mixup?: boolean | 'waveform' | undefined;
  /** Default `'clip'`; the others add `framewise_output`. */
  head?: Head | undefined;
  /** E, the width of the layer before the classifier; default the paper's. */
  embeddingSize?: number | undefined;
  /**
   * Widths of layers between the embedding and the classifier of the head `'clip'`, each with ReLU and
   * dropout: `fc_hidden1`, `fc_hidden2`, ...; default none. Two make PANNs' Freeze_L3.
   */
  classifierLayers?: readonly number[] | undefined;
  /** Default `'sigmoid'`; the only one for heads that score segments. */
  activation?: Activation | undefined;
}

/** {@link ModelOptions} with every choice made; as JSON it is what a checkpoint stores. */
export interface ModelConfig extends LogmelOptions {
  readonly classes: number;
  readonly dropout: number;
  readonly specAugment: SpecAugmentOptions | false;
  readonly mixup: boolean | 'waveform';
  readonly head: Head;
  readonly embeddingSize: number;
  readonly classifierLayers: readonly number[];
  readonly activation: Activation;
}

/** The names of {@link ModelOptions}. */
export const modelOptionNames: readonly (keyof ModelOptions)[] = [
  ...(['classes', 'sampleRate', 'windowSize', 'hopSize', 'melBins', 'fmin', 'fmax'] as const),
  ...(['dropout', 'specAugment', 'mixup', 'head', 'embeddingSize'] as const),
  ...(['classifierLayers', 'activation'] as const),
];

const ACTIVATIONS: readonly Activation[] = ['sigmoid', 'softmax', 'logits'];
export const HEADS: readonly Head[] = ['clip', 'max', 'avg', 'att'];

/** The front-end at a sample rate: windows of 32 ms every 10 ms, 64 bins of 50..14000 Hz. */
export function logmelDefaults(sampleRate: number): LogmelOptions {
  return {
    sampleRate,
    // The window of 1024 at 32 kHz, kept in time; the transform needs it even.
    windowSize: 2 * Math.round(sampleRate * 0.016),
    hopSize: Math.round(sampleRate * 0.01),
    melBins: 64,
    fmin: 50,
    fmax: Math.min(14000, sampleRate / 2),
  };
}

/** A checkpoint holds the DFT as two (window / 2 + 1, window) tensors: 268 MB at this length. */
const MOST_WINDOW = 8192;

/** What a row says about options. */
type RowOptions = Pick<ModelRow, 'name' | 'defaults' | 'without'>;

/**
 * Fills in the defaults of a model and checks every option.
 *
 * @throws PannsError `ERR_PANNS_OPTION` naming the option and what it may be
 */
export function resolveOptions(
  options: ModelOptions = {},
  row: RowOptions = { name: 'model' },
): ModelConfig {
  checkOptions(options, modelOptionNames, 'model');
  const config = fillIn(options, row);
  const { without = [] } = row;
  if (without.length === 0) return config;
  // The value that such an option has anyway may be given: a stored configuration holds it.
  const usual = fillIn({ ...options, ...Object.fromEntries(without.map((key) => [key])) }, row);
  for (const name of without) {
    const same = JSON.stringify(usual[name]) === JSON.stringify(config[name]);
    check(name, options[name], same, `left out: ${row.name} has no use for it`);
  }
  return config;
}

function fillIn(options: ModelOptions, row: RowOptions): ModelConfig {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const chosen: ModelOptions = { ...row.defaults, ...Object.fromEntries(given) };
  const { classes = 527, dropout = 0.2, mixup = true, activation = 'sigmoid' } = chosen;
  const { head = 'clip', embeddingSize = 512, classifierLayers = [] } = chosen;
  const count = typeof classes === 'number' ? classes : classes.length;
  check('classes', count, isWhole(count, 1), 'a whole number >= 1, or a list of names');
  if (typeof classes !== 'number') {
    const names = new Set(classes);
    const valid = names.size === count && classes.every((name) => typeof name === 'string' && name);
    check('classes', classes, valid, 'names that differ and are not empty');
  }
  const rate = dropout === false ? 0 : dropout;
  check('dropout', dropout, rate >= 0 && rate < 1, 'false or a number in 0..1, 1 excluded');
  const mixes = typeof mixup === 'boolean' || mixup === 'waveform';
  check('mixup', mixup, mixes, 'true, false or "waveform"');
  check('head', head, HEADS.includes(head), `one of ${HEADS.join(', ')}`);
  check('embeddingSize', embeddingSize, isWhole(embeddingSize, 1), 'a whole number >= 1');
  const widths =
    Array.isArray(classifierLayers) && classifierLayers.every((width) => isWhole(width, 1));
  check('classifierLayers', classifierLayers, widths, 'a list of whole numbers >= 1');
  const placed = head === 'clip' || classifierLayers.length === 0;
  check('classifierLayers', classifierLayers, placed, 'empty with a head that scores segments');
  const known = ACTIVATIONS.includes(activation);
  check('activation', activation, known, `one of ${ACTIVATIONS.join(', ')}`);
  const fits = head === 'clip' || activation === 'sigmoid';
  check('activation', activation, fits, `"sigmoid" with the head "${head}"`);
  const logmel = resolveLogmel(chosen);
  const { windowSize } = logmel;
  check('windowSize', windowSize, windowSize <= MOST_WINDOW, `at most ${MOST_WINDOW} samples`);
  return {
    classes: count,
    ...logmel,
    dropout: rate,
    specAugment: resolveSpecAugment(chosen.specAugment ?? true, logmel.melBins),
    mixup,
    head,
    embeddingSize,
    classifierLayers: [...classifierLayers],
    activation,
  };
}

/**
 * The front-end's options with defaults that follow the sample rate.
 *
 * @throws PannsError `ERR_PANNS_OPTION`
 */
export function resolveLogmel(
  options: { [K in keyof LogmelOptions]?: number | undefined },
): LogmelOptions {
  const { sampleRate = 32000 } = options;
  check('sampleRate', sampleRate, isWhole(sampleRate, 1000), 'a whole number of Hz >= 1000');
  const defaults = logmelDefaults(sampleRate);
  const windowSize = options.windowSize ?? defaults.windowSize;
  const even = isWhole(windowSize, 4) && windowSize % 2 === 0;
  check('windowSize', windowSize, even, 'an even number of samples >= 4');
  const hopSize = options.hopSize ?? defaults.hopSize;
  check('hopSize', hopSize, isWhole(hopSize, 1), 'a whole number of samples >= 1');
  const melBins = options.melBins ?? defaults.melBins;
  const most = windowSize / 2 + 1;
  const fits = isWhole(melBins, 1) && melBins <= most;
  check('melBins', melBins, fits, `a whole number in 1..windowSize / 2 + 1 = ${most}`);
  const fmin = options.fmin ?? defaults.fmin;
  const fmax = options.fmax ?? defaults.fmax;
  check(
    'fmax',
    fmax,
    fmax > 0 && fmax <= sampleRate / 2,
    `in 0..sampleRate / 2 = ${sampleRate / 2} Hz`,
  );
  check('fmin', fmin, fmin >= 0 && fmin < fmax, `in 0..fmax = ${fmax} Hz, fmax excluded`);
  return { sampleRate, windowSize, hopSize, melBins, fmin, fmax };
}

function resolveSpecAugment(
  option: boolean | Partial<SpecAugmentOptions>,
  melBins: number,
): SpecAugmentOptions | false {
  if (option === false) return false;
  // PANNs scales the frequency stripes with the bins: 4, 8 and 16 for 32, 64 and 128.
  const defaults = { timeWidth: 64, freqWidth: Math.max(1, Math.round(melBins / 8)) };
  if (option === true) return defaults;
  checkOptions(option, Object.keys(defaults), 'specAugment');
  const chosen = { ...defaults, ...option };
  for (const name of ['timeWidth', 'freqWidth'] as const) {
    check(`specAugment.${name}`, chosen[name], isWhole(chosen[name], 1), 'a whole number >= 1');
  }
  return chosen;
}

function isWhole(value: unknown, least: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= least;
}
