// What a training step on the GPU does in its own way, on emulated devices: 16-bit copies of the
// weights, samples of 16 bits, statistics in a convolution's epilogue.
import t, { type Test } from 'tap';
import type { DeviceOptions, NativeModel, NativeSession, Spec } from '../../lib/addon.js';
import { wavegramFrontend } from '../../lib/models/frontends.js';
import { buildGraph } from '../../lib/models/graph.js';
import { loadNative } from '../../lib/native.js';
import { openDraws } from '../helpers/random.js';
import {
  CLASSES,
  randomBatch,
  SECOND,
  sessionOptions,
  smallModel,
  wideModel,
} from '../robustness/small_model.js';
import { distance, norm } from './emulator/ops.js';
import { noEmulator } from './emulator/setup.js';

const skip = noEmulator;
const native = loadNative();
const draws = openDraws(t);
const BATCH = 2;
const CONV = 'block2.conv.weight';

/**
 * Another order of sums moves gradients by some 1e-3, and by some 1e-2 where a value of few crosses
 * a relu's kink; sums that are not those of this batch move them by their own size.
 */
const KINKS = 0.2;

/** Means only: where a maximum is nearly a tie, another order of sums may move a whole gradient. */
const { spec: smoothSpec } = buildGraph('Smooth', (b, waveform) => {
  const front = { sampleRate: SECOND, windowSize: 256, hopSize: 80, melBins: 16 };
  let x = b.batchNorm('bn0', b.logmel(waveform, { ...front, fmin: 50, fmax: 4000 }), {
    over: 'freq',
  });
  for (const name of ['block1', 'block2']) {
    x = b.conv(`${name}.conv`, x, { channels: 16, kernel: 3, padding: 1 });
    x = b.pool(b.relu(b.batchNorm(`${name}.bn`, x)), 'avg', 2);
  }
  const pooled = b.reduceTime(b.meanOverFrequency(x), 'mean');
  return { clipwise_output: b.sigmoid(b.linear('fc_audioset', pooled, CLASSES)) };
});

type Precision = NonNullable<DeviceOptions['precision']>;
const cuda = (precision: Precision, deterministic = true): DeviceOptions => ({
  ...{ device: 'cuda', threads: 1, precision, deterministic },
});

async function makeModel(t: Test, spec: Spec, device: DeviceOptions): Promise<NativeModel> {
  const model = await native.createModel(spec, device, SECOND);
  t.teardown(() => model.dispose());
  await model.initialise(7n);
  return model;
}

const openSession = (model: NativeModel, spec: Spec, more: object = {}) =>
  native.createSession(model, spec, { ...sessionOptions(BATCH, SECOND), ...more });

const state = { seed: 3n, step: 0, lr: 1e-2, maxNorm: 1, update: true };

/** The loss of a batch, and the gradient of a convolution's weight, with the weights as they are. */
async function look(session: NativeSession, { waveform, target }: ReturnType<typeof randomBatch>) {
  const { loss } = await session.step(waveform, target, undefined, { ...state, update: false });
  return { loss, gradient: await session.gradient(CONV) };
}

for (const precision of ['bf16', 'fp16', 'fp32'] as const) {
  for (const optimizer of [
    { kind: 'adam', attrs: { amsgrad: true } },
    { kind: 'sgd', attrs: { momentum: 0.9 } },
  ] as const) {
    t.test(`${precision}, ${optimizer.kind}: copies follow the weights`, { skip }, async (t) => {
      const { spec } = smallModel();
      const model = await makeModel(t, spec, cuda(precision));
      const batches = [1, 2, 3].map(() => randomBatch(draws.random.uint32(), BATCH, SECOND));
      const [first] = batches as [ReturnType<typeof randomBatch>];
      const session = await openSession(model, spec, { optimizer });
      const before = await look(session, first);
      for (const [step, { waveform, target }] of batches.entries()) {
        await session.step(waveform, target, undefined, { ...state, step });
      }
      const after = await look(session, first);
      t.not(after.loss, before.loss, 'the weights have moved');
      // A new session casts the weights: what the optimizer wrote beside them must be the same.
      const fresh = await openSession(model, spec, { optimizer });
      t.same(await look(fresh, first), after, 'the optimizer writes what a cast makes');

      const weight = await model.get(CONV);
      await model.set(
        CONV,
        weight.map((w) => -w),
      );
      const changed = await look(session, first);
      t.not(changed.loss, after.loss, 'a weight that is set is seen');
      t.same(await look(fresh, first), changed);
      await model.set(CONV, weight);
      t.same(await look(session, first), after, 'and back again');
      await model.initialise(8n);
      t.not((await look(session, first)).loss, after.loss);

      // Of two sessions of one model, each follows what the other does.
      await fresh.step(first.waveform, first.target, undefined, state);
      t.same(await look(session, first), await look(fresh, first), 'two sessions, one model');
      session.dispose();
      fresh.dispose();
    });
  }
}

t.test('fp16: a step that overflows moves neither weights nor copies', { skip }, async (t) => {
  const { spec } = smallModel();
  const model = await makeModel(t, spec, cuda('fp16'));
  const session = await openSession(model, spec);
  const batch = randomBatch(draws.random.uint32(), BATCH, SECOND);
  const gamma = await model.get('block2.bn.weight');
  await model.set('block2.bn.weight', gamma.fill(8000)); // activations stay below 65504
  const before = await look(session, batch);
  const weight = await model.get(CONV);
  await session.step(batch.waveform, batch.target, undefined, { ...state, maxNorm: 0 });
  t.same(await model.get(CONV), weight, 'left out');
  const after = await look(session, batch);
  t.equal(after.loss, before.loss);
  session.dispose();
});

t.test('fp16: gradients that no loss scale keeps finite are told', { skip }, async (t) => {
  const { spec } = buildGraph('Blind', (b, waveform) => {
    const front = { sampleRate: SECOND, windowSize: 256, hopSize: 80, melBins: 16 };
    const mel = b.logmel(waveform, { ...front, fmin: 50, fmax: 4000 });
    let x = b.batchNorm('bn0', mel, { over: 'freq' });
    x = b.relu(b.conv('conv', x, { channels: 8, kernel: 3 }));
    const pooled = b.reduceTime(b.meanOverFrequency(x), 'mean');
    return { clipwise_output: b.sigmoid(b.linear('fc', pooled, CLASSES)) };
  });
  const model = await makeModel(t, spec, cuda('fp16'));
  const session = await openSession(model, spec);
  t.teardown(() => session.dispose());
  const weight = await model.get('conv.weight');
  // To fp16 minus infinity, on inputs that are all above 0: behind the relu nothing is seen of it,
  // but its gradient is 0 times infinity.
  await model.set('bn0.bias', (await model.get('bn0.bias')).fill(50));
  await model.set('conv.weight', weight.fill(-1e5, 0, 9));
  const { waveform, target } = randomBatch(draws.random.uint32(), BATCH, SECOND);
  const step = (index: number) =>
    session.step(waveform, target, undefined, { ...state, step: index, maxNorm: 0 });
  const halvings = Math.ceil(Math.log2(65536 / 1e-4));
  for (let i = 0; i < halvings - 1; i++) t.match(await step(i), { leftOut: true, gradNorm: 0 });
  const told = {
    code: 'ERR_PANNS_NAN',
    message: new RegExp(`overflow at step ${halvings - 1} however small the loss was scaled; bf16`),
  };
  await t.rejects(step(halvings - 1), told);
  t.same(await model.get('conv.weight'), weight, 'nothing has moved');

  // What is trained then has the first scale: with the last one its gradients would be lost.
  const other = await makeModel(t, spec, cuda('fp16'));
  for (const name of ['bn0.bias', 'conv.weight']) await model.set(name, await other.get(name));
  const gradient = async (session: NativeSession) => {
    await session.step(waveform, target, undefined, { ...state, update: false });
    return session.gradient('conv.weight');
  };
  const fresh = await openSession(other, spec);
  t.teardown(() => fresh.dispose());
  t.same(await gradient(session), await gradient(fresh), 'and what comes then begins anew');
});

for (const [name, { spec }] of [
  ['log-mel', smallModel()],
  ['log-mel and waveform', wideModel()],
] as const) {
  t.test(`samples of 16 bits have the bits of floats: ${name}`, { skip }, async (t) => {
    // More than one piece of an upload would take seconds here; an odd count leaves a rest.
    const codes = Int16Array.from({ length: BATCH * SECOND }, () => draws.random.uint32() >>> 16);
    const floats = Float32Array.from(codes, (code) => code / 32767);
    const { target } = randomBatch(draws.random.uint32(), BATCH, 1);
    const train = async (waveform: Float32Array | Int16Array) => {
      const model = await makeModel(t, spec, cuda('bf16'));
      const session = await openSession(model, spec);
      const losses: number[] = [];
      for (let step = 0; step < 2; step++) {
        const { loss } = await session.step(waveform, target, undefined, { ...state, step });
        losses.push(loss);
      }
      const scores = await model.infer(waveform, BATCH, SECOND, ['clipwise_output']);
      session.dispose();
      return { losses, scores: scores.clipwise_output };
    };
    t.same(await train(codes), await train(floats));
  });
}

for (const precision of ['bf16', 'fp16'] as const) {
  t.test(`${precision}: statistics from the convolution's epilogue`, { skip }, async (t) => {
    const batch = randomBatch(draws.random.uint32(), BATCH, SECOND);
    const train = async (device: DeviceOptions, passesOff: string[]) => {
      const model = await makeModel(t, smoothSpec, device);
      const session = await openSession(model, smoothSpec, { passesOff });
      const text = session.text();
      const { waveform, target } = batch;
      const { loss } = await session.step(waveform, target, undefined, state);
      const gradient = await session.gradient(CONV);
      const running = await model.get('block1.bn.running_var');
      // Captured by now: sums are cleared before each run, and added in an order of their own.
      const [once, again] = [await look(session, batch), await look(session, batch)];
      const moved = distance(again.gradient, once.gradient);
      t.ok(moved < KINKS && Math.abs(again.loss - once.loss) < 1e-3, `${moved} from run to run`);
      session.dispose();
      return { text, loss, gradient, running };
    };
    const fused = await train(cuda(precision, false), []);
    const plain = await train(cuda(precision, false), ['conv+statistics']);
    const fixed = await train(cuda(precision), []);
    t.match(fused.text, /^block2\.conv .* = conv\(.*\+statistics/m);
    t.match(fused.text, /^block2\.bn .* = batch_norm\(.* from sums/m);
    for (const { text } of [plain, fixed]) t.notMatch(text, /\+statistics|from sums/);
    t.ok(Math.abs(fused.loss - plain.loss) < 1e-3, `loss ${fused.loss}, ${plain.loss}`);
    const apart = {
      gradient: distance(fused.gradient, plain.gradient),
      running: distance(fused.running, plain.running),
    };
    t.comment(apart);
    t.ok(apart.running < 1e-4, `running variances ${apart.running} apart`);
    t.ok(apart.gradient < KINKS, `gradients ${apart.gradient} apart`);
  });
}

/** As networks begin: the convolution of the log-mel map, a norm and a relu, then another one. */
const { spec: firstSpec } = buildGraph('First', (b, waveform) => {
  const front = { sampleRate: SECOND, windowSize: 256, hopSize: 80, melBins: 16 };
  const mel = b.logmel(waveform, { ...front, fmin: 50, fmax: 4000 });
  let x = b.batchNorm('bn0', mel, { over: 'freq' });
  x = b.mixup(b.specAugment(x, { timeWidth: 8, freqWidth: 4 }));
  for (const name of ['conv1', 'conv2']) {
    x = b.conv(name, x, { channels: 16, kernel: 3, padding: 1 });
    x = b.relu(b.batchNorm(`${name}.bn`, x));
  }
  const pooled = b.reduceTime(b.meanOverFrequency(b.pool(x, 'avg', 2)), 'mean');
  return { clipwise_output: b.sigmoid(b.linear('fc_audioset', pooled, CLASSES)) };
});

/** As networks on the waveform begin: kernels and strides of Res1dNet and LeeNet. */
const waveSpec = (kernel: number, stride: number): Spec =>
  buildGraph('Wave', (b, waveform) => {
    const first = { channels: 16, kernel, stride, padding: (kernel - 1) / 2 };
    let x = b.conv1d('conv1', b.unsqueeze(waveform), first);
    x = b.relu(b.batchNorm('conv1.bn', x));
    x = b.conv1d('conv2', x, { channels: 16, kernel: 3, padding: 1 });
    x = b.mixup(b.relu(b.batchNorm('conv2.bn', x)));
    const pooled = b.reduceTime(b.meanOverFrequency(b.pool(x, 'avg', [4, 1])), 'mean');
    return { clipwise_output: b.sigmoid(b.linear('fc_audioset', pooled, CLASSES)) };
  }).spec;

/** A wavegram of two bins, with its maxima. */
const { spec: wavegramSpec } = buildGraph('Wavegram', (b, waveform) => {
  const config = { hopSize: 320, melBins: 4 } as Parameters<typeof wavegramFrontend>[2];
  const x = b.mixup(wavegramFrontend(b, waveform, config));
  const pooled = b.reduceTime(b.meanOverFrequency(x), 'mean');
  return { clipwise_output: b.sigmoid(b.linear('fc_audioset', pooled, CLASSES)) };
});

/** How far gradients may be from those of the CPU: of two short clips, some ReLUs go the other way. */
const APART = { fp32: 3e-3, bf16: 4e-1, fp16: 1e-1 } as const;

const log = { spec: firstSpec, conv: 'conv1', norm: 'conv1.bn', next: 'conv2.weight' };
const eleven = { ...log, spec: waveSpec(11, 5) };
const three = { ...log, spec: waveSpec(3, 3) };
const wavegram = {
  ...{ spec: wavegramSpec, conv: 'pre_conv0', norm: 'pre_bn0' },
  next: 'pre_block1.conv1.weight',
};

for (const [what, network, precision, lengths, limit] of [
  ['3x3', log, 'fp32', [9920, 2400], APART.fp32],
  ['3x3', log, 'bf16', [80_000], APART.bf16],
  ['3x3', log, 'fp16', [9920], APART.fp16],
  ['11 samples', eleven, 'fp32', [2563, 124], APART.fp32],
  ['11 samples', eleven, 'bf16', [6001], APART.bf16],
  ['11 samples', eleven, 'fp16', [1277], APART.fp16],
  ['3 samples', three, 'fp32', [1535], APART.fp32],
  ['3 samples', three, 'bf16', [3001], APART.bf16],
  ['a wavegram', wavegram, 'fp32', [1920], KINKS],
] as const) {
  for (const samples of lengths) {
    const name = `${precision}, ${samples} samples: a norm of the first convolution, ${what}`;
    t.test(name, { skip }, async (t) => {
      const { spec, conv, norm: bn, next } = network;
      const seed = draws.random.uint32();
      const lambda = Float32Array.of(0.3, 0.7, 0.8, 0.2);
      const train = async (device: DeviceOptions, passesOff: string[]) => {
        const model = await makeModel(t, spec, device);
        const all = model.parameters().map(({ name }) => name);
        for (const gamma of all.filter((name) => ['bn0.weight', `${bn}.weight`].includes(name))) {
          const ones = await model.get(gamma);
          await model.set(
            gamma,
            ones.map((_, i) => 0.5 + ((i * 7) % 16) / 16),
          );
        }
        const session = await native.createSession(model, spec, {
          ...sessionOptions(BATCH, samples),
          ...{ mixup: true, passesOff },
        });
        const text = session.text();
        const gradients = new Map<string, Float32Array>();
        const losses: number[] = [];
        for (let step = 0; step < 3; step++) {
          const { waveform, target } = randomBatch(seed + step, 2 * BATCH, samples);
          const { loss } = await session.step(waveform, target, lambda, { ...state, step });
          losses.push(loss);
          if (step > 0) continue;
          for (const { name, trainable } of model.parameters()) {
            gradients.set(name, trainable ? await session.gradient(name) : await model.get(name));
          }
        }
        session.dispose();
        return { text, gradients, losses };
      };
      const want = await train({ device: 'cpu', threads: 1 }, []);
      const plain = await train(cuda(precision), ['conv+batch_norm']);
      const fused = await train(cuda(precision), []);
      t.match(fused.text, new RegExp(`^${bn} .* = batch_norm\\(.* of conv .*\\+relu`, 'm'));
      t.notMatch(fused.text, new RegExp(`^${conv} `, 'm'));
      for (const { text } of [want, plain]) t.notMatch(text, / of conv/);
      // fp16 multiplies the loss, and so its gradients, by a power of two.
      const scale = (found: typeof want) =>
        2 **
        Math.round(
          Math.log2(norm(found.gradients.get(next) ?? []) / norm(want.gradients.get(next) ?? [])),
        );
      for (const [name, wanted] of want.gradients) {
        const error = (found: typeof want) => {
          const by = name.includes('running') ? 1 : scale(found);
          return distance(
            (found.gradients.get(name) ?? new Float32Array()).map((x) => x / by),
            wanted,
          );
        };
        const [one, other] = [error(fused), error(plain)];
        t.comment(`${name}: fused ${one.toExponential(1)}, plain ${other.toExponential(1)}`);
        t.ok(one <= (name.includes('running') ? limit / 10 : limit), `${name}: ${one}`);
      }
      const apart = distance(fused.losses, want.losses);
      t.ok(apart < limit / 10, `losses ${fused.losses}, ${want.losses}`);
    });
  }
}

t.test('bn0, its stripes and mixup as one', { skip }, async (t) => {
  const rows = ['batch_norm+spec_augment', 'batch_norm+mixup'];
  const seed = draws.random.uint32();
  const lambda = Float32Array.of(0.3, 0.7, 0.8, 0.2);
  for (const frozen of [[], ['bn0']]) {
    const train = async (passesOff: string[]) => {
      const model = await makeModel(t, firstSpec, cuda('fp32'));
      const session = await native.createSession(model, firstSpec, {
        ...sessionOptions(BATCH, SECOND),
        ...{ mixup: true, passesOff, frozen, frozenNorms: 'eval' as const },
      });
      const found = new Map<string, ArrayLike<number>>();
      const { waveform, target } = randomBatch(seed, 2 * BATCH, SECOND);
      const { loss } = await session.step(waveform, target, lambda, { ...state, update: false });
      found.set('loss', [loss]);
      for (const { name, trainable } of model.parameters()) {
        if (!trainable) found.set(name, await model.get(name));
        else if (session.trains(name)) found.set(name, await session.gradient(name));
      }
      const text = session.text();
      session.dispose();
      return { found, text };
    };
    const [fused, plain] = [await train([]), await train(rows)];
    t.match(fused.text, /^bn0 .* = batch_norm\(.*\+spec_augment\(.*\) \+mixup/m);
    t.notMatch(plain.text, /\+(spec_augment|mixup)/);
    t.same([...fused.found.keys()], [...plain.found.keys()]);
    for (const [name, want] of plain.found) {
      // The same sums in another order, and ReLUs that a rounding turns.
      const apart = distance(fused.found.get(name) ?? [], want);
      t.ok(apart < APART.fp32, `${frozen}: ${name}: ${apart}`);
      t.comment(`${frozen}: ${name}: ${apart}`);
    }
  }
});
