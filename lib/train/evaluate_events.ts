import type { StrongDataset } from '../data/strong.js';
import { checkOptions, PannsError } from '../errors.js';
import type { EventDetector } from '../inference/detector.js';
import { createEventFinders, type DetectedEvent, type EventRules } from '../inference/events.js';
import type { FileEvent } from '../metrics/event.js';
import { type EventBasedMetrics, eventBasedMetrics } from '../metrics/event_based.js';
import { type Psds, type PsdsScenario, psds, psdsScenarios } from '../metrics/psds.js';
import { type SegmentBasedMetrics, segmentBasedMetrics } from '../metrics/segment_based.js';

/** Options of {@link evaluateEvents}. */
export interface EvaluateEventsOptions {
  /** How scores become events; replaces those rules of the detector. */
  rules?: EventRules | undefined;
  /** The length of a segment; default 1. */
  segmentSeconds?: number | undefined;
  /** How far onsets may be off, and offsets at least may; default 0.2. */
  collarSeconds?: number | undefined;
  /** How far offsets may be off, as a share of the event; default 0.2. */
  offsetShare?: number | undefined;
  /** The operating points of PSDS; default 0.01, 0.03, ... 0.99. */
  thresholds?: readonly number[] | undefined;
  /** Called with the number of files done. */
  onProgress?: ((done: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** How well events are found. */
export interface EventEvaluation {
  readonly files: number;
  /** Of audio. */
  readonly seconds: number;
  /** Over the classes of the reference. */
  readonly segments: SegmentBasedMetrics;
  readonly events: EventBasedMetrics;
  /** Events whose onsets alone decide. */
  readonly onsets: EventBasedMetrics;
  readonly psds1: Psds;
  readonly psds2: Psds;
  /** What was found, by the paths as the labels write them. */
  readonly found: readonly FileEvent[];
}

const OPTION_NAMES: readonly (keyof EvaluateEventsOptions)[] = [
  ...(['rules', 'segmentSeconds', 'collarSeconds', 'offsetShare', 'thresholds'] as const),
  ...(['onProgress', 'signal'] as const),
];

/** Fifty, as DCASE's task 4 takes. */
const THRESHOLDS = Array.from({ length: 50 }, (_, i) => (2 * i + 1) / 100);

/**
 * Finds the events in every file of strongly labelled data, and compares.
 *
 * Each file is scored once; all operating points of PSDS follow from those scores, with the other
 * rules as they are and no lower threshold. Classes that the labels never name do not count, and are
 * not looked for.
 *
 * @throws PannsError `ERR_PANNS_DATA` for labels that the model does not know, `ERR_PANNS_OPTION`,
 *   and as {@link EventDetector.detect}; AbortError
 */
export async function evaluateEvents(
  detector: EventDetector,
  dataset: StrongDataset,
  options: EvaluateEventsOptions = {},
): Promise<EventEvaluation> {
  const where = 'evaluateEvents';
  checkOptions(options, OPTION_NAMES, where);
  const { rules = {}, segmentSeconds, collarSeconds, offsetShare, onProgress, signal } = options;
  const { thresholds = THRESHOLDS } = options;
  const reference = referenceEvents(dataset);
  const classes = comparedClasses(detector, dataset, where);
  const own = { ...detector.rules, ...rules, labels: classes };
  const points = thresholds.map((threshold) => ({ ...own, threshold, lowThreshold: undefined }));
  const found: FileEvent[] = [];
  const operatingPoints = points.map((): FileEvent[] => []);
  const lists = [found, ...operatingPoints];
  for (const [i, { id, path }] of dataset.files.entries()) {
    const finders = createEventFinders(detector.labels, detector.hopSeconds, [own, ...points]);
    const add = (events: readonly (readonly DetectedEvent[])[]) => {
      for (const [p, list] of events.entries()) {
        for (const event of list) lists[p]?.push(inFile(id, event));
      }
    };
    const scored = detector.scores(path, { signal });
    let step = await scored.next();
    for (; !step.done; step = await scored.next()) add(await finders.push(step.value.scores));
    add(finders.finish(step.value.seconds));
    onProgress?.(i + 1);
  }
  const durations = new Map(dataset.files.map(({ id, seconds }) => [id, seconds]));
  const rate = (scenario: PsdsScenario) => {
    return psds({ reference, durations, operatingPoints }, scenario);
  };
  const collars = { collar: collarSeconds, offsetShare, classes };
  return {
    files: dataset.files.length,
    seconds: [...durations.values()].reduce((sum, own) => sum + own, 0),
    segments: segmentBasedMetrics(reference, found, { segmentSeconds, classes }),
    events: eventBasedMetrics(reference, found, collars),
    onsets: eventBasedMetrics(reference, found, { ...collars, onsetOnly: true }),
    psds1: rate(psdsScenarios.psds1),
    psds2: rate(psdsScenarios.psds2),
    found,
  };
}

/** The events of strong labels, by the paths as the labels write them. */
export function referenceEvents({ classes, files }: StrongDataset): FileEvent[] {
  return files.flatMap(({ id, events }) =>
    events.map(({ label, onset, offset }) => {
      return { file: id, onset, offset, label: classes[label] ?? '' };
    }),
  );
}

/**
 * The classes that the labels name, in their order.
 *
 * @throws PannsError `ERR_PANNS_DATA` where there are none, or the model does not know one
 */
export function comparedClasses(
  { labels }: EventDetector,
  dataset: StrongDataset,
  where: string,
): string[] {
  const named = new Set(referenceEvents(dataset).map(({ label }) => label));
  const classes = dataset.classes.filter((label) => named.has(label));
  if (classes.length === 0) {
    throw new PannsError('ERR_PANNS_DATA', 'expected events in the labels, got none', { where });
  }
  const unknown = classes.filter((label) => !labels.includes(label));
  if (unknown.length === 0) return classes;
  const what = `the model does not know ${unknown.join(', ')}`;
  throw new PannsError('ERR_PANNS_DATA', what, { where, actual: unknown });
}

/** A detected event as measures take it. */
export function inFile(file: string, { onset, offset, label }: DetectedEvent): FileEvent {
  return { file, onset, offset, label };
}
