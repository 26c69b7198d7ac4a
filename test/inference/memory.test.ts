import t from 'tap';
import { createRandom } from '../../lib/data/random.js';
import { createModel, modelInternals } from '../../lib/inference/model.js';
import { trainingMemory } from '../../lib/train/memory.js';
import { Trainer } from '../../lib/train/trainer.js';
import { freshSeed } from '../data/fresh_seed.js';
import { SECONDS, tinyModel, tones } from '../trainer/synthetic.js';

const random = createRandom(freshSeed(t));

t.test('inference: what memory() says is what infer() takes', async (t) => {
  using model = await createModel('Cnn6', { classes: 4, sampleRate: 8000, threads: 1 });
  const { native } = modelInternals(model);
  const before = await native.held();
  const need = await model.memory({ batch: 3, seconds: 0.7 });
  t.match(need, { device: 'cpu', batch: 3, samples: 5600, gradients: 0, optimizer: 0, fits: true });
  t.equal(need.weights, before);
  const { weights, activations, scratch, kernels, total } = need;
  t.equal(total, weights + activations + scratch + kernels);
  t.ok(need.largestBatch >= 3 && need.free !== undefined && need.free > total);
  await model.infer(
    Float32Array.from({ length: 3 * 5600 }, () => random.uniform() - 0.5),
    { batch: 3 },
  );
  t.equal((await native.held()) - before, total - weights);

  const one = await model.memory({ seconds: 0.7 });
  t.ok(one.total < total, 'one clip takes less');
  const many = await model.memory({ batch: 1000, seconds: 10 });
  t.equal(many.batch, 32, 'large batches go through in parts: 320 s at 8 kHz at once');
  const logits = await model.memory({ batch: 3, seconds: 0.7, outputs: ['logits'] });
  t.ok(logits.total <= total);
});

t.test('training: what trainingMemory() says is what a Trainer takes', async (t) => {
  const { dataset, decode } = tones(6);
  for (const recipe of [
    { batchSize: 4 },
    { batchSize: 3, mixup: true, optimizer: { kind: 'sgd' } },
    { batchSize: 4, freeze: 'base' },
  ] as const) {
    using model = await tinyModel();
    const { native } = modelInternals(model);
    const options = { ...recipe, steps: 1, clipSeconds: SECONDS };
    const need = await trainingMemory(model, options);
    t.equal(need.weights, await native.held());
    using trainer = new Trainer(model, { ...options, dataset, decode });
    for await (const _ of trainer) t.pass('a step');
    t.equal(await native.held(), need.total, JSON.stringify(recipe));
    t.ok(need.gradients > 0 && need.optimizer > 0 && need.largestBatch >= recipe.batchSize);
  }

  using model = await tinyModel();
  const frozen = { batchSize: 4, freeze: 'base', clipSeconds: SECONDS } as const;
  const whole = await trainingMemory(model, frozen);
  const head = await trainingMemory(model, { ...frozen, cacheFeatures: true });
  t.ok(head.activations < whole.activations / 10, 'cached features are small');
});

t.test('options that make no sense are told', async (t) => {
  using model = await tinyModel();
  const option = { code: 'ERR_PANNS_OPTION' };
  await t.rejects(model.memory({ batch: 0 }), option);
  await t.rejects(model.memory({ seconds: Number.NaN }), option);
  await t.rejects(model.memory({ bach: 1 } as object), { ...option, message: /batch/ });
  await t.rejects(model.memory({ outputs: ['clipwise'] }), option);
  await t.rejects(trainingMemory(model, { batchSize: -1 }), option);
  await t.rejects(trainingMemory(model, { batchsize: 1 } as object), option);
});
