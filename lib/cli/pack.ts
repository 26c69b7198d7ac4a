import { packClips } from '../data/pack.js';
import { chosenColumns, columnOptions, openDataset, selectFolds } from './data.js';
import { formatBytes } from './format.js';
import { createProgress } from './progress.js';
import { defineVerb, EXIT } from './verb.js';

/** Clips that could not be read are named up to this many. */
const NAMED = 10;

/** `panns pack`: decodes a data set once, for trainings that read it many times. */
export const pack = defineVerb(
  {
    name: 'panns pack',
    summary: 'Decode a data set once, into a folder that trainings read fast',
    options: {
      data: {
        type: 'string',
        value: 'path',
        required: true,
        help: 'a folder with one folder a class, a CSV file, or an HDF5 file of PANNs',
      },
      out: {
        type: 'string',
        value: 'folder',
        required: true,
        short: 'o',
        help: 'new: clips.npy, clips.csv, pack.json',
      },
      ...columnOptions,
      folds: { type: 'list', value: '1,2', help: 'only these folds' },
      seconds: {
        type: 'number',
        min: 0.001,
        default: 10,
        help: 'longer clips are cut, shorter ones padded',
      },
      'sample-rate': {
        type: 'integer',
        min: 1,
        max: 768_000,
        default: 32000,
        help: 'of the models that it is for, in Hz',
      },
      'skip-bad': { type: 'boolean', help: 'leave out clips that cannot be read' },
      json: { type: 'boolean', help: 'print JSON' },
    },
  },
  async (values, _, { print, messages, signal }) => {
    const { data, out, seconds, folds, json } = values;
    const whole = await openDataset(data, chosenColumns(values), undefined, {
      signal,
      messages,
      json,
    });
    const dataset = folds === undefined ? whole : selectFolds(whole, folds);
    const total = dataset.clips.length;
    const progress = createProgress({
      ...{ label: 'packing', total, unit: 'clips', stream: messages, silent: json },
    });
    try {
      const report = await packClips(dataset, out, {
        ...{ seconds, sampleRate: values['sample-rate'], signal },
        onBadClip: values['skip-bad'] ? 'skip' : 'throw',
        onProgress: (done) => progress.update(done),
      });
      progress.finish();
      const { clips, samples, bytes, skipped } = report;
      if (json) {
        print(JSON.stringify({ folder: out, ...report }));
        return EXIT.ok;
      }
      print(`${clips} clips of ${samples} samples are in ${out} (${formatBytes(bytes)})`);
      for (const { id, reason } of skipped.slice(0, NAMED)) print(`left out: ${id} (${reason})`);
      const more = skipped.length - NAMED;
      if (more > 0) print(`and ${more} more: pack.json lists them`);
      return EXIT.ok;
    } finally {
      progress.finish();
    }
  },
);
