import { checkOptions, nearest, PannsError } from '../errors.js';
import { createMedianFilter } from './median_filter.js';

/** One number for all classes, or numbers by label; labels that are not named have the default. */
export type PerClass = number | Readonly<Record<string, number>>;

/** How scores of frames become events. */
export interface EventRules {
  /** Only events of these classes; default all. */
  labels?: readonly string[] | undefined;
  /** Frames pass a median filter of about this length first; default 0, none. In seconds. */
  medianSeconds?: PerClass | undefined;
  /** An event reaches this score; default 0.3, which PANNs' authors advise for AudioSet. */
  threshold?: PerClass | undefined;
  /** An event lasts as long as scores stay at or above this; default `threshold`. */
  lowThreshold?: PerClass | undefined;
  /** Shorter ones are dropped; default 0. In seconds. */
  minimumSeconds?: PerClass | undefined;
  /** What is left becomes one event over gaps that are no longer; default 0. In seconds. */
  maximumGapSeconds?: PerClass | undefined;
}

/** The names of {@link EventRules}. */
export const eventRuleNames: readonly (keyof EventRules)[] = [
  ...(['labels', 'medianSeconds', 'threshold', 'lowThreshold'] as const),
  ...(['minimumSeconds', 'maximumGapSeconds'] as const),
];

/** A sound that was found. */
export interface DetectedEvent {
  /** In seconds. */
  readonly onset: number;
  /** In seconds. */
  readonly offset: number;
  /** The name of the class, or its index as text where the model has no names. */
  readonly label: string;
  readonly index: number;
  /** The highest score in it: above this threshold it would not be found. */
  readonly score: number;
}

/** Finds the events in scores that come block by block. */
export interface EventFinder {
  /**
   * Takes scores (frames, K), row-major; returns the events that are over, in the order of offsets.
   * Rejects with ERR_PANNS_SHAPE for scores that are no whole frames.
   */
  push(scores: Float32Array): Promise<DetectedEvent[]>;
  /** Says that no frame follows; events end at `seconds` at most. */
  finish(seconds: number): DetectedEvent[];
}

const DEFAULT_THRESHOLD = 0.3;

/** Numbers that pass the filter between two pauses: about 1 ms of work. */
const NUMBERS_AT_ONCE = 20_000;

/**
 * A finder of events with the rules, in their order: median filter, thresholds, shortest length,
 * longest gap.
 *
 * Frame k lasts from k * hop to (k + 1) * hop seconds. The filter's window is the odd number of frames
 * that is nearest, and the ends are mirrored. An event is a stretch of frames at or above
 * `lowThreshold` of which one at least reaches `threshold`. Memory does not grow with the audio.
 *
 * @throws PannsError `ERR_PANNS_OPTION`
 */
export function createEventFinder(
  classes: readonly string[],
  hopSeconds: number,
  rules: EventRules = {},
): EventFinder {
  const finders = createEventFinders(classes, hopSeconds, [rules]);
  return {
    push: async (scores) => (await finders.push(scores))[0] ?? [],
    finish: (seconds) => finders.finish(seconds)[0] ?? [],
  };
}

/** What several rules find in the same scores, a list each. */
export interface EventFinders {
  push(scores: Float32Array): Promise<DetectedEvent[][]>;
  finish(seconds: number): DetectedEvent[][];
}

/**
 * Several finders as {@link createEventFinder} makes them; rules whose filters are alike share them.
 *
 * @throws PannsError `ERR_PANNS_OPTION`
 */
export function createEventFinders(
  classes: readonly string[],
  hopSeconds: number,
  rules: readonly EventRules[],
): EventFinders {
  if (!(hopSeconds > 0 && hopSeconds <= 3600)) {
    throw optionError(`expected hopSeconds to be a number in 0..3600, got ${hopSeconds}`);
  }
  const columns = sharedFilters(classes, hopSeconds, rules);
  const lists = () => rules.map((): DetectedEvent[] => []);
  const sorted = (found: DetectedEvent[][]) => {
    for (const events of found) {
      events.sort((a, b) => a.offset - b.offset || a.onset - b.onset || a.index - b.index);
    }
    return found;
  };
  return {
    async push(scores) {
      const found = lists();
      const frames = scores.length / classes.length;
      if (!Number.isInteger(frames)) {
        const what = `expected scores of whole frames, ${classes.length} classes each, got ${scores.length}`;
        throw new PannsError('ERR_PANNS_SHAPE', what, { where: 'events' });
      }
      let done = 0;
      for (const { index, cost, push } of columns) {
        for (let t = 0; t < frames; t++) {
          push(scores[t * classes.length + index] ?? Number.NaN, found);
          done += cost;
          if (done < NUMBERS_AT_ONCE) continue;
          done = 0;
          await new Promise<void>((resolve) => setImmediate(resolve));
        }
      }
      return sorted(found);
    },
    finish(seconds) {
      const found = lists();
      for (const { finish } of columns) finish(seconds, found);
      return sorted(found);
    },
  };
}

/** One class through one filter, and all that reads it. */
interface Column {
  readonly index: number;
  /** Of a frame, in units of comparing a number. */
  readonly cost: number;
  push(score: number, into: DetectedEvent[][]): void;
  finish(seconds: number, into: DetectedEvent[][]): void;
}

function sharedFilters(
  classes: readonly string[],
  hopSeconds: number,
  rules: readonly EventRules[],
): Column[] {
  const readers = new Map<string, { index: number; half: number; trackers: [number, Tracker][] }>();
  for (const [r, rule] of rules.entries()) {
    checkOptions(rule, eventRuleNames, 'events');
    for (const value of Object.values(rule)) {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) continue;
      for (const label of Object.keys(value)) indexOf(classes, label);
    }
    for (const index of chosenClasses(classes, rule)) {
      const label = classes[index] ?? '';
      const half = halfOf(label, hopSeconds, rule);
      const key = `${index}/${half}`;
      const reader = readers.get(key) ?? { index, half, trackers: [] };
      reader.trackers.push([r, createTracker(index, label, hopSeconds, rule)]);
      readers.set(key, reader);
    }
  }
  return [...readers.values()].map(({ index, half, trackers }) => {
    const filter = half > 0 ? createMedianFilter(half) : undefined;
    const take = (score: number, into: DetectedEvent[][]) => {
      for (const [r, tracker] of trackers) tracker.push(score, into[r] ?? []);
    };
    return {
      index,
      // Moving half of a window's numbers by one is fast.
      cost: trackers.length + half / 4,
      push(score, into) {
        const smooth = filter === undefined ? score : filter.push(score);
        if (smooth !== undefined) take(smooth, into);
      },
      finish(seconds, into) {
        for (const smooth of filter?.finish() ?? []) take(smooth, into);
        for (const [r, tracker] of trackers) tracker.finish(seconds, into[r] ?? []);
      },
    };
  });
}

/** The frames on either side of one that its median is taken over. */
function halfOf(label: string, hopSeconds: number, rules: EventRules): number {
  const frames = secondsOf('medianSeconds', rules, label) / hopSeconds;
  return Math.max(0, Math.round((frames - 1) / 2));
}

function chosenClasses(classes: readonly string[], { labels }: EventRules): number[] {
  if (labels === undefined) return [...classes.keys()];
  if (!Array.isArray(labels) || labels.length === 0) {
    throw optionError(`expected labels to be a list of classes, got ${labels}`);
  }
  return [...new Set(labels.map((label) => indexOf(classes, label)))].sort((a, b) => a - b);
}

function indexOf(classes: readonly string[], label: string): number {
  const index = classes.indexOf(label);
  if (index >= 0) return index;
  const guess = nearest(String(label), classes);
  throw optionError(`there is no class "${label}"; did you mean "${guess}"?`);
}

/** The value of a rule for a class. */
function ruleOf(name: string, rule: PerClass | undefined, label: string, usual: number): number {
  const named = typeof rule === 'object' && rule !== null && !Array.isArray(rule);
  const value = named ? (Object.hasOwn(rule, label) ? rule[label] : usual) : (rule ?? usual);
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw optionError(`expected ${name} to be a number, or numbers by label, got ${value}`);
}

function secondsOf(
  name: keyof EventRules & `${string}Seconds`,
  rules: EventRules,
  label: string,
): number {
  const value = ruleOf(name, rules[name], label, 0);
  if (value >= 0 && value <= 3600) return value;
  throw optionError(`expected ${name} to be in 0..3600 seconds, got ${value} for ${label}`);
}

function optionError(what: string): PannsError {
  return new PannsError('ERR_PANNS_OPTION', what, { where: 'events' });
}

interface Tracker {
  push(score: number, into: DetectedEvent[]): void;
  finish(seconds: number, into: DetectedEvent[]): void;
}

/** From frame `from` up to `to`, excluded. */
interface Stretch {
  from: number;
  to: number;
  peak: number;
}

/** Follows the filtered scores of one class through time. */
function createTracker(index: number, label: string, hop: number, rules: EventRules): Tracker {
  const high = ruleOf('threshold', rules.threshold, label, DEFAULT_THRESHOLD);
  const low = ruleOf('lowThreshold', rules.lowThreshold, label, high);
  if (low > high) {
    throw optionError(`lowThreshold ${low} is above the threshold ${high} of ${label}`);
  }
  // Half a millionth of a frame: 0.3 s are 30 frames of 0.01 s, whatever rounding says.
  const frames = (seconds: number) => seconds / hop;
  const least = Math.ceil(frames(secondsOf('minimumSeconds', rules, label)) - 5e-7);
  const gap = Math.floor(frames(secondsOf('maximumGapSeconds', rules, label)) + 5e-7);

  let frame = 0;
  let open: Stretch | undefined;
  // Long enough to be an event; the next stretch may still continue it.
  let waiting: Stretch | undefined;

  const emit = (into: DetectedEvent[], end: number): void => {
    if (waiting === undefined) return;
    const onset = seconds(waiting.from, hop);
    const offset = Math.min(seconds(waiting.to, hop), end);
    into.push({ onset, offset, label, index, score: waiting.peak });
    waiting = undefined;
  };
  const close = (into: DetectedEvent[]): void => {
    const stretch = open;
    open = undefined;
    if (stretch === undefined || !(stretch.peak >= high)) return;
    if (stretch.to - stretch.from < least) return;
    if (waiting !== undefined && stretch.from - waiting.to <= gap) {
      waiting.to = stretch.to;
      waiting.peak = Math.max(waiting.peak, stretch.peak);
      return;
    }
    emit(into, Infinity);
    waiting = stretch;
  };
  const push = (score: number, into: DetectedEvent[]): void => {
    if (score >= low) {
      open ??= { from: frame, to: frame, peak: score };
      open.to = frame + 1;
      open.peak = Math.max(open.peak, score);
    } else {
      close(into);
      // The next stretch begins at frame + 1 at the earliest.
      if (waiting !== undefined && frame + 1 - waiting.to > gap) emit(into, Infinity);
    }
    frame++;
  };
  return {
    push,
    finish(end, into) {
      close(into);
      emit(into, end);
    },
  };
}

/** A frame's begin without the rounding of a product such as 3 * 0.1. */
function seconds(frame: number, hop: number): number {
  return Number((frame * hop).toPrecision(12));
}
