import t from 'tap';
import { allocateInt16 } from '../../lib/native/call.js';
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

const native = loadNative();
const draws = openDraws(t);
const STEPS = 3;
const CLIPS = 4;

/** Any code may come, -32768 too, and each stands for its quotient by 32767. */
function codes(count: number): Int16Array {
  const all = Int16Array.from({ length: count }, () => (draws.random.uint32() & 0xffff) - 32768);
  all.set([32767, -32767, -32768, 0, 1, -1]);
  return all;
}

const floats = (samples: Int16Array) => Float32Array.from(samples, (code) => code / 32767);

const shared = (samples: Int16Array) => {
  const copy = allocateInt16(samples.length);
  copy.set(samples);
  return copy;
};

for (const [name, description] of [
  ['log-mel', smallModel()],
  ['log-mel and waveform, mixed', wideModel()],
] as const) {
  t.test(`steps on 16-bit samples have the bits of those on floats: ${name}`, async (t) => {
    const { spec } = description;
    const batches = Array.from({ length: STEPS }, () => codes(CLIPS * SECOND));
    const { target } = randomBatch(draws.random.uint32(), CLIPS, 1);
    const lambda = Float32Array.of(0.3, 0.7, 0.9, 0.1);
    const train = async (form: (samples: Int16Array) => Float32Array | Int16Array) => {
      const model = await native.createModel(spec, { device: 'cpu', threads: 2 }, SECOND);
      await model.initialise(5n);
      const options = { ...sessionOptions(CLIPS / 2, SECOND), mixup: true };
      const session = await native.createSession(model, spec, options);
      const losses: number[] = [];
      for (const [step, samples] of batches.entries()) {
        const state = { seed: 9n, step, lr: 1e-3, maxNorm: 1, update: true };
        losses.push((await session.step(form(samples), target, lambda, state)).loss);
      }
      const scores = await model.infer(form(codesToScore), 1, SECOND, ['clipwise_output']);
      const weights = await Promise.all(model.parameters().map(({ name }) => model.get(name)));
      session.dispose();
      model.dispose();
      return { losses, weights, scores: scores.clipwise_output };
    };
    const codesToScore = codes(SECOND);
    const expected = await train(floats);
    t.ok(expected.losses.every((loss) => Number.isFinite(loss) && loss > 0));
    t.equal(new Set(expected.losses).size, STEPS, 'each step has its own loss');
    t.same(await train((samples) => samples), expected, 'copied');
    t.same(await train(shared), expected, 'read in place');
  });
}

t.test('features between nodes have no 16-bit form', async (t) => {
  const { spec } = smallModel();
  const pooled = spec.nodes.findIndex(({ path, op }) => path === 'fc1' && op === 'linear') - 1;
  const model = await native.createModel(spec, { device: 'cpu', threads: 1 }, SECOND);
  const columns = 16;
  const answer = await model.infer(new Float32Array(SECOND), 1, SECOND, [`#${pooled}`]);
  t.equal(answer[`#${pooled}`]?.length, columns);
  await t.rejects(
    async () =>
      model.infer(new Int16Array(columns), 1, columns, ['clipwise_output'], undefined, pooled),
    { code: 'ERR_PANNS_SHAPE', message: /features: expected floats, got 16-bit samples/ },
  );
  const options = { ...sessionOptions(1, columns), from: pooled };
  const session = await native.createSession(model, spec, options);
  const state = { seed: 1n, step: 0, lr: 1e-3, maxNorm: 0, update: true };
  await t.rejects(
    async () => session.step(new Int16Array(columns), new Float32Array(CLASSES), undefined, state),
    { code: 'ERR_PANNS_SHAPE', message: /features: expected floats, got 16-bit samples/ },
  );
  session.dispose();
  model.dispose();
});

t.test('what is neither form is refused', async (t) => {
  const { spec } = smallModel();
  const model = await native.createModel(spec, { device: 'cpu', threads: 1 }, SECOND);
  const refused = { code: 'ERR_PANNS_SHAPE', message: /expected a Float32Array/ };
  for (const wrong of [new Uint16Array(SECOND), new Float64Array(SECOND), [1, 2]]) {
    await t.rejects(
      async () => model.infer(wrong as never, 1, SECOND, ['clipwise_output']),
      refused,
      wrong.constructor.name,
    );
  }
  await t.rejects(
    async () => model.infer(new Int16Array(SECOND - 1), 1, SECOND, ['clipwise_output']),
    { code: 'ERR_PANNS_SHAPE', message: /expected 8000 values, got 7999/ },
  );
  model.dispose();
});
