import { join } from 'node:path';
import { writeWav16 } from '../audio/wav.js';
import type { Dataset } from '../data/dataset.js';
import type { Decode } from '../data/reader.js';
import { generateScenes, SCENE_CLASSES, type Scene } from '../demo/scenes.js';
import { createModel } from '../inference/model.js';
import { AudioTagger } from '../inference/tagger.js';
import { makeFolder } from '../io/folder.js';
import { evaluate } from '../train/evaluate.js';
import { Trainer } from '../train/trainer.js';
import { formatDuration, formatNumber, formatTable } from './format.js';
import { createProgress } from './progress.js';
import { classTable, scoreLine } from './results.js';
import { type Context, defineVerb, EXIT } from './verb.js';

/**
 * Small enough for two or three minutes on two cores: half the rate, mel bins and frames of the
 * published models make a scene 40 times cheaper than their 10-second clips.
 */
const RATE = 16000;
const SECONDS = 2;
const ARCHITECTURE = {
  classes: SCENE_CLASSES,
  sampleRate: RATE,
  hopSize: 320,
  melBins: 32,
  // 64 frames, the width for 10-second clips, could blank most of these 101.
  specAugment: { timeWidth: 12, freqWidth: 4 },
} as const;

const BATCH = 16;

/** Held-out scenes that are also written as files and tagged. */
const FILES = 4;

/** `panns demo`: the whole way on synthetic sounds, from training to tagged files. */
export const demo = defineVerb(
  {
    name: 'panns demo',
    summary: 'Train on synthetic sounds, measure, and tag files: the whole way in minutes',
    options: {
      out: {
        type: 'string',
        value: 'folder',
        default: 'panns-demo',
        short: 'o',
        help: 'for the results',
      },
      scenes: { type: 'integer', min: 32, default: 400, help: 'to train on' },
      epochs: { type: 'number', min: 0.001, default: 8, help: 'passes over them' },
      seed: { type: 'integer', min: 0, default: 1, help: 'other sounds, other weights' },
      threads: { type: 'integer', min: 0, max: 1024, default: 0, help: '0: one a core' },
      json: { type: 'boolean', help: 'print JSON' },
    },
  },
  async ({ out, scenes, epochs, seed, threads, json }, _, context) => {
    const began = performance.now();
    const say = (line: string) => {
      if (!json) context.print(line);
    };
    await makeFolder(out);
    const training = makeScenes('train', scenes, 2 * seed);
    const heldOut = makeScenes('held-out', Math.max(FILES, Math.round(scenes / 4)), 2 * seed + 1);
    say(
      `${scenes} synthetic scenes of ${SECONDS} s to train on, one or two of ${SCENE_CLASSES.length} sounds in each`,
    );

    using model = await createModel('Cnn6', { ...ARCHITECTURE, threads, seed });
    using trainer = new Trainer(model, {
      ...{ dataset: training.dataset, decode: training.decode, clipSeconds: SECONDS },
      ...{ batchSize: BATCH, epochs, seed, signal: context.signal },
      optimizer: { kind: 'adam', lr: 2e-3 },
      schedule: { kind: 'cosine', warmup: Math.min(10, Math.floor((epochs * scenes) / BATCH / 4)) },
    });
    const learned = await learn(trainer, json, context);
    const evaluation = await evaluate(model, heldOut.dataset, {
      ...{ decode: heldOut.decode, clipSeconds: SECONDS, signal: context.signal },
    });
    const path = join(out, 'model.safetensors');
    await model.save(path);
    say(`\nOn ${evaluation.clips} scenes it has never heard:\n`);
    say(`${classTable(evaluation)}\n\n${scoreLine(evaluation)}`);

    const files = await writeFiles(out, heldOut.scenes.slice(0, FILES));
    const tagged = await tagFiles(path, files, threads, context.signal);
    say('\nThe saved model on files, through decoding and tagging:\n');
    say(formatTable([{ title: 'file' }, { title: 'in it' }, { title: 'heard' }], tagged));
    const seconds = (performance.now() - began) / 1000;
    say(
      `\nmodel: ${path}\nall of it took ${formatDuration(seconds)}; try: panns tag --model ${path} ${files[0]?.path}`,
    );
    if (json) {
      const { scores: _, ...results } = evaluation;
      context.print(
        JSON.stringify({ seconds, loss: learned, evaluation: results, model: path, tagged }),
      );
    }
    return EXIT.ok;
  },
);

interface SceneData {
  readonly dataset: Dataset;
  readonly decode: Decode;
  readonly scenes: readonly Scene[];
}

/** Scenes as a data set whose paths only the decoder beside it understands. */
function makeScenes(name: string, count: number, seed: number): SceneData {
  const { classes, clips: scenes } = generateScenes({
    count,
    seed,
    sampleRate: RATE,
    seconds: SECONDS,
  });
  const clips = scenes.map(({ labels }, i) => ({ id: `${name} ${i}`, path: String(i), labels }));
  const decode: Decode = async (requests) => {
    return requests.map(
      ({ path }) => scenes[Number(path)]?.samples ?? new Error(`no scene ${path}`),
    );
  };
  return { dataset: { classes, clips, skipped: [] }, decode, scenes };
}

/** Trains to the end; returns the mean loss of the last epoch. */
async function learn(trainer: Trainer, silent: boolean, { messages }: Context): Promise<number> {
  const { totalSteps, stepsPerEpoch } = trainer;
  const progress = createProgress({
    ...{ label: 'training', total: totalSteps, unit: 'steps', stream: messages, silent },
  });
  let losses: number[] = [];
  for await (const { index, loss, clipsPerSecond } of trainer) {
    losses = [...losses, loss].slice(-stepsPerEpoch);
    const mean = losses.reduce((sum, value) => sum + value, 0) / losses.length;
    progress.update(index, `loss ${formatNumber(mean)}  ${formatNumber(clipsPerSecond)} scenes/s`);
  }
  progress.finish();
  return losses.reduce((sum, value) => sum + value, 0) / losses.length;
}

async function writeFiles(out: string, scenes: readonly Scene[]) {
  const files: { path: string; truth: string }[] = [];
  for (const [i, { samples, labels }] of scenes.entries()) {
    const names = labels.map((label) => SCENE_CLASSES[label] ?? '');
    const path = join(out, `scene-${i + 1}-${names.join('-')}.wav`);
    await writeWav16(path, samples, RATE);
    files.push({ path, truth: names.join(', ') });
  }
  return files;
}

async function tagFiles(
  model: string,
  files: readonly { path: string; truth: string }[],
  threads: number,
  signal: AbortSignal,
): Promise<string[][]> {
  using tagger = await AudioTagger.load(model, { threads, topK: 3 });
  const rows: string[][] = [];
  for (const { path, truth } of files) {
    const { labels } = await tagger.tag(path, { signal });
    const heard = labels.map(({ label, score }) => `${label} ${score.toFixed(2)}`);
    rows.push([path, truth, heard.join(', ')]);
  }
  return rows;
}
