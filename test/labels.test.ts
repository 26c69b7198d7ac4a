import { createReadStream } from 'node:fs';
import { parse } from 'csv-parse';
import t from 'tap';
import { audiosetLabels } from '../lib/index.js';
import { sharedFile } from './helpers/shared.js';

const table = sharedFile('data', 'audioset', 'class_labels_indices.csv');

t.test('the names and their order are those of AudioSet', { skip: table.skip }, async (t) => {
  const names: string[] = [];
  for await (const row of createReadStream(table.path).pipe(parse({ columns: true }))) {
    t.equal(Number(row.index), names.length);
    names.push(row.display_name);
  }
  t.equal(names.length, 527);
  t.same(audiosetLabels, names);
});

t.test('527 names that differ', async (t) => {
  t.equal(audiosetLabels.length, 527);
  t.equal(new Set(audiosetLabels).size, 527);
  // The ends, and one whose index is widely known.
  t.equal(audiosetLabels[0], 'Speech');
  t.equal(audiosetLabels[137], 'Music');
  t.equal(audiosetLabels[526], 'Field recording');
});
