import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeWav16 } from '../../lib/audio/wav.js';
import { runProgram } from '../../lib/cli/program.js';
import { loadModel } from '../../lib/inference/model_file.js';
import { readSafetensors } from '../../lib/io/safetensors.js';
import { openDraws } from '../helpers/random.js';

const RATE = 8000;
const CLASSES = ['low', 'high'];
const draws = openDraws(t);

async function panns(line: string, files: string[] = []) {
  let out = '';
  let messages = '';
  const code = await runProgram([...line.split(' '), ...files], {
    print: (text) => {
      out += `${text}\n`;
    },
    messages: { write: (text) => (messages += text) },
    signal: new AbortController().signal,
  });
  return { code, out, messages };
}

const json = (path: string) => JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;

/** Tones with noise, in three folds: `clips.csv` in the folder. */
async function makeData(folder: string): Promise<{ csv: string; files: string[] }> {
  const rows: string[] = [];
  const files: string[] = [];
  for (const [k, name] of CLASSES.entries()) {
    mkdirSync(join(folder, name), { recursive: true });
    for (let i = 0; i < 6; i++) {
      const noise = draws.normals(RATE / 2, 0.05);
      const tone = noise.map((v, n) => v + 0.4 * Math.sin(n * (k === 0 ? 0.2 : 1.1) + i));
      files.push(join(folder, name, `${i}.wav`));
      await writeWav16(files.at(-1) ?? '', tone, RATE);
      rows.push(`${name}/${i}.wav,${name},${(i % 3) + 1}`);
    }
  }
  const csv = join(folder, 'clips.csv');
  writeFileSync(csv, `file,label,fold\n${rows.join('\n')}\n`);
  return { csv, files };
}

const folder = t.testdir();
const { csv, files } = await makeData(folder);
const SMALL = '--batch-size 4 --epochs 1 --threads 1';
const base = join(folder, 'base');
const pretrained = join(base, 'model.safetensors');

t.test('a model to begin with', async (t) => {
  const { code, messages } = await panns(
    `train --data ${csv} --sample-rate 8000 --mel-bins 16 --val-folds 1 ${SMALL} --out ${base}`,
  );
  t.equal(code, 0, messages);
});

t.test('a probe on features of a file of weights: only the classifier moves', async (t) => {
  const out = join(folder, 'probe');
  const { code, messages } = await panns(
    `train --data ${csv} --from ${pretrained} --freeze base --cache-features --lr-scale fc_audioset.bias=2 --val-folds 2 ${SMALL} --out ${out}`,
  );
  t.equal(code, 0, messages);
  const config = json(join(out, 'config.json'));
  t.match(config, {
    model: { name: 'Cnn6', options: { pretrained } },
    recipe: { freeze: 'base', cacheFeatures: true, lrScale: { 'fc_audioset.bias': 2 } },
  });
  using before = await loadModel(pretrained, { threads: 1 });
  using after = await loadModel(join(out, 'model.safetensors'), { threads: 1 });
  for (const { name } of before.parameters()) {
    const same = Buffer.from((await before.getParameter(name)).buffer).equals(
      Buffer.from((await after.getParameter(name)).buffer),
    );
    t.equal(same, !name.startsWith('fc_audioset.'), name);
  }
});

t.test('a run for each fold, and the sum of them; a part goes on', async (t) => {
  const out = join(folder, 'folds');
  const line = `train --data ${csv} --from ${pretrained} --freeze base --cache-features --folds all ${SMALL} --out ${out}`;
  const whole = await panns(line);
  t.equal(whole.code, 0, whole.messages);
  t.same(readdirSync(out).sort(), ['fold-1', 'fold-2', 'fold-3', 'folds.json', 'summary.json']);
  const summary = json(join(out, 'summary.json'));
  const folds = summary.folds as { fold: string; clips: number; accuracy: number }[];
  t.same(
    folds.map(({ fold, clips }) => [fold, clips]),
    [
      ['1', 4],
      ['2', 4],
      ['3', 4],
    ],
  );
  const mean = folds.reduce((sum, { accuracy }) => sum + accuracy / 3, 0);
  t.match(summary.accuracy, { n: 3 });
  t.ok(Math.abs((summary.accuracy as { mean: number }).mean - mean) < 1e-12);
  t.match(whole.out, /mean ± sd/);
  const again = await panns(line);
  t.equal(again.code, 1);
  t.match(again.messages, /holds a training already/);

  rmSync(join(out, 'summary.json'));
  rmSync(join(out, 'fold-3'), { recursive: true });
  const rest = await panns(`train --resume --threads 1 --out ${out}`);
  t.equal(rest.code, 0, rest.messages);
  const { loss: _, ...first } = summary;
  const { loss: __, ...second } = json(join(out, 'summary.json'));
  t.same(second, first);
});

t.test('a few-shot curve', async (t) => {
  const out = join(folder, 'shots');
  const {
    code,
    out: text,
    messages,
  } = await panns(
    `train --data ${csv} --from ${pretrained} --freeze base --cache-features --val-folds 1 --shots 1,2 --seeds 2 ${SMALL} --out ${out}`,
  );
  t.equal(code, 0, messages);
  const { rows, summary } = json(join(out, 'few_shot.json')) as {
    rows: { shots: number; seed: number }[];
    summary: object[];
  };
  t.same(
    rows.map(({ shots, seed }) => [shots, seed]),
    [
      [1, 0],
      [1, 1],
      [2, 0],
      [2, 1],
    ],
  );
  t.match(summary, [
    { shots: 1, accuracy: { n: 2 } },
    { shots: 2, mAP: { n: 2 } },
  ]);
  t.match(text, /shots {2}accuracy/);
  t.match(readFileSync(join(out, 'few_shot.svg'), 'utf8'), /^<svg/);
  const many = await panns(
    `train --data ${csv} --from ${pretrained} --val-folds 1 --shots 9 ${SMALL} --out ${join(folder, 'many')}`,
  );
  t.match(many.messages, /fewer than 9 clips/);
});

t.test('embeddings of files, with what each row is of', async (t) => {
  const npy = join(folder, 'rows.npy');
  const line = `embed --model ${pretrained} --window 0.2 --hop 0.1 --threads 1`;
  const { code, out, messages } = await panns(`${line} --out ${npy}`, files.slice(0, 2));
  t.equal(code, 0, messages);
  t.match(out, /8 x 512/);
  const index = readFileSync(join(folder, 'rows.csv'), 'utf8').trim().split('\n');
  t.equal(index[0], 'row,file,start,end');
  t.equal(index.length, 9);
  t.equal(index[8], `7,${files[1]},0.3,0.5`);
  const bytes = readFileSync(npy);
  const header = 10 + bytes.readUInt16LE(8);
  const rows = new Float32Array(
    bytes.buffer.slice(bytes.byteOffset + header, bytes.byteOffset + bytes.length),
  );
  t.equal(rows.length, 8 * 512);
  using model = await loadModel(pretrained, { threads: 1 });
  t.equal(model.embeddingSize, 512);

  const tensors = join(folder, 'means.safetensors');
  const records = join(folder, 'means.json');
  const bad = join(folder, 'bad.wav');
  writeFileSync(bad, 'no sound');
  const mean = await panns(`${line} --mean --out ${tensors} --index ${records}`, [
    ...files.slice(0, 2),
    bad,
  ]);
  t.equal(mean.code, 1, 'a file that cannot be read is told, the others are kept');
  t.match(mean.messages, /ERR_PANNS_AUDIO/);
  const { tensors: stored } = await readSafetensors(tensors);
  const embedding = stored.get('embedding');
  t.same(embedding?.shape, [2, 512]);
  let worst = 0;
  for (let column = 0; column < 512; column++) {
    const sum = [0, 1, 2, 3].reduce((s, row) => s + (rows[row * 512 + column] ?? 0), 0);
    worst = Math.max(worst, Math.abs(sum / 4 - Number(embedding?.data[column])));
  }
  t.ok(worst < 1e-6, `means differ by ${worst}`);
  t.match(JSON.parse(readFileSync(records, 'utf8')), [
    { file: files[0], start: 0, end: 0.5 },
    { file: files[1], start: 0, end: 0.5 },
  ]);
  t.match((await panns(`${line} --out x.txt`, files)).messages, /\.npy/);

  const cut = join(folder, 'cut.wav');
  writeFileSync(cut, readFileSync(files[0] ?? '').subarray(0, 4000));
  const half = await panns(`${line} --out ${npy} --json`, [cut, files[1] ?? '']);
  t.equal(half.code, 0, half.messages);
  t.match(JSON.parse(half.out), { files: 2, failed: 0, truncated: 1 });
  t.equal(half.messages, `note: ${cut} is cut off: the results are of what is there\n`);
});

t.test('what does not go together', async (t) => {
  const wrong: [string, RegExp][] = [
    ['--folds all --val-folds 1', /--val-folds does not go with --folds/],
    ['--seeds 3', /--seeds needs --shots/],
    ['--cache-features', /--cache-features needs --freeze/],
    ['--lr-scale conv', /name=factor/],
    ['--classifier-layers 5,x', /whole numbers/],
    ['--from Cnn14 --model Cnn6', /cannot begin/],
    ['--from nothing.safetensors', /ERR_PANNS_IO/],
    ['--freeze fc2 --model Cnn6', /did you mean "fc1"/],
    ['--shots 0 --val-folds 1', /whole numbers/],
  ];
  for (const [options, message] of wrong) {
    const out = join(folder, 'wrong');
    const { code, messages } = await panns(
      `train --data ${csv} --threads 1 --out ${out} ${options}`,
    );
    t.not(code, 0, options);
    t.match(messages, message, options);
    t.notOk(existsSync(out), `${options}: nothing is left behind`);
  }
});
