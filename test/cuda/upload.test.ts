// Clips of the next step that go up while a step computes: by themselves, in a Trainer, and on
// devices that do not do so. The emulated device runs the two streams in the worst orders.
import t, { type Test } from 'tap';
import type { DeviceOptions, NativeModel, NativeSession } from '../../lib/addon.js';
import { AbortError } from '../../lib/errors.js';
import { createModel, modelInternals } from '../../lib/inference/model.js';
import { loadNative } from '../../lib/native.js';
import { planTraining } from '../../lib/train/session.js';
import { Trainer, type TrainerOptions } from '../../lib/train/trainer.js';
import { createTrainingLoader } from '../../lib/train/training.js';
import { openDraws } from '../helpers/random.js';
import { decodeBut, digestOf, outcomeOf, Plain } from '../parallel/trainings.js';
import { CLASSES, SECOND, sessionOptions, smallModel } from '../robustness/small_model.js';
import { madeAhead, SECONDS, spoiling, tones } from '../trainer/synthetic.js';
import { emulateHere, noEmulator } from './emulator/setup.js';

const skip = noEmulator;
if (!skip) emulateHere();

const native = loadNative();
const draws = openDraws(t);
const BATCH = 2;
const STEPS = 5;
const { spec } = smallModel();

const cuda: DeviceOptions = { device: 'cuda', threads: 1, precision: 'bf16' };
const onNull: DeviceOptions = { device: 'null', threads: 0 };
const state = { seed: 3n, lr: 1e-2, maxNorm: 0, update: true };

interface Given {
  readonly codes: Int16Array;
  readonly target: Float32Array;
}

const drawBatch = (): Given => ({
  codes: Int16Array.from({ length: BATCH * SECOND }, () => draws.random.uint32() >>> 16),
  target: Float32Array.from({ length: BATCH * CLASSES }, () => draws.random.integer(2)),
});

const floats = (codes: Int16Array) => Float32Array.from(codes, (code) => code / 32767);

async function makeModel(t: Test, device: DeviceOptions): Promise<NativeModel> {
  const model = await native.createModel(spec, device, SECOND);
  t.teardown(() => model.dispose());
  await model.initialise(7n);
  return model;
}

/** Of each step, how its clips come, and whether it is given those of the next. */
type Way = readonly ['own' | 'float' | 'staged', boolean];

const plain: Way[] = Array.from({ length: STEPS }, () => ['own', false]);
const ahead: Way[] = plain.map((_, step) => [step === 0 ? 'own' : 'staged', step + 1 < STEPS]);
/** A loader that is late now and then, and clips that take the place of those staged. */
const fitful: Way[] = [
  ['own', true],
  ['staged', false],
  ['own', true],
  ['float', true],
  ['staged', false],
];

/** Losses, and all weights at the end. */
async function train(t: Test, batches: readonly Given[], ways: readonly Way[]) {
  const model = await makeModel(t, cuda);
  const session = await native.createSession(model, spec, sessionOptions(BATCH, SECOND));
  t.equal(session.stages(), true);
  const losses: number[] = [];
  for (const [step, [way, hands]] of ways.entries()) {
    const { codes, target } = batches[step] as Given;
    const clips = { own: codes, float: floats(codes), staged: undefined }[way];
    const next = hands ? batches[step + 1]?.codes.slice() : undefined;
    const running = session.step(clips, target, undefined, { ...state, step }, next);
    // What was given may be changed at once.
    next?.fill(-1);
    losses.push((await running).loss);
  }
  const weights = await Promise.all(model.parameters().map(({ name }) => model.get(name)));
  session.dispose();
  return { losses, weights };
}

t.test('clips that came for a step which failed are not a later one’s', { skip }, async (t) => {
  const model = await makeModel(t, cuda);
  const session = await native.createSession(model, spec, sessionOptions(BATCH, SECOND));
  t.teardown(() => session.dispose());
  const batches = Array.from({ length: 3 }, drawBatch) as [Given, Given, Given];
  batches[0].target.fill(Number.NaN);
  const begin = (step: number, clips?: Int16Array) =>
    session.begin(
      clips,
      (batches[step] as Given).target,
      undefined,
      { ...state, step },
      next(step),
    );
  const next = (step: number) => batches[step + 1]?.codes;
  const failed = { code: 'ERR_PANNS_NAN', message: /finite loss, got nan at step 0/ };
  await begin(0, batches[0].codes);
  await begin(1);
  await t.rejects(session.finish(), failed);
  await begin(2);
  await t.rejects(session.finish(), failed);
  await t.rejects(session.finish(), failed);
  await begin(2);
  const nothing = { code: 'ERR_PANNS_SHAPE', message: /expected samples, got none/ };
  await t.rejects(session.finish(), nothing);
  await begin(2, batches[2].codes);
  t.ok(Number.isFinite((await session.finish()).loss), 'and it goes on');
});

for (const order of ['late', 'early']) {
  t.test(`streams ${order}: the bits of clips that come with their step`, { skip }, async (t) => {
    process.env.PANNS_EMULATOR_STREAMS = order;
    t.teardown(() => delete process.env.PANNS_EMULATOR_STREAMS);
    const batches = Array.from({ length: STEPS }, drawBatch);
    const want = await train(t, batches, plain);
    t.equal(new Set(want.losses).size, STEPS, 'each step has its own loss');
    t.same(await train(t, batches, ahead), want, 'each step hands over');
    t.same(await train(t, batches, fitful), want, 'some do');
  });
}

/** What is refused of a session that stages. */
async function checkRefusals(t: Test, session: NativeSession) {
  const { codes, target } = drawBatch();
  const step = (clips?: Int16Array | Float32Array, next?: Int16Array) =>
    session.step(clips, target, undefined, { ...state, step: 0 }, next);
  const nothing = { code: 'ERR_PANNS_SHAPE', message: /waveform: expected samples, got none/ };
  await t.rejects(step(), nothing, 'the first step');
  await step(codes);
  await t.rejects(step(), nothing, 'none were handed over');
  await step(codes, codes);
  await step();
  await t.rejects(step(), nothing, 'they are used once');
  await step(codes, codes);
  await step(floats(codes));
  await t.rejects(step(), nothing, 'others have taken their place');
  const length = { code: 'ERR_PANNS_SHAPE', message: /next: expected 16000 values, got 15999/ };
  await t.rejects(async () => step(codes, codes.subarray(1)), length);
  const form = { code: 'ERR_PANNS_SHAPE', message: /next: expected a Int16Array/ };
  await t.rejects(async () => step(codes, floats(codes) as never), form);
  await step(codes, codes);
  await step();
}

t.test('what is refused, on the null backend', async (t) => {
  const model = await makeModel(t, onNull);
  // The null backend computes no loss: what its kernels count is finite.
  const session = await native.createSession(model, spec, sessionOptions(BATCH, SECOND));
  await checkRefusals(t, session);
  session.dispose();
});

t.test('what is refused, and clips on their way when a session ends', { skip }, async (t) => {
  const model = await makeModel(t, cuda);
  const before = await model.held();
  const session = await native.createSession(model, spec, sessionOptions(BATCH, SECOND));
  await checkRefusals(t, session);
  const { codes, target } = drawBatch();
  const last = session.step(codes, target, undefined, { ...state, step: 0 }, codes);
  session.dispose();
  t.ok(Number.isFinite((await last).loss));
  t.equal(await model.held(), before, 'nothing stays behind');
  const { clipwise_output } = await model.infer(codes, BATCH, SECOND, ['clipwise_output']);
  t.ok(
    clipwise_output?.every((score) => score > 0 && score < 1),
    'the model goes on',
  );
});

t.test('where memory is the host’s, clips come with their step', async (t) => {
  const model = await makeModel(t, { device: 'cpu', threads: 1 });
  const session = await native.createSession(model, spec, sessionOptions(BATCH, SECOND));
  t.equal(session.stages(), false);
  const { codes, target } = drawBatch();
  const now = { ...state, step: 0 };
  await t.rejects(session.step(codes, target, undefined, now, codes), {
    code: 'ERR_PANNS_UNSUPPORTED',
    message: /memory of its own/,
  });
  await t.rejects(session.step(undefined, target, undefined, now), { code: 'ERR_PANNS_SHAPE' });
  t.ok(Number.isFinite((await session.step(codes, target, undefined, now)).loss));
  session.dispose();
});

// ---- In a Trainer

const { dataset, decode } = tones(31);
const { createSession } = native;

/** Whether a Trainer gave the session the clips of a step, and of the next. */
interface Handed {
  readonly clips: boolean;
  readonly next: boolean;
}

/** A trainer on the emulated device, what its session was given, and its way without `stages`. */
async function watch(
  t: Test,
  options: Partial<TrainerOptions> = {},
  { stages = true, resumes = '' } = {},
) {
  const steps: Handed[] = [];
  native.createSession = async (...args) => {
    const session = await createSession.apply(native, args);
    const begin = session.begin.bind(session);
    const watched: typeof begin = (...given) => {
      steps.push({ clips: given[0] !== undefined, next: given[4] !== undefined });
      return begin(...given);
    };
    Object.defineProperty(session, 'begin', { value: watched });
    if (!stages) Object.defineProperty(session, 'stages', { value: () => false });
    return session;
  };
  t.teardown(() => {
    native.createSession = createSession;
  });
  const place = { device: 'cuda', threads: 1 } as const;
  const given = { dataset, decode, ...options };
  if (resumes !== '') {
    const trainer = await Trainer.resume(resumes, { ...given, ...place, model: Plain });
    t.teardown(() => trainer.model.dispose());
    t.teardown(() => trainer.dispose());
    return { trainer, steps };
  }
  const { classes } = dataset;
  const model = await createModel(Plain, { classes, activation: 'softmax', seed: 3, ...place });
  t.teardown(() => model.dispose());
  const recipe = { batchSize: 3, steps: 6, clipSeconds: SECONDS, mixup: true };
  const made = async () => {
    if (Object.keys(options).length > 0) return new Trainer(model, { ...recipe, ...given });
    const plan = planTraining(model, recipe).recipe;
    const batches = await createTrainingLoader(model, plan, given, undefined);
    // Which clips are there when a step begins does not hang on the loader's speed.
    return new Trainer(model, { ...recipe, loader: () => madeAhead(batches, recipe.steps) });
  };
  const trainer = await made();
  // Not when it is collected, in a test that looks at what is held.
  t.teardown(() => trainer.dispose());
  return { trainer, steps };
}

t.test(
  'a trainer hands over the batches that it has, and nothing else changes',
  { skip },
  async (t) => {
    const without = await watch(t, {}, { stages: false });
    const want = await outcomeOf(without.trainer);
    t.equal(want.error, undefined);
    t.same(
      without.steps,
      want.losses.map(() => ({ clips: true, next: false })),
    );
    const { trainer, steps } = await watch(t);
    t.same(await outcomeOf(trainer), want);
    const last = steps.length - 1;
    t.same(
      steps,
      want.losses.map((_, i) => ({ clips: i === 0, next: i < last })),
      'all but the first go up during the step before',
    );
    trainer.dispose();
  },
);

for (const device of ['cpu', 'cuda'] as const) {
  const name = `${device}: a batch that is given back may be written to at once`;
  t.test(name, { skip: device === 'cuda' && skip }, async (t) => {
    const { classes } = dataset;
    const make = async (options: Partial<TrainerOptions>) => {
      const model = await createModel(Plain, {
        ...{ classes, activation: 'softmax', seed: 3, device, threads: 1 },
      });
      t.teardown(() => model.dispose());
      const recipe = { batchSize: 3, steps: 8, clipSeconds: SECONDS, mixup: true };
      return new Trainer(model, { ...recipe, ...options });
    };
    const want = await outcomeOf(await make({ dataset, decode }));
    t.equal(want.losses.length, 8);
    const { model, recipe } = await make({ dataset, decode });
    const batches = await createTrainingLoader(model, recipe, { dataset, decode }, undefined);
    const { loader, given } = spoiling(batches);
    t.same(await outcomeOf(await make({ loader: () => loader })), want);
    t.equal(given(), 8, 'each is given back');
  });
}

t.test('a loader that is late is not waited for', { skip }, async (t) => {
  const want = await outcomeOf((await watch(t, {}, { stages: false })).trainer);
  let calls = 0;
  const slow: typeof decode = async (requests) => {
    if (calls++ % 2 === 1) await new Promise((resolve) => setTimeout(resolve, 400));
    return decode(requests);
  };
  // Without a cache each batch is decoded anew.
  const { trainer, steps } = await watch(t, { decode: slow, cache: 'none' });
  t.same(await outcomeOf(trainer), want);
  t.ok(
    steps.some(({ next }, i) => !next && i < steps.length - 1),
    'some came too late',
  );
  t.same(
    steps.map(({ clips }) => clips),
    [true, ...steps.slice(0, -1).map(({ next }) => !next)],
    'and came with their step',
  );
});

t.test('a batch that fails is the error of its own step', { skip }, async (t) => {
  const want = await outcomeOf((await watch(t, {}, { stages: false })).trainer);
  // The order is the seed's: the clip of which decoding has come so far is one of the third batch.
  const seen: string[] = [];
  const note: typeof decode = (requests) => {
    seen.push(...requests.map(({ path }) => path));
    return decode(requests);
  };
  await outcomeOf((await watch(t, { decode: note })).trainer);
  const { trainer } = await watch(t, { decode: decodeBut(seen[12] as string) });
  const { losses, error } = await outcomeOf(trainer);
  t.match(error, { code: 'ERR_PANNS_DATA', message: /this clip is damaged/ });
  t.same(losses, want.losses.slice(0, 2));
  t.equal(trainer.step, 2);
  trainer.dispose();
});

t.test('a checkpoint holds no batch that is only on its way', { skip }, async (t) => {
  const folder = t.testdir();
  const whole = await watch(t);
  const want = await outcomeOf(whole.trainer);
  const stop = new AbortController();
  const options = { checkpoint: { folder, every: 2 }, signal: stop.signal };
  const { trainer } = await watch(t, options);
  const losses: number[] = [];
  await t.rejects(async () => {
    for await (const { index, loss } of trainer) {
      losses.push(loss);
      if (index === 3) stop.abort();
    }
  }, AbortError);
  t.equal(trainer.step, losses.length);
  await trainer.save();
  trainer.dispose();
  const resumed = (await watch(t, {}, { resumes: folder })).trainer;
  t.equal(resumed.step, losses.length);
  const rest = await outcomeOf(resumed);
  t.same([...losses, ...rest.losses], want.losses);
  t.equal(rest.digest, want.digest);
});

t.test('a trainer that is left goes on with the batch it has', { skip }, async (t) => {
  const want = await outcomeOf((await watch(t)).trainer);
  const { trainer, steps } = await watch(t);
  const losses: number[] = [];
  for await (const { index, loss } of trainer) {
    losses.push(loss);
    if (index === 2) break;
  }
  const rest = await outcomeOf(trainer);
  t.same([...losses, ...rest.losses], want.losses);
  t.equal(rest.digest, want.digest);
  t.equal(steps[2]?.clips, false, 'which the device had already');
  t.equal(await digestOf(trainer.model), want.digest);
});

t.test('disposing of a trainer on the way', { skip }, async (t) => {
  const { trainer } = await watch(t);
  const { native: model } = modelInternals(trainer.model);
  const before = await model.held();
  const rounds = trainer[Symbol.asyncIterator]();
  await rounds.next();
  const under = rounds.next();
  trainer.dispose();
  // The step under way ends well, or was not begun.
  await under.catch(({ code }) => t.equal(code, 'ERR_PANNS_DISPOSED'));
  t.equal(await model.held(), before);
});
