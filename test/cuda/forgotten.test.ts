// What is forgotten, or disposed of with work under way, is freed by the engine: freeing it may wait
// for the device, which the event loop does not.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import type { DeviceOptions } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { randomBatch, SECOND, sessionOptions, smallModel } from '../robustness/small_model.js';
import { emulateHere, noEmulator } from './emulator/setup.js';

const skip = noEmulator;
if (!skip) emulateHere();

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const native = loadNative();
const { spec } = smallModel();
const device: DeviceOptions = { device: 'cuda', threads: 1, precision: 'fp32' };
const CLIPS = 2;
const { waveform, target } = randomBatch(1, CLIPS, SECOND);

/** From here on the emulated devices end this process where its event loop waits for them. */
const freeLoop = () => {
  process.env.PANNS_EMULATOR_LOOP = 'free';
};
t.afterEach(() => {
  delete process.env.PANNS_EMULATOR_LOOP;
});

const makeModel = async () => {
  const model = await native.createModel(spec, device, SECOND);
  await model.initialise(1n);
  return model;
};

t.test('what is forgotten', { skip }, async (t) => {
  const model = await makeModel();
  t.teardown(() => model.dispose());
  const forgotten = {
    /** The device is given a step, with which nobody waits for it. */
    'a session with a step in flight': async () => {
      const session = await native.createSession(model, spec, sessionOptions(CLIPS, SECOND));
      const state = { seed: 1n, step: 0, lr: 1e-3, maxNorm: 0, update: true };
      await session.begin(waveform, target, undefined, state);
    },
    'a model': async () => void (await makeModel()),
    'a group of processes': async () => {
      const one = { index: 0, rank: 0, size: 1, timeoutSeconds: 60 };
      await native.openNccl({ ...one, id: await native.ncclId(true) });
    },
  };
  for (const [what, forget] of Object.entries(forgotten)) {
    const before = await model.held();
    await forget();
    const whole = await model.held();
    t.ok(whole > before, `${what} holds memory`);
    freeLoop();
    let held = whole;
    for (let round = 0; held > before && round < 100; round++) {
      collect();
      await new Promise((resolve) => setImmediate(resolve));
      held = await model.held();
    }
    t.ok(held <= before, `${what}: its memory is given back`);
  }
  const { logits } = await model.infer(waveform, CLIPS, SECOND, ['logits']);
  t.ok(logits?.every(Number.isFinite), 'the model goes on');
});

t.test('a model disposed of while it is asked for what it needs', { skip }, async (t) => {
  const model = await makeModel();
  freeLoop();
  const asked = model.memory(CLIPS, SECOND, ['logits'], false);
  model.dispose();
  // Time for the engine to be done with it before the answer comes; the loop frees nothing then
  // either.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
  t.match(await asked, { device: 'cuda' });
});
