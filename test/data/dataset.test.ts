import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fromCsv } from '../../lib/data/csv.js';
import { requireClasses } from '../../lib/data/dataset.js';
import { fromFolder } from '../../lib/data/folder.js';
import { createRandom, type Random } from '../../lib/data/random.js';
import { PannsError } from '../../lib/errors.js';
import { freshSeed } from './fresh_seed.js';

const DATA = { code: 'ERR_PANNS_DATA' };

t.test('folders: sorted classes and files, nested and hidden ones, other files', async (t) => {
  const root = t.testdir({
    rain: { 'b.WAV': '', 'a.flac': '', 'notes.txt': '' },
    dog: { deep: { 'z.mp3': '' }, 'a.ogg': '', '.hidden.wav': '', '.cache': { 'x.wav': '' } },
    Zebra: { 'é.wav': '' },
    '.git': { 'x.wav': '' },
    'README.md': '',
  });
  const { classes, clips, skipped } = await fromFolder(root);
  t.same(classes, ['Zebra', 'dog', 'rain']);
  t.same(
    clips.map(({ id, labels }) => [id, ...labels]),
    [
      ['Zebra/é.wav', 0],
      ['dog/a.ogg', 1],
      ['dog/deep/z.mp3', 1],
      ['rain/a.flac', 2],
      ['rain/b.WAV', 2],
    ],
  );
  t.equal(clips[2]?.path, join(root, 'dog', 'deep', 'z.mp3'));
  t.same(skipped, []);
});

t.test('folders: links are followed, circles end', async (t) => {
  const root = t.testdir({ data: { a: { 'x.wav': '' } }, store: { 'y.wav': '' } });
  symlinkSync(join(root, 'store'), join(root, 'data', 'b'));
  symlinkSync(join(root, 'data', 'a'), join(root, 'data', 'a', 'again'));
  const { classes, clips } = await fromFolder(join(root, 'data'));
  t.same(classes, ['a', 'b']);
  t.same(
    clips.map(({ id }) => id),
    ['a/x.wav', 'b/y.wav'],
  );
});

t.test('folders: what cannot be used is named', async (t) => {
  const root = t.testdir({
    silent: { good: { 'a.wav': '' }, quiet: { 'a.txt': '' }, empty: {} },
    stray: { good: { 'a.wav': '' }, 'lost.wav': '' },
    none: { 'a.txt': '' },
    plain: { dog: { 'a.wav': '' }, cat: { 'b.wav': '' } },
  });
  const at = (name: string) => join(root, name);
  await t.rejects(fromFolder(at('silent')), { ...DATA, message: /no audio: empty, quiet/ });
  await t.rejects(fromFolder(at('stray')), { ...DATA, message: /lost\.wav/ });
  await t.rejects(fromFolder(at('none')), { ...DATA, message: /no class folder/ });
  await t.rejects(fromFolder(at('absent')), { code: 'ERR_PANNS_IO', message: /ENOENT/ });
  const classes = (names: string[]) => fromFolder(at('plain'), { classes: names });
  t.same(
    (await classes(['dog', 'cat'])).clips.map(({ labels }) => labels),
    [[0], [1]],
  );
  await t.rejects(classes(['dog', 'cats']), {
    ...DATA,
    message: /cat .*nearest class is "cats".*without a folder: cats/,
  });
  await t.rejects(classes(['dog', 'cat', 'cow']), { ...DATA, message: /without a folder: cow/ });
  await t.rejects(classes(['dog', 'cat', 'dog']), { ...DATA, message: /"dog" stands twice/ });
  await t.rejects(classes([]), { ...DATA, message: /empty/ });
  await t.rejects(fromFolder(at('plain'), { clases: [] } as never), {
    code: 'ERR_PANNS_OPTION',
    message: /did you mean "classes"/,
  });
  const only = await fromFolder(at('plain'), { extensions: ['.WAV'] });
  t.equal(only.clips.length, 2);
});

/** Writes a CSV beside `files` and reads it. */
function csv(t: Tap, text: string | Uint8Array, options = {}, files = ['a.wav', 'b.wav', 'c.wav']) {
  const root = t.testdir(Object.fromEntries(files.map((name) => [name, ''])));
  const path = join(root, 'meta.csv');
  writeFileSync(path, text);
  return { root, path, read: () => fromCsv(path, options) };
}
type Tap = { testdir(content: Record<string, string>): string };

t.test('csv: usual columns, quotes, blanks, byte order mark, line ends', async (t) => {
  const text =
    '\ufeffFold, Filename ,Category,note\r\n1, a.wav ,"Inside, small room","x\ny"\r\n\r\n2,b.wav,"say ""hi""",\r\n';
  const { root, read } = csv(t, text);
  const { classes, clips } = await read();
  t.same(classes, ['Inside, small room', 'say "hi"']);
  t.same(clips, [
    { id: 'a.wav', path: join(root, 'a.wav'), labels: [0], fold: '1' },
    { id: 'b.wav', path: join(root, 'b.wav'), labels: [1], fold: '2' },
  ]);
});

t.test('csv: several labels a clip, given classes, parts of files', async (t) => {
  const { read } = csv(
    t,
    'path;labels;on;len\na.wav;"dog, cat,dog";0;1.5\na.wav;cat;2.5;\na.wav;cat;2.5;1\n',
    {
      labelSeparator: ',',
      startColumn: 'on',
      durationColumn: 'LEN',
      classes: ['cow', 'dog', 'cat'],
    },
  );
  const { clips, classes } = await read();
  t.same(classes, ['cow', 'dog', 'cat']);
  t.match(clips, [
    { id: 'a.wav@0', labels: [1, 2], start: 0, duration: 1.5 },
    { id: 'a.wav@2.5', labels: [2], start: 2.5 },
    { id: 'a.wav@2.5#2', labels: [2], start: 2.5, duration: 1 },
  ]);
  t.notOk('duration' in (clips[1] ?? {}));
});

t.test('csv: tabs, folds, another root', async (t) => {
  const root = t.testdir({ audio: { 'a.wav': '', 'b.wav': '' } });
  const path = join(root, 'meta.tsv');
  writeFileSync(path, 'file\tlabel\tsplit\na.wav\tx\ttrain\nb.wav\ty\ttest\n');
  const set = await fromCsv(path, { root: join(root, 'audio'), folds: ['test'] });
  t.same(set.classes, ['x', 'y'], 'the classes of all folds');
  t.same(
    set.clips.map(({ id }) => id),
    ['b.wav'],
  );
  await t.rejects(fromCsv(path, { root: join(root, 'audio'), folds: [3] }), {
    ...DATA,
    message: /fold 3/,
  });
  await t.rejects(fromCsv(path, { root: join(root, 'audio'), folds: [] }), DATA);
});

t.test('csv: missing files are counted and ten are named, or left out when asked', async (t) => {
  const rows = Array.from({ length: 30 }, (_, i) => `${i % 3 ? `none${i}` : 'a'}.wav,x`);
  const { root, path, read } = csv(t, `file,label\n${rows.join('\n')}\n`);
  mkdirSync(join(root, 'none1.wav'));
  const error = await read().catch((e: unknown) => e as PannsError);
  t.match(error, { ...DATA, message: /20 of 30 audio files are missing: / });
  const named = (error as PannsError).message.match(/none\d+\.wav/g) ?? [];
  t.equal(named.length, 10, 'a folder is no file');
  t.match((error as PannsError).message, /and 10 more/);
  const set = await fromCsv(path, { skipMissing: true });
  t.equal(set.clips.length, 10);
  t.equal(set.skipped.length, 20);
  t.match(set.skipped[0], { id: 'none1.wav', reason: /does not exist/ });
  const lost = await fromCsv(path, { skipMissing: true, root: '/nowhere' }).catch(
    (e: unknown) => e,
  );
  t.match(lost, { ...DATA, message: /30 of 30/ }, 'nothing left is an error all the same');
});

t.test('csv: faults say where they are', async (t) => {
  const cases: [RegExp, string | Uint8Array, object?][] = [
    [/empty/, ''],
    [/header and no rows/, 'file,label\n'],
    [/not UTF-8/, Uint8Array.of(0x66, 0xff, 0x0a)],
    [/not well-formed/, 'file,label\n"a.wav,x\n'],
    [/line 3 has 3 columns and the header 2/, 'file,label\na.wav,x\nb.wav,y,z\n'],
    [/line 4 has 1 columns/, 'file,label\na.wav,x\n\nb.wav\n'],
    [/line 2 names no file/, 'file,label\n,x\n'],
    [/line 3 has no label/, 'file,label\na.wav,x\nb.wav,\n'],
    [/line 2 has no label/, 'file,label\na.wav,;;\n', { labelSeparator: ';' }],
    [/set fileColumn \(the header has nme, label\)/, 'nme,label\na.wav,x\n'],
    [/set labelColumn/, 'file,klass\na.wav,x\n'],
    [/no column "labl"; did you mean "label"/, 'file,label\na.wav,x\n', { labelColumn: 'labl' }],
    [/no column "f"/, 'file,label\na.wav,x\n', { foldColumn: 'f' }],
    [/"label" twice/, 'file,label,label\na.wav,x,y\n'],
    [/line 2 has the start "soon"/, 'file,label,s\na.wav,x,soon\n', { startColumn: 's' }],
    [/line 2 has the start "-1"/, 'file,label,s\na.wav,x,-1\n', { startColumn: 's' }],
    [/line 2 has the duration "0"/, 'file,label,s\na.wav,x,0\n', { durationColumn: 's' }],
    [
      /1 labels are not among the 2 classes: dg .*"dog"/,
      'file,label\na.wav,dg\n',
      { classes: ['cat', 'dog'] },
    ],
    [/empty name/, 'file,label\na.wav,dog\n', { classes: ['dog', ' '] }],
  ];
  for (const [message, text, options] of cases) {
    const { read, path } = csv(t, text, options);
    await t.rejects(read(), { ...DATA, where: path, message }, String(message));
  }
  await t.rejects(csv(t, 'file,label\na.wav,x\n', { labelSeparator: '::' }).read(), {
    code: 'ERR_PANNS_OPTION',
  });
  await t.rejects(fromCsv('/nowhere.csv'), { code: 'ERR_PANNS_IO', where: '/nowhere.csv' });
});

/** A small valid file with some pieces thrown in, replaced or cut out. */
function randomText(random: Random): string {
  const rows = Array.from({ length: 1 + random.integer(5) }, () => {
    return `${random.integer(2) ? 'a' : 'b'}.wav,${['x', '"y"', '__proto__'][random.integer(3)]}`;
  });
  let text = `file,label\n${rows.join('\n')}\n`;
  const pieces = [',', ';', '\t', '"', '""', '\n', '\r\n', '\r', ' ', 'é', '\0', '../', 'x'];
  for (let n = random.integer(4); n > 0; n--) {
    const at = random.integer(text.length);
    const piece = random.integer(4) ? pieces[random.integer(pieces.length)] : '';
    text = text.slice(0, at) + piece + text.slice(at + random.integer(3));
  }
  return text;
}

t.test('csv: whatever the text, a data set that holds together or our own error', async (t) => {
  const random = createRandom(freshSeed(t));
  const root = t.testdir({ 'a.wav': '', 'b.wav': '' });
  const path = join(root, 'meta.csv');
  const outcomes = { read: 0, refused: 0 };
  for (let i = 0; i < 1500; i++) {
    const text = randomText(random);
    writeFileSync(path, text);
    try {
      const { classes, clips } = await fromCsv(path);
      outcomes.read++;
      const sound = clips.every(({ labels }) => labels.length === 1 && classes[labels[0] ?? -1]);
      if (!sound || clips.length === 0) t.fail(JSON.stringify(text));
    } catch (error) {
      outcomes.refused++;
      if (!(error instanceof PannsError && error.code === 'ERR_PANNS_DATA')) {
        t.fail(JSON.stringify(text), { error });
      }
    }
  }
  t.ok(outcomes.read > 200 && outcomes.refused > 200, JSON.stringify(outcomes));
});

t.test('csv: random fields survive quoting', async (t) => {
  const random = createRandom(freshSeed(t));
  const root = t.testdir({ 'a.wav': '' });
  const path = join(root, 'meta.csv');
  const pieces = ['a', ',', '"', ';', '\n', 'é', ' ', '\t', '/', '😀'];
  for (let round = 0; round < 50; round++) {
    const names = Array.from({ length: 8 }, () => {
      const parts = Array.from({ length: 1 + random.integer(6) }, () => pieces[random.integer(10)]);
      return `<${parts.join('')}>`;
    });
    const rows = names.map((name) => `a.wav,"${name.replaceAll('"', '""')}"`);
    writeFileSync(path, `file,label\n${rows.join('\n')}\n`);
    const { classes, clips } = await fromCsv(path);
    const back = clips.map(({ labels }) => classes[labels[0] ?? -1]);
    if (JSON.stringify(back) !== JSON.stringify(names)) t.same(back, names);
  }
  t.pass('50 files');
});

const esc10 = join(import.meta.dirname, '../../../shared/data/esc10/meta.csv');
t.test(
  'csv: ESC-10 works without options',
  {
    skip: existsSync(esc10) ? false : 'the ESC-10 data is not here',
  },
  async (t) => {
    const all = await fromCsv(esc10);
    t.equal(all.clips.length, 320);
    t.equal(all.classes.length, 10);
    t.equal(all.classes[all.clips[0]?.labels[0] ?? -1], 'dog');
    const first = await fromCsv(esc10, { folds: [1, '2'] });
    t.equal(first.clips.length, 160);
    t.same(new Set(first.clips.map(({ fold }) => fold)), new Set(['1', '2']));
    t.same(first.classes, all.classes);
  },
);

t.test('requireClasses compares count, names and order', async (t) => {
  const set = { classes: ['a', 'b'], clips: [], skipped: [] };
  requireClasses(set, ['a', 'b']);
  t.throws(() => requireClasses(set, ['a', 'b', 'c']), {
    ...DATA,
    message: /3 classes and the data set 2/,
  });
  t.throws(() => requireClasses(set, ['b', 'a']), { ...DATA, message: /class 0 is "b".*"a"/ });
});
