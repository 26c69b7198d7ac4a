#!/usr/bin/env node
// Trains a network on a folder with one folder a class, from random weights.
//
//   node examples/train-folder.mjs sounds run --model Cnn6 --epochs 20
//   node examples/train-folder.mjs sounds run --resume
//
// Ctrl+C keeps a checkpoint and stops; --resume ends with the same weights as if nothing had happened.
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createModel, fromFolder, PannsError, splitStratified, Trainer } from 'panns';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: 'Cnn6' },
    epochs: { type: 'string', default: '20' },
    seconds: { type: 'string', default: '5' },
    resume: { type: 'boolean', default: false },
  },
});
const [sounds, run] = positionals;
if (sounds === undefined || run === undefined) {
  console.error('usage: train-folder.mjs sounds run [--model Cnn6] [--epochs 20] [--resume]');
  process.exit(2);
}
const stop = new AbortController();
process.once('SIGINT', () => stop.abort());

/** @type {Trainer | undefined} */
let trainer;
try {
  // Equal seeds give equal splits: a resumed training sees the same clips.
  const { train, test } = splitStratified(await fromFolder(sounds), { testFraction: 0.2, seed: 1 });
  const folder = join(run, 'checkpoints');
  const data = { dataset: train, validation: test, checkpoint: { folder }, signal: stop.signal };
  trainer = values.resume
    ? await Trainer.resume(folder, data)
    : new Trainer(
        await createModel(values.model, { classes: train.classes, activation: 'softmax' }),
        {
          ...data,
          batchSize: 8,
          clipSeconds: Number(values.seconds),
          epochs: Number(values.epochs),
          optimizer: { kind: 'adam', lr: 5e-4 },
          schedule: { kind: 'cosine' },
        },
      );
  for await (const { index, epoch, loss, clipsPerSecond, evaluation } of trainer) {
    const accuracy = evaluation?.accuracy?.toFixed(3);
    console.log(
      `step ${index}/${trainer.totalSteps}, epoch ${epoch}, loss ${loss.toFixed(4)},`,
      `${clipsPerSecond.toFixed(1)} clips/s${accuracy ? `, accuracy ${accuracy}` : ''}`,
    );
  }
  await trainer.model.save(join(run, 'model.safetensors'));
  console.log(`wrote ${join(run, 'model.safetensors')}`);
} catch (error) {
  if (stop.signal.aborted) {
    const saved = await trainer?.save();
    console.log(saved === undefined ? 'stopped' : `stopped; --resume goes on from ${saved}`);
    process.exitCode = 130; // as a shell says of what Ctrl+C ended
  } else if (error instanceof PannsError) {
    console.error(`${error.code}: ${error.message}`);
    process.exitCode = 1;
  } else throw error;
}
