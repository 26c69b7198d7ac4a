import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeWav16 } from '../../lib/audio/wav.js';
import { fromStrong, readStrong } from '../../lib/data/strong.js';
import { openDraws } from '../helpers/random.js';

const RATE = 8000;
const draws = openDraws(t);

/** Labels beside two files of 4 s and 1.5 s. */
async function make(folder: string, text: string): Promise<string> {
  for (const [name, seconds] of [
    ['a.wav', 4],
    ['b.wav', 1.5],
  ] as const) {
    await writeWav16(join(folder, name), draws.uniforms(seconds * RATE, -0.5, 0.5), RATE);
  }
  const path = join(folder, 'strong.tsv');
  writeFileSync(path, text);
  return path;
}

const LABELS = [
  'filename\tonset\toffset\tevent_label',
  'a.wav\t2.95\t3.5\tDog',
  'a.wav\t0.5\t1.02\tBaby cry, infant cry',
  'a.wav\t3.97\t4.01\tDog',
  'b.wav\t\t\t',
  '',
].join('\n');

t.test('files with their events', async (t) => {
  const path = await make(t.testdir(), LABELS);
  const { classes, files } = await readStrong(path);
  t.same(classes, ['Baby cry, infant cry', 'Dog']);
  t.match(files, [
    {
      ...{ id: 'a.wav', seconds: 4 },
      events: [
        { onset: 0.5, offset: 1.02, label: 0 },
        { onset: 2.95, offset: 3.5, label: 1 },
        { onset: 3.97, offset: 4, label: 1 },
      ],
    },
    { id: 'b.wav', seconds: 1.5, events: [] },
  ]);
  const ordered = await readStrong(path, { classes: ['Dog', 'Cat', 'Baby cry, infant cry'] });
  t.same(
    ordered.files[0]?.events.map(({ label }) => label),
    [2, 0, 0],
  );
});

t.test('windows have the label of what is heard in their middle', async (t) => {
  const path = await make(t.testdir(), LABELS);
  const { clips } = await fromStrong(path, { windowSeconds: 1, hopSeconds: 0.5, labels: 'middle' });
  // Middles at 0.5, 1, ... 3.5: an event lasts from its onset on, up to its offset.
  t.same(
    clips.filter(({ path }) => path.endsWith('a.wav')).map(({ labels }) => labels),
    [[0], [0], [], [], [], [1], []],
  );
  const refused = (options: object, message: RegExp) =>
    t.rejects(fromStrong(path, options), { code: 'ERR_PANNS_OPTION', message });
  await refused({ labels: 'middle' }, /windowSeconds/);
  await refused({ labels: 'middle', windowSeconds: 1, leastSeconds: 0.1 }, /no leastSeconds/);
  await refused({ labels: 'centre' }, /"inside" or "middle"/);
});

t.test('windows have the labels that are heard inside', async (t) => {
  const path = await make(t.testdir(), LABELS);
  const whole = await fromStrong(path);
  t.match(whole.clips, [
    { id: 'a.wav', labels: [0, 1] },
    { id: 'b.wav', labels: [] },
  ]);
  t.notOk('start' in (whole.clips[0] ?? {}));
  const { clips } = await fromStrong(path, { windowSeconds: 1, hopSeconds: 0.75 });
  t.same(
    clips.map(({ id, start, duration, labels }) => [id, start, duration, labels]),
    [
      ['a.wav@0', 0, 1, [0]],
      // 0.27 s of the cry.
      ['a.wav@0.75', 0.75, 1, [0]],
      ['a.wav@1.5', 1.5, 1, []],
      ['a.wav@2.25', 2.25, 1, [1]],
      ['a.wav@3', 3, 1, [1]],
      ['b.wav@0', 0, 1, []],
      ['b.wav@0.5', 0.5, 1, []],
    ],
  );
  const strict = await fromStrong(path, { windowSeconds: 1, leastSeconds: 0.6 });
  // Only the last bark lies wholly in a window; the others are shorter than 0.6 s and cut.
  t.same(
    strict.clips.map(({ labels }) => labels),
    [[], [], [], [1], [], []],
  );
});

t.test('labels that do not fit are refused', async (t) => {
  const row = (text: string) => `filename,onset,offset,event_label\n${text}\n`;
  const refused = async (text: string, message: RegExp, options = {}) => {
    const path = await make(t.testdir({}), text);
    await t.rejects(readStrong(path, options), { code: 'ERR_PANNS_DATA', message });
  };
  await refused(row('a.wav,2,1,Dog'), /line 2 lasts from "2" to "1"/);
  await refused(row('a.wav,-1,1,Dog'), /line 2/);
  await refused(row('a.wav,0,,Dog'), /line 2/);
  await refused(row('a.wav,0,1,'), /line 2 has no label/);
  await refused(row(',0,1,Dog'), /names no file/);
  await refused(row('a.wav,0,9,Dog'), /ends at 9 s, and a.wav at 4/);
  await refused(row('c.wav,0,1,Dog'), /1 of 1 audio files are missing/);
  await refused(row('a.wav,0,1,Dgo'), /nearest class to the first is "Dog"/, { classes: ['Dog'] });
  await refused('filename,onset,event_label\na.wav,0,Dog\n', /offset/);
  const path = await make(t.testdir({}), LABELS);
  await t.rejects(fromStrong(path, { windowSeconds: 0 }), { code: 'ERR_PANNS_OPTION' });
  await t.rejects(fromStrong(path, { hopSeconds: 2, windowSeconds: 1 }), {
    code: 'ERR_PANNS_OPTION',
  });
  await t.rejects(readStrong(path, { rot: '.' } as object), { message: /"root"/ });
  await t.rejects(readStrong('/no/such.csv'), { code: 'ERR_PANNS_IO' });
});
