import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeWav16 } from '../../lib/audio/wav.js';
import { runProgram } from '../../lib/cli/program.js';
import { generateScenes } from '../../lib/demo/scenes.js';

const RATE = 8000;
const CLASSES = ['beeps', 'rain'];

/** Runs `panns ...` in this process. */
async function panns(line: string, signal = new AbortController().signal, files: string[] = []) {
  let out = '';
  let messages = '';
  const code = await runProgram([...line.split(' '), ...files], {
    print: (text) => {
      out += `${text}\n`;
    },
    messages: { write: (text) => (messages += text) },
    signal,
  });
  const json = () =>
    out
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as Record<string, unknown>);
  return { code, out, messages, json };
}

/** A folder with one folder a class, of half a second each. */
async function makeData(folder: string, count: number): Promise<string[]> {
  const files: string[] = [];
  for (const [k, name] of CLASSES.entries()) {
    mkdirSync(join(folder, name), { recursive: true });
    const { clips } = generateScenes({
      ...{ count: 8 * count, seed: 1, sampleRate: RATE, seconds: 0.5, classes: CLASSES },
    });
    const own = clips
      .filter(({ labels }) => labels.length === 1 && labels[0] === k)
      .slice(0, count);
    for (const [i, { samples }] of own.entries()) {
      files.push(join(folder, name, `${i}.wav`));
      await writeWav16(files.at(-1) ?? '', samples, RATE);
    }
  }
  return files;
}

t.test('train, stop, resume, measure and tag', async (t) => {
  const folder = t.testdir();
  const data = join(folder, 'data');
  const files = await makeData(data, 6);
  const size = '--sample-rate 8000 --mel-bins 16 --batch-size 4 --val-fraction 0.3 --threads 1';
  const train = (out: string, rest: string) =>
    `train --data ${data} --out ${join(folder, out)} ${size} ${rest}`;

  const whole = await panns(train('whole', '--epochs 4 --json'));
  t.equal(whole.code, 0, whole.messages);
  const steps = whole.json().filter(({ event }) => event === 'step');
  t.same(readdirSync(join(folder, 'whole')).sort(), [
    ...['checkpoints', 'config.json', 'curves.svg'],
    ...['metrics.json', 'metrics.jsonl', 'model.safetensors'],
  ]);
  const lines = readFileSync(join(folder, 'whole', 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n');
  t.equal(lines.length, 4);
  t.match(JSON.parse(lines[3] ?? ''), { epoch: 4, validation: { clips: 4 } });
  const svg = readFileSync(join(folder, 'whole', 'curves.svg'), 'utf8');
  t.equal(svg.match(/<polyline/g)?.length, 4, 'two losses, mAP and accuracy');
  t.notMatch(svg, /NaN/);

  const controller = new AbortController();
  let stopped = 0;
  const stopping = runProgram(train('parts', '--epochs 4 --json').split(' '), {
    print: (text) => {
      const { event, step } = JSON.parse(text) as { event: string; step: number };
      if (event === 'step' && step === 3) controller.abort();
      if (event === 'stopped') stopped = step;
    },
    messages: { write: () => true },
    signal: controller.signal,
  });
  await t.rejects(stopping, { code: 'ABORT_ERR' });
  t.equal(stopped, 3);
  const rest = await panns(`train --resume --out ${join(folder, 'parts')} --threads 1 --json`);
  t.equal(rest.code, 0, rest.messages);
  const later = rest.json().filter(({ event }) => event === 'step');
  t.same(
    later.map(({ loss }) => loss),
    steps.slice(3).map(({ loss }) => loss),
  );
  const weights = (run: string) => readFileSync(join(folder, run, 'model.safetensors'));
  t.ok(weights('parts').equals(weights('whole')), 'the same file, byte for byte');

  const again = await panns(train('whole', '--epochs 1'));
  t.equal(again.code, 1);
  t.match(again.messages, /error ERR_PANNS_OPTION: .*--resume/);
  const settled = await panns(`train --resume --out ${join(folder, 'whole')} --lr 1`);
  t.equal(settled.code, 2);
  t.match(settled.messages, /--lr is settled/);

  const model = `--model ${join(folder, 'whole', 'model.safetensors')}`;
  const measured = await panns(`eval ${model} --data ${data} --json`);
  t.equal(measured.code, 0, measured.messages);
  t.match(measured.json()[0], {
    clips: 12,
    perClass: [{ label: 'beeps', clips: 6 }, { label: 'rain' }],
  });
  t.match((await panns(`eval ${model} --data ${data}`)).out, /12 clips: accuracy/);

  const tagged = await panns(`tag ${model} --json --segments`, undefined, [
    data,
    join(folder, 'no.wav'),
  ]);
  t.equal(tagged.code, 1, 'one file is missing');
  const results = tagged.json();
  t.equal(results.length, files.length + 1);
  t.match(results[0], { file: files[0], seconds: 0.5, labels: [{ label: /beeps|rain/ }, {}] });
  t.match(results.at(-1), { error: { code: 'ERR_PANNS_AUDIO_NOT_FOUND' } });
  const table = await panns(`tag ${model} --top 1`, undefined, [files[0] ?? '']);
  t.match(table.out, /0\.wav \(500 ms\)\n {2}score {2}label\n {2}[01]\.\d{3} {2}(beeps|rain)\n$/);
});

t.test('a CSV file with folds', async (t) => {
  const folder = t.testdir();
  await makeData(folder, 4);
  const rows = CLASSES.flatMap((name) =>
    [0, 1, 2, 3].map((i) => `${name}/${i}.wav,${name},${(i % 2) + 1}`),
  );
  const csv = join(folder, 'clips.csv');
  writeFileSync(csv, `file,label,fold\n${rows.join('\n')}\n`);
  const base = `train --data ${csv} --sample-rate 8000 --mel-bins 16 --batch-size 2 --epochs 1 --threads 1`;
  const good = await panns(
    `${base} --val-folds 2 --loss bce --mixup --balanced --out ${join(folder, 'a')}`,
  );
  t.equal(good.code, 0, good.messages);
  t.match(good.out, /validation: accuracy/);
  t.match(good.messages, /100 %/);
  const config = JSON.parse(readFileSync(join(folder, 'a', 'config.json'), 'utf8')) as object;
  t.match(config, { split: { valFolds: ['2'] }, recipe: { loss: 'bce', sampler: 'balanced' } });
  const absent = await panns(`${base} --val-folds 7 --out ${join(folder, 'b')}`);
  t.equal(absent.code, 1);
  t.match(absent.messages, /error ERR_PANNS_DATA: .*there is no fold 7/);
  t.notOk(existsSync(join(folder, 'b')), 'nothing is left behind');
});

t.test('the demo goes the whole way', async (t) => {
  const folder = t.testdir();
  const { code, out, messages } = await panns(
    `demo --scenes 32 --epochs 0.5 --threads 1 --out ${folder}`,
  );
  t.equal(code, 0, messages);
  t.match(out, /32 synthetic scenes/);
  t.match(out, /mAP/);
  t.match(out, /scene-4-[a-z-]+\.wav/);
  t.equal(readdirSync(folder).filter((name) => name.endsWith('.wav')).length, 4);
  t.ok(existsSync(join(folder, 'model.safetensors')));
});

t.test('info, help and mistakes', async (t) => {
  const info = await panns('info --json');
  t.match(info.json()[0], { node: process.versions.node, cuda: { available: false } });
  t.match((await panns('info')).out, /^CUDA +not used: /m);
  t.match((await panns('--version')).out, /^\d+\.\d+\.\d+\n$/);
  const help = await panns('--help');
  t.equal(help.code, 0);
  for (const verb of ['train', 'eval', 'tag', 'info', 'demo']) {
    t.match(help.out, new RegExp(`^ {2}${verb} `, 'm'));
    t.match((await panns(`${verb} --help`)).out, new RegExp(`Usage: panns ${verb}`));
  }
  const wrong: [string, RegExp][] = [
    ['tarin', /did you mean "panns train"/],
    ['train --out x', /--data is missing/],
    ['train --data x --out y --epoch 3', /did you mean --epochs/],
    ['eval --data x', /--model is missing/],
    ['tag --model x', /<file> is missing/],
  ];
  for (const [line, message] of wrong) {
    const { code, messages } = await panns(line);
    t.equal(code, 2, line);
    t.match(messages, message);
  }
  const folder = t.testdir({ a: { 'config.json': 'null' }, b: { 'folds.json': 'null' } });
  for (const name of ['a', 'b']) {
    const { code, messages } = await panns(`train --resume --out ${join(folder, name)}`);
    t.equal(code, 1, messages);
    t.match(messages, /^error ERR_PANNS_CHECKPOINT: .*not a JSON object/);
  }
  const failed = await panns('eval --model /no/such.file --data x');
  t.equal(failed.code, 1);
  t.match(failed.messages, /^error ERR_PANNS_IO: \/no\/such\.file/);
});
