// Part of a proof: a training beside PyTorch's, on the same card and in the same precision, from the
// same weights, with the same clips, batches and mixup.
//
// Gradients of first steps are compared with PyTorch's in float64. Losses part in any two trainings
// that round otherwise: ours must stay as near to PyTorch's as PyTorch's own reruns do (curve_torch.py)
// within each stretch of steps.
import { randomInt } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openWorker } from './processes.mjs';

const here = dirname(fileURLToPath(import.meta.url));

/**
 * Least cosine between our gradient and the one in float64, unless PyTorch's own is less. Of some
 * batches the one in the middle, as in a batch of few clips one ReLU that goes the other way may
 * turn the gradient by 1e-2.
 */
const COSINE = { fp32: 1 - 1e-6, bf16: 0.995, fp16: 0.9995 };
/**
 * Our error over PyTorch's own, in 16 bits, where thousands of roundings make it. In fp32 it hangs on
 * single ReLUs, on either side.
 */
const MOST_OF_TORCH = 1.2;
/** How far the loss of the first step may be from PyTorch's, relatively: nothing has parted yet. */
const FIRST_LOSS = { fp32: 1e-5, bf16: 1e-2, fp16: 2e-3 };
/** Differences may be so many times the spread of PyTorch's runs, the largest less the least. */
const MOST_OF_SPREAD = 2;
/**
 * Of the loss: a spread that counts at least, as one ReLU, which Adam's first steps make the most of,
 * may part one run from all others that early.
 */
const LEAST_SPREAD = 1e-2;
/** Of steps that are judged together: neighbours part together, and runs meet by chance. */
const STRETCH = 50;
const RERUNS = 3;

/** Small clips in a network of one convolution a block; then the whole, as it is trained. */
const CNN6 = { model: 'Cnn6', batch: 8, samples: 32000, steps: 300, gradientSteps: 5 };
const CNN14 = { model: 'Cnn14', batch: 8, samples: 320000, steps: 300, gradientSteps: 3 };
const REHEARSED = { model: 'Cnn6', batch: 2, samples: 8000, steps: 4, gradientSteps: 3 };
/** The paper's rate; 64 clips are drawn again and again, and are learned. */
const COMMON = { classes: 16, clips: 64, lr: 1e-3 };

const rms = (values) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
/** NaN where one is. */
const median = (values) =>
  values.some(Number.isNaN) ? Number.NaN : values.toSorted((a, b) => a - b)[values.length >> 1];
const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
const short = (x) => (Number.isFinite(x) ? Number(x.toPrecision(6)) : null);

/** Of rows of errors and cosines, ours and PyTorch's, over some batches; null is not finite. */
export function judgeGradients(precision, rows) {
  const of = (side) => ({
    cosine: median(rows.map((row) => row[side].cosine ?? Number.NaN)),
    error: median(rows.map((row) => row[side].error ?? Number.NaN)),
  });
  const [own, torch] = [of('own'), of('torch')];
  const near = own.cosine >= COSINE[precision] || own.cosine >= torch.cosine;
  const asGood =
    precision === 'fp32' ? Number.isFinite(own.error) : own.error <= MOST_OF_TORCH * torch.error;
  return { ok: near && asGood, own, torch };
}

/** Of our losses beside those of PyTorch's runs, the first of which is no rerun. */
export function judgeLosses(precision, own, runs) {
  const steps = own.length;
  const whole = [own, ...runs].every(
    (losses) => losses.length === steps && losses.every(Number.isFinite),
  );
  if (!whole || steps === 0) return { ok: false, message: 'losses that are missing or not finite' };
  const apart = Math.abs(own[0] - runs[0][0]) / runs[0][0];
  const stretches = [];
  for (let from = 0; from < steps; from += STRETCH) {
    const rows = own.slice(from, from + STRETCH).map((loss, i) => {
      const theirs = runs.map((losses) => losses[from + i]);
      const middle = mean(theirs);
      const range = Math.max(...theirs) - Math.min(...theirs);
      return { difference: loss - middle, range, least: LEAST_SPREAD * middle };
    });
    const difference = rms(rows.map((row) => row.difference));
    const spread = rms(rows.map((row) => row.range));
    const allowed = MOST_OF_SPREAD * Math.max(spread, rms(rows.map((row) => row.least)));
    stretches.push({ from, difference, spread, ok: difference <= allowed });
  }
  const ok = apart <= FIRST_LOSS[precision] && stretches.every((stretch) => stretch.ok);
  return { ok, first: apart, stretches };
}

function casesOf({ rehearse, cnn14 }) {
  // The CPU computes in float alone.
  if (rehearse) return [{ ...COMMON, ...REHEARSED, precision: 'fp32' }];
  return [CNN6, ...(cnn14 ? [CNN14] : [])].flatMap((network) =>
    ['fp32', 'bf16', 'fp16'].map((precision) => ({ ...COMMON, ...network, precision })),
  );
}

async function prove(one, sides, secondsLeft) {
  const { answer: [own] = [], ...first } = await sides.own.ask(one, secondsLeft());
  if (own === undefined) return first;
  if (!own.ok) return { failure: own.message };
  const { answer: torch, ...second } = await sides.torch.ask(one, secondsLeft());
  if (torch === undefined) return { ...second, failure: `PyTorch: ${second.failure}` };
  const gradients = judgeGradients(one.precision, torch.gradients);
  const losses = judgeLosses(one.precision, own.losses, torch.losses);
  return {
    ok: gradients.ok && losses.ok,
    gradients,
    losses,
    curves: { own: own.losses.map(short), torch: torch.losses.map((run) => run.map(short)) },
    leftOut: { own: own.leftOut, torch: torch.leftOut },
    seconds: { own: short(own.seconds), torch: short(torch.seconds) },
  };
}

/**
 * All cases until the deadline (performance.now()), or `leftOut`: why PyTorch takes no part. `note` is
 * called with what there is after each.
 */
export async function proveCurve(options, deadline, note) {
  const { package: folder, rehearse, python } = options;
  const secondsLeft = () => Math.max(1, (deadline - performance.now()) / 1000);
  const device = rehearse ? 'cpu' : 'cuda';
  const env = rehearse ? { PANNS_REHEARSAL: '1' } : {};
  const sides = {
    own: openWorker(process.execPath, [join(here, 'curve_own.mjs'), folder], { env }),
    torch: openWorker(python, [join(here, 'curve_torch.py')]),
  };
  const files = mkdtempSync(join(tmpdir(), 'panns-curve-'));
  // A test's own, so that the same sources draw the same numbers everywhere.
  const seed = Number(process.env.PANNS_TEST_SEED ?? randomInt(2 ** 31));
  const found = { seed, results: [], notReached: 0, passed: 0 };
  try {
    const { answer, failure } = await sides.torch.ask({ do: 'hello', device }, secondsLeft());
    const missing = answer === undefined ? `${python}: ${failure}` : answer.missing;
    if (missing !== null) {
      console.log(`curve: left out, as PyTorch takes no part: ${missing}`);
      return { leftOut: missing };
    }
    found.torch = answer.torch;
    const cases = casesOf(options);
    found.notReached = cases.length;
    for (const { model, precision, ...rest } of cases) {
      if (performance.now() > deadline) break;
      const paths = {
        start: join(files, `${model}.safetensors`),
        gradients: join(files, 'gradients.safetensors'),
      };
      const reruns = Array.from({ length: RERUNS }, (_, i) => found.seed + i);
      const one = { do: 'curve', model, precision, ...rest, ...paths, reruns, device };
      const result = await prove({ ...one, seed: found.seed }, sides, secondsLeft);
      if (result.late) break;
      const { failure: message, ...judged } = result;
      const row = { model, precision, ok: false, ...judged, ...(message && { message }) };
      found.results.push(row);
      found.notReached--;
      found.passed += row.ok ? 1 : 0;
      note(found);
      const { curves, ...summary } = row;
      console.log(row.ok ? 'curve' : 'FAILED', JSON.stringify(summary));
    }
  } finally {
    sides.own.kill();
    sides.torch.kill();
    rmSync(files, { recursive: true, force: true });
  }
  const { passed, results, notReached } = found;
  console.log(`curve: ${passed} of ${results.length} hold, ${notReached} were not reached`);
  return found;
}
