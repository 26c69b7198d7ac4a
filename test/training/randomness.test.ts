import t from 'tap';
import type { NativeModel, SessionOptions } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { openDraws } from '../helpers/random.js';
import { TINY_CLASSES, TINY_SAMPLES, tiny } from '../helpers/spec.js';
import { compare, worstErrors } from '../helpers/tolerance.js';
import { clips, targets } from '../helpers/training.js';

const native = loadNative();
const draws = openDraws(t);
// No multiple of 16: the last block of channels is padded.
const { spec } = tiny({ channels: 20 });
const batch = 3;
const waveform = clips(draws, 2 * batch, TINY_SAMPLES);
const lambda = Float32Array.of(0.8, 0.2, 0.4, 0.6, 0.9, 0.1);
const seed = BigInt(draws.random.uint32()) << 7n;
const target = { bce: labels('bce'), cross_entropy: labels('cross_entropy') };

function labels(loss: string): Float32Array {
  return targets(draws, 2 * batch, TINY_CLASSES, loss);
}

async function makeModel(threads: number): Promise<NativeModel> {
  const model = await native.createModel(spec, { device: 'cpu', threads }, TINY_SAMPLES);
  t.teardown(() => model.dispose());
  await model.initialise(seed);
  return model;
}

const openSession = (model: NativeModel, other: Partial<SessionOptions> = {}) =>
  native.createSession(model, spec, {
    batch,
    samples: TINY_SAMPLES,
    mixup: true,
    loss: 'bce',
    optimizer: { kind: 'adam', attrs: {} },
    frozen: [],
    passesOff: [],
    ...other,
  });
const state = (step: number, other = {}) => ({
  seed,
  step,
  lr: 1e-3,
  maxNorm: 0,
  update: true,
  ...other,
});

/** Losses of some steps, then every parameter and buffer. */
async function train(threads: number, maxNorm: number) {
  const model = await makeModel(threads);
  const session = await openSession(model);
  const losses: unknown[] = [];
  for (let step = 0; step < 4; step++) {
    losses.push(await session.step(waveform, target.bce, lambda, state(step, { maxNorm })));
  }
  const all: Record<string, Float32Array> = {};
  for (const { name, trainable } of model.parameters()) {
    all[name] = await model.get(name);
    if (trainable) all[`gradient of ${name}`] = await session.gradient(name);
  }
  const scores = await model.infer(waveform, 2 * batch, TINY_SAMPLES, ['clipwise_output']);
  session.dispose();
  return { losses, all, scores };
}

t.test('the number of threads changes no bit', async (t) => {
  for (const maxNorm of [0, 0.1]) {
    const one = await train(1, maxNorm);
    for (const threads of [2, 3]) t.same(await train(threads, maxNorm), one, `${threads} threads`);
  }
});

t.test('seed and step choose the masks', async (t) => {
  const model = await makeModel(0);
  const session = await openSession(model);
  const loss = async (step: number, other = {}) => {
    const still = state(step, { update: false, ...other });
    return (await session.step(waveform, target.bce, lambda, still)).loss;
  };
  const base = await loss(5);
  t.equal(await loss(5), base, 'again the same');
  t.not(await loss(6), base, 'another step');
  t.not(await loss(5, { seed: seed + 1n }), base, 'another seed');
  session.dispose();
});

for (const name of ['bce', 'cross_entropy'] as const) {
  t.test(`gradients by differences of the loss: ${name}, all augmentation on`, async (t) => {
    const model = await makeModel(0);
    const session = await openSession(model, { loss: name });
    const still = state(7, { update: false });
    const loss = async () => (await session.step(waveform, target[name], lambda, still)).loss;
    await loss();
    const gradients = new Map<string, Float32Array>();
    for (const parameter of model.parameters()) {
      if (!parameter.trainable) continue;
      gradients.set(parameter.name, await session.gradient(parameter.name));
    }
    for (const [parameter, gradient] of gradients) {
      const original = await model.get(parameter);
      // Along the gradient itself the loss changes most, and rounding matters least.
      const norm = Math.hypot(...gradient);
      const size = Math.hypot(...original) / Math.sqrt(original.length) + 0.05;
      const at = async (shift: number) => {
        await model.set(
          parameter,
          original.map((v, i) => v + (shift * (gradient[i] ?? 0)) / norm),
        );
        return loss();
      };
      // A long step crosses kinks of ReLU, a short one drowns in rounding: which is which differs
      // from draw to draw, and the right gradient fits at one of them.
      const tried: ReturnType<typeof compare>[] = [];
      for (const step of [1e-2, 2e-3, 5e-4, 1e-4]) {
        const h = step * size;
        const slope = ((await at(h)) - (await at(-h))) / (2 * h);
        const found = compare([slope], [norm], 'difference');
        tried.push(found);
        if (found.ok) break;
      }
      await model.set(parameter, original);
      const messages = tried.map(({ message }) => message).join('; ');
      t.ok(tried.at(-1)?.ok, `${parameter}: ${messages}`);
    }
    session.dispose();
  });
}

t.test('clipping: the norm over all gradients, and a smaller step', async (t) => {
  const model = await makeModel(0);
  const session = await openSession(model, { optimizer: { kind: 'sgd', attrs: {} } });
  const before = new Map<string, Float32Array>();
  for (const { name } of model.parameters()) before.set(name, await model.get(name));
  const maxNorm = 1e-2;
  const { gradNorm } = await session.step(
    waveform,
    target.bce,
    lambda,
    state(0, { maxNorm, lr: 1 }),
  );
  let squares = 0;
  let moved = 0;
  for (const { name, trainable } of model.parameters()) {
    if (!trainable) continue;
    const after = await model.get(name);
    (await session.gradient(name)).forEach((g, i) => {
      squares += g * g;
      moved += ((after[i] ?? 0) - (before.get(name)?.[i] ?? 0)) ** 2;
    });
  }
  t.ok(compare([gradNorm], [Math.sqrt(squares)], 'reordered').ok, `gradNorm ${gradNorm}`);
  t.ok(gradNorm > maxNorm, 'there was something to clip');
  // Weights of about one that move by thousandths are rounded to float.
  t.ok(Math.abs(Math.sqrt(moved) / maxNorm - 1) < 1e-2, `moved by ${Math.sqrt(moved)}`);
  session.dispose();
});

t.test('a loss that is not finite is an error, and changes no parameter', async (t) => {
  const model = await makeModel(0);
  const session = await openSession(model);
  const before = await model.get('fc2.weight');
  const broken = waveform.map(() => Number.NaN);
  const step = session.step(broken, target.bce, lambda, state(0));
  await t.rejects(step, { code: 'ERR_PANNS_NAN' });
  t.same(await model.get('fc2.weight'), before);
  session.dispose();
});

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
