import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { LogmelOptions, SpecNode } from '../../lib/addon.js';
import { createModel, type Model, modelInternals } from '../../lib/inference/model.js';
import { exportOnnx } from '../../lib/inference/onnx.js';
import { encodeModel } from '../../lib/io/onnx/messages.js';
import { onnxModel } from '../../lib/io/onnx/model.js';
import { chunksOf, fields, float, integer, message, text } from '../../lib/io/onnx/wire.js';
import { convBlock } from '../../lib/models/blocks.js';
import { logmelFrontend, wavegramFrontend } from '../../lib/models/frontends.js';
import { head } from '../../lib/models/heads.js';
import { describeModel, modelNames } from '../../lib/models/index.js';
import type { ModelOptions } from '../../lib/models/options.js';
import type { ModelRow } from '../../lib/models/row.js';
import { loadNative } from '../../lib/native.js';
import { type Oracle, openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { compare, worstErrors } from '../helpers/tolerance.js';

const draws = openDraws(t);
const oracle = await openOnnx();
const { skip } = oracle;

/** The oracle, where its Python has ONNX too. */
async function openOnnx(): Promise<Oracle> {
  const oracle = await openOracle(t);
  if (oracle.skip) return oracle;
  try {
    await oracle.call('onnx_versions');
    return oracle;
  } catch (error) {
    const reason = (error as Error).message.trim().split('\n').at(-1) ?? '';
    return { ...oracle, skip: reason };
  }
}

/** A model whose norms are away from 0 and 1: one that does nothing would hide an error. */
async function randomModel(
  t: Test,
  row: string | ModelRow,
  options: ModelOptions = {},
): Promise<Model> {
  const seed = draws.random.integer(2 ** 31);
  const model = await createModel(row, { classes: 6, seed, threads: 2, ...options });
  t.teardown(() => model.dispose());
  const { nodes } = modelInternals(model).description.spec;
  // Large enough for what tells clips apart to reach the end of a deep network; but factors of
  // squeeze-and-excitation multiply what rounding leaves.
  const gain = nodes.some(({ op }) => op === 'scale') ? 0.65 : 1;
  for (const { name, shape } of model.parameters()) {
    const at = name.lastIndexOf('.');
    const owner = nodes.find(({ path }) => path === name.slice(0, at));
    const values = owner && draw(owner, name.slice(at + 1), product(shape), gain);
    if (values !== undefined) await model.setParameter(name, values);
  }
  return model;
}

function draw({ op, attrs }: SpecNode, suffix: string, count: number, gain: number) {
  const front = attrs.axis === 'freq';
  // Log-mel values of noise lie around -20 dB.
  if (suffix === 'running_mean') return draws.normals(count, front ? 3 : 0.05, front ? -20 : 0);
  if (suffix === 'running_var') return draws.uniforms(count, ...(front ? [10, 60] : [0.3, 1.5]));
  if (suffix === 'bias') return draws.normals(count, 0.05);
  // A depthwise filter of 3 x 3 that begins as PyTorch's leaves next to nothing of its input.
  if (op === 'conv' && attrs.groups !== undefined) return draws.normals(count, 1 / 3);
  if (op !== 'batch_norm') return undefined;
  // Small where a residual branch ends, whose sums would grow from block to block.
  const [low, high] = attrs.zero_gamma === true ? [0.2, 0.5] : [gain, 2 * gain];
  return draws.uniforms(count, low, high);
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

const outputNames = (model: Model) => Object.keys(modelInternals(model).description.outputs);

/** Noise, each clip a tenth as loud as the one before it, so that clips can be told apart. */
function clips(count: number, samples: number): Float32Array {
  const noise = draws.normals(count * samples, 0.3);
  return noise.map((value, i) => value * 10 ** -Math.floor(i / samples));
}

/** The largest difference, over the largest magnitude. */
function distance(a: Float32Array = new Float32Array(), b: Float32Array = new Float32Array()) {
  const largest = (values: Float32Array) => Math.max(...values.map(Math.abs));
  return largest(a.map((value, i) => value - (b[i] ?? Number.NaN))) / largest(b);
}

/** Compares ONNX Runtime's outputs for one input with those of {@link Model.infer}. */
async function sameOutputs(
  t: Test,
  model: Model,
  path: string,
  { waveform, batch, input }: { waveform: Float32Array; batch: number; input?: Float32Array },
): Promise<void> {
  const names = outputNames(model);
  const what = `${model.name}, ${batch} x ${waveform.length / batch}`;
  const truth = await model.infer(waveform, { batch, outputs: names });
  const shape = input ? [batch, 1, -1, model.config.melBins] : [batch, -1];
  const found = await oracle.call('onnx_run', { path, shape }, [input ?? waveform]);
  t.same(found.header.names, names, `${what}: outputs`);
  let apart = 0;
  for (const [i, name] of names.entries()) {
    const expected = truth[name];
    if (expected === undefined) throw new Error(`no output ${name}`);
    t.same((found.header.shapes as number[][])[i], expected.shape, `${what}: shape of ${name}`);
    const got = found.arrays[i] ?? [];
    const near = compare(got, expected.data, 'exported');
    t.ok(near.ok, `${what}: ${name}: ${near.message}`);
    const row = expected.data.length / batch;
    const [first, second] = [0, 1].map((i) => expected.data.subarray(i * row, (i + 1) * row));
    if (batch > 1) apart = Math.max(apart, distance(first, second));
  }
  // A graph that ignores its input, or mixes up its clips, would not pass.
  if (batch > 1) t.ok(apart > 1e-2, `${what}: clips can be told apart`);
}

/** Exports a model, has the file checked, and runs it on two lengths and two batches. */
async function checkExport(t: Test, model: Model): Promise<void> {
  const path = join(t.testdir(), 'model.onnx');
  await exportOnnx(model, path);
  await oracle.call('onnx_check', { path });
  const { minimumSamples } = model;
  // A quarter of a second is enough for networks that would take a single sample.
  const least = Math.max(minimumSamples, 8000);
  const longer = least + draws.random.integer(least) + 1;
  for (const [samples, batch] of [
    [minimumSamples, 1],
    [model.lengthFor(longer), 3],
  ] as const) {
    await sameOutputs(t, model, path, { waveform: clips(batch, samples), batch });
  }
}

/** What the large models have and the small ones have not: a wavegram beside the log-mel. */
const SmallWavegram: ModelRow = {
  name: 'SmallWavegram',
  defaults: { embeddingSize: 32, melBins: 16 },
  build(b, waveform, config) {
    const learned = wavegramFrontend(b, b.mixup(waveform), config);
    const front = logmelFrontend(b, b.mixup(waveform), config);
    const both = b.concat(convBlock(b, 'conv_block1', front, 8, 2), learned);
    return head(b, convBlock(b, 'conv_block2', both, 24, 2), front, config);
  },
};

/** Every kind of layer and head once, in a small model that has it; and Cnn14. */
const cases: readonly (readonly [model: string | ModelRow, options?: ModelOptions])[] = [
  ['Cnn6'],
  ['Cnn6', { activation: 'softmax', sampleRate: 16000, windowSize: 500, hopSize: 77, melBins: 40 }],
  ['Cnn6', { head: 'max' }],
  ['Cnn6', { head: 'avg', sampleRate: 8000 }],
  ['Cnn6', { head: 'att', embeddingSize: 64 }],
  ['Cnn10', { activation: 'logits', mixup: 'waveform' }],
  ['Cnn14'],
  ['MobileNetV1'],
  ['MobileNetV2'],
  ['LeeNet11'],
  ['LeeNet24'],
  ['DaiNet19'],
  ['mn04'],
  [SmallWavegram],
];
// The others are made of the same layers; PANNS_EVERY_MODEL=1 runs them, some minutes with 6 GB to
// write (tap run --timeout=1500).
const others = modelNames.filter((name) => !cases.some(([model]) => model === name));
const everyModel = Boolean(process.env.PANNS_EVERY_MODEL);

const chosen = everyModel ? others.map((name): (typeof cases)[number] => [name]) : cases;

for (const [model, options] of chosen) {
  const name = typeof model === 'string' ? model : model.name;
  const title = `${name}${options ? ` ${JSON.stringify(options)}` : ''} runs in ONNX Runtime`;
  t.test(title, { skip }, async (t) => checkExport(t, await randomModel(t, model, options)));
}

t.test('what a file says', { skip }, async (t) => {
  const labels = ['dog', 'rain "heavy"', 'ça va'];
  const model = await randomModel(t, 'Cnn6', { classes: labels, sampleRate: 8000, melBins: 16 });
  const path = join(t.testdir(), 'model.onnx');
  await exportOnnx(model, path);
  const { header } = await oracle.call('onnx_check', { path });
  t.match(header, {
    ir: 8,
    opset: [['', 17]],
    producer: ['panns', /^\d+\.\d+\.\d+/],
    name: 'Cnn6',
    text: /at 8000 Hz, at least 1200;/,
    inputs: { waveform: ['batch', 'samples'] },
    outputs: { embedding: ['batch', 512], logits: ['batch', 3], clipwise_output: ['batch', 3] },
    metadata: { model: 'Cnn6', sample_rate: '8000', minimum_samples: '1200', length_multiple: '1' },
    initializers: { 'fc1.weight': [512, 512], 'logmel_extractor.melW': [129, 16] },
  });
  const { metadata } = header as { metadata: { labels: string } };
  t.same(JSON.parse(metadata.labels), labels);
});

const logmelCases = [
  ['Cnn6', { melBins: 32, hopSize: 500 }, { minimum_frames: '16' }],
  ['mn04', {}, { minimum_frames: '2' }],
] as const;

for (const [name, architecture, metadata] of logmelCases) {
  t.test(`${name} from log-mel`, { skip }, async (t) => {
    const model = await randomModel(t, name, architecture);
    const path = join(t.testdir(), 'model.onnx');
    await exportOnnx(model, path, { input: 'logmel' });
    const { header } = await oracle.call('onnx_check', { path });
    const { melBins } = model.config;
    t.match(header, { inputs: { logmel: ['batch', 1, 'frames', melBins] }, metadata });
    const said = header as { metadata: { logmel: string }; ops: string[] };
    t.notOk(said.ops.includes('Pad'), 'no front-end');
    // The front-end is rebuilt from what the file says of it.
    const attrs = Object.entries(JSON.parse(said.metadata.logmel) as object);
    const camel = (key: string) => key.replace(/_./g, (end) => end.slice(1).toUpperCase());
    const options = Object.fromEntries(attrs.map(([key, value]) => [camel(key), value]));
    const features = loadNative().createFeatures(options as unknown as LogmelOptions, 2);
    t.teardown(() => features.dispose());
    for (const [samples, batch] of [
      [model.minimumSamples, 1],
      [20_001, 3],
    ] as const) {
      const waveform = clips(batch, samples);
      const input = await features.run(waveform, batch, samples, 'logmel');
      await sameOutputs(t, model, path, { waveform, batch, input });
    }
  });
}

t.test('every opset', { skip }, async (t) => {
  const model = await randomModel(t, 'Cnn6', { sampleRate: 8000, melBins: 16 });
  const folder = t.testdir();
  const waveform = clips(2, 1300);
  for (const [opset, ir] of [
    [17, 8],
    [18, 8],
    [19, 9],
    [20, 9],
    [21, 10],
    [22, 10],
  ] as const) {
    const path = join(folder, `${opset}.onnx`);
    await exportOnnx(model, path, { opset });
    t.match((await oracle.call('onnx_check', { path })).header, { ir, opset: [['', opset]] });
    await sameOutputs(t, model, path, { waveform, batch: 2 });
  }
});

t.test(
  'every model has a graph, and log-mel goes only into those that begin with it',
  async (t) => {
    const weights = (shapes: ReadonlyMap<string, readonly number[]>) => ({
      shape: (name: string) => shapes.get(name) ?? [],
      read: async () => new Float32Array(),
      frontend: () => Promise.reject(new Error('nothing is read')),
    });
    for (const name of modelNames) {
      const description = describeModel(name);
      const { stateDict, spec } = description;
      const shapes = new Map(stateDict.map((entry) => [entry.name, entry.shape]));
      const options = { input: 'waveform', opset: 17, version: '0' } as const;
      const { byteLength } = encodeModel(onnxModel(description, weights(shapes), options));
      const trained = stateDict.filter(({ role }) => role === 'parameter');
      t.ok(byteLength > 4 * trained.reduce((sum, { shape }) => sum + product(shape), 0), name);
      const logmel = () => onnxModel(description, weights(shapes), { ...options, input: 'logmel' });
      const learns = spec.nodes.some(({ op }) => op === 'unsqueeze');
      if (learns) t.throws(logmel, { code: 'ERR_PANNS_UNSUPPORTED', message: /waveform/ }, name);
      else t.equal(logmel().graph.inputs[0]?.name, 'logmel', name);
    }
  },
);

t.test('options are checked, and nothing is written', async (t) => {
  using model = await createModel('Cnn6', { classes: 2, sampleRate: 8000, threads: 1 });
  const folder = t.testdir();
  const path = join(folder, 'model.onnx');
  const rejects = (options: object, message: RegExp) =>
    t.rejects(exportOnnx(model, path, options), { code: 'ERR_PANNS_OPTION', message });
  await rejects({ input: 'spectrogram' }, /input to be one of waveform, logmel, got spectrogram/);
  await rejects({ opset: 16 }, /opset to be one of 17, .*, got 16/);
  await rejects({ opsets: 17 }, /did you mean "opset"/);
  await t.rejects(exportOnnx(model, join(folder, 'none', 'model.onnx')), { code: 'ERR_PANNS_IO' });
  t.same(readdirSync(folder), []);
  model.dispose();
  await t.rejects(exportOnnx(model, path), { code: 'ERR_PANNS_DISPOSED' });
  t.notOk(existsSync(path));
});

t.test('stopped half way, the old file stays', async (t) => {
  using model = await createModel('Cnn6', { classes: 2, sampleRate: 8000, threads: 1 });
  const folder = t.testdir({ 'model.onnx': 'old' });
  const path = join(folder, 'model.onnx');
  let asked = 0;
  const { signal } = new AbortController();
  Object.defineProperty(signal, 'aborted', { get: () => ++asked > 10 });
  const stopped = exportOnnx(model, path, { signal });
  await t.rejects(stopped, { code: 'ABORT_ERR' });
  t.equal(readFileSync(path, 'utf8'), 'old');
  t.same(readdirSync(folder), ['model.onnx']);
  await exportOnnx(model, path);
  t.ok(readFileSync(path).length > 4 * 4_000_000, 'and then it is replaced');
});

t.test('the wire format, by the examples of its documentation', async (t) => {
  const bytes = async (encoded: ReturnType<typeof fields>) => {
    const chunks: Buffer[] = [];
    for await (const chunk of chunksOf(encoded)) chunks.push(Buffer.from(chunk as Uint8Array));
    const all = Buffer.concat(chunks);
    t.equal(all.length, encoded.byteLength);
    return all.toString('hex');
  };
  t.equal(await bytes(integer(1, 150)), '089601');
  t.equal(await bytes(text(2, 'testing')), '120774657374696e67');
  t.equal(await bytes(message(3, integer(1, 150))), '1a03089601');
  t.equal(await bytes(integer(1, -2)), '08feffffffffffffffff01');
  t.equal(await bytes(float(16, -0.5)), '8501000000bf');
  t.equal(await bytes(text(2, 'é')), '1202c3a9');
  t.equal(await bytes(fields()), '');
  const short = { byteLength: 8, read: async () => new Uint8Array(4) };
  await t.rejects(bytes({ byteLength: 8, pieces: [short] }), { code: 'ERR_PANNS_INTERNAL' });
});

t.teardown(() => {
  for (const line of worstErrors()) t.comment(line);
});
