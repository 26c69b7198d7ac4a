import { checkOptions, PannsError } from '../errors.js';
import { type FileEvent, groupEvents, type Interval, labelsOf, merged } from './event.js';

/** What counts as found, and what mistakes cost. */
export interface PsdsScenario {
  /** A detection is right when at least this share of it lies on events of its class (DTC). */
  readonly detectionTolerance: number;
  /** An event is found when right detections cover at least this share of it (GTC). */
  readonly groundTruthTolerance: number;
  /** A wrong detection is a cross-trigger of another class that covers this share of it (CTTC). */
  readonly crossTriggerTolerance: number;
  /** What a cross-trigger costs beside a false positive, in 0..1 (alpha_CT). */
  readonly crossTriggerCost: number;
  /** What the spread between classes costs, at least 0 (alpha_ST). */
  readonly instabilityCost: number;
  /** The score is over operating points with at most so many false positives an hour (e_max). */
  readonly mostFalsePerHour: number;
}

/** The two scenarios of DCASE's task 4: quick reaction, and telling classes apart. */
export const psdsScenarios: { readonly psds1: PsdsScenario; readonly psds2: PsdsScenario } = {
  psds1: {
    detectionTolerance: 0.7,
    groundTruthTolerance: 0.7,
    crossTriggerTolerance: 0.3,
    crossTriggerCost: 0,
    instabilityCost: 1,
    mostFalsePerHour: 100,
  },
  psds2: {
    detectionTolerance: 0.1,
    groundTruthTolerance: 0.1,
    crossTriggerTolerance: 0.3,
    crossTriggerCost: 0.5,
    instabilityCost: 1,
    mostFalsePerHour: 100,
  },
};

/** What PSDS is computed from. */
export interface PsdsInput {
  /** What really sounds; classes without an event are left out. */
  readonly reference: readonly FileEvent[];
  /** Of every file, in seconds; files without an event count too. */
  readonly durations: ReadonlyMap<string, number>;
  /** What a system finds, once for each of its thresholds. */
  readonly operatingPoints: readonly (readonly FileEvent[])[];
}

/** A polyphonic sound detection score. */
export interface Psds {
  /** In 0..1. */
  readonly value: number;
  /** The area under each class's own curve, in 0..1: their mean is `value` at no instability cost. */
  readonly perClass: readonly { readonly label: string; readonly value: number }[];
}

/** Rates of one class at one operating point. */
interface Rates {
  /** Found events over events. */
  readonly hits: number;
  /** False positives an hour, cross-triggers at their cost included. */
  readonly errors: number;
}

const HOUR = 3600;

/**
 * The polyphonic sound detection score of a system over its operating points: Bilen et al., *A
 * Framework for the Robust Evaluation of Sound Event Detection*, ICASSP 2020, as psds_eval computes
 * it.
 *
 * Events of one class that overlap in a file count as one, where psds_eval refuses them. Detections
 * of classes without reference, or in files without duration, do not count.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_DATA`
 */
export function psds(
  { reference, durations, operatingPoints }: PsdsInput,
  scenario: PsdsScenario = psdsScenarios.psds1,
): Psds {
  checkScenario(scenario);
  const truth = mergedByFile(reference);
  const seconds = [...durations.values()].reduce((sum, own) => sum + own, 0);
  for (const file of truth.keys()) {
    if ((durations.get(file) ?? 0) > 0) continue;
    throw dataError(`expected the duration of ${file}, got ${durations.get(file)}`);
  }
  const classes = labelsOf(reference).filter((label) =>
    [...truth.values()].some((labels) => (labels.get(label) ?? []).length > 0),
  );
  if (classes.length === 0) throw dataError('expected at least one event in the reference');
  if (operatingPoints.length === 0) throw dataError('expected at least one operating point');
  const points = operatingPoints.map((estimated) =>
    ratesAt(estimated, truth, durations, classes, seconds, scenario),
  );
  const curves = classes.map((_, k) => {
    return points.map((rates) => rates[k] ?? { hits: Number.NaN, errors: Number.NaN });
  });
  return area(classes, curves, scenario);
}

type Grouped = Map<string, Map<string, Interval[]>>;

/** Without events of no length; those that overlap are one. */
function mergedByFile(events: readonly FileEvent[]): Grouped {
  const files = groupEvents(events, 'psds');
  for (const labels of files.values()) {
    for (const [label, own] of labels) {
      labels.set(label, merged(own.filter(({ onset, offset }) => offset > onset)));
    }
  }
  return files;
}

function ratesAt(
  estimated: readonly FileEvent[],
  truth: Grouped,
  durations: ReadonlyMap<string, number>,
  classes: readonly string[],
  seconds: number,
  scenario: PsdsScenario,
): Rates[] {
  const guess = mergedByFile(estimated);
  const counts = new Map<string, number>();
  const lengths = new Map<string, number>();
  for (const labels of truth.values()) {
    for (const [label, own] of labels) {
      counts.set(label, (counts.get(label) ?? 0) + own.length);
      const length = own.reduce((sum, { onset, offset }) => sum + (offset - onset), 0);
      lengths.set(label, (lengths.get(label) ?? 0) + length);
    }
  }
  return classes.map((label) => {
    let found = 0;
    let wrong = 0;
    const triggers = new Map<string, number>();
    for (const [file, duration] of durations) {
      const heard = (guess.get(file)?.get(label) ?? []).filter(({ onset }) => onset < duration);
      const real = truth.get(file) ?? new Map<string, Interval[]>();
      const own = real.get(label) ?? [];
      const right = heard.filter((one) => coverage(one, own) >= scenario.detectionTolerance);
      // Touching it is a part of finding an event, also where the tolerances are 0.
      found += own.filter((event) => {
        const covered = coverage(event, right);
        return covered > 0 && covered >= scenario.groundTruthTolerance;
      }).length;
      for (const one of heard) {
        const covered = coverage(one, own);
        if (covered > 0 && covered >= scenario.detectionTolerance) continue;
        wrong++;
        for (const [other, events] of real) {
          const share = other === label ? 0 : coverage(one, events);
          if (share > 0 && share >= scenario.crossTriggerTolerance) {
            triggers.set(other, (triggers.get(other) ?? 0) + 1);
          }
        }
      }
    }
    const others = classes.filter((other) => other !== label);
    const rates = others.map(
      (other) => ((triggers.get(other) ?? 0) * HOUR) / (lengths.get(other) ?? 0),
    );
    const crossed = rates.reduce((sum, rate) => sum + rate, 0) / (others.length || 1);
    return {
      hits: found / (counts.get(label) ?? 0),
      errors: (wrong * HOUR) / seconds + scenario.crossTriggerCost * crossed,
    };
  });
}

/** The share of an interval that lies on others, which do not overlap each other. */
function coverage({ onset, offset }: Interval, others: readonly Interval[]): number {
  let covered = 0;
  for (const other of others) {
    const both = Math.min(offset, other.offset) - Math.max(onset, other.onset);
    if (both > 0) covered += both / (offset - onset);
  }
  return covered;
}

/** Steps: the area under the mean curve less the spread, and under each curve, up to the limit. */
function area(
  classes: readonly string[],
  curves: readonly (readonly Rates[])[],
  { instabilityCost, mostFalsePerHour: most }: PsdsScenario,
): Psds {
  // The curves begin at the operating point that finds nothing.
  const errors = new Set([0, ...curves.flat().map((rates) => rates.errors)]);
  const steps = [...errors].filter((x) => x < most).sort((a, b) => a - b);
  const order = curves.map((curve) => [...curve].sort((a, b) => a.errors - b.errors));
  const next = classes.map(() => 0);
  const height = classes.map(() => 0);
  const areas = classes.map(() => 0);
  let total = 0;
  for (const [i, x] of steps.entries()) {
    const width = (steps[i + 1] ?? most) - x;
    for (const [k, curve] of order.entries()) {
      for (let at = next[k] ?? 0; ; at++) {
        const point = curve[at];
        next[k] = at;
        if (point === undefined || point.errors > x) break;
        height[k] = Math.max(height[k] ?? 0, point.hits);
      }
      areas[k] = (areas[k] ?? 0) + width * (height[k] ?? 0);
    }
    const mean = height.reduce((sum, y) => sum + y, 0) / height.length;
    const variance = height.reduce((sum, y) => sum + (y - mean) ** 2, 0) / height.length;
    total += width * Math.max(0, mean - instabilityCost * Math.sqrt(variance));
  }
  return {
    value: total / most,
    perClass: classes.map((label, k) => ({ label, value: (areas[k] ?? 0) / most })),
  };
}

function checkScenario(scenario: PsdsScenario): void {
  const names = Object.keys(psdsScenarios.psds1) as (keyof PsdsScenario)[];
  checkOptions(scenario, names, 'psds');
  for (const name of names) {
    const value = scenario[name];
    const bounded = name !== 'instabilityCost' && name !== 'mostFalsePerHour';
    const least = name === 'mostFalsePerHour' ? Number.MIN_VALUE : 0;
    const valid = Number.isFinite(value) && value >= least && (!bounded || value <= 1);
    if (valid) continue;
    const expected = bounded ? 'a number in 0..1' : 'a number above 0, or 0';
    const what = `expected ${name} to be ${expected}, got ${value}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'psds', expected, actual: value });
  }
}

function dataError(what: string): PannsError {
  return new PannsError('ERR_PANNS_DATA', what, { where: 'psds' });
}
