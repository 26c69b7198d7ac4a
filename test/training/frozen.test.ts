import t from 'tap';
import type { NativeModel } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { openDraws } from '../helpers/random.js';
import { TINY_CLASSES, TINY_SAMPLES, tiny } from '../helpers/spec.js';
import { compare } from '../helpers/tolerance.js';
import { clips, targets } from '../helpers/training.js';

const native = loadNative();
const draws = openDraws(t);
const { spec } = tiny();
const batch = 3;
const waveform = clips(draws, batch, TINY_SAMPLES);
const target = targets(draws, batch, TINY_CLASSES, 'bce');
const state = { seed: 1n, step: 0, lr: 1e-2, maxNorm: 1 };

const openSession = (model: NativeModel, frozen: string[]) =>
  native.createSession(model, spec, {
    batch,
    samples: TINY_SAMPLES,
    mixup: false,
    loss: 'bce',
    optimizer: { kind: 'adam', attrs: { weight_decay: 0.1 } },
    frozen,
    passesOff: [],
  });

// What leaves gaps in the run of parameters, what cuts the backward pass short, and the whole base.
const choices: readonly string[][] = [
  ['block.conv1'],
  ['block.bn2', 'conv3'],
  ['bn0'],
  ['bn0', 'block.conv1'],
  ['bn0', 'block.', 'conv3', 'fc1'],
];

for (const frozen of choices) {
  t.test(`frozen: ${frozen.join(' ')}`, async (t) => {
    const model = await native.createModel(spec, { device: 'cpu', threads: 0 }, TINY_SAMPLES);
    await model.initialise(3n);
    const all = model.parameters().filter(({ trainable }) => trainable);
    const free = await openSession(model, []);
    await free.step(waveform, target, undefined, { ...state, update: false });
    const session = await openSession(model, frozen);
    const before = new Map<string, Float32Array>();
    for (const { name } of all) before.set(name, await model.get(name));
    const { loss } = await session.step(waveform, target, undefined, { ...state, update: true });
    t.ok(Number.isFinite(loss));
    for (const { name } of all) {
      const still = frozen.some((prefix) => name.startsWith(prefix));
      t.equal(session.trains(name), !still, name);
      const after = await model.get(name);
      if (still) {
        t.same(after, before.get(name), `${name} stays, in spite of the decay`);
        await t.rejects(async () => session.gradient(name), { code: 'ERR_PANNS_SPEC' });
      } else {
        // What is frozen is fused as at inference, which adds in another order.
        const [got, want] = [await session.gradient(name), await free.gradient(name)];
        const check = compare(got, want, 'reordered');
        t.ok(check.ok, `${name}: same gradient: ${check.message}`);
        t.notSame(after, before.get(name), `${name} moves`);
      }
    }
    // As PyTorch: a norm that does not train still follows the data.
    const mean = await model.get('bn0.running_mean');
    t.ok(
      mean.some((v) => v !== 0),
      'running statistics move',
    );
    free.dispose();
    session.dispose();
    model.dispose();
  });
}

t.test('nothing left to train is an error', async (t) => {
  const model = await native.createModel(spec, { device: 'cpu', threads: 0 }, TINY_SAMPLES);
  await t.rejects(openSession(model, ['']), { code: 'ERR_PANNS_SPEC', where: 'training' });
  model.dispose();
});
