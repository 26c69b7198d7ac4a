import { readStrong } from '../data/strong.js';
import { writeFileAtomic } from '../io/atomic.js';
import { type EventEvaluation, evaluateEvents } from '../train/evaluate_events.js';
import { type TunedEvents, tuneEvents } from '../train/tune_events.js';
import { type DetectorValues, openDetector } from './detect.js';
import { formatDuration, formatNumber, formatPercent, formatTable } from './format.js';
import { createProgress } from './progress.js';
import { type Context, EXIT } from './verb.js';

/** What `panns eval --events` is told. */
export interface EvalEventsValues extends DetectorValues {
  readonly model: string;
  /** The strong labels. */
  readonly events: string;
  /** Where relative paths start. */
  readonly data: string | undefined;
  readonly out: string | undefined;
  readonly collar: number;
  /** Where rules go that are chosen on these files, instead of a measure. */
  readonly tune: string | undefined;
  readonly json: boolean;
}

/** Finds the events of strongly labelled files and prints how well, or chooses rules for them. */
export async function evalEvents(
  values: EvalEventsValues,
  { print, messages, signal }: Context,
): Promise<number> {
  const { model, events, data, out, collar, tune, json } = values;
  const dataset = await readStrong(events, { root: data });
  const { detector, rules } = await openDetector(model, values);
  using _model = detector;
  if (tune !== undefined) {
    const progress = createProgress({
      ...{ label: 'tuning', unit: 'files and classes', stream: messages, silent: json },
    });
    const tuned = await tuneEvents([{ detector, dataset }], {
      ...{ collarSeconds: collar, signal },
      onProgress: (done, total) => progress.update(done, `of ${total}`),
    });
    progress.finish();
    await writeFileAtomic(tune, [`${JSON.stringify(tuned.rules, null, 2)}\n`]);
    print(json ? JSON.stringify(tuned) : `${tunedTable(tuned)}\n\nrules: ${tune}`);
    return EXIT.ok;
  }
  const total = dataset.files.length;
  const progress = createProgress({
    ...{ label: 'detecting', total, unit: 'files', stream: messages, silent: json },
  });
  const evaluation = await evaluateEvents(detector, dataset, {
    ...{ rules, collarSeconds: collar, signal },
    onProgress: (done) => progress.update(done),
  });
  progress.finish();
  const { found: _found, ...results } = evaluation;
  if (out !== undefined) await writeFileAtomic(out, [`${JSON.stringify(results, null, 2)}\n`]);
  if (json) print(JSON.stringify(results));
  else print(`${classTable(evaluation)}\n\n${summary(evaluation)}`);
  return EXIT.ok;
}

function tunedTable({ rules, perClass }: TunedEvents): string {
  const right = (title: string) => ({ title, align: 'right' }) as const;
  const { threshold, lowThreshold, medianSeconds, minimumSeconds, maximumGapSeconds } = rules;
  const columns = [threshold, lowThreshold, medianSeconds, minimumSeconds, maximumGapSeconds];
  return formatTable(
    [
      { title: 'class' },
      ...['events', 'F1 here', 'threshold', 'low', 'median', 'shortest', 'gap'].map(right),
    ],
    perClass.map(({ label, events, f1 }) => [
      ...[label, events, formatPercent(f1)],
      ...columns.map((rule) => formatNumber(rule[label] ?? Number.NaN)),
    ]),
  );
}

function classTable({ segments, events, onsets, psds1, psds2 }: EventEvaluation): string {
  const right = (title: string) => ({ title, align: 'right' }) as const;
  const columns = [
    { title: 'class' },
    ...['events', 'found', 'segment F1', 'event F1', 'onset F1', 'PSDS1', 'PSDS2'].map(right),
  ];
  const rows = events.perClass.map(({ label, reference, estimated, f1 }, k) => [
    label,
    reference,
    estimated,
    formatPercent(segments.perClass[k]?.f1 ?? Number.NaN),
    formatPercent(f1),
    formatPercent(onsets.perClass[k]?.f1 ?? Number.NaN),
    formatNumber(classValue(psds1.perClass, label)),
    formatNumber(classValue(psds2.perClass, label)),
  ]);
  return formatTable(columns, rows);
}

function classValue(list: readonly { label: string; value: number }[], label: string): number {
  return list.find((one) => one.label === label)?.value ?? Number.NaN;
}

function summary(evaluation: EventEvaluation): string {
  const { files, seconds, segments, events, onsets, psds1, psds2 } = evaluation;
  const line = (name: string, { overall, classAverage }: typeof segments | typeof events) => {
    const micro = `F1 ${formatPercent(overall.f1)} (precision ${formatPercent(overall.precision)}, recall ${formatPercent(overall.recall)})`;
    return `${name}: ${micro}, mean of the classes ${formatPercent(classAverage.f1)}`;
  };
  return [
    `${files} files, ${formatDuration(seconds)}`,
    `${line('segments', segments)}, error rate ${formatNumber(segments.overall.errorRate)}`,
    line('events', events),
    line('onsets', onsets),
    `PSDS1 ${formatNumber(psds1.value)}  PSDS2 ${formatNumber(psds2.value)}`,
  ].join('\n');
}
