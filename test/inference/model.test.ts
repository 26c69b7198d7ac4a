import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Samples } from '../../lib/audio/int16.js';
import { createModel, type Model } from '../../lib/inference/model.js';
import { loadModel } from '../../lib/inference/model_file.js';
import { readSafetensors, type SafetensorsTensor } from '../../lib/io/safetensors.js';
import { writeSafetensors } from '../../lib/io/safetensors_writer.js';
import { allocate } from '../../lib/native/call.js';
import { openDraws } from '../helpers/random.js';

const draws = openDraws(t);

/** Cheap: 16 frames of 16 bins at least. */
const TINY = {
  sampleRate: 8000,
  melBins: 16,
  classes: ['one', 'two', 'three'],
  // Small work gains nothing from threads, and tests share the machine.
  threads: 1,
} as const;

const noise = (length: number) => draws.uniforms(length, -1, 1);

async function scores(model: Model, waveforms: Samples | Samples[], batch?: number) {
  const { clipwise_output } = await model.infer(waveforms, batch === undefined ? {} : { batch });
  return [...clipwise_output.data];
}

t.test('a model says what it is', async (t) => {
  using model = await createModel('Cnn6', TINY);
  t.equal(model.name, 'Cnn6');
  t.same(model.classes, TINY.classes);
  t.match(model, { classCount: 3, sampleRate: 8000, embeddingSize: 512, minimumSamples: 1200 });
  t.match(model.config, { windowSize: 256, hopSize: 80, fmax: 4000, activation: 'sigmoid' });
  // The published count less 524 classes of 513 values and 48 mel bins of two.
  t.equal(model.parameterCount(), 4_837_455 - 524 * 513 - 48 * 2);
  const trainable = model.parameters().filter((parameter) => !parameter.trainable);
  t.ok(trainable.every(({ name }) => name.includes('.running_')));
  t.match(await model.text({ samples: 8000 }), /conv_block4/);
});

t.test('outputs have their shapes, and sigmoid is that of the logits', async (t) => {
  using model = await createModel('Cnn10', { ...TINY, seed: 4 });
  const out = await model.infer(noise(3 * 2000), {
    batch: 3,
    outputs: ['clipwise_output', 'logits', 'embedding'],
  });
  t.same(out.clipwise_output.shape, [3, 3]);
  t.same(out.embedding.shape, [3, 512]);
  for (const [i, logit] of out.logits.data.entries()) {
    const expected = 1 / (1 + Math.exp(-logit));
    t.ok(Math.abs(expected - (out.clipwise_output.data[i] ?? 0)) < 1e-6, `score ${i}`);
  }
  t.ok(out.embedding.data.some((value) => value > 0));
  t.ok(
    out.embedding.data.every((value) => value >= 0),
    'after ReLU',
  );
});

t.test('one clip is scored alike alone, in a batch, padded, and in shared memory', async (t) => {
  using model = await createModel('Cnn6', { ...TINY, seed: 1 });
  const long = noise(2400);
  const short = noise(700);
  const padded = new Float32Array(2400);
  padded.set(short);
  const flat = new Float32Array([...long, ...padded]);
  const expected = await scores(model, flat, 2);
  const mixed = await scores(model, [long, short, long]);
  const alone = [...(await scores(model, long)), ...(await scores(model, short))];
  // Other batches may be computed in another order of sums.
  const close = (a: number, b = Number.NaN) => Math.abs(a - b) < 1e-5;
  t.ok(
    alone.every((score, i) => close(score, mixed[i])),
    'in a list each clip is padded for itself',
  );
  t.same(mixed.slice(6), mixed.slice(0, 3), 'rows come back in their order');
  const shared = allocate(flat.length);
  shared.set(flat);
  t.same(await scores(model, shared, 2), expected, 'memory read in place');
  for (const [i, score] of (await scores(model, padded)).entries()) {
    t.ok(close(score, expected[3 + i]), 'alone');
  }
  const least = new Float32Array(model.minimumSamples);
  least.set(short);
  t.same(await scores(model, short), await scores(model, least), 'padded to the minimum');
});

t.test('batches above the limit are split, and no row is lost', async (t) => {
  using model = await createModel('Cnn6', { ...TINY, seed: 2 });
  // 2133 clips of 1200 samples go through at once.
  const rows = 2140;
  const clips = Array.from({ length: 5 }, () => noise(1200));
  const all = Array.from({ length: rows }, (_, i) => clips[i % 5] as Float32Array);
  const { clipwise_output } = await model.infer(all);
  t.same(clipwise_output.shape, [rows, 3]);
  const five = await scores(model, clips);
  let wrong = 0;
  for (const [i, value] of clipwise_output.data.entries()) {
    if (!(Math.abs(value - (five[i % 15] ?? Number.NaN)) < 1e-5)) wrong++;
  }
  t.equal(wrong, 0);
});

t.test('seeds fix the weights, threads do not change the scores', async (t) => {
  const clip = noise(4000);
  const of = async (options: object) => {
    using model = await createModel('Cnn6', { ...TINY, ...options });
    return scores(model, clip);
  };
  const first = await of({ seed: 7, threads: 1 });
  t.same(await of({ seed: 7, threads: 2 }), first);
  t.notSame(await of({ seed: 8 }), first);
});

t.test('a file alone rebuilds its model', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'model.safetensors');
  using model = await createModel('Cnn10', { ...TINY, activation: 'softmax', seed: 5 });
  await model.setParameter('bn0.running_mean', noise(16));
  await model.save(path);
  using again = await loadModel(path, { threads: 1 });
  t.same(again.classes, model.classes);
  t.same(again.config, model.config);
  const clip = noise(5000);
  t.same(await scores(again, clip), await scores(model, clip));
  const sum = (await scores(again, clip)).reduce((total, value) => total + value, 0);
  t.ok(Math.abs(sum - 1) < 1e-5, 'softmax');

  const { tensors } = await readSafetensors(path);
  t.same(new Set(tensors.keys()), new Set((await model.stateDict()).keys()));
  const damaged = join(folder, 'cut.safetensors');
  writeFileSync(damaged, readFileSync(path).subarray(0, 100_000));
  await t.rejects(loadModel(damaged), { code: 'ERR_PANNS_CHECKPOINT' });
  const bare = join(folder, 'bare.safetensors');
  await writeSafetensors(bare, await model.stateDict());
  using recognised = await loadModel(bare, { threads: 1 });
  t.match(recognised, { name: 'Cnn10', classes: 3 }, 'a state dict holds no names of classes');
  await t.rejects(loadModel(join(folder, 'none')), { code: 'ERR_PANNS_IO' });
});

t.test('state dicts are exchanged under names of PyTorch', async (t) => {
  using model = await createModel('Cnn6', { ...TINY, seed: 11 });
  using other = await createModel('Cnn6', { ...TINY, seed: 12 });
  const clip = noise(3000);
  const state: Map<string, SafetensorsTensor> = await model.stateDict();
  const counter = 'bn0.num_batches_tracked';
  state.set(counter, { dtype: 'I64', shape: [], data: BigInt64Array.of(42n) });
  await other.loadStateDict(state);
  t.same(await scores(other, clip), await scores(model, clip));
  t.equal((await other.stateDict()).get(counter)?.data[0], 42n);

  const before = await scores(other, clip);
  const wrong = async (
    change: (state: Map<string, SafetensorsTensor>) => void,
    message: RegExp,
  ) => {
    const changed = new Map(state);
    change(changed);
    const expected = { code: 'ERR_PANNS_CHECKPOINT', message };
    await t.rejects(other.loadStateDict(changed), expected);
  };
  const ones: SafetensorsTensor = { dtype: 'F32', shape: [3], data: Float32Array.of(1, 1, 1) };
  await wrong((s) => s.delete('fc1.bias'), /lacks fc1\.bias/);
  await wrong((s) => s.set('fc9.bias', ones), /does not know fc9\.bias/);
  await wrong((s) => s.set('fc1.bias', ones), /shape \[3\], the model's is \[512\]/);
  const melW = state.get('logmel_extractor.melW') as SafetensorsTensor & { dtype: 'F32' };
  await wrong(
    (s) => s.set('logmel_extractor.melW', { ...melW, data: melW.data.map((x) => 1.1 * x) }),
    /not that of this front-end/,
  );
  t.same(await scores(other, clip), before, 'nothing changed');

  const front = ['spectrogram_extractor.stft.conv_real.weight', 'logmel_extractor.melW', counter];
  for (const name of front) state.delete(name);
  await other.loadStateDict(state);
  state.delete('fc1.bias');
  state.set('fc9.bias', ones);
  await other.loadStateDict(state, { strict: false });
});

t.test('single parameters are read and written', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const values = noise(3);
  await model.setParameter('fc_audioset.bias', values);
  t.same(await model.getParameter('fc_audioset.bias'), values);
  const weight = noise(64 * 25);
  await model.setParameter('conv_block1.conv1.weight', weight);
  t.same(await model.getParameter('conv_block1.conv1.weight'), weight);
  const code = 'ERR_PANNS_OPTION';
  await t.rejects(model.getParameter('fc.bias'), { code, message: /did you mean "fc1\.bias"/ });
  await t.rejects(model.setParameter('fc1.bias', noise(3)), { code: 'ERR_PANNS_SHAPE' });
  const bad = Float32Array.of(1, Number.NaN, 3);
  await t.rejects(model.setParameter('fc_audioset.bias', bad), { code: 'ERR_PANNS_NAN' });
});

t.test('samples of 16 bits stand for x / 32767', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const codes = (length: number) => Int16Array.from(noise(length), (x) => x * 32768);
  const floats = (samples: Int16Array) => Float32Array.from(samples, (x) => x / 32767);
  const many = codes(3 * 2000);
  t.same(await scores(model, many, 3), await scores(model, floats(many), 3), 'one array');
  const clips = [1, 900, 2000, 1999].map(codes);
  t.same(await scores(model, clips), await scores(model, clips.map(floats)), 'padded with zeros');
  await t.rejects(scores(model, [codes(9), noise(9)]), {
    code: 'ERR_PANNS_SHAPE',
    message: /same form/,
  });
});

t.test('wrong input is refused', async (t) => {
  using model = await createModel('Cnn6', TINY);
  const shape = { code: 'ERR_PANNS_SHAPE' };
  await t.rejects(model.infer([]), shape);
  await t.rejects(model.infer(new Float32Array(0)), shape);
  await t.rejects(model.infer(noise(1001), { batch: 2 }), shape);
  await t.rejects(model.infer([noise(1000)], { batch: 2 }), shape);
  await t.rejects(model.infer('a.wav' as unknown as Float32Array), shape);
  const nan = noise(2000);
  nan[1234] = Number.NaN;
  await t.rejects(model.infer(nan), { code: 'ERR_PANNS_NAN', message: /1234/ });
  const code = 'ERR_PANNS_OPTION';
  await t.rejects(model.infer(noise(2000), { outputs: ['embeding'] }), {
    code,
    message: /embedding/,
  });
  await t.rejects(createModel('Cnn6', { ...TINY, device: 'cuda' }), {
    code: 'ERR_PANNS_CUDA_UNAVAILABLE',
  });
  await t.rejects(createModel('Cnn6', { ...TINY, threads: -1 }), { code });
  await t.rejects(createModel('Cnn6', { ...TINY, seed: 0.5 }), { code });
});

t.test('calls can be aborted, and a disposed model refuses', async (t) => {
  const model = await createModel('Cnn6', TINY);
  await t.rejects(model.infer(noise(2000), { signal: AbortSignal.abort() }), { code: 'ABORT_ERR' });
  const running = model.infer(noise(8000));
  model.dispose();
  model.dispose();
  t.equal((await running).clipwise_output.data.length, 3, 'what was under way comes to its end');
  await t.rejects(model.infer(noise(2000)), { code: 'ERR_PANNS_DISPOSED' });
  t.throws(() => model.parameters(), { code: 'ERR_PANNS_DISPOSED' });
});
