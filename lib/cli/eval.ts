import { loadModel } from '../inference/model_file.js';
import { writeFileAtomic } from '../io/atomic.js';
import { evaluate, longestClipSeconds } from '../train/evaluate.js';
import type { CommandSpec } from './args.js';
import { chosenColumns, columnOptions, openDataset, selectFolds } from './data.js';
import { detectorOptions } from './detect.js';
import { chosenDevice } from './device.js';
import { evalEvents } from './eval_events.js';
import { MODEL_HELP } from './network.js';
import { createProgress } from './progress.js';
import { classTable, scoreLine } from './results.js';
import { defineVerb, EXIT, UsageError } from './verb.js';

/** Clips are scored up to this length unless --seconds says more, as `panns train` does. */
const MOST_SECONDS = 10;

const command = {
  name: 'panns eval',
  summary: 'Measure a model on labelled clips',
  options: {
    model: {
      type: 'string',
      value: 'file',
      required: true,
      short: 'm',
      help: MODEL_HELP,
    },
    data: {
      type: 'string',
      value: 'path',
      help: 'a folder with one folder a class, a packed one, a CSV or HDF5 file; with --events, where paths start',
    },
    events: {
      type: 'string',
      value: 'csv',
      help: 'measure detection: a row an event with filename, onset, offset, event_label',
    },
    ...columnOptions,
    folds: { type: 'list', value: '5', help: 'only these folds' },
    seconds: {
      type: 'number',
      min: 0.01,
      help: `length of a clip; default the longest, at most ${MOST_SECONDS}`,
    },
    'batch-size': { type: 'integer', min: 1, default: 16, help: 'clips at once' },
    out: { type: 'string', value: 'file', short: 'o', help: 'also write the results as JSON' },
    json: { type: 'boolean', help: 'print JSON' },
    ...detectorOptions,
    collar: {
      type: 'number',
      min: 0,
      default: 0.2,
      help: 'with --events: seconds that an onset may be off',
    },
    tune: {
      type: 'string',
      value: 'file',
      help: 'with --events, on files that were not trained on: choose rules by class, and write them',
    },
  },
} as const satisfies CommandSpec;

/** `panns eval`: scores a labelled data set. */
export const evaluateVerb = defineVerb(command, async (values, _, context) => {
  const { print, messages, signal } = context;
  const { json, folds, out, data, events } = values;
  if (events !== undefined) return evalEvents({ ...values, events }, context);
  if (values.tune !== undefined) throw new UsageError(command, '--tune needs --events');
  if (data === undefined) throw new UsageError(command, 'set --data, or --events');
  using model = await loadModel(values.model, chosenDevice(values));
  const { classes } = model;
  const names = typeof classes === 'number' ? undefined : classes;
  const whole = await openDataset(data, chosenColumns(values), names, { signal, messages, json });
  const dataset = folds === undefined ? whole : selectFolds(whole, folds);
  const clipSeconds = values.seconds ?? (await longestClipSeconds(dataset, MOST_SECONDS));
  const total = dataset.clips.length;
  const progress = createProgress({
    ...{ label: 'scoring', total, unit: 'clips', stream: messages, silent: json },
  });
  const evaluation = await evaluate(model, dataset, {
    ...{ clipSeconds, batchSize: values['batch-size'], signal },
    onProgress: (done) => progress.update(done),
  });
  progress.finish();
  const { scores: _scores, ...results } = evaluation;
  if (out !== undefined) await writeFileAtomic(out, [`${JSON.stringify(results, null, 2)}\n`]);
  if (json) print(JSON.stringify(results));
  else print(`${classTable(evaluation)}\n\n${total} clips: ${scoreLine(evaluation)}`);
  return EXIT.ok;
});
