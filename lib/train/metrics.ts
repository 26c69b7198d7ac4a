import { PannsError } from '../errors.js';
import { inverseNormal } from './normal.js';

/** Scores of one class for n clips; any numbers, higher for more likely. */
export type Scores = ArrayLike<number>;

/** The truth for the same clips: above 0 where the class is present. */
export type Truth = ArrayLike<number>;

/** Multi-label results over N clips and K classes. */
export interface TaggingMetrics {
  /** Mean of `averagePrecision` over the classes that have it; NaN when none has. */
  readonly mAP: number;
  /** Mean of `auc` over the classes that have it; NaN when none has. */
  readonly mAUC: number;
  /** Of the mean AUC, as PANNs prints it. */
  readonly dPrime: number;
  /** (K): NaN for a class without a positive clip. */
  readonly averagePrecision: Float64Array;
  /** (K): NaN for a class without a positive or without a negative clip. */
  readonly auc: Float64Array;
  /** How many classes `mAP` is over. */
  readonly classesWithAveragePrecision: number;
  /** How many classes `mAUC` is over. */
  readonly classesWithAuc: number;
}

/**
 * Average precision: the sum over thresholds of (R_n - R_(n-1)) P_n, without interpolation.
 *
 * Equal scores are one threshold, so the order of the clips does not matter. NaN when no clip is
 * positive. Agrees with average_precision_score of scikit-learn.
 *
 * @throws PannsError `ERR_PANNS_SHAPE` for unequal lengths, `ERR_PANNS_NAN` for a NaN score
 */
export function averagePrecision(scores: Scores, truth: Truth): number {
  return rank(scores, truth).averagePrecision;
}

/**
 * Area under the ROC curve: how likely a positive clip scores above a negative one, ties as half.
 *
 * NaN when no clip is positive or none is negative. Agrees with roc_auc_score of scikit-learn.
 *
 * @throws PannsError `ERR_PANNS_SHAPE` for unequal lengths, `ERR_PANNS_NAN` for a NaN score
 */
export function rocAuc(scores: Scores, truth: Truth): number {
  return rank(scores, truth).auc;
}

/** The separation d' = sqrt(2) z(AUC) of two unit normal distributions; infinite for an AUC of 1. */
export function dPrime(auc: number): number {
  return Math.SQRT2 * inverseNormal(auc);
}

/** Scores that are ranked without a pause: about a millisecond. */
const RANKED_AT_ONCE = 8192;

/**
 * mAP, mean AUC and d' of `scores` (N, K) against `truth` (N, K), both row-major, `classes` = K. The
 * event loop turns between classes.
 *
 * Classes that lack positives (for AUC, also negatives) are left out of the means and counted.
 *
 * @throws PannsError `ERR_PANNS_SHAPE`, `ERR_PANNS_NAN`
 */
export async function taggingMetrics(
  scores: Scores,
  truth: Truth,
  classes: number,
): Promise<TaggingMetrics> {
  const clips = rowCount(scores, truth, classes, 'taggingMetrics');
  const precisions = new Float64Array(classes);
  const aucs = new Float64Array(classes);
  const ownScores = new Float64Array(clips);
  const ownTruth = new Uint8Array(clips);
  let ranked = 0;
  for (let k = 0; k < classes; k++) {
    if (ranked >= RANKED_AT_ONCE) {
      await new Promise(setImmediate);
      ranked = 0;
    }
    for (let n = 0; n < clips; n++) {
      ownScores[n] = scores[n * classes + k] ?? Number.NaN;
      ownTruth[n] = (truth[n * classes + k] ?? 0) > 0 ? 1 : 0;
    }
    const result = rank(ownScores, ownTruth);
    precisions[k] = result.averagePrecision;
    aucs[k] = result.auc;
    ranked += clips;
  }
  const meanPrecision = meanOfNumbers(precisions);
  const meanAuc = meanOfNumbers(aucs);
  return {
    mAP: meanPrecision.mean,
    mAUC: meanAuc.mean,
    dPrime: dPrime(meanAuc.mean),
    averagePrecision: precisions,
    auc: aucs,
    classesWithAveragePrecision: meanPrecision.count,
    classesWithAuc: meanAuc.count,
  };
}

/** The class with the highest score in each row of `scores` (N, K); the first among equals. */
export function argmaxRows(scores: Scores, classes: number): Int32Array {
  const rows = rowCount(scores, scores, classes, 'argmaxRows');
  const best = new Int32Array(rows);
  for (let n = 0; n < rows; n++) {
    let top = 0;
    for (let k = 0; k < classes; k++) {
      const score = scores[n * classes + k] ?? Number.NaN;
      if (Number.isNaN(score)) throw nanScore(n * classes + k);
      if (score > (scores[n * classes + top] ?? 0)) top = k;
    }
    best[n] = top;
  }
  return best;
}

/**
 * The share of rows of `scores` (N, K) whose highest score is at `labels` (N), in 0..1.
 *
 * @throws PannsError `ERR_PANNS_SHAPE`, `ERR_PANNS_NAN`
 */
export function accuracy(scores: Scores, labels: ArrayLike<number>, classes: number): number {
  const matrix = confusionMatrix(scores, labels, classes);
  let right = 0;
  for (let k = 0; k < classes; k++) right += matrix[k * classes + k] ?? 0;
  return right / labels.length;
}

/**
 * Counts (K, K), row-major: row the true class, column the class with the highest score.
 *
 * @throws PannsError `ERR_PANNS_SHAPE` for unequal lengths, no rows, or a label outside 0..K-1;
 *   `ERR_PANNS_NAN`
 */
export function confusionMatrix(
  scores: Scores,
  labels: ArrayLike<number>,
  classes: number,
): Uint32Array {
  const predicted = argmaxRows(scores, classes);
  if (predicted.length !== labels.length || labels.length === 0) {
    throw shapeError('confusionMatrix', `${predicted.length} labels, at least one`, labels.length);
  }
  const matrix = new Uint32Array(classes * classes);
  for (let n = 0; n < labels.length; n++) {
    const label = labels[n] ?? -1;
    if (!(Number.isInteger(label) && label >= 0 && label < classes)) {
      throw shapeError('confusionMatrix', `labels in 0..${classes - 1}`, label);
    }
    const at = label * classes + (predicted[n] ?? 0);
    matrix[at] = (matrix[at] ?? 0) + 1;
  }
  return matrix;
}

/**
 * Average precision and AUC in one walk over the scores from the highest down.
 *
 * Positives and negatives are sorted apart, as plain numbers: equal scores, which are the one thing
 * an order must not decide, meet again in the merge.
 */
function rank(scores: Scores, truth: Truth): { averagePrecision: number; auc: number } {
  if (scores.length !== truth.length) throw shapeError('metrics', scores.length, truth.length);
  const positives = new Float64Array(scores.length);
  const negatives = new Float64Array(scores.length);
  let p = 0;
  let q = 0;
  for (let i = 0; i < scores.length; i++) {
    const score = scores[i] ?? Number.NaN;
    if (Number.isNaN(score)) throw nanScore(i);
    if ((truth[i] ?? 0) > 0) positives[p++] = score;
    else negatives[q++] = score;
  }
  const high = positives.subarray(0, p).sort();
  const low = negatives.subarray(0, q).sort();
  let precisionSum = 0;
  let wins = 0;
  let i = p;
  let j = q;
  while (i > 0 || j > 0) {
    const threshold = Math.max(
      i > 0 ? (high[i - 1] ?? 0) : Number.NEGATIVE_INFINITY,
      j > 0 ? (low[j - 1] ?? 0) : Number.NEGATIVE_INFINITY,
    );
    const above = p - i;
    const hits = i;
    const misses = j;
    while (i > 0 && high[i - 1] === threshold) i--;
    while (j > 0 && low[j - 1] === threshold) j--;
    const newHits = hits - i;
    precisionSum += newHits * ((p - i) / (p - i + q - j));
    wins += (misses - j) * (above + newHits / 2);
  }
  return { averagePrecision: precisionSum / p, auc: wins / (p * q) };
}

function meanOfNumbers(values: Float64Array): { mean: number; count: number } {
  const numbers = values.filter((value) => !Number.isNaN(value));
  return {
    mean: numbers.reduce((sum, value) => sum + value, 0) / numbers.length,
    count: numbers.length,
  };
}

function rowCount(scores: Scores, truth: Truth, classes: number, where: string): number {
  const whole = Number.isInteger(classes) && classes >= 1 && scores.length % classes === 0;
  if (!whole) throw shapeError(where, `a multiple of ${classes} scores`, scores.length);
  if (scores.length !== truth.length) throw shapeError(where, scores.length, truth.length);
  return scores.length / classes;
}

function shapeError(where: string, expected: unknown, actual: unknown): PannsError {
  const what = `expected ${expected}, got ${actual}`;
  return new PannsError('ERR_PANNS_SHAPE', what, { where, expected, actual });
}

function nanScore(at: number): PannsError {
  return new PannsError('ERR_PANNS_NAN', `score ${at} is NaN`, { where: 'metrics' });
}
