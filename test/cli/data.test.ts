import { spawn, spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'tap';
import { chosenColumns, divide, openDataset } from '../../lib/cli/data.js';
import { writePack } from '../helpers/hdf5.js';

test('the columns of a CSV file can be told on the command line', async (t) => {
  const folder = t.testdir({ 'a.wav': '', 'b.wav': '', 'c.wav': '' });
  const csv = join(folder, 'takes.csv');
  await writeFile(csv, 'clip,digit,take\na.wav,7|8,1\nb.wav,8,2\nc.wav,7,2\n');
  const columns = chosenColumns({
    'file-column': 'clip',
    'label-column': 'digit',
    'fold-column': 'take',
    'label-separator': '|',
  });
  const dataset = await openDataset(csv, columns);
  t.same(dataset.classes, ['7', '8']);
  t.same(
    dataset.clips.map(({ labels, fold }) => ({ labels, fold })),
    [
      { labels: [0, 1], fold: '1' },
      { labels: [1], fold: '2' },
      { labels: [0], fold: '2' },
    ],
  );
  const choice = { trainFolds: undefined, valFolds: ['2'], valFraction: 0, seed: 0 };
  const { training, validation } = divide(dataset, choice);
  t.equal(training.clips.length, 1);
  t.equal(validation?.clips.length, 2);
  await t.rejects(openDataset(csv), { code: 'ERR_PANNS_DATA', message: /fileColumn/ });
});

test('reading an HDF5 file is told, and stops on the signal', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'pack.h5');
  const clip = { name: 'a.wav', labels: [0], samples: new Float32Array(8) };
  await writeFile(path, writePack([clip], 8000, 2));
  let said = '';
  const messages = { write: (text: string) => (said += text) };
  const classes = ['a', 'b'];
  const { clips } = await openDataset(path, {}, classes, { messages });
  t.match(clips, [{ id: 'a.wav', labels: [0] }]);
  t.equal(said, `reading the names and labels in ${path}\n`);
  await openDataset(path, {}, classes, { messages, json: true });
  t.equal(said.split('\n').length, 2, 'JSON is not disturbed');
  const signal = AbortSignal.abort();
  await t.rejects(openDataset(path, {}, classes, { signal }), { name: 'AbortError' });
});

const skip = process.platform === 'win32' && 'there are no pipes in folders here';
test('a CSV file comes through a pipe', { skip }, async (t) => {
  const path = join(t.testdir({ 'a.wav': '', 'b.wav': '' }), 'table');
  t.equal(spawnSync('mkfifo', [path]).status, 0);
  const lines = 'file,label\na.wav,dog\nb.wav,cat\n';
  const writer = spawn('sh', ['-c', 'printf %s "$1" > "$2"', 'sh', lines, path]);
  t.teardown(() => writer.kill());
  t.same((await openDataset(path)).classes, ['cat', 'dog']);
});

test('a folder has no columns', async (t) => {
  const folder = t.testdir();
  await mkdir(join(folder, 'dog'));
  const told = openDataset(folder, { labelColumn: 'digit' });
  await t.rejects(told, { code: 'ERR_PANNS_OPTION', message: /columns/ });
});
