#!/usr/bin/env node
// Teaches a network that knows AudioSet classes of your own, from few clips of each: first the
// classifier alone, on features that are computed once, then everything at a small rate.
//
//   node examples/fine-tune.mjs sounds mine.safetensors                    # from published weights
//   node examples/fine-tune.mjs sounds mine.safetensors --from weights.pt  # from a file of this model
import { parseArgs } from 'node:util';
import { createModel, fromFolder, PannsError, splitStratified, Trainer } from 'panns';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', default: 'mn04' },
    from: { type: 'string' },
    seconds: { type: 'string', default: '5' },
  },
});
const [sounds, out] = positionals;
if (sounds === undefined || out === undefined) {
  console.error('usage: fine-tune.mjs sounds out.safetensors [--model mn04] [--from weights]');
  process.exit(2);
}

/**
 * Trains and says how well the clips that were held out are recognised.
 *
 * @param {string} what
 * @param {import('panns').Model} model
 * @param {import('panns').TrainerOptions} options
 */
async function stage(what, model, options) {
  const trainer = new Trainer(model, options);
  try {
    for await (const { index, loss, evaluation } of trainer) {
      if (evaluation === undefined) continue;
      const { accuracy = Number.NaN } = evaluation;
      const percent = (100 * accuracy).toFixed(1);
      console.log(`${what}: step ${index}, loss ${loss.toFixed(3)}, accuracy ${percent} %`);
    }
  } finally {
    trainer.dispose();
  }
}

try {
  const { train, test } = splitStratified(await fromFolder(sounds), {
    testFraction: 0.25,
    seed: 1,
  });
  const model = await createModel(values.model, {
    pretrained: values.from ?? true,
    classes: train.classes, // other classes than AudioSet's: the classifier begins anew
    activation: 'softmax',
  });
  const data = { dataset: train, validation: test, clipSeconds: Number(values.seconds) };
  const head = { freeze: /** @type {const} */ ('base'), cacheFeatures: true, epochs: 40 };
  await stage('classifier', model, { ...data, ...head, batchSize: 32, evaluateEvery: 20 });
  const gentle = { kind: /** @type {const} */ ('adam'), lr: 1e-4 };
  await stage('everything', model, { ...data, epochs: 3, batchSize: 8, optimizer: gentle });
  await model.save(out);
  console.log(`wrote ${out}: ${train.classes.join(', ')}`);
} catch (error) {
  if (!(error instanceof PannsError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
}
