import { type Clip, type Dataset, requireClasses } from '../data/dataset.js';
import { clipLengths } from '../data/lengths.js';
import { createBatchLoader, wholeBatch } from '../data/loader.js';
import type { ClipReader, Decode } from '../data/reader.js';
import { checkPackedLength } from '../data/reader.js';
import { sequentialSampler } from '../data/sampler.js';
import { checkOptions, optionCheck, PannsError, throwIfAborted } from '../errors.js';
import type { Model } from '../inference/model.js';
import { accuracy, taggingMetrics } from './metrics.js';

/** Options of {@link evaluate}. */
export interface EvaluateOptions {
  /** Longer clips are cut, shorter ones padded; default 10. */
  clipSeconds?: number | undefined;
  /** Default 16. */
  batchSize?: number | undefined;
  /** Reads clips; default audio files. */
  decode?: Decode | ClipReader | undefined;
  /** Default that of the model's activation. */
  loss?: 'bce' | 'cross_entropy' | undefined;
  /** Called with the number of clips done. */
  onProgress?: ((done: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** How well one class is recognised. */
export interface ClassResult {
  readonly label: string;
  /** How many clips have it. */
  readonly clips: number;
  /** NaN without clips. */
  readonly averagePrecision: number;
  /** NaN without clips, or when all have it. */
  readonly auc: number;
}

/** Results over N clips; NaN where there is nothing to average. */
export interface Evaluation {
  readonly clips: number;
  readonly loss: number;
  readonly mAP: number;
  readonly mAUC: number;
  readonly dPrime: number;
  /** The share of clips whose highest score is their label's; undefined for multi-label data. */
  readonly accuracy: number | undefined;
  readonly perClass: readonly ClassResult[];
  /** (N, K), row-major, in the order of the data set. */
  readonly scores: Float32Array;
}

const check = optionCheck('evaluate');

const OPTION_NAMES: readonly (keyof EvaluateOptions)[] = [
  ...(['clipSeconds', 'batchSize', 'decode', 'loss', 'onProgress', 'signal'] as const),
];

/**
 * Scores every clip of a data set and compares with its labels.
 *
 * @throws PannsError `ERR_PANNS_DATA` for other classes than the model's or clips that cannot be
 *   decoded, `ERR_PANNS_OPTION`, `ERR_PANNS_DISPOSED`; AbortError
 */
export async function evaluate(
  model: Model,
  dataset: Dataset,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  checkOptions(options, OPTION_NAMES, 'evaluate');
  const { clipSeconds = 10, batchSize = 16, decode, onProgress, signal } = options;
  const { activation } = model.config;
  const loss = options.loss ?? (activation === 'sigmoid' ? 'bce' : 'cross_entropy');
  check('clipSeconds', clipSeconds, clipSeconds > 0 && clipSeconds <= 3600, 'a number in 0..3600');
  const whole = Number.isSafeInteger(batchSize) && batchSize >= 1;
  check('batchSize', batchSize, whole, 'a whole number >= 1');
  check('loss', loss, loss === 'bce' || loss === 'cross_entropy', '"bce" or "cross_entropy"');
  checkClasses(model, dataset);
  checkPackedLength(dataset.clips, clipSeconds);
  const classes = model.classCount;
  const clips = dataset.clips.length;
  const results = collectResults(dataset, loss);
  const samples = clipSamples(model, clipSeconds);
  const loader = createBatchLoader({
    ...{ clips: dataset.clips, classes, samplesPerClip: samples, decode },
    batchSize: Math.min(batchSize, clips),
    sampleRate: model.sampleRate,
    sampler: sequentialSampler(clips),
    // Every clip is read once.
    cache: 'none',
  });
  try {
    for await (const batch of loader) {
      throwIfAborted(signal);
      // One size for all batches, so that the core compiles once.
      const rows = wholeBatch(batch);
      const { clipwise_output, logits } = await model.infer(rows, {
        batch: rows.length / samples,
        outputs: scoreOutputs(loss),
        ...(signal && { signal }),
      });
      loader.release?.(batch);
      const done = results.add(batch.indices.length, clipwise_output.data, logits?.data);
      onProgress?.(done);
    }
  } finally {
    loader.close();
  }
  return results.finish();
}

/** What scoring asks of a model: heads for segments have no logits of a clip, and train with bce. */
export function scoreOutputs(loss: 'bce' | 'cross_entropy'): ('clipwise_output' | 'logits')[] {
  return loss === 'bce' ? ['clipwise_output'] : ['clipwise_output', 'logits'];
}

/** Gathers the scores of a data set's clips as they come, in its order. */
export interface ResultCollector {
  /** Rows (N, K) of the next `count` clips, and maybe more; returns how many clips are done. */
  add(count: number, scores: Float32Array, logits: Float32Array | undefined): number;
  finish(): Promise<Evaluation>;
}

export function collectResults(dataset: Dataset, loss: 'bce' | 'cross_entropy'): ResultCollector {
  const classes = dataset.classes.length;
  const clips = dataset.clips.length;
  const scores = new Float32Array(clips * classes);
  const truth = new Float32Array(clips * classes);
  for (const [i, { labels }] of dataset.clips.entries()) {
    for (const label of labels) truth[i * classes + label] = 1;
  }
  let done = 0;
  let lossSum = 0;
  return {
    add(count, rows, logits) {
      const [first, last] = [done * classes, (done + count) * classes];
      scores.set(rows.subarray(0, last - first), first);
      const target = truth.subarray(first, last);
      lossSum +=
        loss === 'bce'
          ? binaryLoss(rows, target) / classes
          : categoricalLoss(logits ?? new Float32Array(0), target, classes);
      done += count;
      return done;
    },
    async finish() {
      const metrics = await taggingMetrics(scores, truth, classes);
      const { mAP, mAUC, dPrime } = metrics;
      const labels = singleLabels(dataset.clips);
      const counts = new Uint32Array(classes);
      for (const clip of dataset.clips) {
        for (const label of new Set(clip.labels)) counts[label] = (counts[label] ?? 0) + 1;
      }
      return {
        ...{ clips, loss: lossSum / clips, mAP, mAUC, dPrime, scores },
        accuracy: labels === undefined ? undefined : accuracy(scores, labels, classes),
        perClass: dataset.classes.map((label, k) => ({
          label,
          clips: counts[k] ?? 0,
          averagePrecision: metrics.averagePrecision[k] ?? Number.NaN,
          auc: metrics.auc[k] ?? Number.NaN,
        })),
      };
    },
  };
}

/** S of a clip of that length: never under what the model needs. */
export function clipSamples(model: Model, seconds: number): number {
  return model.lengthFor(Math.round(seconds * model.sampleRate));
}

/**
 * Checks that a data set's classes are the model's; by number alone where it has no names.
 *
 * @throws PannsError `ERR_PANNS_DATA`
 */
export function checkClasses(model: Model, dataset: Dataset): void {
  const { classes, classCount } = model;
  if (typeof classes !== 'number') {
    requireClasses(dataset, classes);
    return;
  }
  if (dataset.classes.length === classCount) return;
  const what = `the model has ${classCount} classes and the data set ${dataset.classes.length}`;
  throw new PannsError('ERR_PANNS_DATA', what, { where: 'classes' });
}

/** The label of each clip, or undefined unless every clip has exactly one. */
export function singleLabels(clips: readonly Clip[]): number[] | undefined {
  const single = clips.every(({ labels }) => labels.length === 1);
  return single ? clips.map(({ labels }) => labels[0] ?? 0) : undefined;
}

/**
 * The length of the longest clip in seconds, rounded up to 10 ms, at most `most`.
 *
 * Files that do not say how long they are count as `most`.
 */
export async function longestClipSeconds(dataset: Dataset, most: number): Promise<number> {
  const lengths = await clipLengths(dataset);
  const longest = lengths.reduce((longest, length) => {
    return Math.max(longest, Number.isNaN(length) ? most : Math.min(length, most));
  }, 0);
  return Math.ceil(longest * 100 - 1e-6) / 100;
}

/** The sum of BCE over all scores; logarithms are clamped at -100, as PyTorch does. */
function binaryLoss(scores: Float32Array, target: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < target.length; i++) {
    const p = scores[i] ?? Number.NaN;
    const t = target[i] ?? 0;
    sum -= t * Math.max(-100, Math.log(p)) + (1 - t) * Math.max(-100, Math.log(1 - p));
  }
  return sum;
}

/** The sum over rows of cross-entropy. */
function categoricalLoss(logits: Float32Array, target: Float32Array, classes: number): number {
  let sum = 0;
  for (let first = 0; first < target.length; first += classes) {
    const row = logits.subarray(first, first + classes);
    const top = row.reduce((most, x) => Math.max(most, x), Number.NEGATIVE_INFINITY);
    const logSum = top + Math.log(row.reduce((total, x) => total + Math.exp(x - top), 0));
    for (let k = 0; k < classes; k++) sum += (target[first + k] ?? 0) * (logSum - (row[k] ?? 0));
  }
  return sum;
}
