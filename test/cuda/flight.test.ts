// Steps in flight: given to the device before the loss of the one before is read. By themselves and in
// a Trainer, on emulated devices, whose streams run as late as they may and as early as they may.
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import type { DeviceOptions, NativeModel, NativeSession, SessionOptions } from '../../lib/addon.js';
import { AbortError } from '../../lib/errors.js';
import { createModel } from '../../lib/inference/model.js';
import { buildGraph } from '../../lib/models/graph.js';
import type { ModelRow } from '../../lib/models/row.js';
import { loadNative } from '../../lib/native.js';
import { planTraining } from '../../lib/train/session.js';
import { Trainer, type TrainerOptions } from '../../lib/train/trainer.js';
import { createTrainingLoader } from '../../lib/train/training.js';
import { openDraws } from '../helpers/random.js';
import { BATCH, digestOf, noiseLoader, outcomeOf, Plain } from '../parallel/trainings.js';
import { CLASSES, SECOND, sessionOptions } from '../robustness/small_model.js';
import { madeAhead, RATE, SECONDS, tinyModel, tones } from '../trainer/synthetic.js';
import { emulateHere, noEmulator } from './emulator/setup.js';

const skip = noEmulator;
if (!skip) emulateHere();

const native = loadNative();
const draws = openDraws(t);
const CLIPS = 4;
/** An eighth of a second: 13 frames. */
const SAMPLES = SECOND / 8;

/** Norms of bins and of channels, the first of them with its convolution; what a seed decides. */
const { spec } = buildGraph('Flown', (b, waveform) => {
  const front = { sampleRate: SECOND, windowSize: 256, hopSize: 80, melBins: 16 };
  const mel = b.logmel(waveform, { ...front, fmin: 50, fmax: 4000 });
  let x = b.batchNorm('bn0', mel, { over: 'freq' });
  x = b.mixup(b.specAugment(x, { timeWidth: 8, freqWidth: 4 }));
  for (const name of ['conv1', 'conv2']) {
    x = b.conv(name, x, { channels: 16, kernel: 3, padding: 1 });
    x = b.relu(b.batchNorm(`${name}.bn`, x));
  }
  x = b.dropout(b.pool(x, 'avg', 2), 0.2);
  const logits = b.linear('fc', b.reduceTime(b.meanOverFrequency(x), 'mean'), CLASSES);
  return { logits, clipwise_output: b.sigmoid(logits) };
});

const cuda = (precision: 'fp32' | 'bf16' | 'fp16'): DeviceOptions => ({
  ...{ device: 'cuda', threads: 1, precision },
});

interface Step {
  readonly codes: Int16Array;
  readonly target: Float32Array;
  readonly lambda: Float32Array;
  readonly update: boolean;
  readonly maxNorm: number;
}

function drawStep(more: Partial<Step> = {}): Step {
  const share = 0.1 + 0.8 * draws.random.uniform();
  return {
    codes: Int16Array.from({ length: CLIPS * SAMPLES }, () => draws.random.uint32() >>> 16),
    target: Float32Array.from({ length: CLIPS * CLASSES }, () => draws.random.integer(2)),
    lambda: Float32Array.of(share, 1 - share, 1 - share, share),
    update: true,
    maxNorm: 0,
    ...more,
  };
}

async function open(t: Test, device: DeviceOptions, more: Partial<SessionOptions> = {}) {
  const model = await native.createModel(spec, device, SAMPLES);
  t.teardown(() => model.dispose());
  await model.initialise(7n);
  const options = { ...sessionOptions(CLIPS / 2, SAMPLES), mixup: true, ...more };
  const session = await native.createSession(model, spec, options);
  // Not when it is collected: in a test that looks at what is held, and beside what computes.
  t.teardown(() => session.dispose());
  return { model, session };
}

/** All that a training leaves: weights, running statistics, the optimizer's state. */
async function stateOf(model: NativeModel, session: NativeSession) {
  const found: Record<string, Float32Array> = {};
  for (const { name } of model.parameters()) {
    found[name] = await model.get(name);
    if (!session.trains(name)) continue;
    for (const slot of session.slots()) {
      found[`${slot} of ${name}`] = await session.getSlot(slot, name);
    }
  }
  return found;
}

type State = Awaited<ReturnType<typeof stateOf>>;

/** The names of arrays with other bits: as bytes, so that NaNs compare. */
function differing(got: State, want: State): string[] {
  const bytes = (x: Float32Array = new Float32Array()) =>
    Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return Object.keys(want).filter((name) => !bytes(got[name]).equals(bytes(want[name])));
}

type Ended = { loss: number; gradNorm: number } | { code: string; message: string };

const settle = (step: Promise<{ loss: number; gradNorm: number }>): Promise<Ended> =>
  step.catch(({ code, message }) => ({ code, message }));

/** The steps one at a time, each given out when the one before is done. */
async function oneByOne(session: NativeSession, steps: readonly Step[], from = 0) {
  const ended: Ended[] = [];
  for (const [i, { codes, target, lambda, update, maxNorm }] of steps.entries()) {
    const state = { seed: 3n, step: from + i, lr: 1e-2, maxNorm, update };
    ended.push(await settle(session.step(codes, target, lambda, state)));
  }
  return ended;
}

/** The steps two at a time; `stages`: with the clips of each going up during the one before. */
async function inFlight(session: NativeSession, steps: readonly Step[], stages: boolean, from = 0) {
  const begin = (i: number) => {
    const { codes, target, lambda, update, maxNorm } = steps[i] as Step;
    const state = { seed: 3n, step: from + i, lr: 1e-2, maxNorm, update };
    const clips = stages && i > 0 ? undefined : codes;
    const given = [target.slice(), lambda.slice()] as const;
    const next = stages ? steps[i + 1]?.codes : undefined;
    const begun = session.begin(clips, ...given, state, next);
    // What was given may be changed at once.
    for (const array of given) array.fill(-1);
    return begun;
  };
  const ended: Ended[] = [];
  await begin(0);
  for (const i of steps.keys()) {
    const begun = i + 1 < steps.length ? begin(i + 1) : undefined;
    ended.push(await settle(session.finish()));
    await begun;
  }
  return ended;
}

const sgd = { kind: 'sgd', attrs: { momentum: 0.9 } } as const;
const EARLY = { passesOn: ['early_update' as const], earlyBytes: 1 };
/** Every kind of step behind every other. */
const kinds = (): Step[] => [
  drawStep(),
  drawStep({ maxNorm: 0.01 }),
  drawStep({ update: false }),
  drawStep(),
  drawStep(),
  drawStep({ maxNorm: 0.02 }),
];

for (const order of ['late', 'early']) {
  for (const [precision, more] of [
    ['fp32', {}],
    ['bf16', EARLY],
    ['fp16', { optimizer: sgd }],
  ] as const) {
    t.test(`${precision}, streams ${order}: the bits of one at a time`, { skip }, async (t) => {
      process.env.PANNS_EMULATOR_STREAMS = order;
      t.teardown(() => delete process.env.PANNS_EMULATOR_STREAMS);
      const steps = kinds();
      const plain = await open(t, cuda(precision), more);
      t.equal(plain.session.depth(), 2);
      const want = await oneByOne(plain.session, steps);
      const losses = want.map((ended) => ('loss' in ended ? ended.loss : Number.NaN));
      t.ok(losses.every(Number.isFinite), `${losses}`);
      t.equal(new Set(losses).size, steps.length, 'each step has its own loss');
      const state = await stateOf(plain.model, plain.session);
      for (const stages of [false, true]) {
        const { model, session } = await open(t, cuda(precision), more);
        t.same(await inFlight(session, steps, stages), want, `staged: ${stages}`);
        t.same(differing(await stateOf(model, session), state), [], 'the same bits');
      }
    });
  }
}

for (const [precision, more, bad] of [
  ['fp32', {}, {}],
  ['fp32', { loss: 'cross_entropy' }, {}],
  ['bf16', EARLY, {}],
  ['fp16', { optimizer: sgd }, {}],
  ['bf16', {}, { update: false }],
] as const) {
  const name = `${precision} ${JSON.stringify({ ...more, ...bad })}`;
  t.test(`${name}: nothing moves behind a loss that is not finite`, { skip }, async (t) => {
    const target = new Float32Array(CLIPS * CLASSES).fill(Number.NaN, 0, 1);
    const steps = [drawStep(), drawStep({ target, ...bad }), drawStep()];
    const after = [drawStep(), drawStep()];
    const plain = await open(t, cuda(precision), more);
    t.match(plain.session.text(), /^conv1\.bn .* of conv/m);
    const want = await oneByOne(plain.session, steps.slice(0, 2));
    t.match(want[1], { code: 'ERR_PANNS_NAN', message: /expected a finite loss.*at step 1/ });
    const failed = await stateOf(plain.model, plain.session);
    const later = await oneByOne(plain.session, after, 1);
    const end = await stateOf(plain.model, plain.session);
    t.not(differing(end, failed).length, 0, 'later steps move weights');

    const { model, session } = await open(t, cuda(precision), more);
    const got = await inFlight(session, steps, false);
    t.same(got, [...want, want[1]], 'the step behind fails as that one did');
    t.same(differing(await stateOf(model, session), failed), [], 'and moves nothing');
    t.same(await inFlight(session, after, false, 1), later, 'the next ones find it open');
    t.same(differing(await stateOf(model, session), end), []);
  });
}

t.test('nothing moves behind a norm that is not finite', { skip }, async (t) => {
  const steps = [drawStep({ maxNorm: 1 }), drawStep({ maxNorm: 1 })];
  // Activations and logits are floats. Gradients of small weights before large ones are not: a norm
  // between them makes as much of these as of any.
  const spoil = async (model: NativeModel) => {
    const scale = async (name: string, factor: number) => {
      const values = await model.get(name);
      await model.set(
        name,
        values.map((x) => x * factor),
      );
    };
    await scale('conv2.weight', 1e-5);
    await scale('conv2.bn.weight', 1e35);
    await scale('fc.weight', 1e3);
  };
  // Logits far off: bce would have no gradient there.
  const more = { loss: 'cross_entropy' } as const;
  const plain = await open(t, cuda('fp32'), more);
  await spoil(plain.model);
  const want = await oneByOne(plain.session, steps.slice(0, 1));
  const [{ loss, gradNorm }] = want as [{ loss: number; gradNorm: number }];
  t.ok(Number.isFinite(loss) && !Number.isFinite(gradNorm), `a norm of ${gradNorm}`);
  const { model, session } = await open(t, cuda('fp32'), more);
  await spoil(model);
  const got = await inFlight(session, steps, false);
  t.same(got[0], want[0]);
  t.match(got[1], { code: 'ERR_PANNS_NAN', message: /finite norm to clip by, got .* at step 0/ });
  t.same(differing(await stateOf(model, session), await stateOf(plain.model, plain.session)), []);
});

t.test(
  'fp16: what overflows is left out, clipped or not, and the next goes on',
  { skip },
  async (t) => {
    const steps = [drawStep({ maxNorm: 1 }), drawStep({ maxNorm: 1 }), drawStep({ maxNorm: 1 })];
    const more = { loss: 'cross_entropy' } as const;
    const spoil = async (model: NativeModel) => {
      const gamma = await model.get('conv2.bn.weight');
      await model.set('conv2.bn.weight', gamma.fill(4000)); // activations stay below 65504
    };
    const plain = await open(t, cuda('fp16'), more);
    await spoil(plain.model);
    const weight = await plain.model.get('conv2.weight');
    const want = await oneByOne(plain.session, steps.slice(0, 1));
    t.match(want, [{ leftOut: true, loss: Number }]);
    t.notOk(Number.isFinite((want[0] as { gradNorm: number }).gradNorm));
    t.same(await plain.model.get('conv2.weight'), weight);
    want.push(...(await oneByOne(plain.session, steps.slice(1), 1)));
    const { model, session } = await open(t, cuda('fp16'), more);
    await spoil(model);
    t.same(await inFlight(session, steps, false), want, 'in flight too');
    t.same(differing(await stateOf(model, session), await stateOf(plain.model, plain.session)), []);
  },
);

t.test('fp16: a Trainer that clips goes on behind a step that overflowed', { skip }, async (t) => {
  const model = await tinyModel({ device: 'cuda', precision: 'fp16' });
  t.teardown(() => model.dispose());
  const gamma = await model.getParameter('conv_block4.bn1.weight');
  await model.setParameter('conv_block4.bn1.weight', gamma.fill(4000));
  const trainer = new Trainer(model, {
    ...{ dataset, decode, batchSize: 3, steps: 3, clipSeconds: SECONDS, clipGradNorm: 1 },
  });
  t.teardown(() => trainer.dispose());
  const { gradNorms, error } = await outcomeOf(trainer);
  t.equal(error, undefined);
  t.equal(gradNorms.length, 3);
  t.notOk(Number.isFinite(gradNorms[0]), `norms of ${gradNorms}`);
});

const onNull: DeviceOptions = { device: 'null', threads: 0 };
const state = { seed: 3n, step: 0, lr: 1e-2, maxNorm: 0, update: true };

t.test('the order is kept, and what does not fit is refused', async (t) => {
  // The null backend computes no loss: its kernels count the runs.
  const { session } = await open(t, onNull);
  t.equal(session.depth(), 2);
  const { codes, target, lambda } = drawStep();
  const begin = (clips: Int16Array | undefined = codes) =>
    session.begin(clips, target, lambda, state);
  await t.rejects(session.finish(), { code: 'ERR_PANNS_BUSY', message: /got none: begin one/ });
  await begin();
  await begin();
  await t.rejects(begin(), { code: 'ERR_PANNS_BUSY', message: /at most 2 steps in flight/ });
  await t.rejects(session.step(codes, target, lambda, state), { code: 'ERR_PANNS_BUSY' });
  const counts: number[] = [];
  for (let i = 0; i < 4; i++) {
    counts.push((await session.finish()).loss);
    if (i < 2) await begin();
  }
  t.same(counts, [1, 2, 3, 4], 'each finds its own count');

  // What begins wrongly is told when it is finished; the one before it is done, the one behind not.
  const nothing = { code: 'ERR_PANNS_SHAPE', message: /waveform: expected samples, got none/ };
  const short = { code: 'ERR_PANNS_SHAPE', message: /expected 4000 values, got 3999/ };
  await begin();
  await session.begin(undefined, target, lambda, state);
  await t.rejects(async () => begin(codes.subarray(1)), short);
  t.equal((await session.finish()).loss, 5);
  await begin();
  await t.rejects(session.finish(), nothing);
  await t.rejects(session.finish(), nothing);
  await begin();
  t.equal((await session.finish()).loss, 6);
  await begin();
  session.dispose();
  t.throws(() => session.finish(), { code: 'ERR_PANNS_DISPOSED' });
});

t.test('on the CPU a step is done when it has begun', async (t) => {
  const device: DeviceOptions = { device: 'cpu', threads: 1 };
  const steps = [drawStep(), drawStep({ maxNorm: 0.01 })];
  const plain = await open(t, device);
  const want = await oneByOne(plain.session, steps);
  const { model, session } = await open(t, device);
  t.equal(session.depth(), 1);
  const ended: Ended[] = [];
  for (const [i, { codes, target, lambda, maxNorm }] of steps.entries()) {
    const given = session.begin(codes, target, lambda, { ...state, step: i, maxNorm });
    const second = t.rejects(session.begin(codes, target, lambda, state), {
      code: 'ERR_PANNS_BUSY',
      message: /at most 1 steps in flight/,
    });
    ended.push(await settle(session.finish()));
    await given;
    await second;
  }
  t.same(ended, want);
  t.same(differing(await stateOf(model, session), await stateOf(plain.model, plain.session)), []);
  const target = new Float32Array(CLIPS * CLASSES).fill(Number.NaN);
  const [bad] = await oneByOne(session, [drawStep({ target })]);
  t.match(bad, { code: 'ERR_PANNS_NAN' });
  t.match(await oneByOne(session, [drawStep()]), [{ loss: Number }]);
});

t.test('an upload of more pieces than page-locked memory has', { skip }, async (t) => {
  const width = 1900; // 13.8 MiB of weights: four pieces of 4 MiB, for which there are two places
  const { spec: wide } = buildGraph('Broad', (b, waveform) => {
    const front = { sampleRate: SECOND, windowSize: 256, hopSize: 80, melBins: 16 };
    const mel = b.logmel(waveform, { ...front, fmin: 50, fmax: 4000 });
    const x = b.linear('fc1', b.reduceTime(b.meanOverFrequency(mel), 'mean'), width);
    return { clipwise_output: b.sigmoid(b.linear('fc2', b.relu(x), width)) };
  });
  const model = await native.createModel(wide, cuda('fp32'), SAMPLES);
  t.teardown(() => model.dispose());
  const weight = Float32Array.from({ length: width * width }, () => draws.random.uint32());
  await model.set('fc2.weight', weight);
  const kept = await model.get('fc2.weight');
  t.ok(Buffer.from(kept.buffer).equals(Buffer.from(weight.buffer)));
});

t.test('a session that ends with steps in flight leaves nothing behind', { skip }, async (t) => {
  const model = await native.createModel(spec, cuda('bf16'), SAMPLES);
  t.teardown(() => model.dispose());
  await model.initialise(7n);
  const before = await model.held();
  const options = { ...sessionOptions(CLIPS / 2, SAMPLES), mixup: true };
  const session = await native.createSession(model, spec, options);
  const { codes, target, lambda } = drawStep();
  const begun = [0, 1].map((step) => session.begin(codes, target, lambda, { ...state, step }));
  session.dispose();
  await Promise.all(begun);
  t.equal(await model.held(), before);
  const scores = await model.infer(codes, CLIPS, SAMPLES, ['clipwise_output']);
  t.ok(scores.clipwise_output?.every((score) => score > 0 && score < 1));
});

t.test('a worker is terminated with steps in flight', { skip }, async (t) => {
  const source = `
    import { parentPort, workerData } from 'node:worker_threads';
    const { loadNative } = await import(workerData.native);
    const native = loadNative();
    const { spec, options, samples, clips, target, lambda, state } = workerData;
    const model = await native.createModel(spec, { device: 'cuda', threads: 1 }, samples);
    await model.initialise(7n);
    const session = await native.createSession(model, spec, options);
    for (let step = 0; ; step++) {
      await session.begin(clips, target, lambda, { ...state, step });
      if (step > 0) await session.finish();
      if (step === 3) parentPort.postMessage('flying');
    }`;
  const { codes: clips, target, lambda } = drawStep();
  const options = { ...sessionOptions(CLIPS / 2, SAMPLES), mixup: true };
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
    workerData: {
      ...{ spec, options, samples: SAMPLES, clips, target, lambda, state },
      native: new URL('../../lib/native.js', import.meta.url).href,
    },
  });
  const flying = await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  t.equal(flying, 'flying');
  t.equal(await worker.terminate(), 1);
});

// ---- In a Trainer

const { dataset, decode } = tones(31);
const { createSession } = native;

/** A trainer on the emulated device, and what its sessions were asked. */
async function watch(t: Test, options: Partial<TrainerOptions> = {}) {
  const asked: string[] = [];
  native.createSession = async (...args) => {
    const session = await createSession.apply(native, args);
    const [begin, finish] = [session.begin.bind(session), session.finish.bind(session)];
    const watched: typeof begin = (...given) => {
      asked.push(`begin ${given[3].step + 1}`);
      return begin(...given);
    };
    let finished = 0;
    Object.defineProperty(session, 'begin', { value: watched });
    Object.defineProperty(session, 'finish', {
      value: () => {
        asked.push(`finish ${++finished}`);
        return finish();
      },
    });
    return session;
  };
  t.teardown(() => {
    native.createSession = createSession;
  });
  const { classes } = dataset;
  const place = { device: 'cuda', threads: 1 } as const;
  const model = await createModel(Plain, { classes, activation: 'softmax', seed: 3, ...place });
  t.teardown(() => model.dispose());
  const recipe = { batchSize: 3, steps: 6, clipSeconds: SECONDS, mixup: true };
  const plan = planTraining(model, recipe).recipe;
  const batches = await createTrainingLoader(model, plan, { dataset, decode }, undefined);
  // Which step begins when does not hang on the loader's speed.
  const loader = () => madeAhead(batches, recipe.steps);
  const trainer = new Trainer(model, { ...recipe, loader, decode, ...options });
  t.teardown(() => trainer.dispose());
  return { trainer, asked };
}

t.test('a trainer keeps two steps in flight, and nothing else changes', { skip }, async (t) => {
  for (const more of [{}, { clipGradNorm: 0.01 }]) {
    const single = await watch(t, { ...more, stepsInFlight: 1 });
    const want = await outcomeOf(single.trainer);
    t.equal(want.error, undefined);
    t.equal(single.asked.slice(0, 4).join(), 'begin 1,finish 1,begin 2,finish 2');
    const { trainer, asked } = await watch(t, more);
    t.same(await outcomeOf(trainer), want);
    t.equal(trainer.step, 6);
    const expected = ['begin 1'];
    for (let step = 1; step <= 6; step++) {
      if (step < 6) expected.push(`begin ${step + 1}`);
      expected.push(`finish ${step}`);
    }
    t.same(asked, expected, 'each begins before the one before it is waited for');
    trainer.dispose();
  }
});

t.test('evaluations and checkpoints find no step in flight', { skip }, async (t) => {
  const due = { validation: dataset, evaluateEvery: 2 };
  const runs: [string[], unknown[]][] = [];
  for (const stepsInFlight of [1, 2] as const) {
    const checkpoint = { folder: t.testdir(), every: 3 };
    const { trainer, asked } = await watch(t, { ...due, checkpoint, stepsInFlight });
    const seen: unknown[] = [];
    trainer.on('evaluate', ({ loss }, step) => {
      asked.push(`evaluate ${step}`);
      seen.push([step, loss]);
    });
    trainer.on('checkpoint', (_, step) => asked.push(`save ${step}`));
    const digests: string[] = [];
    for await (const { checkpoint } of trainer) {
      if (checkpoint !== undefined) digests.push(await digestOf(trainer.model));
    }
    runs.push([asked, [...seen, ...digests]]);
  }
  t.same(runs[1]?.[1], runs[0]?.[1], 'the same evaluations');
  t.equal(
    runs[1]?.[0].join(),
    'begin 1,begin 2,finish 1,finish 2,evaluate 2,' +
      'begin 3,finish 3,save 3,begin 4,finish 4,evaluate 4,' +
      'begin 5,begin 6,finish 5,finish 6,evaluate 6,save 6',
  );
});

t.test('an abort, leaving the loop, saving in it: no step is lost', { skip }, async (t) => {
  const want = await outcomeOf((await watch(t)).trainer);
  const folder = t.testdir();
  const stop = new AbortController();
  const checkpoint = { folder, every: 100 };
  const { trainer } = await watch(t, { signal: stop.signal, checkpoint });
  const losses: number[] = [];
  for await (const { index, loss } of trainer) {
    losses.push(loss);
    if (index === 2) break;
  }
  t.equal(trainer.step, 3, 'the step in flight is done when the loop has been left');
  await t.rejects(async () => {
    for await (const { index, loss } of trainer) {
      losses.push(loss);
      if (index === 3) t.match(await trainer.save(), /step-0*4/);
      if (index === 4) stop.abort();
    }
  }, AbortError);
  t.equal(losses.length, trainer.step, 'all that was done was given out');
  t.same(losses, want.losses.slice(0, losses.length));
  await trainer.save();
  trainer.dispose();
  const place = { device: 'cuda', threads: 1 } as const;
  const resumed = await Trainer.resume(folder, { dataset, decode, model: Plain, ...place });
  t.teardown(() => resumed.model.dispose());
  t.equal(resumed.step, losses.length);
  const rest = await outcomeOf(resumed);
  t.same([...losses, ...rest.losses], want.losses);
  t.equal(rest.digest, want.digest);
});

/** Norms, which count batches; smaller than any of the published. */
const Normed: ModelRow = {
  name: 'Normed',
  defaults: { sampleRate: RATE, melBins: 16, specAugment: false, dropout: false },
  build(b, waveform, config) {
    const { sampleRate, windowSize, hopSize, melBins, fmin, fmax, classes } = config;
    const front = b.logmel(waveform, { sampleRate, windowSize, hopSize, melBins, fmin, fmax });
    const x = b.batchNorm('bn0', front, { over: 'freq' });
    const y = b.batchNorm('bn1', b.conv('conv1', x, { channels: 8, kernel: 3, padding: 1 }));
    const embedding = b.reduceTime(b.meanOverFrequency(b.relu(y)), 'mean');
    const logits = b.linear('fc', embedding, classes);
    return { embedding, logits, clipwise_output: b.softmax(logits) };
  },
};

t.test('a step that fails is the error of its own step', { skip }, async (t) => {
  // The target is wrong, which only the device sees, and only in the loss.
  const spoilt = (bad: number) => {
    const loader = noiseLoader(undefined);
    const next = loader.next.bind(loader);
    let batch = 0;
    loader.next = async () => {
      const drawn = await next();
      if (batch++ === bad && !drawn.done) drawn.value.target[4] = Number.NaN;
      return drawn;
    };
    return loader;
  };
  const outcomes = [];
  for (const stepsInFlight of [1, 2] as const) {
    const model = await tinyModel({ device: 'cuda' }, Normed);
    t.teardown(() => model.dispose());
    const trainer = new Trainer(model, {
      ...{ loader: () => spoilt(2), batchSize: BATCH, steps: 5, clipSeconds: SECONDS },
      ...{ stepsInFlight, mixup: false, checkpoint: { folder: t.testdir(), every: 100 } },
    });
    const outcome = await outcomeOf(trainer);
    t.match(outcome.error, { code: 'ERR_PANNS_NAN', message: /finite loss, got nan at step 2/ });
    t.equal(trainer.step, 2);
    await t.rejects(trainer.save(), { code: 'ERR_PANNS_NAN' });
    const tracked = [...(await model.stateDict())].filter(([name]) => /num_batches/.test(name));
    outcomes.push({ ...outcome, all: await digestOf(model, true), tracked });
  }
  t.same(outcomes[1], outcomes[0]);
});

t.test('disposing of a trainer with steps in flight', { skip }, async (t) => {
  const { trainer } = await watch(t);
  const rounds = trainer[Symbol.asyncIterator]();
  await rounds.next();
  trainer.dispose();
  await t.rejects(rounds.next(), { code: 'ERR_PANNS_DISPOSED' });
  t.equal(trainer.step, 1);
});

t.test('another number is refused', async (t) => {
  const model = await tinyModel();
  t.teardown(() => model.dispose());
  const given = { dataset, decode, clipSeconds: SECONDS, stepsInFlight: 3 as never };
  t.throws(() => new Trainer(model, given), {
    code: 'ERR_PANNS_OPTION',
    message: /expected stepsInFlight to be 1 or 2, got 3/,
  });
});
