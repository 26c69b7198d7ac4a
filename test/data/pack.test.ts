// Packed data sets: written, opened again, read by the loader, by numpy, and when they are damaged.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, truncate, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import t, { type Test } from 'tap';
import { encodeWav16 } from '../../lib/audio/wav.js';
import { openDataset } from '../../lib/cli/data.js';
import { runProgram } from '../../lib/cli/program.js';
import { fromCsv } from '../../lib/data/csv.js';
import type { Clip, Dataset } from '../../lib/data/dataset.js';
import { clipLengths } from '../../lib/data/lengths.js';
import { type Batch, createBatchLoader, type LoaderOptions } from '../../lib/data/loader.js';
import { packClips } from '../../lib/data/pack.js';
import { fromPacked } from '../../lib/data/packed.js';
import type { Random } from '../../lib/data/random.js';
import { sequentialSampler, uniformSampler } from '../../lib/data/sampler.js';
import { kFold, splitStratified } from '../../lib/data/split.js';
import { AbortError } from '../../lib/errors.js';
import { temporaryBeside } from '../../lib/io/leftovers.js';
import { encodeNpy, npyHeader, readNpyHeader } from '../../lib/io/npy.js';
import { openDraws } from '../helpers/random.js';

const { random } = openDraws(t);
const RATE = 8000;
const SECONDS = 0.1;
const S = RATE * SECONDS;
// Characters that mean something in CSV files, and what would be a separator.
const CLASSES = ['dog, small', 'rain; "heavy"', 'silence'];

/** Clips of several lengths and rates, some of them parts of one file, with folds and several labels. */
async function writeDataset(t: Test, draw: Random, count = 14): Promise<Dataset> {
  const folder = t.testdir({ 'a b': {}, deep: { er: {} } });
  const clips: Clip[] = [];
  for (let i = 0; i < count; i++) {
    const path = join(folder, i % 2 === 0 ? 'a b' : 'deep/er', `${i}, "${i}".wav`);
    const sound = new Float32Array(1 + draw.integer(3 * S)).map(() => draw.between(-1, 1));
    await writeFile(path, encodeWav16(sound, i % 3 === 0 ? 11_025 : RATE));
    const labels = [[0], [1], [0, 2], []][i % 4] ?? [];
    clips.push({
      id: `${i % 2 === 0 ? ' ' : ''}clip "${i}", ${i}`,
      path,
      labels,
      fold: `${1 + (i % 3)}`,
    });
  }
  const first = clips[0] as Clip;
  clips.push({ ...first, id: `${first.id}@0.0001`, start: 0.0001, duration: 0.05 });
  return { classes: CLASSES, clips, skipped: [] };
}

const plainly = ({ id, labels, fold }: Clip) => ({ id, labels, fold });

async function batchesOf(options: Partial<LoaderOptions>, count: number) {
  const loader = createBatchLoader({
    ...{ classes: 3, samplesPerClip: S, sampleRate: RATE, batchSize: 4 },
    ...(options as LoaderOptions),
  });
  const found: Pick<Batch, 'waveform' | 'target' | 'indices'>[] = [];
  for await (const { waveform, target, indices } of loader) {
    found.push({ waveform: Int16Array.from(waveform), target, indices });
    if (found.length === count) break;
  }
  loader.close();
  return found;
}

t.test('what was packed comes back: clips, labels, folds, and every bit', async (t) => {
  const dataset = await writeDataset(t, random);
  const { clips } = dataset;
  const out = join(t.testdirName, 'new', 'packed');
  const seen: number[] = [];
  const report = await packClips(dataset, out, {
    ...{ seconds: SECONDS, sampleRate: RATE },
    onProgress: (done, total) => seen.push(done, total),
  });
  t.same(seen, [15, 15]);
  t.match(report, { clips: 15, samples: S, bytes: 4096 + 2 * 15 * S, skipped: [] });
  t.same((await readdir(out)).sort(), ['clips.csv', 'clips.npy', 'pack.json']);
  t.same(await readdir(join(t.testdirName, 'new')), ['packed'], 'nothing passing is left');
  const packed = await fromPacked(out);
  t.same(packed.classes, CLASSES);
  t.same(packed.clips.map(plainly), clips.map(plainly));
  const lengths = await clipLengths(dataset);
  for (const [i, length] of (await clipLengths(packed)).entries()) {
    // A resampled clip has a sample more or less than its length says.
    t.ok(Math.abs(length - Math.min(SECONDS, lengths[i] ?? 0)) < 1.01 / RATE);
  }
  const seed = random.integer(1e6);
  for (const samplesPerClip of [S, S - 100, S + 55]) {
    const options = () => ({ samplesPerClip, sampler: uniformSampler(15, seed), seed });
    const want = await batchesOf({ ...options(), clips, samplesPerClip: S }, 9);
    const got = await batchesOf({ ...options(), clips: packed.clips }, 9);
    t.same(
      got.map(({ indices, target }) => ({ indices, target })),
      want.map(({ indices, target }) => ({ indices, target })),
    );
    for (const [i, { waveform }] of got.entries()) {
      const rows = want[i]?.waveform ?? new Int16Array();
      for (let row = 0; row < 4; row++) {
        const one = waveform.subarray(row * samplesPerClip, (row + 1) * samplesPerClip);
        const two = new Int16Array(samplesPerClip);
        two.set(rows.subarray(row * S, (row + 1) * S).subarray(0, samplesPerClip));
        t.same(one, two, 'the bits of the decoded clip, cut or padded');
      }
    }
  }
});

t.test('longer clips give parts of their rows, which the seed fixes', async (t) => {
  const dataset = await writeDataset(t, random);
  const out = join(t.testdirName, 'packed');
  await packClips(dataset, out, { seconds: 3 * SECONDS, sampleRate: RATE });
  const { clips } = await fromPacked(out);
  const lengths = await clipLengths({ ...dataset, clips });
  const bytes = await readFile(join(out, 'clips.npy'));
  const codes = new Int16Array(bytes.buffer, bytes.byteOffset + 4096, 15 * 3 * S);
  const sampler = () => sequentialSampler(15);
  const part = 50;
  const options = { clips, lengths, samplesPerClip: part, batchSize: 15, seed: 4 };
  const [batch] = await batchesOf({ ...options, sampler: sampler() }, 1);
  const firsts = clips.map(({ packed }, i) => {
    const own = codes.subarray(i * 3 * S, i * 3 * S + (packed?.samples ?? 0));
    const text = `${batch?.waveform.subarray(i * part, (i + 1) * part)}`;
    if (own.length < part)
      return Number(text === `${[...own, ...new Array(part - own.length).fill(0)]}`) - 1;
    for (let at = 0; at + part <= own.length; at++) {
      if (`${own.subarray(at, at + part)}` === text) return at;
    }
    return -1;
  });
  t.ok(
    firsts.every((at) => at >= 0),
    `every row is a part of its clip: ${firsts}`,
  );
  t.ok(new Set(firsts).size > 5, 'another place in each');
  t.same(await batchesOf({ ...options, sampler: sampler() }, 1), [batch]);
});

t.test('folds and splits are those of the files', async (t) => {
  const dataset = await writeDataset(t, random);
  const out = join(t.testdirName, 'packed');
  await packClips(dataset, out, { seconds: SECONDS, sampleRate: RATE });
  const packed = await fromPacked(out);
  const names = ({ clips }: Dataset) => clips.map(({ id }) => id);
  const folds = (data: Dataset) => kFold(data).map(({ test }) => names(test));
  t.same(folds(packed), folds(dataset));
  const options = { testFraction: 0.4, seed: random.integer(1e6) };
  t.same(
    names(splitStratified(packed, options).test),
    names(splitStratified(dataset, options).test),
  );
  t.same(
    names(await fromPacked(out, { folds: [2] })),
    names(dataset).filter((_, i) => i < 14 && i % 3 === 1),
  );
  await t.rejects(fromPacked(out, { folds: [7] }), { code: 'ERR_PANNS_DATA', message: /fold 7/ });
  const other = [...CLASSES].reverse();
  t.same((await openDataset(out, {}, other)).clips[0]?.labels, [2], 'classes in another order');
  await t.rejects(fromPacked(out, { classes: ['rain'] }), { code: 'ERR_PANNS_DATA' });
  await t.rejects(openDataset(out, { labelColumn: 'x' }), { code: 'ERR_PANNS_OPTION' });
  await t.rejects(fromPacked(out, { fold: [2] } as never), { code: 'ERR_PANNS_OPTION' });
  // As any CSV file with a header, by those who know nothing of packing.
  const labelled = await packClips(
    { ...dataset, clips: dataset.clips.filter(({ labels }) => labels.length === 1) },
    join(t.testdirName, 'single'),
    { seconds: SECONDS, sampleRate: RATE },
  );
  const lines = await fromCsv(join(t.testdirName, 'single', 'clips.csv'));
  t.equal(lines.clips.length, labelled.clips);
  t.match(lines.clips[1], { labels: [1], fold: '2' });
  // A packed data set can be packed again.
  const again = join(t.testdirName, 'again');
  await packClips(packed, again, { seconds: SECONDS, sampleRate: RATE });
  for (const name of ['clips.npy', 'clips.csv', 'pack.json']) {
    t.ok((await readFile(join(again, name))).equals(await readFile(join(out, name))), name);
  }
  await t.rejects(packClips(packed, `${again}2`, { seconds: SECONDS, sampleRate: 16_000 }), {
    ...{ code: 'ERR_PANNS_DATA', message: /packed at 8000 Hz, and 16000 Hz.*--sample-rate 16000/ },
  });
  // A clip that fills its row may have been cut.
  const longer = { seconds: SECONDS + 0.1, sampleRate: RATE };
  await t.rejects(packClips(packed, `${again}2`, longer), {
    code: 'ERR_PANNS_DATA',
    message: /may have been cut .* to 0\.1 s, and 0\.2 s are asked for.*panns pack --seconds 0\.2/,
  });
  const whole = packed.clips.filter(({ packed }) => (packed?.samples ?? 0) < S);
  t.ok(whole.length > 1, 'others are as long as they ever were');
  t.equal((await packClips({ ...packed, clips: whole }, `${again}2`, longer)).samples, 2 * S);
  const wrongRate = { clips: packed.clips, sampler: sequentialSampler(15), sampleRate: 32_000 };
  await t.rejects(batchesOf(wrongRate, 1), {
    code: 'ERR_PANNS_DATA',
    message: /pack the data set again/,
  });
});

t.test('clips that cannot be read', async (t) => {
  const dataset = await writeDataset(t, random);
  const bad = [dataset.clips[2], dataset.clips[13]] as Clip[];
  for (const { path } of bad) await truncate(path, 30);
  const out = join(t.testdirName, 'packed');
  const options = { seconds: SECONDS, sampleRate: RATE };
  await t.rejects(packClips(dataset, out, options), {
    ...{ code: 'ERR_PANNS_DATA', message: /packed: 2 clips cannot be read: +clip "2", 2 \(/ },
  });
  t.notOk(
    (await readdir(t.testdirName)).some((name) => name.includes('packed')),
    'nothing is left',
  );
  const report = await packClips(dataset, out, { ...options, onBadClip: 'skip' });
  t.equal(report.clips, 13);
  t.same(
    report.skipped.map(({ id }) => id),
    bad.map(({ id }) => id),
  );
  const packed = await fromPacked(out);
  t.same(packed.skipped, report.skipped);
  const rest = dataset.clips.filter((clip) => !bad.includes(clip));
  t.same(packed.clips.map(plainly), rest.map(plainly));
  t.same(
    await batchesOf({ clips: packed.clips, sampler: sequentialSampler(13) }, 9),
    await batchesOf({ clips: rest, sampler: sequentialSampler(13) }, 9),
  );
  const none = { ...dataset, clips: bad };
  await t.rejects(packClips(none, `${out}2`, { ...options, onBadClip: 'skip' }), {
    code: 'ERR_PANNS_DATA',
  });
});

t.test('what is there is never written over; an abort leaves nothing', async (t) => {
  const dataset = await writeDataset(t, random, 3);
  const options = { seconds: SECONDS, sampleRate: RATE };
  const full = join(t.testdirName, 'deep');
  await t.rejects(packClips(dataset, full, options), { code: 'ERR_PANNS_IO', message: /already/ });
  await t.rejects(packClips(dataset, join(dataset.clips[0]?.path ?? '', 'x'), options), {
    code: 'ERR_PANNS_IO',
  });
  const stop = new AbortController();
  const out = join(t.testdirName, 'packed');
  const slow = async (requests: readonly unknown[]) => {
    stop.abort();
    return requests.map(() => new Float32Array(S));
  };
  const under = packClips(dataset, out, { ...options, decode: slow, signal: stop.signal });
  await t.rejects(under, AbortError);
  t.notOk((await readdir(t.testdirName)).some((name) => name.includes('packed')));
  for (const fault of [
    { seconds: 0 },
    { seconds: Number.NaN },
    { seconds: 1e9 },
    { sampleRate: 1.5 },
    { onBadClip: 'ignore' as never },
    { samplerate: 8000 } as never,
  ]) {
    await t.rejects(
      packClips(dataset, out, fault),
      { code: 'ERR_PANNS_OPTION' },
      `${Object.keys(fault)}`,
    );
  }
  await t.rejects(packClips({ ...dataset, clips: [] }, out), { code: 'ERR_PANNS_DATA' });
});

t.test(
  'a file that is cut, replaced or foreign is an error, when it is opened and later',
  async (t) => {
    const dataset = await writeDataset(t, random);
    const out = join(t.testdirName, 'packed');
    await packClips(dataset, out, { seconds: SECONDS, sampleRate: RATE });
    const { clips } = await fromPacked(out);
    const damaged = async (name: string, change: (path: string) => Promise<unknown>) => {
      const copy = join(t.testdirName, `damaged-${random.uint32()}`);
      cpSync(out, copy, { recursive: true });
      await change(join(copy, name));
      return fromPacked(copy);
    };
    const header = (text: string) => async (path: string) => {
      const bytes = await readFile(path);
      bytes.fill(' ', 10, 4095);
      bytes.write(text, 10, 'latin1');
      await writeFile(path, bytes);
    };
    const dict = (type: string, order: string, shape: string) =>
      header(`{'descr': ${type}, 'fortran_order': ${order}, 'shape': ${shape}, }`);
    const data = { code: 'ERR_PANNS_DATA' };
    const size = 4096 + 2 * 15 * S;
    const faults: [string, (path: string) => Promise<unknown>, RegExp][] = [
      ['clips.npy', (path) => truncate(path, size - 1), /cut off/],
      ['clips.npy', (path) => truncate(path, size + 2), /too long/],
      ['clips.npy', (path) => truncate(path, 4000), /header is cut off/],
      ['clips.npy', (path) => truncate(path, 0), /not a \.npy file/],
      ['clips.npy', (path) => writeFile(path, 'RIFF and so on, no array'), /not a \.npy file/],
      ['clips.npy', dict("'<f4'", 'False', `(15, ${S})`), /expected \(15, 800\) of <i2/],
      ['clips.npy', dict("'<i2'", 'True', `(15, ${S})`), /Fortran/],
      ['clips.npy', dict("'<i2'", 'False', `(${S}, 15)`), /got \(800,15\)/],
      ['clips.npy', dict("'<i2'", 'False', '(1e3, 2)'), /dictionary/],
      ['clips.npy', dict("'<i2'", 'False', `(${'9'.repeat(400)}, 2)`), /dictionary/],
      ['clips.npy', dict("'<i2'", 'False', `(${'('.repeat(2000)}`), /dictionary/],
      ['clips.npy', header(`{${"'x': 1, ".repeat(400)}`), /dictionary/],
      ['clips.npy', header(`{${' '.repeat(3000)}'descr'`), /dictionary/],
      ['clips.csv', (path) => truncate(path, 300), /rows|columns|line|CSV/],
      ['clips.csv', (path) => writeFile(path, 'row,samples\n0,1\n'), /label/],
      ['pack.json', (path) => writeFile(path, '{"version": 1, "clips": 15'), /JSON/],
      ['pack.json', (path) => writeFile(path, 'null'), /does not describe/],
      ['pack.json', (path) => writeFile(path, '{"version":1,"clips":-1}'), /does not describe/],
    ];
    for (const [name, change, message] of faults) {
      await t.rejects(damaged(name, change), { ...data, message }, `${name}: ${message}`);
    }
    const newer = (path: string) => writeFile(path, '{"version": 2}');
    await t.rejects(damaged('pack.json', newer), { code: 'ERR_PANNS_UNSUPPORTED' });
    const csv = await readFile(join(out, 'clips.csv'), 'utf8');
    for (const [from, to] of [
      [/^(clips.npy),3,/m, '$1,15,'],
      [/^(clips.npy),3,/m, '$1,2,'],
      [/^(clips.npy),3,/m, '$1,-3,'],
      [/^(clips.npy,3),\d+/m, `$1,${S + 1}`],
      [/^(clips.npy,3),\d+/m, '$1,0'],
    ] as const) {
      t.not(csv.replace(from, to), csv);
      await t.rejects(
        damaged('clips.csv', (path) => writeFile(path, csv.replace(from, to))),
        data,
        to,
      );
    }
    await t.rejects(fromPacked(join(t.testdirName, 'none')), { code: 'ERR_PANNS_IO' });

    // Under the hands of a loader.
    const path = join(out, 'clips.npy');
    const options = () => ({ clips, sampler: sequentialSampler(15) });
    await truncate(path, 4096 + 2 * S + 2);
    const cut = batchesOf(options(), 4);
    await t.rejects(cut, { ...data, message: /clips cannot be decoded.*it was cut or replaced/ });
    await rename(path, `${path}.moved`);
    await t.rejects(batchesOf(options(), 4), { ...data, message: /clips\.npy/ });
  },
);

t.test('panns pack, and a training on what it wrote', async (t) => {
  const dataset = await writeDataset(t, random);
  const folder = join(t.testdirName, 'classes');
  for (const [i, { path }] of dataset.clips.slice(0, 8).entries()) {
    cpSync(path, join(folder, `class ${i % 2}`, `${i}.wav`));
  }
  await writeFile(join(folder, 'class 0', 'bad.wav'), 'no audio at all');
  const [out, run] = [join(t.testdirName, 'packed'), join(t.testdirName, 'run')];
  const said: string[] = [];
  const errors: string[] = [];
  const panns = (...words: string[]) =>
    runProgram(words, {
      print: (line) => said.push(line),
      messages: { write: (text) => errors.push(text) },
      signal: new AbortController().signal,
    });
  const words = [
    'pack',
    '--data',
    folder,
    '--out',
    out,
    '--seconds',
    '0.1',
    '--sample-rate',
    '8000',
  ];
  t.equal(await panns(...words), 1);
  t.match(errors.join(''), /error ERR_PANNS_DATA: .*1 clips cannot be read: class 0\/bad\.wav/);
  t.equal(await panns(...words, '--skip-bad'), 0);
  t.match(said.join('\n'), /8 clips of 800 samples .*\nleft out: class 0\/bad\.wav/);
  t.equal(await panns(...words, '--skip-bad'), 1, 'not over what is there');
  const small = ['--model', 'Cnn6', '--sample-rate', '8000', '--mel-bins', '16', '--threads', '1'];
  const more = ['--batch-size', '4', '--epochs', '0.5', '--val-fraction', '0'];
  errors.length = 0;
  const long = ['--seconds', '0.3'];
  t.equal(await panns('train', '--data', out, '--out', run, ...small, ...more, ...long), 1);
  t.match(
    errors.join(''),
    /may have been cut when it was packed, to 0.1 s, and 0.3 s are asked for/,
  );
  said.length = 0;
  const status = await panns('train', '--data', out, '--out', run, ...small, ...more, '--json');
  t.equal(status, 0, errors.join(''));
  const events = said.map((line) => JSON.parse(line) as { event: string; classes?: string[] });
  t.same(events[0]?.classes, ['class 0', 'class 1']);
  t.equal(events.filter(({ event }) => event === 'step').length, 1);
});

t.test('what a killed process has left is removed, and nothing of a live one', async (t) => {
  const dataset = await writeDataset(t, random, 2);
  const out = join(t.testdirName, 'packed');
  const url = new URL('../../lib/io/leftovers.ts', import.meta.url).href;
  const program = `
    import { mkdirSync } from 'node:fs';
    const { temporaryBeside } = await import(${JSON.stringify(url)});
    mkdirSync(await temporaryBeside(${JSON.stringify(out)}));
    process.kill(process.pid, 'SIGKILL');`;
  const killed = spawnSync(process.execPath, [
    ...process.execArgv,
    '-e',
    program,
    '--input-type=module',
  ]);
  t.equal(killed.signal, 'SIGKILL', killed.stderr.toString());
  const hidden = async () => {
    const names = await readdir(t.testdirName);
    return names.filter((name) => name.startsWith('.')).sort();
  };
  const [dead = ''] = await hidden();
  t.match(dead, /^\.packed\.[0-9a-f]{8}-\d+-[0-9a-f]{12}\.tmp$/);
  const elsewhere = dead.replace(/[0-9a-f]{8}(?=-)/, '00000000');
  const other = dead.replace('packed', 'packed2');
  const live = basename(await temporaryBeside(out));
  const kept = [elsewhere, other, live, '.packed.0-1-2.tmp', '.packed.mine.tmp'].sort();
  for (const name of kept) await mkdir(join(t.testdirName, name));
  await packClips(dataset, out, { seconds: SECONDS, sampleRate: RATE });
  t.same(await hidden(), kept);
});

t.test('.npy headers', async (t) => {
  const path = join(t.testdir(), 'x.npy');
  for (const shape of [[], [3], [2, 5], [1, 2, 3]]) {
    const count = shape.reduce((product, n) => product * n, 1);
    const [head, values] = encodeNpy(shape, new Float32Array(count)) as [Buffer, Float32Array];
    await writeFile(path, Buffer.concat([head, Buffer.from(values.buffer)]));
    t.same(await readNpyHeader(path), {
      ...{
        type: '<f4',
        fortranOrder: false,
        shape,
        offset: head.length,
        fileBytes: head.length + 4 * count,
      },
    });
  }
  t.equal(npyHeader('<i2', [2 ** 40, 320_000], 4096).length, 4096);
  // The later forms have a longer length.
  const text = "{'shape': (4,), 'fortran_order': False, 'descr': '<i2'}\n";
  const long = Buffer.alloc(12 + text.length);
  long.write('\x93NUMPY\x03\x00', 'latin1');
  long.writeUInt32LE(text.length, 8);
  long.write(text, 12);
  await writeFile(path, long);
  t.match(await readNpyHeader(path), { type: '<i2', shape: [4], offset: long.length });
  long.writeUInt32LE(2 ** 31, 8);
  await writeFile(path, long);
  await t.rejects(readNpyHeader(path), { code: 'ERR_PANNS_DATA' });
});

const venv = join(import.meta.dirname, '..', '..', '.venv', 'bin', 'python');
const python = process.env.PANNS_PYTHON ?? venv;
const noPython = existsSync(python) ? false : `no Python at ${python}; PANNS_PYTHON may name one`;

t.test('numpy maps what was packed', { skip: noPython }, async (t) => {
  const dataset = await writeDataset(t, random);
  const out = join(t.testdirName, 'packed');
  await packClips(dataset, out, { seconds: SECONDS, sampleRate: RATE });
  const program = `
import numpy, sys
x = numpy.load(sys.argv[1], mmap_mode='r')
assert x.dtype == numpy.int16 and x.shape == (15, ${S}) and x.offset == 4096
assert x.flags['C_CONTIGUOUS']
sys.stdout.buffer.write(numpy.array(x).tobytes())`;
  const run = spawnSync(python, ['-c', program, join(out, 'clips.npy')]);
  t.equal(run.status, 0, run.stderr.toString());
  const file = await open(join(out, 'clips.npy'));
  const bytes = (await file.readFile()).subarray(4096);
  await file.close();
  t.ok(bytes.equals(run.stdout));
});
