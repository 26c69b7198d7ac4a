import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { PannsError } from '../../lib/errors.js';
import { type Model, modelInternals } from '../../lib/inference/model.js';
import { loadModel } from '../../lib/inference/model_file.js';
import { readSafetensors } from '../../lib/io/safetensors.js';
import { writeSafetensors } from '../../lib/io/safetensors_writer.js';
import { alone, type ProcessGroup } from '../../lib/train/distributed.js';
import { evaluate } from '../../lib/train/evaluate.js';
import { Trainer, type TrainerOptions } from '../../lib/train/trainer.js';
import { SECONDS, tinyModel, tones } from './synthetic.js';

const { dataset, decode } = tones(24);
const RECIPE = {
  ...{ dataset, decode, clipSeconds: SECONDS, batchSize: 4, steps: 9, seed: 5, mixup: true },
  schedule: { kind: 'cosine', warmup: 2 },
} as const satisfies TrainerOptions;

/** Runs a trainer to its end, or to a step; returns the losses. */
async function losses(trainer: Trainer, until = Number.POSITIVE_INFINITY): Promise<number[]> {
  const found: number[] = [];
  for await (const { index, loss } of trainer) {
    found.push(loss);
    if (index === until) break;
  }
  return found;
}

/** Every tensor of a model, bit for bit. */
async function bits(model: Model): Promise<Record<string, string>> {
  const state = [...(await model.stateDict())].map(([name, { data }]) => {
    return [name, Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64')];
  });
  return Object.fromEntries(state) as Record<string, string>;
}

t.test('a stopped training goes on as if it had never stopped', async (t) => {
  const optimizers = [
    { kind: 'adam', amsgrad: true, weightDecay: 0.01 },
    { kind: 'sgd', lr: 0.05 },
  ] as const;
  for (const [i, optimizer] of optimizers.entries()) {
    const folder = join(t.testdir(), String(i));
    const recipe = { ...RECIPE, optimizer, clipGradNorm: 1, validation: dataset, evaluateEvery: 4 };
    using whole = await tinyModel({ threads: 2 });
    const unbroken = new Trainer(whole, recipe);
    const expected = await losses(unbroken);
    t.equal(expected.length, 9);

    using half = await tinyModel({ threads: 1 });
    const first = new Trainer(half, { ...recipe, checkpoint: { folder, every: 5 } });
    const before = await losses(first, 5);
    // What is trained after the checkpoint is forgotten.
    await losses(first, 6);
    first.dispose();
    const second = await Trainer.resume(folder, {
      dataset,
      decode,
      validation: dataset,
      threads: 1,
    });
    t.equal(second.step, 5);
    t.same([...before, ...(await losses(second))], expected, `losses of ${optimizer.kind}`);
    const [a, b] = [await bits(whole), await bits(second.model)];
    for (const name of Object.keys(a)) t.ok(a[name] === b[name], `${optimizer.kind} ${name}`);
    t.same(second.best, unbroken.best);
    t.same(second.recipe, unbroken.recipe);
    t.equal((await second.model.stateDict()).get('bn0.num_batches_tracked')?.data[0], 9n);
    second.model.dispose();
  }
});

t.test('training learns, and evaluation sees it', async (t) => {
  using model = await tinyModel();
  const trainer = new Trainer(model, {
    ...{ dataset, decode, clipSeconds: SECONDS, batchSize: 8, epochs: 12, validation: dataset },
    optimizer: { kind: 'adam', lr: 3e-3 },
    schedule: { kind: 'cosine' },
  });
  t.equal(trainer.stepsPerEpoch, 3);
  t.equal(trainer.totalSteps, 36);
  const events: string[] = [];
  trainer.on('step', ({ index }) => events.push(`step ${index}`));
  trainer.on('evaluate', (_, step) => events.push(`evaluate ${step}`));
  const found: number[] = [];
  for await (const { index, epoch, loss, evaluation } of trainer) {
    found.push(loss);
    t.equal(epoch, Math.ceil(index / 3));
    t.equal(evaluation !== undefined, index % 3 === 0);
  }
  t.same(events.slice(0, 5), ['step 1', 'step 2', 'step 3', 'evaluate 3', 'step 4']);
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  t.ok(mean(found.slice(-6)) < 0.7 * mean(found.slice(0, 6)), 'the loss falls');
  const { accuracy, mAP, perClass, loss, clips } = await trainer.evaluate();
  t.ok((accuracy ?? 0) > 0.8, `accuracy ${accuracy}`);
  t.ok(mAP > 0.8, `mAP ${mAP}`);
  t.ok(loss < 1);
  t.equal(clips, 24);
  t.same(
    perClass.map((own) => [own.label, own.clips]),
    [
      ['low', 8],
      ['middle', 8],
      ['high', 8],
    ],
  );
});

t.test('an abort stops after the step under way and can be saved', async (t) => {
  const folder = t.testdir();
  using whole = await tinyModel();
  const expected = await losses(new Trainer(whole, RECIPE));
  const controller = new AbortController();
  using model = await tinyModel();
  const trainer = new Trainer(model, {
    ...RECIPE,
    checkpoint: { folder },
    signal: controller.signal,
  });
  const found: number[] = [];
  const run = async () => {
    for await (const { index, loss } of trainer) {
      found.push(loss);
      if (index === 3) controller.abort(new Error('enough'));
    }
  };
  await t.rejects(run(), { code: 'ABORT_ERR', cause: { message: 'enough' } });
  t.equal(trainer.step, 3);
  await trainer.save();
  const again = await Trainer.resume(folder, { dataset, decode, threads: 1 });
  t.same([...found, ...(await losses(again))], expected);
  again.model.dispose();
});

t.test('a loss that is no number ends the training, and is never saved', async (t) => {
  const folder = t.testdir();
  using model = await tinyModel();
  const spoilt = (await model.getParameter('fc1.weight')).fill(3e38);
  const options = { ...RECIPE, checkpoint: { folder, every: 2 } };
  const trainer = new Trainer(model, options);
  await losses(trainer, 2);
  const good = readdirSync(folder);
  const content = readFileSync(join(folder, good[0] ?? ''));
  await model.setParameter('fc1.weight', spoilt);
  await t.rejects(losses(trainer), { code: 'ERR_PANNS_NAN' });
  await t.rejects(losses(trainer), { code: 'ERR_PANNS_NAN' }, 'it stays ended');
  await t.rejects(trainer.save(), { code: 'ERR_PANNS_NAN' });
  t.same(readdirSync(folder), good);
  t.ok(content.equals(readFileSync(join(folder, good[0] ?? ''))));
});

t.test('old checkpoints go once a new one is safe; damaged ones are passed over', async (t) => {
  const folder = t.testdir();
  using model = await tinyModel();
  await losses(new Trainer(model, { ...RECIPE, checkpoint: { folder, every: 2, keep: 2 } }));
  t.same(readdirSync(folder).sort(), ['step-000008.safetensors', 'step-000009.safetensors']);

  using tagging = await loadModel(join(folder, 'step-000008.safetensors'));
  t.same(tagging.classes, model.classes, 'a checkpoint is a model file too');

  // As a kill leaves them: half a file under its own name, and one that was being written.
  truncateSync(join(folder, 'step-000009.safetensors'), 50_000);
  const remains = '.step-000010.safetensors.0123456789ab.tmp';
  writeFileSync(join(folder, remains), 'half');
  const trainer = await Trainer.resume(folder, { dataset, decode, threads: 1 });
  t.equal(trainer.step, 8);
  t.notOk(readdirSync(folder).includes(remains));
  trainer.model.dispose();

  const another = await tinyModel();
  const fresh = new Trainer(another, { ...RECIPE, checkpoint: { folder } });
  await t.rejects(losses(fresh), { code: 'ERR_PANNS_OPTION', message: /another training/ });
  another.dispose();

  const empty = join(folder, 'empty');
  mkdirSync(empty);
  await t.rejects(Trainer.resume(empty, { dataset, decode }), { code: 'ERR_PANNS_CHECKPOINT' });
  copyFileSync(join(folder, 'step-000009.safetensors'), join(empty, 'step-000009.safetensors'));
  await t.rejects(Trainer.resume(empty, { dataset, decode }), {
    code: 'ERR_PANNS_CHECKPOINT',
    message: /step-000009/,
  });
  const fewer = tones(21);
  await t.rejects(Trainer.resume(folder, fewer), { code: 'ERR_PANNS_CHECKPOINT' }, 'other clips');
});

t.test('wrong options of an evaluation are refused', async (t) => {
  using model = await tinyModel();
  for (const wrong of [
    { clipSeconds: -1 },
    { clipSeconds: NaN },
    { batchSize: 0 },
    { loss: 'mse' },
  ]) {
    const [name = ''] = Object.keys(wrong);
    await t.rejects(evaluate(model, dataset, { decode, ...(wrong as object) }), {
      code: 'ERR_PANNS_OPTION',
      message: new RegExp(`expected ${name} to be`),
    });
  }
});

t.test('a training that does not begin holds no memory, and says why', async (t) => {
  const folder = t.testdir();
  using model = await tinyModel();
  using first = new Trainer(model, { ...RECIPE, steps: 3, checkpoint: { folder } });
  await losses(first);
  const [name = ''] = readdirSync(folder);
  const path = join(folder, name);
  const { metadata, tensors } = await readSafetensors(path);
  const slot = [...tensors.keys()].find((key) => key.startsWith('optimizer.')) ?? '';
  tensors.set(slot, { dtype: 'F32', shape: [3], data: Float32Array.of(1, 2, 3) });
  await writeSafetensors(path, tensors, metadata);
  await t.rejects(Trainer.resume(folder, { dataset, decode }), {
    code: 'ERR_PANNS_CHECKPOINT',
    message: new RegExp(`expected ${slot} to be .* got \\[3\\] of F32`),
  });

  const { native } = modelInternals(model);
  first.dispose();
  const before = await native.held();
  const lonely = {
    ...{ rank: 0, size: 1, together: alone.together, first: alone.first },
    join: () => Promise.reject(new PannsError('ERR_PANNS_PARALLEL', 'nobody came')),
  } as unknown as ProcessGroup;
  const second = new Trainer(model, { ...RECIPE, distributed: lonely });
  await t.rejects(losses(second), { code: 'ERR_PANNS_PARALLEL' });
  t.equal(await native.held(), before, 'its session is gone');
});

t.test('frozen parameters stay, the others move', async (t) => {
  using model = await tinyModel();
  const before = await bits(model);
  const freeze = ['bn0', 'conv_block1', 'conv_block2.conv1'];
  const schedule = { kind: 'constant' } as const;
  await losses(new Trainer(model, { ...RECIPE, steps: 2, freeze, schedule }));
  const after = await bits(model);
  for (const { name } of model.parameters()) {
    // Norms that are frozen keep their statistics too.
    const frozen = freeze.some((prefix) => name.startsWith(prefix));
    t.equal(before[name] === after[name], frozen, name);
  }
});

t.test('the same training on more threads gives the same weights', async (t) => {
  const weights = async (threads: number) => {
    using model = await tinyModel({ threads });
    await losses(new Trainer(model, { ...RECIPE, steps: 3, sampler: 'balanced' }));
    return await bits(model);
  };
  t.ok(JSON.stringify(await weights(1)) === JSON.stringify(await weights(3)));
});

t.test('a training can be lengthened when it is resumed', async (t) => {
  const folder = t.testdir();
  using model = await tinyModel();
  const schedule = { kind: 'constant' } as const;
  await losses(new Trainer(model, { ...RECIPE, steps: 2, schedule, checkpoint: { folder } }));
  const trainer = await Trainer.resume(folder, { dataset, decode, epochs: 1, threads: 1 });
  t.equal(trainer.totalSteps, 6);
  t.equal((await losses(trainer)).length, 4);
  trainer.model.dispose();
});

t.test('wrong use is refused', async (t) => {
  using model = await tinyModel();
  using sigmoid = await tinyModel({ activation: 'sigmoid', mixup: false });
  const option = { code: 'ERR_PANNS_OPTION' };
  const refuse = (options: object, target = model) => {
    t.throws(() => new Trainer(target, { ...RECIPE, ...options }), option, JSON.stringify(options));
  };
  refuse({ dataset: undefined });
  refuse({ epochs: 3 });
  refuse({ loss: 'bce' });
  refuse({ loss: 'cross_entropy', mixup: false }, sigmoid);
  refuse({ mixup: true }, sigmoid);
  refuse({ batchsize: 3 });
  refuse({ optimizer: { kind: 'adam', momentum: 1 } });
  refuse({ optimizer: { kind: 'lion' } });
  refuse({ schedule: { kind: 'linear' } });
  refuse({ freeze: ['conv_block9'] });
  refuse({ checkpoint: { folder: 'x', keep: 0 } });
  const double = { ...dataset, clips: [{ id: 'a', path: '0', labels: [0, 1] }] };
  refuse({ dataset: double });
  const other = { ...dataset, classes: ['low', 'high', 'middle'] };
  t.throws(() => new Trainer(model, { ...RECIPE, dataset: other }), { code: 'ERR_PANNS_DATA' });
  const trainer = new Trainer(model, RECIPE);
  await t.rejects(trainer.evaluate(), option);
  await t.rejects(trainer.save(), option);
  const outer = trainer[Symbol.asyncIterator]();
  await outer.next();
  await t.rejects(losses(trainer), { code: 'ERR_PANNS_BUSY' });
  await outer.return();
  trainer.dispose();
  await t.rejects(losses(trainer), { code: 'ERR_PANNS_DISPOSED' });
});
