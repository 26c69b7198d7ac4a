import t from 'tap';
import type {
  DeviceOptions,
  NativeMemory,
  NativeModel,
  SessionOptions,
  Spec,
} from '../../lib/addon.js';
import { createRandom } from '../../lib/data/random.js';
import { describeModel } from '../../lib/models/index.js';
import type { ModelDescription } from '../../lib/models/row.js';
import { loadNative } from '../../lib/native.js';
import { freshSeed } from '../data/fresh_seed.js';

const addon = loadNative();
const CLASSES = 3;
const CPU: DeviceOptions = { device: 'cpu', threads: 2 };
const NULL: DeviceOptions = { device: 'null', threads: 0 };

const random = createRandom(freshSeed(t));

/** Networks on the shortest clips that they take; the CPU computes the small ones. */
const SMALL = ['Cnn6', 'MobileNetV2', 'mn04'];
const LARGE = ['ResNet22', 'Res1dNet31', 'Wavegram_Cnn14', 'Cnn14_DecisionLevelAtt'];

function describe(name: string): ModelDescription {
  return describeModel(name, { classes: CLASSES });
}

function sessionOptions(
  batch: number,
  samples: number,
  more: Partial<SessionOptions> = {},
): SessionOptions {
  return {
    ...{ batch, samples, mixup: false, loss: 'bce', frozen: [], passesOff: [] },
    optimizer: { kind: 'adam', attrs: { amsgrad: true } },
    ...more,
  };
}

function noise(count: number): Float32Array {
  return Float32Array.from({ length: count }, () => random.uniform() - 0.5);
}

function added({ gradients, optimizer, activations, scratch, kernels }: NativeMemory): number {
  return gradients + optimizer + activations + scratch + kernels;
}

async function step(
  model: NativeModel,
  spec: Spec,
  options: SessionOptions,
): Promise<{ held: number; dispose: () => void }> {
  const session = await addon.createSession(model, spec, options);
  const clips = options.batch * (options.mixup ? 2 : 1);
  const state = { seed: 1n, step: 0, lr: 1e-4, maxNorm: 1, update: true };
  const target = new Float32Array(clips * CLASSES).fill(1);
  const lambda = options.mixup ? new Float32Array(clips).fill(0.5) : undefined;
  await session.step(noise(clips * options.samples), target, lambda, state);
  return { held: await model.held(), dispose: () => session.dispose() };
}

const TRAININGS: Record<string, Partial<SessionOptions>> = {
  'Adam with amsgrad': {},
  'SGD with momentum': { optimizer: { kind: 'sgd', attrs: { momentum: 0.9 } } },
  'without the plan': { passesOff: ['plan'], optimizer: { kind: 'sgd', attrs: {} } },
};

for (const device of [NULL, CPU]) {
  for (const name of device === CPU ? SMALL : [...SMALL, ...LARGE]) {
    t.test(`${name} on ${device.device}: what is foretold is what is allocated`, async (t) => {
      const { spec, minimumSamples: samples } = describe(name);
      // Weights stay as they are: their values have no part in this.
      const made = () => addon.createModel(spec, device, samples);
      const outputs = ['clipwise_output'];
      for (const batch of [1, 3]) {
        const model = await made();
        const weights = await model.held();
        const need = await model.memory(batch, samples, outputs, false);
        t.equal(need.weights, weights, 'the weights are what a model holds');
        t.equal(await model.held(), weights, 'asking takes nothing');
        await model.infer(noise(batch * samples), batch, samples, outputs);
        t.equal(await model.held(), weights + added(need), `inference of ${batch}`);
        t.ok(need.activations > 4 * batch * samples, 'with room for the input');
        model.dispose();
      }
      for (const [kind, more] of Object.entries(TRAININGS)) {
        // One variant runs on the CPU, whose steps take time; the others differ in what is counted.
        if (device === CPU && kind !== 'Adam with amsgrad') continue;
        const model = await made();
        const weights = await model.held();
        const options = sessionOptions(2, samples, more);
        const need = await model.sessionMemory(spec, options, false);
        t.equal(await model.held(), weights, 'asking takes nothing');
        const { held, dispose } = await step(model, spec, options);
        t.equal(held, weights + added(need), `training, ${kind}`);
        // Floats; and where uploads take time, the next step's in 16 bits.
        const sample = device === NULL ? 4 + 2 : 4;
        t.ok(need.activations > sample * 2 * samples, 'with room for the input');
        dispose();
        t.equal(await model.held(), weights, 'and all of it comes back');
        model.dispose();
      }
    });
  }
}

/** What each batch of 1..most adds, by building the plan of each. */
async function needs(
  spec: Spec,
  samples: number,
  most: number,
  ask: (model: NativeModel, batch: number) => Promise<NativeMemory>,
): Promise<{ weights: number; added: number[] }> {
  const model = await addon.createModel(spec, NULL, samples);
  const answers: NativeMemory[] = [];
  for (let batch = 1; batch <= most; batch++) answers.push(await ask(model, batch));
  model.dispose();
  return { weights: answers[0]?.weights ?? 0, added: answers.map(added) };
}

/** The largest batch that fits, found one by one. */
function largestOf(needed: readonly number[], free: number): number {
  return needed.filter((bytes) => bytes <= free).length;
}

t.test('training beyond what is free: the largest batch is named, and fits', async (t) => {
  const { spec, minimumSamples: samples } = describe('Cnn6');
  const ask = (model: NativeModel, batch: number) =>
    model.sessionMemory(spec, sessionOptions(batch, samples), false);
  const { weights, added: needed } = await needs(spec, samples, 24, ask);
  t.ok(
    needed.every((bytes, i) => i === 0 || bytes > (needed[i - 1] ?? 0)),
    'each clip takes more',
  );
  const fits = 2 + Math.floor(random.uniform() * 20);
  for (const spare of [0, -1]) {
    const free = (needed[fits - 1] ?? 0) + spare;
    const model = await addon.createModel(spec, { ...NULL, memoryLimit: weights + free }, samples);
    const largest = largestOf(needed, free);
    t.equal(largest, fits + spare, 'by looking at each');
    const { largestBatch, free: told } = await model.sessionMemory(
      spec,
      sessionOptions(1, samples),
      true,
    );
    t.equal(told, free);
    t.equal(largestBatch, largest, 'asked for');
    for (const batch of [largest + 1, 24, 2 ** 16]) {
      await t.rejects(addon.createSession(model, spec, sessionOptions(batch, samples)), {
        code: 'ERR_PANNS_OUT_OF_MEMORY',
        message: new RegExp(
          `for a batch of ${batch} .* are free; the largest batch that fits is ${largest}$`,
        ),
      });
      t.equal(await model.held(), weights, 'and nothing was taken');
    }
    const { held, dispose } = await step(model, spec, sessionOptions(largest, samples));
    t.equal(held, weights + (needed[largest - 1] ?? 0), 'the largest runs');
    dispose();
    model.dispose();
  }
});

t.test('what evaluations will take stays free beside a training', async (t) => {
  const { spec, minimumSamples: samples } = describe('Cnn6');
  const ask = (model: NativeModel, batch: number) =>
    model.sessionMemory(spec, sessionOptions(batch, samples), false);
  const { weights, added: needed } = await needs(spec, samples, 5, ask);
  const evaluation = { batch: 3, outputs: ['clipwise_output'] };
  const probe = await addon.createModel(spec, NULL, samples);
  const scoring = added(await probe.memory(3, samples, evaluation.outputs, false));
  probe.dispose();
  const enough = weights + (needed[4] ?? 0) + scoring;
  for (const memoryLimit of [enough - 1, enough]) {
    const model = await addon.createModel(spec, { ...NULL, memoryLimit }, samples);
    const made = addon.createSession(model, spec, { ...sessionOptions(5, samples), evaluation });
    if (memoryLimit < enough) {
      await t.rejects(made, {
        code: 'ERR_PANNS_OUT_OF_MEMORY',
        message: /are free beside .* for evaluations; the largest batch that fits is 4$/,
      });
    } else {
      const session = await made;
      await model.infer(noise(3 * samples), 3, samples, evaluation.outputs);
      t.equal(await model.held(), enough, 'both are there');
      session.dispose();
    }
    model.dispose();
  }
});

t.test('not even one clip: shorter clips are the way out', async (t) => {
  const { spec, minimumSamples: samples } = describe('Cnn6');
  const probe = await addon.createModel(spec, NULL, samples);
  const outputs = ['clipwise_output'];
  const need = await probe.memory(1, 4 * samples, outputs, false);
  const memoryLimit = need.weights + added(need) - 1;
  const model = await addon.createModel(spec, { ...NULL, memoryLimit }, samples);
  const tooLong = model.infer(noise(4 * samples), 1, 4 * samples, outputs);
  await t.rejects(tooLong, {
    code: 'ERR_PANNS_OUT_OF_MEMORY',
    message: /not even a batch of 1 fits: shorter clips need less$/,
  });
  await model.infer(noise(samples), 1, samples, outputs);
  t.pass('which run');
  probe.dispose();
  model.dispose();
});

t.test('inference: programs for other shapes give way', async (t) => {
  const { spec, minimumSamples } = describe('Cnn6');
  // Long enough that clips take more than the weights that kernels keep.
  const samples = 8 * minimumSamples;
  const outputs = ['clipwise_output'];
  const ask = (model: NativeModel, batch: number) => model.memory(batch, samples, outputs, false);
  const { weights, added: needed } = await needs(spec, samples, 100, ask);
  const of = (batch: number) => needed[batch - 1] ?? 0;
  const free = Math.max(of(1) + of(2), of(8));
  const largest = largestOf(needed, free);
  t.ok(largest > 8 && largest < 100, `a batch of ${largest} fits`);
  const model = await addon.createModel(spec, { ...NULL, memoryLimit: weights + free }, samples);
  const infer = (batch: number) => model.infer(noise(batch * samples), batch, samples, outputs);
  await infer(1);
  await infer(2);
  t.equal(await model.held(), weights + of(1) + of(2), 'what fits is kept');
  await infer(8);
  t.equal(await model.held(), weights + of(8), 'what does not is let go');
  await t.rejects(infer(largest + 1), {
    code: 'ERR_PANNS_OUT_OF_MEMORY',
    message: new RegExp(`the largest batch that fits is ${largest}$`),
  });
  await infer(3);
  t.equal(await model.held(), weights + of(3), 'and the model works as before');
  await t.rejects(addon.createSession(model, spec, sessionOptions(64, samples)), {
    code: 'ERR_PANNS_OUT_OF_MEMORY',
  });
  t.equal(await model.held(), weights, 'a training takes the place of all of them');
  model.dispose();
});

t.test('weights that do not fit are an error too', async (t) => {
  const { spec, minimumSamples: samples } = describe('Cnn6');
  await t.rejects(addon.createModel(spec, { ...NULL, memoryLimit: 1000 }, samples), {
    code: 'ERR_PANNS_OUT_OF_MEMORY',
    message: /expected \d+ bytes of memory, 1000 are free/,
  });
});
