// Tables and packed data sets that are damaged: read, or refused with a reason.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { encodeWav16 } from '../../lib/audio/wav.js';
import { fromCsv } from '../../lib/data/csv.js';
import type { Dataset } from '../../lib/data/dataset.js';
import { packClips } from '../../lib/data/pack.js';
import { fromPacked } from '../../lib/data/packed.js';
import type { Random } from '../../lib/data/random.js';
import { fromStrong, readStrong } from '../../lib/data/strong.js';
import { encodeNpy, readNpyHeader } from '../../lib/io/npy.js';
import { freshSeed } from '../data/fresh_seed.js';
import { mutate, type Outcome, runCases, tell } from './cases.js';

/** More are run by PANNS_FUZZ_CASES. */
const CASES = Number(process.env.PANNS_FUZZ_CASES ?? 1000);

const RATE = 8000;
const CODES = /^ERR_PANNS_(DATA|UNSUPPORTED)$/;

/** What bytes alone seldom hit. */
const WORDS = [
  ...['"', '""', ',', ';', '\t', '\n', '\r', '\r\n', ' ', '\0', '\ufeff', '\u2028', '#', '|', '='],
  ...['-1', '-0', '1e400', '1e-400', 'NaN', 'Infinity', '0x10', '0', '9007199254740993', '1_0'],
  ...[
    'null',
    'true',
    '[]',
    '{}',
    '__proto__',
    'constructor',
    'toString',
    '../..',
    '{"a":',
    '\\u0000',
  ],
];

/** A mutated text: sometimes by words. */
function damage(file: Uint8Array, random: Random, others: readonly Buffer[]): Buffer {
  const bytes = random.integer(3) === 0 ? Buffer.from(file) : mutate(file, random, others);
  if (random.integer(2) === 0) return bytes;
  const place = random.integer(bytes.length + 1);
  const word = Buffer.from(WORDS[random.integer(WORDS.length)] ?? '');
  return Buffer.concat([bytes.subarray(0, place), word, bytes.subarray(place + random.integer(4))]);
}

function check(t: Test, outcome: Outcome): void {
  tell(t, outcome);
  const { cases, read, refused, faults } = outcome;
  t.same(faults, []);
  t.ok(read > cases / 200, 'some mutations are harmless');
  t.ok((refused.get('ERR_PANNS_DATA') ?? 0) > cases / 10, 'most are found');
}

/** What every data set promises. */
function checkDataset({ classes, clips, skipped }: Dataset): void {
  const sound = clips.every(({ labels, start = 0, duration = 1 }) => {
    const rising = labels.every((label, i) => label >= (labels[i - 1] ?? 0));
    const known = labels.every((label) => Number.isInteger(label) && classes[label] !== undefined);
    const times = start >= 0 && start < Infinity && duration > 0 && duration < Infinity;
    return rising && known && times;
  });
  if (!sound || !Array.isArray(skipped)) throw new Error(JSON.stringify(clips));
  if (new Set(classes).size !== classes.length) throw new Error(`classes: ${classes}`);
}

t.test('tables of clips and of events', async (t) => {
  const sound = encodeWav16(new Float32Array(RATE).fill(0.5), RATE);
  const folder = t.testdir({ 'a.wav': Buffer.from(sound), 'b.wav': Buffer.from(sound) });
  const tables = [
    'file,label,fold,start,duration\na.wav,dog,1,0,0.5\nb.wav,"cat, small",2,0.25,\n',
    'filename\tonset\toffset\tevent_label\na.wav\t0.1\t0.5\tdog\na.wav\t0.4\t0.9\tcat\nb.wav\t\t\t\n',
    'path;labels\r\na.wav;dog|cat\r\n"b.wav";dog\r\n',
  ].map((text) => Buffer.from(text));
  const path = join(folder, 'table.csv');
  const outcome = await runCases(freshSeed(t), CASES, CODES, async (random) => {
    const which = random.integer(tables.length);
    writeFileSync(path, damage(tables[which] as Buffer, random, tables));
    if (which === 1) {
      const { classes, files } = await readStrong(path);
      for (const { seconds, events } of files) {
        for (const { onset, offset, label } of events) {
          const inside = onset >= 0 && onset < offset && offset <= seconds;
          if (!inside || classes[label] === undefined) throw new Error(`${onset} ${offset}`);
        }
      }
      checkDataset(await fromStrong(path, { windowSeconds: 0.4, hopSeconds: 0.2 }));
    } else {
      const columns = which === 0 ? { startColumn: 'start', durationColumn: 'duration' } : {};
      checkDataset(await fromCsv(path, which === 2 ? { labelSeparator: '|' } : columns));
    }
  });
  check(t, outcome);
});

t.test('packed data sets', async (t) => {
  const folder = t.testdir();
  const samples = Float32Array.from({ length: RATE }, (_, i) => Math.sin(i) / 2);
  const clips = [0, 1, 2].map((i) => {
    const path = join(folder, `${i}.wav`);
    writeFileSync(path, encodeWav16(samples.subarray(0, RATE >> i), RATE));
    return { id: `${i}, "${i}"`, path, labels: i === 2 ? [0, 1] : [i], fold: `${i}` };
  });
  const packed = join(folder, 'packed');
  const made = { classes: ['dog, small', 'cat'], clips, skipped: [] };
  await packClips(made, packed, { seconds: 1, sampleRate: RATE });
  const names = ['pack.json', 'clips.csv', 'clips.npy'];
  const files = names.map((name) => readFileSync(join(packed, name)));
  const damaged = join(folder, 'damaged');
  mkdirSync(damaged);
  const outcome = await runCases(freshSeed(t), CASES, CODES, async (random) => {
    const which = random.integer(names.length);
    for (const [i, name] of names.entries()) {
      const bytes = files[i] as Buffer;
      writeFileSync(join(damaged, name), i === which ? damage(bytes, random, files) : bytes);
    }
    const { length } = readFileSync(join(damaged, 'clips.npy'));
    const dataset = await fromPacked(damaged);
    checkDataset(dataset);
    for (const { packed } of dataset.clips) {
      const { offset = -1, samples = 0 } = packed ?? {};
      if (offset < 0 || samples < 1 || offset + 2 * samples > length) {
        throw new Error(`${samples} samples at byte ${offset} of ${length}`);
      }
    }
  });
  check(t, outcome);
});

t.test('headers of .npy files', async (t) => {
  const path = join(t.testdir(), 'a.npy');
  const chunks = [
    ...encodeNpy([2, 3], new Float32Array(6)),
    ...encodeNpy([5], new Uint16Array(5)),
    ...encodeNpy([], new Float32Array(1)),
  ];
  const whole: Buffer[] = [];
  for (let i = 0; i < chunks.length; i += 2) {
    const parts = chunks.slice(i, i + 2).map((part) => {
      const { buffer, byteOffset, byteLength } = part as ArrayBufferView;
      return Buffer.from(buffer, byteOffset, byteLength);
    });
    whole.push(Buffer.concat(parts));
  }
  const outcome = await runCases(freshSeed(t), CASES, CODES, async (random) => {
    const bytes = damage(whole[random.integer(whole.length)] as Buffer, random, whole);
    writeFileSync(path, bytes);
    const { type, shape, offset, fileBytes } = await readNpyHeader(path);
    const counts = shape.every((n) => Number.isSafeInteger(n) && n >= 0);
    if (type === '' || !counts || offset > bytes.length || fileBytes !== bytes.length) {
      throw new Error(`${type} [${shape}] at ${offset} of ${fileBytes}`);
    }
  });
  check(t, outcome);
});
