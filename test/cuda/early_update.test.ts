// The part of the optimizer that runs beside the backward pass, on emulated devices, whose second
// stream runs as late as it may and as early as it may.
import t, { type Test } from 'tap';
import type { DeviceOptions, OptimizerOptions, SessionOptions } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { openDraws } from '../helpers/random.js';
import { CLASSES, SECOND, sessionOptions, smallModel } from '../robustness/small_model.js';
import { emulateHere, noEmulator } from './emulator/setup.js';

const skip = noEmulator;
if (!skip) emulateHere();

const native = loadNative();
const draws = openDraws(t);
const BATCH = 2;
const STEPS = 4;
const { spec } = smallModel();
/** In pieces that are small enough for the small model. */
const ON = { passesOn: ['early_update' as const], earlyBytes: 1 };

const adam: OptimizerOptions = { kind: 'adam', attrs: { amsgrad: true, weight_decay: 0.01 } };
const sgd: OptimizerOptions = { kind: 'sgd', attrs: { momentum: 0.9 } };
const cuda = (precision: 'fp32' | 'bf16' | 'fp16'): DeviceOptions => ({
  ...{ device: 'cuda', threads: 1, precision },
});

/** Steps: whether they update, and their clipping. */
interface Step {
  readonly update?: boolean;
  readonly maxNorm?: number;
}

const noise = () => ({
  clips: Int16Array.from({ length: BATCH * SECOND }, () => draws.random.uint32() >>> 16),
  target: Float32Array.from({ length: BATCH * CLASSES }, () => draws.random.integer(2)),
});

/** All that a training leaves: losses, weights, the optimizer's state, the last gradients. */
async function train(
  t: Test,
  device: DeviceOptions,
  batches: readonly ReturnType<typeof noise>[],
  more: Partial<SessionOptions>,
  steps: readonly Step[] = Array.from({ length: STEPS }, () => ({})),
) {
  const model = await native.createModel(spec, device, SECOND);
  t.teardown(() => model.dispose());
  await model.initialise(7n);
  const options = { ...sessionOptions(BATCH, SECOND), ...more };
  const session = await native.createSession(model, spec, options);
  const losses: number[] = [];
  const norms: number[] = [];
  for (const [step, { update = true, maxNorm = 0 }] of steps.entries()) {
    const { clips, target } = batches[step] as ReturnType<typeof noise>;
    const state = { seed: 3n, step, lr: 1e-2, maxNorm, update };
    const { loss, gradNorm } = await session.step(clips, target, undefined, state);
    losses.push(loss);
    norms.push(gradNorm);
  }
  const found: Record<string, Float32Array> = {};
  for (const { name } of model.parameters()) {
    found[name] = await model.get(name);
    if (!session.trains(name)) continue;
    found[`gradient of ${name}`] = await session.gradient(name);
    for (const slot of session.slots())
      found[`${slot} of ${name}`] = await session.getSlot(slot, name);
  }
  const text = session.text();
  session.dispose();
  return { losses, norms, found, text };
}

type Trained = Awaited<ReturnType<typeof train>>;

/** Losses, norms, and of the arrays the names of those with other bits. */
function sameBits(t: Test, got: Trained, want: Trained, what: string) {
  t.same([got.losses, got.norms], [want.losses, want.norms], what);
  const names = Object.keys(want.found);
  t.same(Object.keys(got.found), names);
  const other = (name: string) => bytesOf(got.found[name]).compare(bytesOf(want.found[name])) !== 0;
  t.same(names.filter(other), [], `${what}: the same bits`);
}

const bytesOf = (x: Float32Array = new Float32Array()) =>
  Buffer.from(x.buffer, x.byteOffset, x.byteLength);

const early = (text: string) => text.split('\n').filter((line) => /^early optimizer/.test(line));

for (const order of ['late', 'early']) {
  for (const precision of ['fp32', 'bf16'] as const) {
    t.test(`${precision}, stream ${order}: the bits of the plain order`, { skip }, async (t) => {
      process.env.PANNS_EMULATOR_STREAMS = order;
      t.teardown(() => delete process.env.PANNS_EMULATOR_STREAMS);
      const batches = Array.from({ length: STEPS }, noise);
      for (const more of [
        { optimizer: adam },
        { optimizer: sgd },
        { optimizer: adam, frozen: ['block1'], rates: { block2: 0.5, fc: 2 } },
      ]) {
        const want = await train(t, cuda(precision), batches, more);
        const got = await train(t, cuda(precision), batches, { ...more, ...ON });
        t.equal(new Set(want.losses).size, STEPS, 'each step has its own loss');
        t.same(early(want.text), [], 'off unless it is named');
        t.ok(early(got.text).length > 0, `${early(got.text).length} runs of parameters are early`);
        sameBits(t, got, want, JSON.stringify(more));
      }
    });
  }
}

t.test('steps that clip, and steps that do not update, are plain', { skip }, async (t) => {
  process.env.PANNS_EMULATOR_STREAMS = 'early';
  t.teardown(() => delete process.env.PANNS_EMULATOR_STREAMS);
  const batches = Array.from({ length: STEPS }, noise);
  const steps = [{}, { maxNorm: 0.05 }, { update: false }, {}];
  const want = await train(t, cuda('bf16'), batches, { optimizer: adam }, steps);
  const got = await train(t, cuda('bf16'), batches, { optimizer: adam, ...ON }, steps);
  t.ok((want.norms[1] ?? 0) > 0.05, `a norm of ${want.norms[1]} is clipped`);
  sameBits(t, got, want, 'all kinds of steps');
});

t.test('a loss that is not finite moves nothing', { skip }, async (t) => {
  for (const order of ['late', 'early']) {
    process.env.PANNS_EMULATOR_STREAMS = order;
    t.teardown(() => delete process.env.PANNS_EMULATOR_STREAMS);
    const model = await native.createModel(spec, cuda('bf16'), SECOND);
    t.teardown(() => model.dispose());
    await model.initialise(7n);
    const options = { ...sessionOptions(BATCH, SECOND), optimizer: adam, ...ON };
    const session = await native.createSession(model, spec, options);
    t.ok(early(session.text()).length > 0);
    const { clips, target } = noise();
    const state = { seed: 3n, step: 0, lr: 1e-2, maxNorm: 0, update: true };
    await session.step(clips, target, undefined, state);
    const weights = async () => {
      const names = model.parameters().flatMap(({ name, trainable }) => (trainable ? [name] : []));
      const slots = session.slots().flatMap((slot) => names.map((name) => [slot, name] as const));
      return Promise.all([
        ...names.map((name) => model.get(name)),
        ...slots.map(([slot, name]) => session.getSlot(slot, name)),
      ]);
    };
    const before = await weights();
    const bad = target.slice().fill(Number.NaN, 0, 1);
    const step = session.step(clips, bad, undefined, { ...state, step: 1 });
    await t.rejects(step, { code: 'ERR_PANNS_NAN' });
    const moved = (await weights()).filter((x, i) => !bytesOf(x).equals(bytesOf(before[i])));
    t.equal(moved.length, 0, `stream ${order}`);
    session.dispose();
  }
});

t.test('where it is not exact, the order is plain', { skip }, async (t) => {
  const batches = Array.from({ length: STEPS }, noise);
  for (const device of [cuda('fp16'), { device: 'cpu', threads: 1 } as const]) {
    const want = await train(t, device, batches, { optimizer: adam });
    const got = await train(t, device, batches, { optimizer: adam, ...ON });
    sameBits(t, got, want, device.device);
    t.equal(got.text, want.text);
  }
});

t.test('the null backend records the second stream’s work', async (t) => {
  const options = { ...sessionOptions(BATCH, SECOND), optimizer: adam, passesOff: ['plan'] };
  const plain = native.nullStep(spec, options);
  const beside = native.nullStep(spec, { ...options, ...ON });
  t.same(beside.runs, plain.runs, 'its kernels count the runs');
  t.ok(early(beside.text).length > 0);
  const of = (text: string) => text.split('\n').filter((line) => /optimizer .*adam/.test(line));
  t.ok(of(beside.text).length > of(plain.text).length);
});

t.test('another name is refused', async (t) => {
  const options = { ...sessionOptions(BATCH, SECOND), passesOn: ['later' as never] };
  t.throws(() => native.nullStep(spec, options), {
    code: 'ERR_PANNS_OPTION',
    message: /unknown pass 'later'; expected early_update/,
  });
});
