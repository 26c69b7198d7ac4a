// A session that is forgotten with a step in flight: what the step writes to is freed when it is
// done, and waiting for that is the engine's, not the event loop's.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import type { DeviceOptions, NativeSession } from '../../lib/addon.js';
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
const CLIPS = 24;
const SAMPLES = 4 * SECOND;
const { waveform, target } = randomBatch(1, CLIPS, SAMPLES);

/** Gives the device a step, on whose stream nothing is done before somebody waits for it. */
const begin = (session: NativeSession, step: number) =>
  session.begin(waveform, target, undefined, {
    ...{ seed: 1n, step, lr: 1e-3, maxNorm: 0, update: true },
  });

t.test('a session forgotten with a step in flight', { skip }, async (t) => {
  const model = await native.createModel(spec, device, SAMPLES);
  t.teardown(() => model.dispose());
  await model.initialise(1n);
  const known = new Set<string>();
  const registry = new FinalizationRegistry<string>((name) => known.delete(name));
  const forget = async () => {
    const session = await native.createSession(model, spec, sessionOptions(CLIPS, SAMPLES));
    await begin(session, 0);
    const since = performance.now();
    await session.finish();
    const took = performance.now() - since;
    await begin(session, 1);
    known.add('session');
    registry.register(session, 'session');
    return took;
  };
  const took = await forget();
  const before = await model.held();
  let late = 0;
  for (let round = 0; known.size > 0 && round < 100; round++) {
    const since = performance.now();
    collect();
    await new Promise((resolve) => setImmediate(resolve));
    late = Math.max(late, performance.now() - since);
  }
  t.comment(
    `a step takes ${took.toFixed(0)} ms, collecting it held up the loop ${late.toFixed(0)}`,
  );
  t.equal(known.size, 0, 'it is collected');
  t.ok(late < took / 3, 'the event loop does not wait for the step');
  t.ok((await model.held()) < before, 'its memory is given back');
  const { logits } = await model.infer(waveform, CLIPS, SAMPLES, ['logits']);
  t.ok(logits?.every(Number.isFinite), 'the model goes on');
});
