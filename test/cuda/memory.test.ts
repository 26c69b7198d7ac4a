// What is foretold of a GPU's memory, and plans that are tuned, on an emulated device.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createModel, modelInternals } from '../../lib/inference/model.js';
import { describeModel } from '../../lib/models/index.js';
import { trainingMemory } from '../../lib/train/memory.js';
import { planTraining, sessionOptions } from '../../lib/train/session.js';
import { tunePlans } from '../../lib/train/tune_plans.js';
import { emulateHere, noEmulator } from './emulator/setup.js';

const skip = noEmulator;
if (!skip) emulateHere();

const SMALL = { classes: 3, sampleRate: 8000, melBins: 16 };
const SECONDS = 0.3;

for (const precision of ['fp32', 'bf16'] as const) {
  t.test(`${precision}: what is foretold is what is allocated`, { skip }, async (t) => {
    using model = await createModel('Cnn6', { ...SMALL, device: 'cuda', precision });
    const { native, addon, description } = modelInternals(model);
    const weights = await native.held();
    const need = await model.memory({ batch: 2, seconds: SECONDS });
    t.match(need, { device: 'cuda', weights, fits: true });
    t.equal(await native.held(), weights, 'asking takes nothing');
    await model.infer(new Float32Array(2 * need.samples).fill(0.1), { batch: 2 });
    t.equal(await native.held(), need.total, 'inference');

    const recipe = { batchSize: 2, clipSeconds: SECONDS };
    const training = await trainingMemory(model, recipe);
    const huge = planTraining(model, { ...recipe, batchSize: 2 ** 20 });
    const refused = addon.createSession(native, description.spec, sessionOptions(huge));
    await t.rejects(refused, {
      code: 'ERR_PANNS_OUT_OF_MEMORY',
      message: /are free; the largest batch that fits is [1-9]\d*$/,
    });
    const before = await native.held();
    const plan = planTraining(model, recipe);
    const session = await addon.createSession(native, description.spec, sessionOptions(plan));
    const state = { seed: 1n, step: 0, lr: 1e-3, maxNorm: 0, update: true };
    const clips = new Float32Array(2 * plan.samples).fill(0.1);
    await session.step(clips, new Float32Array(2 * SMALL.classes).fill(1), undefined, state);
    t.equal((await native.held()) - before, training.total - training.weights, 'training');
    session.dispose();
    t.equal(await native.held(), before, 'and all of it comes back');
  });
}

t.test('tuned plans are kept one by one, and an abort loses none', { skip }, async (t) => {
  const folder = t.testdir();
  process.env.PANNS_CACHE = folder;
  const plans = () => readdirSync(join(folder, 'plans')).length;
  const network = describeModel('Cnn6', SMALL);
  const stop = new AbortController();
  const size = { batch: 1, seconds: 0.1 };
  const aborted = tunePlans(network, {
    ...size,
    signal: stop.signal,
    onProgress: (done) => done === 2 && stop.abort(),
  });
  await t.rejects(aborted, { name: 'AbortError' });
  t.equal(plans(), 2, 'those that were done');
  const seen: number[] = [];
  const tuned = await tunePlans(network, {
    ...size,
    onProgress: (done, total) => seen.push(done / total),
  });
  t.match(tuned, { inference: 6, training: 0 });
  t.equal(plans(), 6);
  t.same(
    seen,
    [1, 2, 3, 4, 5, 6].map((done) => done / 6),
  );
  using model = await createModel('Cnn6', { ...SMALL, device: 'cuda' });
  await model.infer(new Float32Array(800).fill(0.1));
  t.equal(plans(), 6, 'a run that measures nothing finds all of them');
});
