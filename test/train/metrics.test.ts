import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createRandom, type Random } from '../../lib/data/random.js';
import {
  accuracy,
  argmaxRows,
  averagePrecision,
  confusionMatrix,
  dPrime,
  rocAuc,
  taggingMetrics,
} from '../../lib/train/metrics.js';
import { inverseNormal } from '../../lib/train/normal.js';
import { freshSeed } from '../data/fresh_seed.js';

const close = (a: number, b: number, tolerance = 1e-12) =>
  a === b ||
  (Number.isNaN(a) && Number.isNaN(b)) ||
  Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(b));

interface Case {
  scores: number[];
  truth: number[];
}

/** Scores with many ties, with few, or with none; both classes present. */
function randomCase(random: Random): Case {
  const n = 2 + random.integer(60);
  const levels = [2, 5, 30, 2 ** 32][random.integer(4)] ?? 2;
  const share = random.uniform();
  const scores = Array.from({ length: n }, () => random.integer(levels) / levels - 0.5);
  const truth = Array.from({ length: n }, () => (random.uniform() < share ? 1 : 0));
  truth[0] = 1;
  truth[1] = 0;
  return { scores, truth };
}

/** By definition: every pair of a positive and a negative, a tie as half. */
function pairwiseAuc({ scores, truth }: Case): number {
  let wins = 0;
  let pairs = 0;
  for (const [i, a] of scores.entries()) {
    for (const [j, b] of scores.entries()) {
      if (!truth[i] || truth[j]) continue;
      pairs++;
      wins += a > b ? 1 : a === b ? 0.5 : 0;
    }
  }
  return wins / pairs;
}

/** By definition: for each threshold, precision and recall of "score >= threshold" counted anew. */
function thresholdPrecision({ scores, truth }: Case): number {
  const positives = truth.filter((x) => x).length;
  let sum = 0;
  let recall = 0;
  for (const threshold of [...new Set(scores)].sort((a, b) => b - a)) {
    const chosen = truth.filter((_, i) => (scores[i] ?? 0) >= threshold);
    const hits = chosen.filter((x) => x).length;
    sum += (hits / positives - recall) * (hits / chosen.length);
    recall = hits / positives;
  }
  return sum;
}

t.test('by hand', async (t) => {
  // Ranked: hit, miss, hit, miss. AP = 1/2 * 1/1 + 1/2 * 2/3; 3 of 4 pairs are in order.
  t.ok(close(averagePrecision([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]), 5 / 6));
  t.equal(rocAuc([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]), 0.75);
  // All tied: one threshold, precision the share of positives.
  t.equal(averagePrecision([3, 3, 3, 3], [1, 0, 0, 0]), 0.25);
  t.equal(rocAuc([3, 3, 3, 3], [1, 0, 0, 0]), 0.5);
  t.equal(averagePrecision([1, 2], [0, 1]), 1);
  t.equal(rocAuc([1, 2], [1, 0]), 0);
  t.equal(rocAuc([-0, 0], [1, 0]), 0.5, 'zeros of both signs are equal');
  t.equal(averagePrecision([Infinity, -Infinity], [0, 1]), 0.5);
  t.ok(Number.isNaN(averagePrecision([1, 2], [0, 0])));
  t.equal(averagePrecision([1, 2], [1, 1]), 1);
  t.ok(Number.isNaN(rocAuc([1, 2], [0, 0])));
  t.ok(Number.isNaN(rocAuc([1, 2], [1, 1])));
  t.equal(dPrime(0.5), 0);
  t.equal(dPrime(1), Infinity);
  t.equal(dPrime(0), -Infinity);
  t.ok(Number.isNaN(dPrime(1.1)));
  // Table I of the paper: AUC .973 goes with d' 2.732 (of the unrounded AUC).
  t.ok(close(dPrime(0.973), 2.7249, 1e-3));
});

t.test('random scores with ties, against the definitions', async (t) => {
  const random = createRandom(freshSeed(t));
  for (let i = 0; i < 500; i++) {
    const item = randomCase(random);
    const order = random.shuffle([...item.scores.keys()]);
    const mixed = {
      scores: order.map((k) => item.scores[k] ?? 0),
      truth: order.map((k) => item.truth[k] ?? 0),
    };
    for (const { scores, truth } of [item, mixed]) {
      const precision = averagePrecision(scores, Uint8Array.from(truth));
      const auc = rocAuc(Float64Array.from(scores), truth);
      if (!close(precision, thresholdPrecision(item))) t.fail(`AP ${precision}`, { item });
      if (!close(auc, pairwiseAuc(item))) t.fail(`AUC ${auc}`, { item });
    }
  }
  t.pass('500 cases');
});

t.test('means are over the classes that have a value, which are counted', async (t) => {
  const random = createRandom(freshSeed(t));
  const [clips, classes] = [40, 6];
  const scores = new Float32Array(clips * classes).map(() => random.integer(10) / 10);
  const truth = new Float32Array(clips * classes).map(() => random.integer(2));
  for (let n = 0; n < clips; n++) {
    truth[n * classes + 2] = 0; // never present
    truth[n * classes + 4] = 1; // always present
  }
  const metrics = await taggingMetrics(scores, truth, classes);
  const column = (values: Float32Array, k: number) =>
    Array.from({ length: clips }, (_, n) => values[n * classes + k] ?? 0);
  const aps: number[] = [];
  const aucs: number[] = [];
  for (let k = 0; k < classes; k++) {
    const own = { scores: column(scores, k), truth: column(truth, k) };
    const wanted = k === 2 ? NaN : thresholdPrecision(own);
    t.ok(close(metrics.averagePrecision[k] ?? 0, wanted), `AP of class ${k}`);
    t.ok(
      close(metrics.auc[k] ?? 0, k === 2 || k === 4 ? NaN : pairwiseAuc(own)),
      `AUC of class ${k}`,
    );
    if (k !== 2) aps.push(wanted);
    if (k !== 2 && k !== 4) aucs.push(pairwiseAuc(own));
  }
  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  t.equal(metrics.classesWithAveragePrecision, 5);
  t.equal(metrics.classesWithAuc, 4);
  t.ok(close(metrics.mAP, mean(aps)));
  t.ok(close(metrics.mAUC, mean(aucs)));
  t.equal(metrics.dPrime, dPrime(metrics.mAUC));
  const empty = await taggingMetrics([0.1, 0.2], [0, 0], 2);
  t.ok(Number.isNaN(empty.mAP) && Number.isNaN(empty.mAUC) && Number.isNaN(empty.dPrime));
  t.equal(empty.classesWithAveragePrecision, 0);
});

t.test('accuracy and confusion', async (t) => {
  const scores = [0.1, 0.7, 0.2, 0.5, 0.5, 0.1, 0, 0.3, 0.4, -1, -2, -3];
  t.same([...argmaxRows(scores, 3)], [1, 0, 2, 0], 'the first among equals');
  t.equal(accuracy(scores, [1, 1, 2, 0], 3), 0.75);
  t.same([...confusionMatrix(scores, [1, 1, 2, 0], 3)], [1, 0, 0, 1, 1, 0, 0, 0, 1]);
});

t.test('wrong shapes, labels and NaN are refused', async (t) => {
  const shape = { code: 'ERR_PANNS_SHAPE' };
  const nan = { code: 'ERR_PANNS_NAN' };
  t.throws(() => averagePrecision([1, 2], [1]), shape);
  t.throws(() => rocAuc([1, NaN], [1, 0]), { ...nan, message: /score 1/ });
  await t.rejects(taggingMetrics([1, 2, 3], [1, 2, 3], 2), shape);
  await t.rejects(taggingMetrics([1, 2], [1, 2, 3, 4], 2), shape);
  await t.rejects(taggingMetrics([1, 2], [1, 2], 0), shape);
  t.throws(() => accuracy([1, 2, 3, 4], [0], 2), shape);
  t.throws(() => accuracy([], [], 2), shape);
  t.throws(() => accuracy([1, 2], [2], 2), shape);
  t.throws(() => accuracy([1, 2], [0.5], 2), shape);
  t.throws(() => argmaxRows([NaN, 2], 2), nan);
  t.throws(() => argmaxRows([1, NaN], 2), nan);
});

t.test('random scores over as many clips as AudioSet evaluates have AUC 1/2', async (t) => {
  const random = createRandom(freshSeed(t));
  const [clips, classes] = [19_000, 20];
  const scores = new Float32Array(clips * classes).map(() => random.uniform());
  const truth = new Uint8Array(clips * classes).map(() => (random.integer(25) ? 0 : 1));
  const { mAUC } = await taggingMetrics(scores, truth, classes);
  // Each class has some 760 positives and an AUC within 0.0105; the mean of 20, within 0.0023.
  t.ok(Math.abs(mAUC - 0.5) < 0.02, `random scores have AUC 1/2: ${mAUC}`);
});

const root = join(import.meta.dirname, '../..');
const own = join(root, '.venv/bin/python');
const python = process.env.PANNS_PYTHON ?? (existsSync(own) ? own : undefined);
t.test(
  'scikit-learn and SciPy agree',
  {
    skip: python === undefined ? 'no Python: set PANNS_PYTHON or make .venv' : false,
  },
  async (t) => {
    const random = createRandom(freshSeed(t));
    const binary = Array.from({ length: 200 }, () => randomCase(random));
    const tails = Array.from({ length: 300 }, () => 2 ** -(1 + 900 * random.uniform()));
    const probabilities = [...tails, ...Array.from({ length: 300 }, random.uniform)];
    const classes = 5;
    const scores = Array.from({ length: 100 * classes }, random.uniform);
    const labels = Array.from({ length: 100 }, () => random.integer(classes));
    const predicted = [...argmaxRows(scores, classes)];
    const request = { binary, probabilities, confusion: { labels, predicted, classes } };
    const child = spawnSync(python ?? '', [join(root, 'test/oracle/metrics.py')], {
      input: JSON.stringify(request),
      encoding: 'utf8',
      maxBuffer: 1e8,
    });
    if (child.status === 3) {
      t.pass('not run', { skip: child.stderr.trim() });
      return;
    }
    t.equal(child.status, 0, child.stderr);
    // SciPy's infinite d' is not JSON.
    const json = child.stdout.replace(/-Infinity/g, '-1e999').replace(/\bInfinity/g, '1e999');
    const wanted = JSON.parse(json) as {
      binary: { averagePrecision: number; auc: number; dPrime: number }[];
      quantiles: number[];
      confusion: number[];
    };
    for (const [i, item] of binary.entries()) {
      const expected = wanted.binary[i];
      const auc = rocAuc(item.scores, item.truth);
      const fits =
        expected !== undefined &&
        close(averagePrecision(item.scores, item.truth), expected.averagePrecision) &&
        close(auc, expected.auc) &&
        close(dPrime(expected.auc), expected.dPrime, 1e-11);
      if (!fits) t.fail(`case ${i}`, { item, expected, auc });
    }
    probabilities.forEach((p, i) => {
      const expected = wanted.quantiles[i] ?? NaN;
      // Near p = 1/2 the value itself goes to 0, so its relative error counts.
      if (Math.abs(inverseNormal(p) - expected) > 4e-15 * Math.abs(expected))
        t.fail(`quantile ${p}`);
    });
    t.same([...confusionMatrix(scores, labels, classes)], wanted.confusion);
  },
);

t.test('the event loop turns while many clips are ranked', async (t) => {
  const random = createRandom(freshSeed(t));
  const [clips, classes] = [10_000, 12];
  const scores = new Float32Array(clips * classes).map(() => random.uniform());
  const truth = scores.map(() => random.integer(2));
  let turns = 0;
  const count = () => {
    turns++;
    immediate = setImmediate(count);
  };
  let immediate = setImmediate(count);
  await taggingMetrics(scores, truth, classes);
  clearImmediate(immediate);
  t.ok(turns >= classes - 1, `${turns} turns between ${classes} classes`);
});
