import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createModel, type Model } from '../../lib/inference/model.js';
import { loadModel } from '../../lib/inference/model_file.js';
import { storedModel } from '../../lib/inference/stored.js';
import { writePth } from '../../lib/io/pth/writer.js';
import type { SafetensorsTensor } from '../../lib/io/safetensors.js';
import { writeSafetensors } from '../../lib/io/safetensors_writer.js';
import { asFloat32, openWeights } from '../../lib/io/weights.js';
import { audiosetLabels } from '../../lib/labels.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';

const oracle = await openOracle(t);
const draws = openDraws(t);
const seed = draws.random.integer(2 ** 31);

/** Small and cheap; the front-end is visible in the tensors. */
const SMALL = { threads: 1, seed } as const;

async function scores(model: Model, clip: Float32Array): Promise<number[]> {
  return [...(await model.infer(clip, { outputs: ['clipwise_output'] })).clipwise_output.data];
}

/** The state dict alone, as other programs save it. */
async function saveBare(model: Model, path: string): Promise<void> {
  await writePth(path, await model.stateDict());
}

t.test('a state dict is recognised, and its options follow from its shapes', async (t) => {
  const folder = t.testdir();
  const cases = [
    ['Cnn6', {}, 'Cnn6'],
    ['Cnn6', { sampleRate: 16000 }, 'Cnn6'],
    ['Cnn10', { classes: 7, melBins: 32, sampleRate: 8000 }, 'Cnn10'],
    ['MobileNetV1', { classes: 3 }, 'MobileNetV1'],
    ['LeeNet11', { classes: 4 }, 'LeeNet11'],
    ['mn04', { classes: 5 }, 'mn04'],
  ] as const;
  for (const [i, [name, options, expected]] of cases.entries()) {
    using model = await createModel(name, { ...options, ...SMALL });
    const path = join(folder, `${i}.pth`);
    await saveBare(model, path);
    using loaded = await loadModel(path, { threads: 1 });
    t.equal(loaded.name, expected);
    t.same(loaded.config, model.config, `${name} ${JSON.stringify(options)}`);
    if (model.classCount === 527) t.same(loaded.classes, audiosetLabels);
    else t.equal(loaded.classes, model.classCount);
    const clip = draws.normals(32000, 0.1);
    t.same(await scores(loaded, clip), await scores(model, clip));
  }
});

t.test('the weights of a file of our own keep their description in both formats', async (t) => {
  const folder = t.testdir();
  const options = { ...SMALL, classes: ['a', 'b'], activation: 'softmax' } as const;
  using model = await createModel('LeeNet11', options);
  const clip = draws.normals(32000, 0.1);
  for (const end of ['.pth', '.pt', '.safetensors']) {
    const path = join(folder, `m${end}`);
    await model.save(path);
    using loaded = await loadModel(path, { threads: 1 });
    t.same([loaded.name, loaded.classes, loaded.config], ['LeeNet11', ['a', 'b'], model.config]);
    t.same(await scores(loaded, clip), await scores(model, clip));
  }
});

t.test('loadStateDict says what became of each name', async (t) => {
  using model = await createModel('Cnn6', { ...SMALL, classes: 3 });
  const state: Map<string, SafetensorsTensor> = await model.stateDict();
  const whole = await model.loadStateDict(state);
  t.same([whole.missing, whole.unexpected, whole.unused], [[], [], []]);
  t.equal(whole.matched.length + whole.derived.length, state.size);
  t.equal(whole.derived.length, 3);
  state.delete('fc1.bias');
  state.set('extra', { dtype: 'F32', shape: [1], data: Float32Array.of(1) });
  const part = await model.loadStateDict(state, { strict: false });
  t.same([part.missing, part.unexpected], [['fc1.bias'], ['extra']]);
  await t.rejects(model.loadStateDict(state), {
    code: 'ERR_PANNS_CHECKPOINT',
    message: /lacks fc1\.bias; the model does not know extra/,
  });
  using wavegram = await createModel('Wavegram_Cnn14', { ...SMALL, classes: 2 });
  const { unused } = await wavegram.loadStateDict(await wavegram.stateDict());
  t.ok(unused.includes('bn0.weight') && unused.includes('conv_block1.conv1.weight'));
  const counter = 'bn0.num_batches_tracked';
  state.delete('extra');
  state.set(counter, { dtype: 'F32', shape: [], data: Float32Array.of(0.5) });
  const wrong = model.loadStateDict(state, { strict: false });
  await t.rejects(wrong, { code: 'ERR_PANNS_CHECKPOINT', message: /counts batches/ });
});

t.test('createModel begins with weights, and another classifier stays random', async (t) => {
  const path = join(t.testdir(), 'first.safetensors');
  using first = await createModel('Cnn6', { ...SMALL, classes: ['a', 'b', 'c'], melBins: 32 });
  await first.save(path);
  const own = { threads: 1, seed: seed + 1, pretrained: path };
  using same = await createModel('Cnn6', own);
  t.same([same.classes, same.config], [first.classes, first.config]);
  const clip = draws.normals(32000, 0.1);
  t.same(await scores(same, clip), await scores(first, clip));

  // As bytes: comparing millions of numbers one by one takes minutes.
  const get = async (model: Model, name: string) => {
    return Buffer.from((await model.getParameter(name)).buffer);
  };
  const alike = async (a: Model, b: Model, name: string) => {
    return (await get(a, name)).equals(await get(b, name));
  };
  for (const classes of [['x', 'y'], ['a', 'b', 'd'], 9]) {
    using other = await createModel('Cnn6', { ...own, classes });
    t.equal(other.classCount, typeof classes === 'number' ? classes : classes.length);
    for (const name of ['conv_block4.conv1.weight', 'fc1.bias', 'bn0.weight', 'bn0.running_var']) {
      t.ok(await alike(other, first, name), name);
    }
    t.notOk(await alike(other, first, 'fc_audioset.weight'));
  }
  using layers = await createModel('Cnn6', { ...own, classifierLayers: [16] });
  t.ok(await alike(layers, first, 'fc1.weight'));
  using frames = await createModel('Cnn6', { ...own, head: 'att' });
  t.ok(await alike(frames, first, 'conv_block1.conv1.weight'));

  const code = 'ERR_PANNS_CHECKPOINT';
  await t.rejects(createModel('Cnn6', { ...own, melBins: 64 }), { code });
  await t.rejects(createModel('Cnn10', own), { code });
  await t.rejects(createModel('Cnn6', { ...own, pretrained: `${path}.none` }), {
    code: 'ERR_PANNS_IO',
  });
  await t.rejects(createModel('Cnn6', { pretrained: false as unknown as true }), {
    code: 'ERR_PANNS_OPTION',
  });
});

t.test('what fits no model is refused with the nearest', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'x.pth');
  using model = await createModel('Cnn6', { ...SMALL, classes: 3 });
  const state: Map<string, SafetensorsTensor> = await model.stateDict();
  state.delete('bn0.bias');
  await writePth(path, state);
  const code = 'ERR_PANNS_CHECKPOINT';
  await t.rejects(loadModel(path), { code, message: /nearest is Cnn6: it lacks bn0\.bias/ });
  await t.rejects(loadModel(path, { model: 'Cnn14' }), { code, message: /not those of Cnn14/ });
  await t.rejects(loadModel(path, { model: 'Cnn41' }), { code: 'ERR_PANNS_OPTION' });
  // The windows of 32 ms at 16 kHz, and a filter bank for another rate.
  using other = await createModel('Cnn6', { ...SMALL, classes: 3, sampleRate: 16000 });
  const bank = await other.stateDict();
  const data = Float32Array.from(bank.get('logmel_extractor.melW')?.data as Float32Array).reverse();
  bank.set('logmel_extractor.melW', { dtype: 'F32', shape: [257, 64], data });
  await writePth(path, bank);
  await t.rejects(loadModel(path), { code, message: /not that of this front-end/ });
  writeFileSync(path, readFileSync(path).subarray(0, 5000));
  await t.rejects(loadModel(path), { code });
});

t.test('wrapped, halved and transferred weights of PyTorch', { skip: oracle.skip }, async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'cnn6.pth');
  using model = await createModel('Cnn6', { ...SMALL, sampleRate: 8000, classes: 6 });
  await saveBare(model, path);
  const clip = draws.normals(8000, 0.1);
  const expected = await scores(model, clip);
  for (const [name, options] of Object.entries({
    module: { prefix: 'module.' },
    backbone: { prefix: 'backbone.', legacy: true },
    bare: { without: ['logmel_extractor.melW'], key: true },
  })) {
    const out = join(folder, `${name}.pth`);
    await oracle.call('pth_rename', { path, out, ...options });
    using loaded = await loadModel(out, { threads: 1 });
    t.same(await scores(loaded, clip), expected, name);
  }
  const half = join(folder, 'half.pth');
  await oracle.call('pth_rename', { path, out: half, half: true });
  const file = await openWeights(half);
  t.equal(file.entries.get('fc1.weight')?.dtype, 'F16');
  const narrow = await asFloat32(await file.read('fc1.weight'));
  await file.close();
  using widened = await loadModel(half, { threads: 1 });
  const wide = Buffer.from((await widened.getParameter('fc1.weight')).buffer);
  t.ok(wide.equals(Buffer.from(narrow.buffer)));

  const transfer = join(folder, 'transfer.pth');
  await oracle.call('pth_rename', {
    path,
    out: transfer,
    prefix: 'base.',
    transfer: [4, 512],
    key: true,
  });
  using moved = await loadModel(transfer, { threads: 1 });
  t.match(moved, { name: 'Cnn6', classCount: 4, config: { activation: 'softmax' } });
  const { embedding, clipwise_output } = await moved.infer(clip);
  const same = await model.infer(clip);
  t.same(embedding.data, same.embedding.data, 'the base is unchanged');
  const own = await openWeights(transfer);
  const weight = (await own.read('fc_transfer.weight')).data as Float32Array;
  const bias = (await own.read('fc_transfer.bias')).data as Float32Array;
  await own.close();
  const logits = [...bias].map((b, k) => {
    return embedding.data.reduce((sum, x, i) => sum + x * (weight[512 * k + i] ?? 0), b);
  });
  const total = logits.reduce((sum, x) => sum + Math.exp(x), 0);
  for (const [k, logit] of logits.entries()) {
    const score = clipwise_output.data[k] ?? Number.NaN;
    t.ok(Math.abs(score - Math.exp(logit) / total) < 1e-4, `class ${k}`);
  }
});

t.test('models with the same tensors are told apart by the name of the file', async (t) => {
  const folder = t.testdir();
  using model = await createModel('Cnn14', { ...SMALL, classes: 2 });
  const named = join(folder, 'Cnn14_DecisionLevelMax_mAP=0.385.safetensors');
  await writeSafetensors(named, await model.stateDict());
  const of = async (path: string, told?: string) => {
    await using file = await openWeights(path);
    const { description, alternatives } = await storedModel(file, told);
    return [description.name, alternatives.includes('Cnn14_DecisionLevelAvg')];
  };
  t.same(await of(named), ['Cnn14_DecisionLevelMax', true]);
  const plain = join(folder, 'weights.safetensors');
  renameSync(named, plain);
  t.same(await of(plain), ['Cnn14', true]);
  t.same(await of(plain, 'Cnn14_DecisionLevelAvg'), ['Cnn14_DecisionLevelAvg', false]);
});
