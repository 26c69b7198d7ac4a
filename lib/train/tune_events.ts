import type { StrongDataset } from '../data/strong.js';
import { checkOptions, PannsError, throwIfAborted } from '../errors.js';
import type { EventDetector } from '../inference/detector.js';
import { createEventFinders, type EventRules } from '../inference/events.js';
import type { FileEvent } from '../metrics/event.js';
import { eventBasedMetrics } from '../metrics/event_based.js';
import { segmentBasedMetrics } from '../metrics/segment_based.js';
import { comparedClasses, inFile, referenceEvents } from './evaluate_events.js';

/** A detector, and files that it has not learned from. */
export interface TuningPart {
  readonly detector: EventDetector;
  readonly dataset: StrongDataset;
}

/** Options of {@link tuneEvents}. */
export interface TuneEventsOptions {
  /** What the rules are to be good at: whole events, or what is active each second; default events. */
  goal?: 'events' | 'segments' | undefined;
  /** How far onsets may be off, and offsets at least may; default 0.2. In seconds. */
  collarSeconds?: number | undefined;
  /** How far offsets may be off, as a share of the event; default 0.2. */
  offsetShare?: number | undefined;
  /** Called with the number of files scored, then of classes settled. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** How well a class is found where its rules were chosen: elsewhere it will be a little worse. */
export interface TunedClass {
  readonly label: string;
  /** How many events the choice rests on. */
  readonly events: number;
  /** F1, in 0..1, of the goal. */
  readonly f1: number;
}

/** Rules for each class. */
export interface TunedEvents {
  /** For {@link EventDetector.load}, `detect` and `evaluateEvents`; plain values, for a JSON file. */
  readonly rules: EventRules & {
    readonly [rule in TunedRule]: Readonly<Record<string, number>>;
  };
  readonly perClass: readonly TunedClass[];
}

/** Every rule but `labels`. */
type TunedRule = Exclude<keyof EventRules, 'labels'>;

/** The rules of one class, in numbers. */
type Choice = Readonly<Record<TunedRule, number>>;

const OPTION_NAMES: readonly (keyof TuneEventsOptions)[] = [
  ...(['goal', 'collarSeconds', 'offsetShare', 'onProgress', 'signal'] as const),
];

/** What is tried. Thresholds are so far apart that neighbours differ in what they find. */
const THRESHOLDS = Array.from({ length: 19 }, (_, i) => (i + 1) / 20);
const LOW_SHARES = [1, 0.8, 0.6, 0.4, 0.2];
const MEDIANS = [0, 0.15, 0.3, 0.5, 0.8, 1.2, 2, 3.5, 6];
const SHORTEST = [0, 0.15, 0.3, 0.6, 1.2, 2.5];
const GAPS = [0, 0.15, 0.3, 0.6, 1.2, 2.5];

/** Of a class, one file's scores (frames) and what sounds in it. */
interface Track {
  readonly file: string;
  readonly scores: Float32Array;
  readonly hopSeconds: number;
  readonly seconds: number;
}

/**
 * Chooses how scores become events, class by class, so that F1 is high on files with strong labels.
 *
 * The files must be others than the detector learned from, or the rules fit scores that no other file
 * gives: pass a validation set, or several parts, each with the detector that a round of a
 * cross-validation trained without it. Each file is scored once. Memory: 4 bytes a frame and class.
 *
 * First the filter and one threshold, then the low threshold, the shortest event and the longest gap,
 * then both thresholds again. A choice is rated by F1 with the collar and with twice the collar, and
 * thresholds together with their neighbours, since few events decide; among equals the first in the
 * order counts, that without a rule. Classes that the labels never name get no rules.
 *
 * ```ts
 * const { rules } = await tuneEvents([{ detector, dataset: validation }]);
 * const { events } = await detector.detect('street.ogg', rules);
 * ```
 *
 * @throws PannsError `ERR_PANNS_DATA` for labels without events or that a model does not know,
 *   `ERR_PANNS_OPTION`, and as {@link EventDetector.detect}; AbortError
 */
export async function tuneEvents(
  parts: readonly TuningPart[],
  options: TuneEventsOptions = {},
): Promise<TunedEvents> {
  const where = 'tuneEvents';
  checkOptions(options, OPTION_NAMES, where);
  const { goal = 'events', onProgress, signal } = options;
  if (!Array.isArray(parts) || parts.length === 0) {
    const what = 'expected at least one detector with its files';
    throw new PannsError('ERR_PANNS_OPTION', what, { where });
  }
  if (goal !== 'events' && goal !== 'segments') {
    const what = `expected goal to be "events" or "segments", got ${JSON.stringify(goal)}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: goal });
  }
  const classes = [
    ...new Set(parts.flatMap(({ detector, dataset }) => comparedClasses(detector, dataset, where))),
  ];
  const files = parts.reduce((sum, { dataset }) => sum + dataset.files.length, 0);
  const total = files + classes.length;
  let done = 0;
  const tick = () => onProgress?.(++done, total);
  const tracks = await scoreAll(parts, classes, signal, tick);
  const reference = parts.flatMap(({ dataset }, p) => {
    return referenceEvents(dataset).map((event) => ({ ...event, file: `${p}/${event.file}` }));
  });
  const chosen: (readonly [string, Choice])[] = [];
  const perClass: TunedClass[] = [];
  for (const label of classes) {
    const own = reference.filter((event) => event.label === label);
    const rate = rater(label, tracks.get(label) ?? [], own, options, goal);
    const { choice, f1 } = await search(rate, signal);
    chosen.push([label, choice]);
    perClass.push({ label, events: own.length, f1 });
    tick();
  }
  const ruleOf = (rule: TunedRule) =>
    Object.fromEntries(chosen.map(([label, choice]) => [label, choice[rule]]));
  return {
    rules: {
      medianSeconds: ruleOf('medianSeconds'),
      threshold: ruleOf('threshold'),
      lowThreshold: ruleOf('lowThreshold'),
      minimumSeconds: ruleOf('minimumSeconds'),
      maximumGapSeconds: ruleOf('maximumGapSeconds'),
    },
    perClass,
  };
}

async function scoreAll(
  parts: readonly TuningPart[],
  classes: readonly string[],
  signal: AbortSignal | undefined,
  onFile: () => void,
): Promise<ReadonlyMap<string, Track[]>> {
  const tracks = new Map<string, Track[]>(classes.map((label) => [label, []]));
  for (const [p, { detector, dataset }] of parts.entries()) {
    const { labels, hopSeconds } = detector;
    const known = classes.filter((label) => labels.includes(label));
    const indices = known.map((label) => labels.indexOf(label));
    for (const { id, path } of dataset.files) {
      const blocks: Float32Array[][] = [];
      const scored = detector.scores(path, { signal });
      let step = await scored.next();
      for (; !step.done; step = await scored.next()) {
        const { frames, scores } = step.value;
        blocks.push(
          indices.map((index) =>
            Float32Array.from({ length: frames }, (_, t) => scores[t * labels.length + index] ?? 0),
          ),
        );
      }
      const { seconds } = step.value;
      for (const [k, label] of known.entries()) {
        const own = blocks.map((block) => block[k] ?? new Float32Array(0));
        tracks.get(label)?.push({ file: `${p}/${id}`, scores: joined(own), hopSeconds, seconds });
      }
      onFile();
    }
  }
  return tracks;
}

/** How good choices are, each between 0 and 1. */
type Rate = (
  choices: readonly Choice[],
) => Promise<{ readonly f1: number; readonly wide: number }[]>;

/** Rates rules of one class on its tracks. */
function rater(
  label: string,
  tracks: readonly Track[],
  reference: readonly FileEvent[],
  { collarSeconds = 0.2, offsetShare }: TuneEventsOptions,
  goal: 'events' | 'segments',
): Rate {
  const classes = [label];
  const rated = (found: readonly FileEvent[]) => {
    if (goal === 'segments') {
      const { f1 } = segmentBasedMetrics(reference, found, { classes }).overall;
      return { f1, wide: f1 };
    }
    const within = (collar: number) =>
      eventBasedMetrics(reference, found, { classes, collar, offsetShare }).overall.f1;
    return { f1: within(collarSeconds), wide: within(2 * collarSeconds) };
  };
  return async (choices) => {
    const found = choices.map((): FileEvent[] => []);
    for (const { file, scores, hopSeconds, seconds } of tracks) {
      const finders = createEventFinders(classes, hopSeconds, choices);
      const lists = [await finders.push(scores), finders.finish(seconds)];
      for (const list of lists) {
        for (const [i, events] of list.entries()) {
          for (const event of events) found[i]?.push(inFile(file, event));
        }
      }
    }
    const rates: { f1: number; wide: number }[] = [];
    for (const events of found) {
      rates.push(rated(events));
      // Measures of many events take their time each.
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    return rates;
  };
}

const START: Choice = {
  ...{ medianSeconds: 0, threshold: 0.5, lowThreshold: 0.5 },
  ...{ minimumSeconds: 0, maximumGapSeconds: 0 },
};

async function search(
  rate: Rate,
  signal: AbortSignal | undefined,
): Promise<{ choice: Choice; f1: number }> {
  const best = async (rows: readonly (readonly Choice[])[]) => {
    throwIfAborted(signal);
    const rates = await rate(rows.flat());
    let top = { choice: START, f1: 0, value: -1 };
    let at = 0;
    for (const row of rows) {
      const own = rates.slice(at, at + row.length).map(({ f1, wide }) => (f1 + wide) / 2);
      for (const [i, choice] of row.entries()) {
        const here = own[i] ?? 0;
        const value = ((own[i - 1] ?? here) + 2 * here + (own[i + 1] ?? here)) / 4;
        if (value > top.value) top = { choice, f1: rates[at + i]?.f1 ?? 0, value };
      }
      at += row.length;
    }
    return top;
  };
  const ladder = (base: Choice, share: number): Choice[] =>
    THRESHOLDS.map((threshold) => {
      return { ...base, threshold, lowThreshold: Number((share * threshold).toFixed(3)) };
    });
  const first = await best(MEDIANS.map((medianSeconds) => ladder({ ...START, medianSeconds }, 1)));
  const second = await best(
    LOW_SHARES.flatMap((share) =>
      SHORTEST.flatMap((minimumSeconds) =>
        GAPS.map((maximumGapSeconds) => {
          const lowThreshold = Number((share * first.choice.threshold).toFixed(3));
          // Each a row by itself: these have no neighbours.
          return [{ ...first.choice, lowThreshold, minimumSeconds, maximumGapSeconds }];
        }),
      ),
    ),
  );
  const third = await best(LOW_SHARES.map((share) => ladder(second.choice, share)));
  return { choice: third.choice, f1: third.f1 };
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
