// HDF5 files as audioset_tagging_cnn packs them, written by h5py: their clips are numpy's, and what is
// laid out otherwise, damaged, cut off or gone is an error.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { copyFile, open, readFile, rename, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { openDataset } from '../../lib/cli/data.js';
import { runProgram } from '../../lib/cli/program.js';
import type { Dataset } from '../../lib/data/dataset.js';
import { fromHdf5 } from '../../lib/data/hdf5.js';
import { createBatchLoader } from '../../lib/data/loader.js';
import { packClips } from '../../lib/data/pack.js';
import { sequentialSampler, uniformSampler } from '../../lib/data/sampler.js';
import { AbortError, PannsError } from '../../lib/errors.js';
import { audiosetLabels } from '../../lib/labels.js';
import { writePack } from '../helpers/hdf5.js';
import { openDraws } from '../helpers/random.js';

const { random } = openDraws(t);
const venv = join(import.meta.dirname, '..', '..', '.venv', 'bin', 'python');
const python = process.env.PANNS_PYTHON ?? venv;
const skip = existsSync(python) ? false : `no Python at ${python}; PANNS_PYTHON may name one`;

/** S of the packs. */
const S = 400;
const RATE = 32_000;

/** A row of a pack: its name and its labels. */
type Row = readonly [name: string, labels: readonly number[]];

function write(t: Test, what: 'tree' | 'odd', ...more: string[]): string {
  const folder = t.testdir({});
  const program = join(import.meta.dirname, '..', 'oracle', 'packs.py');
  const words = [program, what, folder, String(random.uint32()), ...more];
  const run = spawnSync(python, words, { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(run.stderr);
  return folder;
}

function truthOf<T>(folder: string): { truth: T; samples: Int16Array } {
  const bytes = readFileSync(join(folder, 'samples'));
  const samples = new Int16Array(Uint8Array.from(bytes).buffer);
  return { truth: JSON.parse(readFileSync(join(folder, 'truth.json'), 'utf8')) as T, samples };
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Int16Array) =>
  Buffer.from(buffer, byteOffset, byteLength);

/** Compares clips, and batches of them in random order, with what numpy has. */
async function same(t: Test, dataset: Dataset, rows: readonly Row[], samples: Int16Array) {
  const { clips } = dataset;
  const present = [...rows.keys()].filter((i) => rows[i]?.[0] !== '');
  t.same(
    clips.map(({ id, labels }) => [id, labels]),
    present.map((i) => rows[i]),
  );
  t.equal(clips.length + dataset.skipped.length, rows.length);
  const batchSize = 1 + random.integer(9);
  const loader = createBatchLoader({
    ...{ clips, classes: dataset.classes.length, samplesPerClip: S, sampleRate: RATE, batchSize },
    sampler: uniformSampler(clips.length, random.uint32()),
  });
  const seen = new Set<number>();
  for (let count = 0; count < 3 + clips.length / batchSize; count++) {
    const { value } = await loader.next();
    if (value === undefined) throw new Error('the loader ended');
    const { waveform, target, indices } = value;
    for (const [row, index] of indices.entries()) {
      seen.add(index);
      const at = present[index] as number;
      const own = waveform.subarray(row * S, (row + 1) * S);
      if (!bytesOf(own).equals(bytesOf(samples.subarray(at * S, (at + 1) * S)))) {
        t.fail(`clip ${index} has other samples`);
      }
      const columns = target.subarray(row * 527, (row + 1) * 527);
      const ones = [...columns.keys()].filter((column) => columns[column] === 1);
      if (`${ones}` !== `${rows[at]?.[1]}`) t.fail(`clip ${index} has other labels`);
    }
    loader.release?.(value);
  }
  loader.close();
  t.ok(seen.size > clips.length / 2);
}

// The first is what h5py wrote up to HDF5 1.14, the second what it writes now.
for (const libver of ['earliest,v108', 'v108,v108']) {
  t.test(`a workspace of the official scripts, ${libver}`, { skip }, async (t) => {
    const folder = join(write(t, 'tree', libver), 'hdf5s');
    const { truth, samples } = truthOf<Row[][]>(folder);
    const counts = truth.map((rows) => rows.length);
    const names = ['balanced_train', 'unbalanced_train/part00', 'unbalanced_train/part01'];
    let first = 0;
    for (const [i, name] of names.entries()) {
      const own = samples.subarray(first * S, (first + (counts[i] ?? 0)) * S);
      first += counts[i] ?? 0;
      for (const kind of ['waveforms', 'indexes']) {
        const dataset = await fromHdf5(join(folder, kind, `${name}.h5`));
        t.equal(dataset.classes, audiosetLabels);
        t.match(dataset.clips[0], { duration: S / RATE, packed: { samples: S, sampleRate: RATE } });
        await same(t, dataset, truth[i] ?? [], own);
      }
    }
    const full = join(folder, 'indexes', 'full_train.h5');
    await same(t, await openDataset(full), truth.flat(), samples);

    const all = await fromHdf5(full, { unnamed: 'keep' });
    t.equal(all.clips.length, truth.flat().length);
    const silent = all.clips.findIndex((_, i) => truth.flat()[i]?.[0] === '');
    t.match(all.clips[silent], { id: /\.h5#\d+$/, labels: [] });
    const loader = createBatchLoader({
      ...{ clips: all.clips, classes: 527, samplesPerClip: S, sampleRate: RATE, batchSize: 1 },
      sampler: sequentialSampler(silent + 1),
    });
    for (let i = 0; i < silent; i++) await loader.next();
    t.ok((await loader.next()).value?.waveform.every((x) => x === 0));
    loader.close();

    // Packs that moved.
    const data = { code: 'ERR_PANNS_DATA' };
    const moved = join(folder, '..', 'moved');
    await rename(join(folder, 'waveforms'), moved);
    await t.rejects(fromHdf5(full), {
      ...data,
      message: /3 of 3 packs are missing: \/machine.*, /,
    });
    await same(t, await fromHdf5(full, { root: moved }), truth.flat(), samples);
    // Packs that are not those of the index.
    await copyFile(join(moved, `${names[2]}.h5`), join(moved, `${names[0]}.h5`));
    await t.rejects(fromHdf5(full, { root: moved }), { ...data, message: /make the index again/ });
    await copyFile(full, join(moved, `${names[0]}.h5`));
    await t.rejects(fromHdf5(full, { root: moved }), { ...data, message: /pack has no waveform/ });
    const stop = AbortSignal.abort();
    await t.rejects(fromHdf5(full, { root: moved, signal: stop }), AbortError);
  });
}

t.test('packs that are laid out otherwise', { skip }, async (t) => {
  const folder = write(t, 'odd');
  const { truth, samples } = truthOf<[Row[], number[]]>(folder);
  const pack = (name: string) => join(folder, `${name}.h5`);
  for (const name of ['plain', 'user_block']) {
    await same(t, await fromHdf5(pack(name)), truth[0], samples);
  }
  const [data, foreign] = [{ code: 'ERR_PANNS_DATA' }, { code: 'ERR_PANNS_UNSUPPORTED' }];
  const faults: [string, { code: string }, RegExp][] = [
    ['gzip', foreign, /"waveform" is compressed: .*h5repack -f NONE -l CONTI/],
    ['gzip_names', foreign, /"audio_name" is compressed/],
    ['chunks', foreign, /waveform lies in pieces \(chunked\): .*h5repack/],
    ['chunks_latest', foreign, /"target".*libver='latest'/],
    ['virtual', foreign, /"waveform" is virtual/],
    ['elsewhere', foreign, /lies in other files/],
    ['committed', foreign, /in common/],
    ['many', foreign, /more than 8 names/],
    ['floats', data, /\(N, S\) of int16.* got \(6,400\) of 32-bit float/],
    ['big_endian', data, /got .*16-bit integer, big-endian/],
    ['unsigned', data, /got .*unsigned 16-bit/],
    ['flat', data, /got \(2400\)/],
    ['empty', data, /waveform is empty/],
    ['nothing', data, /nothing was ever written to waveform/],
    ['fewer', data, /5 waveforms and 6 names/],
    ['fewer_targets', data, /6 names and 5 of labels/],
    ['no_waveform', data, /expected waveform, .* the file has audio_name, target/],
    ['group', data, /expected "waveform" to be a data set/],
    ['few_classes', data, /target is \(6,10\).* 527 classes, AudioSet's: set the option classes/],
    ['twos', data, /target is 2 in row \d, column \d/],
    ['doubles', data, /bool or float32, got 64-bit float/],
    ['long_names', data, /audio_name to be \(N\) of text of a fixed length/],
    ['numbers_as_names', data, /got \(6\) of 64-bit integer/],
    ['no_rate', data, /no attribute sample_rate: set the option sampleRate/],
    ['text_rate', data, /no attribute sample_rate/],
    ['all_missing', data, /there is no clip: 6 were missing/],
    ['huge_chunks', data, /nothing was written to "audio_name"/],
    ['huge_rank', data, /target is \(1099511627776,1048576\)/],
  ];
  for (const [name, fault, message] of faults) {
    await t.rejects(fromHdf5(pack(name)), { ...fault, message }, name);
  }
  const folds = (await fromHdf5(pack('bytes_as_folds'))).clips.map(({ fold }) => fold);
  t.same(folds, ['250', '251', '252', '253', '254', '255']);
  const told = await fromHdf5(pack('no_rate'), { sampleRate: 16_000 });
  t.equal(told.clips[0]?.packed?.sampleRate, 16_000);
  await t.rejects(fromHdf5(pack('plain'), { sampleRate: 16_000 }), { message: /32000.*16000/ });
  const genres = Array.from({ length: 10 }, (_, i) => `genre ${i}`);
  const { clips, classes } = await fromHdf5(pack('gtzan'), { classes: genres });
  t.equal(classes, genres);
  t.same(
    clips.map(({ labels, fold }) => [labels, fold]),
    truth[1].map((label, i) => [[label], `${(i % 2) + 1}`]),
  );
  await t.rejects(fromHdf5(pack('plain'), { classes: genres }), { ...data, message: /10 classes/ });
  const option = { code: 'ERR_PANNS_OPTION' };
  await t.rejects(fromHdf5(pack('plain'), { unnamed: 'drop' as never }), option);
  await t.rejects(fromHdf5(pack('plain'), { sample_rate: 1 } as never), option);
  await t.rejects(openDataset(pack('plain'), { labelColumn: 'x' }), option);
  await t.rejects(fromHdf5(pack('none')), { code: 'ERR_PANNS_IO' });
  await t.rejects(fromHdf5(folder), { code: 'ERR_PANNS_IO' });
  for (const text of ['', 'RIFF and so on, no HDF5', 'x'.repeat(5000)]) {
    await writeFile(pack('text'), text);
    await t.rejects(fromHdf5(pack('text')), { ...data, message: /no HDF5 file/ });
  }
  // What was packed for PANNs is packed anew.
  const out = join(folder, 'packed');
  await packClips(await fromHdf5(pack('plain')), out, { seconds: S / RATE });
  await same(t, await openDataset(out), truth[0], samples);
  const longer = packClips(await fromHdf5(pack('plain')), `${out}2`, { seconds: 1 });
  await t.rejects(longer, { ...data, message: /to 0\.0125 s, and 1 s are asked for/ });
});

t.test('damage is an error or another label, never more', { skip }, async (t) => {
  const trees = ['earliest,v108', 'v108,v108'].map((libver, i) => {
    const name = `tree${i}`;
    return { name, libver };
  });
  const base = t.testdir({});
  for (const { name, libver } of trees) {
    const folder = join(base, name);
    mkdirSync(folder);
    const program = join(import.meta.dirname, '..', 'oracle', 'packs.py');
    const words = [program, 'tree', folder, String(random.uint32()), libver];
    t.equal(spawnSync(python, words).status, 0);
    const [packs, indexes] = ['waveforms', 'indexes'].map((kind) => join(folder, 'hdf5s', kind));
    const root = packs as string;
    for (const path of [
      join(root, 'balanced_train.h5'),
      join(indexes as string, 'full_train.h5'),
    ]) {
      const whole = await readFile(path);
      const copy = join(indexes as string, 'damaged.h5');
      const outcomes = { fine: 0, refused: 0 };
      const attempt = async (bytes: Uint8Array, what: string) => {
        await writeFile(copy, bytes);
        try {
          await fromHdf5(copy, { root });
          outcomes.fine++;
        } catch (error) {
          if (!(error instanceof PannsError)) t.fail(`${what}: ${error}`);
          outcomes.refused++;
        }
      };
      // The metadata is in the first kilobytes and between the arrays.
      for (let i = 0; i < 150; i++) {
        const bytes = Buffer.from(whole);
        const at = random.integer(i % 3 === 0 ? bytes.length : Math.min(bytes.length, 2200));
        for (let k = 0; k < 1 + (i % 4); k++) {
          if (at + k < bytes.length) bytes[at + k] = i % 2 === 0 ? 255 : random.integer(256);
        }
        await attempt(bytes, `bytes from ${at} on`);
      }
      t.ok(outcomes.refused > 10, `${outcomes.refused} refused, ${outcomes.fine} read`);
      const before = outcomes.fine;
      for (let i = 0; i < 30; i++) {
        const length = random.integer(whole.length);
        await attempt(whole.subarray(0, length), `cut at ${length}`);
      }
      t.equal(outcomes.fine, before, 'a file that is cut off is never read');
    }
  }
});

t.test('a pack that is cut or removed under the hands of a loader', { skip }, async (t) => {
  const folder = write(t, 'odd');
  const path = join(folder, 'plain.h5');
  const dataset = await fromHdf5(path);
  const { clips } = dataset;
  const load = () => {
    const loader = createBatchLoader({
      ...{ clips, classes: 527, samplesPerClip: S, sampleRate: RATE, batchSize: 2, prefetch: 0 },
      sampler: uniformSampler(6, random.uint32()),
    });
    return loader;
  };
  const data = { code: 'ERR_PANNS_DATA' };
  const loader = load();
  t.equal((await loader.next()).value?.indices.length, 2);
  await truncate(path, (clips[5]?.packed?.offset ?? 0) - 2 * 4 * S);
  const rest = async () => {
    for (let i = 0; i < 9; i++) await loader.next();
  };
  await t.rejects(rest(), { ...data, message: /it was cut or replaced/ });
  await rename(path, `${path}.moved`);
  await t.rejects(load().next(), { ...data, message: /plain\.h5/ });
});

t.test('panns trains, evaluates and packs from HDF5', { skip }, async (t) => {
  const folder = join(write(t, 'tree', 'earliest'), 'hdf5s', 'indexes');
  const said: string[] = [];
  const errors: string[] = [];
  const panns = (...words: string[]) =>
    runProgram(words, {
      print: (line) => said.push(line),
      messages: { write: (text) => errors.push(text) },
      signal: new AbortController().signal,
    });
  const [index, run] = [join(folder, 'balanced_train.h5'), join(folder, 'run')];
  const small = ['--model', 'Cnn6', '--mel-bins', '16', '--threads', '1', '--seconds', '0.0125'];
  const more = ['--batch-size', '2', '--epochs', '1', '--val-fraction', '0', '--balanced'];
  const train = ['train', '--data', index, '--out', run, ...small, ...more, '--json'];
  t.equal(await panns(...train), 0, errors.join(''));
  const events = said.map((line) => JSON.parse(line) as { event: string; classes?: string[] });
  t.same(events[0]?.classes, audiosetLabels);
  t.ok(events.filter(({ event }) => event === 'step').length > 1);
  said.length = 0;
  const model = join(run, 'model.safetensors');
  const evaluate = ['eval', '--model', model, '--data', index, '--seconds', '0.0125', '--json'];
  t.equal(await panns(...evaluate), 0, errors.join(''));
  t.match(JSON.parse(said[0] ?? ''), { mAP: Number });
  const out = join(folder, 'packed');
  t.equal(await panns('pack', '--data', index, '--out', out, '--seconds', '0.0125'), 0);
  t.equal((await fromHdf5(index)).clips.length, (await openDataset(out)).clips.length);
});

t.test('a file of 4 GiB and more', { skip }, async (t) => {
  const folder = write(t, 'odd');
  const { samples } = truthOf(folder);
  const path = join(folder, 'plain.h5');
  const { clips } = await fromHdf5(path);
  // Addresses past 32 bits: the waveforms once more behind a hole, and what says where they are.
  const far = 2 ** 32 + 8 * random.integer(2 ** 20);
  const near = clips[0]?.packed?.offset ?? 0;
  const bytes = await readFile(path);
  const pattern = Buffer.alloc(16);
  pattern.writeBigUInt64LE(BigInt(near));
  pattern.writeBigUInt64LE(BigInt(samples.byteLength), 8);
  const at = bytes.indexOf(pattern);
  t.ok(at > 0 && bytes.indexOf(pattern, at + 1) < 0);
  await using file = await open(path, 'r+');
  pattern.writeBigUInt64LE(BigInt(far));
  await file.write(pattern, 0, 8, at);
  await file.write(
    new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength),
    0,
    samples.byteLength,
    far,
  );
  await file.write(new Uint8Array(samples.byteLength), 0, samples.byteLength, near);
  const { truth } = truthOf<[Row[]]>(folder);
  const moved = await fromHdf5(path);
  t.equal(moved.clips[0]?.packed?.offset, far);
  await same(t, moved, truth[0], samples);
  await truncate(path, far + samples.byteLength - 1);
  await t.rejects(fromHdf5(path), {
    code: 'ERR_PANNS_DATA',
    message: /cut off: \d+ bytes of the \d+/,
  });
});

t.test(
  'the pack that tests without Python write is what h5py takes it for',
  { skip },
  async (t) => {
    const clips = Array.from({ length: 5 }, (_, i) => ({
      ...{ name: i === 3 ? '' : `Y${random.uint32()}.wav`, labels: i === 3 ? [] : [i, 3 * i + 7] },
      samples: Int16Array.from({ length: S }, () => random.integer(65_536) - 32_768),
    }));
    const path = join(t.testdir({}), 'pack.h5');
    await writeFile(path, writePack(clips, RATE, 527));
    const program = `
import h5py, sys
with h5py.File(sys.argv[1]) as f:
    assert sorted(f) == ['audio_name', 'target', 'waveform'] and f.attrs['sample_rate'] == ${RATE}
    sys.stdout.buffer.write(b','.join(f['audio_name'][:]) + f['waveform'][:].tobytes() + f['target'][:].tobytes())`;
    const run = spawnSync(python, ['-c', program, path]);
    t.equal(run.status, 0, run.stderr.toString());
    const target = clips.map(({ labels }) => {
      return Buffer.from(Array.from({ length: 527 }, (_, k) => Number(labels.includes(k))));
    });
    const names = Buffer.from(clips.map(({ name }) => name).join(','));
    const samples = clips.map(({ samples }) => bytesOf(samples));
    t.ok(Buffer.concat([names, ...samples, ...target]).equals(run.stdout));
    const rows = clips.map(({ name, labels }): Row => [name, labels]);
    const all = Int16Array.from(clips.flatMap(({ samples }) => [...samples]));
    await same(t, await fromHdf5(path), rows, all);
  },
);
