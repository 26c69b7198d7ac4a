import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DeviceOptions, NativeProfile, SessionOptions } from '../../lib/addon.js';
import { runProgram } from '../../lib/cli/program.js';
import { cudaStatus } from '../../lib/cuda.js';
import { createModel, modelInternals } from '../../lib/inference/model.js';
import { layerCosts } from '../../lib/models/cost.js';
import { describeModel } from '../../lib/models/index.js';
import { loadNative } from '../../lib/native.js';
import { type ModelProfile, profileModel, summary } from '../../lib/train/profile.js';
import { openDraws } from '../helpers/random.js';

const addon = loadNative();
const SMALL = { classes: 5, sampleRate: 8000, melBins: 16 };
const BATCH = 2;
const SESSION: Omit<SessionOptions, 'batch' | 'samples'> = {
  ...{
    mixup: false,
    loss: 'bce',
    optimizer: { kind: 'adam', attrs: {} },
    frozen: [],
    passesOff: [],
  },
};
const STATE = { seed: 1n, step: 0, lr: 1e-3, maxNorm: 0, update: true };

/** The path and op of each line of a program's text. */
function linesOf(text: string): string[] {
  return [...text.matchAll(/^(\S+?) *(?:(?:%\d+(?:, )?)+ = )?(\w+)\(/gm)].map(
    ([, path, op]) => `${path} ${op}`,
  );
}

const namesOf = ({ nodes }: NativeProfile) => nodes.map(({ path, op }) => `${path} ${op}`);

/** A round, and that its times are some of the time it took, `least` each at the least. */
async function timed(
  t: Test,
  least: number,
  round: () => Promise<NativeProfile>,
): Promise<NativeProfile> {
  const begin = performance.now();
  const profile = await round();
  const elapsed = (performance.now() - begin) / 1000;
  const sum = profile.nodes.reduce((all, { seconds }) => all + seconds, 0);
  t.ok(
    profile.nodes.every(({ seconds }) => seconds >= least),
    `every node takes ${least} s or more`,
  );
  t.ok(profile.stepSeconds > 0);
  t.ok(sum + profile.stepSeconds <= elapsed, `${sum} + ${profile.stepSeconds} <= ${elapsed}`);
  return profile;
}

// Odd frames and bins, groups, strides and downsamples, networks of the waveform, linear layers of frames.
const NETWORKS = ['Cnn6', 'MobileNetV2', 'ResNet22', 'LeeNet11', 'Cnn14_DecisionLevelAtt', 'mn04'];

for (const name of NETWORKS) {
  for (const device of ['null', 'cpu'] as const) {
    if (device === 'cpu' && !['Cnn6', 'mn04'].includes(name)) continue;
    t.test(`${name} on ${device}: every node once, and what it has to do`, async (t) => {
      const config = name === 'Cnn6' ? SMALL : { classes: 5 };
      const description = describeModel(name, config);
      const samples = description.lengthFor(Math.round(1.3 * description.config.sampleRate));
      const choice: DeviceOptions = { device, threads: 2 };
      // What computes nothing may end within the clock's tick, what computes does not.
      const least = device === 'null' ? 0 : 1e-9;
      const native = await addon.createModel(description.spec, choice, samples);
      t.teardown(() => native.dispose());
      if (device === 'cpu') await native.initialise(1n);
      const costs = layerCosts(description, samples);
      const macs = new Map(description.spec.nodes.map(({ path }, i) => [path, costs[i]?.macs]));
      const all = 2 * BATCH * costs.reduce((sum, cost) => sum + cost.macs, 0);

      const outputs = Object.keys(description.spec.outputs);
      const inference = await timed(t, least, () => native.profile(BATCH, samples, outputs));
      t.same(namesOf(inference), linesOf(await native.text(BATCH, samples, [])));
      t.ok(inference.nodes.every(({ pass }) => pass === 'forward'));
      t.ok(inference.nodes.every(({ op, once }) => once === (op === 'fold_batch_norm')));
      for (const { path, op, flops } of inference.nodes) {
        if (op === 'conv' || op === 'linear')
          t.equal(flops, 2 * BATCH * (macs.get(path) ?? 0), path);
      }

      const options = { ...SESSION, batch: BATCH, samples };
      const session = await addon.createSession(native, description.spec, options);
      t.teardown(() => session.dispose());
      const training = await timed(t, least, () => session.profile(STATE));
      t.same(namesOf(training), linesOf(session.text()));
      const flops = { forward: 0, backward: 0, optimizer: 0 };
      for (const { pass, path, op, ...node } of training.nodes) {
        t.equal(node.once, false);
        if (op !== 'logmel') flops[pass] += node.flops;
        if (!/^(conv|linear)_backward/.test(op)) continue;
        t.equal(pass, 'backward');
        t.equal(node.flops, 2 * BATCH * (macs.get(path) ?? 0), `${path} ${op}`);
      }
      // A convolution that a norm has taken in counts there.
      t.equal(flops.forward, all);
      t.ok(flops.backward > 1.5 * all && flops.backward <= 2 * all);
      const passes = training.nodes.map(({ pass }) => pass);
      const changes = passes.filter((pass, i) => pass !== passes[i - 1]);
      t.same(changes, ['forward', 'backward', 'optimizer']);
      t.equal(passes.indexOf('backward'), 1 + training.nodes.findIndex(({ op }) => op === 'bce'));
    });
  }
}

t.test('a step in flight is to be finished first', async (t) => {
  const { spec } = describeModel('Cnn6', SMALL);
  const samples = 8080;
  const native = await addon.createModel(spec, { device: 'null', threads: 1 }, samples);
  t.teardown(() => native.dispose());
  const session = await addon.createSession(native, spec, { ...SESSION, batch: BATCH, samples });
  t.teardown(() => session.dispose());
  const clips = new Int16Array(BATCH * samples);
  await session.begin(clips, new Float32Array(BATCH * SMALL.classes), undefined, STATE);
  const busy = { code: 'ERR_PANNS_BUSY', message: /profile: expected no step in flight/ };
  await t.rejects(session.profile(STATE), busy);
  t.equal((await session.finish()).loss, 1, 'nothing ran in between');
});

t.test('bytes: inputs and results, each once; what an optimizer writes too', async (t) => {
  const description = describeModel('Cnn6', SMALL);
  const samples = 8080;
  const native = await addon.createModel(description.spec, { device: 'null', threads: 1 }, samples);
  t.teardown(() => native.dispose());
  const { nodes } = await native.profile(BATCH, samples, ['clipwise_output']);
  const bytesOf = (path: string, op: string) =>
    nodes.find((node) => node.path === path && node.op === op)?.bytes;
  const frames = samples / 80 + 1;
  const [map, weight] = [BATCH * frames * 16, 64 * 25];
  const pooled = BATCH * 64 * Math.floor(frames / 2) * 8;
  t.equal(bytesOf('conv_block1.conv1', 'conv'), 4 * (map + weight + 64 + pooled));
  t.equal(bytesOf('fc1', 'linear'), 4 * (512 * 512 + 512 + 2 * BATCH * 512));

  using model = await createModel('Cnn6', SMALL);
  const parameters = model.parameterCount();
  const frozen = ['conv_block1.conv1.weight'];
  for (const [kind, attrs, touched] of [
    // Reads and writes of parameters, gradients and what the optimizer keeps.
    ['adam', { amsgrad: true }, 5 + 4],
    ['adam', { amsgrad: false }, 4 + 3],
    ['sgd', { momentum: 0.9 }, 3 + 2],
    ['sgd', { momentum: 0 }, 2 + 1],
  ] as const) {
    const options = { ...SESSION, batch: BATCH, samples, optimizer: { kind, attrs }, frozen };
    const session = await addon.createSession(native, description.spec, options);
    const round = async (maxNorm: number) => (await session.profile({ ...STATE, maxNorm })).nodes;
    const steps = (await round(0)).filter(({ pass }) => pass === 'optimizer');
    const [norm, ...updates] = steps;
    const bytes = updates.reduce((sum, node) => sum + node.bytes, 0);
    const values = parameters - weight;
    t.ok(bytes >= 4 * touched * values, kind);
    // Arrays begin at multiples of 256 bytes.
    t.ok(bytes <= 4 * touched * (values + 64 * model.parameters().length), kind);
    t.match(norm, { op: 'grad_norm', bytes: 0 });
    const clipped = (await round(1)).find(({ op }) => op === 'grad_norm');
    t.equal(clipped?.bytes, bytes / touched, 'clipping reads all gradients');
    session.dispose();
  }
});

t.test('medians of the runs, sums of what runs each time', async (t) => {
  const { uniforms } = openDraws(t);
  const paths = ['a', 'b.c', 'b.d', 'b', 'b.c'];
  const rounds = Array.from({ length: 4 }, (): NativeProfile => {
    const [stepSeconds = 0, ...seconds] = uniforms(6, 1, 2);
    return {
      stepSeconds,
      nodes: paths.map((path, i) => ({
        ...{ pass: 'forward', path, op: `op${i % 2}`, detail: '', shape: [i], once: i === 4 },
        ...{ flops: 30 * i, bytes: 40, seconds: seconds[i] ?? 0 },
      })),
    };
  });
  const got = summary(rounds, { flopsPerSecond: 3, bytesPerSecond: 2 });
  const median = (of: (round: NativeProfile) => number) => {
    const [, low = 0, high = 0] = rounds.map(of).sort((a, b) => a - b);
    return (low + high) / 2;
  };
  const times = paths.map((_, i) => median(({ nodes }) => nodes[i]?.seconds ?? 0));
  t.equal(
    got.stepSeconds,
    median(({ stepSeconds }) => stepSeconds),
  );
  t.same(
    got.nodes.map(({ seconds }) => seconds),
    times,
  );
  t.same(
    got.nodes.map(({ floorSeconds }) => floorSeconds),
    [20, 20, 20, 30, 40],
  );
  t.same(
    got.nodes.map(({ block }) => block),
    ['a', 'b', 'b', 'b', 'b'],
  );
  const [a = 0, c = 0, d = 0, b = 0] = times;
  t.match(got.total, { nodes: 4, flops: 180, bytes: 160, floorSeconds: 90 });
  t.ok(Math.abs(got.total.seconds - (a + b + c + d)) < 1e-12);
  t.match(got.byBlock, [
    { name: 'b', nodes: 3, bytes: 120 },
    { name: 'a', nodes: 1, seconds: a },
  ]);
  t.equal(got.byOp.length, 2);
  t.ok((got.byOp[0]?.seconds ?? 0) >= (got.byOp[1]?.seconds ?? 0));
});

/** Runs `panns ...` in this process. */
async function panns(...argv: string[]) {
  let out = '';
  let messages = '';
  const code = await runProgram(argv, {
    print: (line) => {
      out += `${line}\n`;
    },
    messages: { write: (text) => (messages += text) },
    signal: new AbortController().signal,
  });
  return { code, out, messages };
}

const NODE = [
  ...['block', 'bytes', 'detail', 'flops', 'floorSeconds', 'once', 'op', 'pass', 'path'],
  ...['seconds', 'shape'],
].sort();
const SUM = ['bytes', 'flops', 'floorSeconds', 'name', 'nodes', 'seconds'].sort();

t.test('panns profile: JSON and tables', async (t) => {
  const words = ['profile', 'Cnn6', '--batch', '2', '--seconds', '1', '--runs', '1'];
  const json = await panns(...words, '--train', '--mixup', '--classes', '7', '--json');
  t.equal(json.code, 0, json.messages);
  t.equal(json.messages, '');
  const found = JSON.parse(json.out) as ModelProfile;
  t.same(
    Object.keys(found).sort(),
    [
      ...['batch', 'byBlock', 'byOp', 'byPass', 'device', 'hardware', 'model', 'nodes', 'rates'],
      ...['runs', 'samples', 'stepSeconds', 'total', 'training'],
    ].sort(),
  );
  t.match(found, {
    model: 'Cnn6',
    device: 'cpu',
    training: true,
    batch: 2,
    samples: 32000,
    runs: 1,
  });
  t.ok(found.rates.flopsPerSecond > 1e9 && found.rates.bytesPerSecond > 1e8, 'a working machine');
  for (const node of found.nodes) t.same(Object.keys(node).sort(), NODE);
  for (const sum of [found.total, ...found.byPass, ...found.byOp, ...found.byBlock]) {
    t.same(Object.keys(sum).sort(), SUM);
  }
  t.ok(found.nodes.some(({ op }) => op === 'mixup'));
  t.equal(found.total.nodes, found.nodes.length);

  const table = await panns(...words);
  t.equal(table.code, 0, table.messages);
  t.match(table.out, /^Cnn6 on cpu \(.+\), inference: 2 clips of 32000 samples, one run$/m);
  t.match(table.out, /^the device reaches \S+ GFLOP\/s .*, \S+ GB\/s /m);
  t.match(table.out, /^conv_block1\.conv1 +conv 5x5 \+bias \+relu \+avg_pool_2x2 +2x64x50x32 +\S/m);
  t.match(table.out, /^all +11 +\S+ +100\.0 % /m);
  t.match(table.out, /^\S+ ms as usual, \S+ ms as the sum of all nodes, \S+ ms /m);
  t.match(table.out, /^4 nodes more run only when weights change: fold_batch_norm$/m);
  t.match(table.messages, /profiling/);
});

t.test('what it does not take', async (t) => {
  const network = describeModel('Cnn6', SMALL);
  const refused = (options: object, message: RegExp) =>
    t.rejects(profileModel(network, options), { code: 'ERR_PANNS_OPTION', message });
  await refused({ batchs: 2 }, /unknown option "batchs"; did you mean "batch"/);
  await refused({ batch: 0 }, /batch to be a whole number >= 1, got 0/);
  await refused({ seconds: -1 }, /seconds to be a number in 0\.\.3600, got -1/);
  await refused({ runs: 1.5 }, /runs to be a whole number in 1\.\.1000, got 1\.5/);
  await refused({ device: 'tpu' }, /device to be/);
  await refused({ recipe: { batch: 2 } }, /unknown option "batch"/);
  await refused({ recipe: { learningRate: 1e-3 } }, /did you mean "optimizer\.lr"/);
  const cached = { cacheFeatures: true, freeze: 'base', batchSize: 2, clipSeconds: 1 };
  await refused({ recipe: cached }, /without cacheFeatures/);
  t.match(await panns('profile', 'Cnn6', '--bach', '2'), { code: 2, messages: /--batch/ });
  t.match(await panns('profile', 'Cnn6', '--mixup'), { code: 2, messages: /give --train/ });
  using model = await createModel('Cnn6', SMALL);
  const path = join(t.testdir(), 'model.safetensors');
  await model.save(path);
  for (const verb of ['profile', 'memory', 'tune']) {
    const other = await panns(verb, path, '--classes', '7');
    t.match(other, { code: 2, out: '', messages: /--classes is for a network by name/ }, verb);
  }
  if ((await cudaStatus()).available) return;
  t.match(await panns('profile', 'Cnn6', '--device', 'cuda'), {
    code: 1,
    out: '',
    messages: /^error ERR_PANNS_CUDA_UNAVAILABLE: /,
  });
});

t.test('an abort ends it, between runs and within one', async (t) => {
  const network = describeModel('Cnn6', SMALL);
  await t.rejects(profileModel(network, { signal: AbortSignal.abort() }), { name: 'AbortError' });
  const stop = new AbortController();
  const seen: number[] = [];
  const aborted = profileModel(network, {
    ...{ batch: 1, seconds: 0.3, runs: 1000, signal: stop.signal },
    onProgress(done, total) {
      seen.push(done);
      t.equal(total, 1001);
      if (done === 3) stop.abort();
    },
  });
  await t.rejects(aborted, { name: 'AbortError' });
  t.same(seen, [1, 2, 3]);

  using model = await createModel('Cnn6', SMALL);
  const { native } = modelInternals(model);
  const flag = new Uint8Array<ArrayBufferLike>(new SharedArrayBuffer(1)).fill(1);
  await t.rejects(native.rates(flag), { code: 'ABORT_ERR' });
  await t.rejects(native.profile(1, 8000, ['logits'], flag), { code: 'ABORT_ERR' });
});
