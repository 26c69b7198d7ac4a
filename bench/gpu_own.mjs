// Our side of bench/gpu.mjs: reads the work as JSON from argv; the protocol is that of side.mjs, with
// the milliseconds of one step, of `steps` in a row, for each "go".
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const work = JSON.parse(process.argv[2]);
const load = (file) => import(pathToFileURL(`${work.package}/dist/${file}`).href);
const { loadNative } = await load('native.js');
const { describeModel } = await load('models/index.js');
const CLASSES = 527;

/** As clips come: in 16 bits from a loader, in floats to `infer`; in memory that is read in place. */
function noise(length, training) {
  const memory = new SharedArrayBuffer((training ? 2 : 4) * length);
  const values = training ? new Int16Array(memory) : new Float32Array(memory);
  const full = training ? 32767 : 1;
  let state = 12345;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    values[i] = (full * state) / 2 ** 31 / 4;
  }
  return values;
}

async function prepare({ kind, model: name, batch, samples, precision, device = 'cuda' }) {
  const addon = loadNative();
  const { spec, minimumSamples } = describeModel(name, {});
  const { measurePlans = false, deterministic = true, pairBins } = work;
  const place = {
    ...{ device, threads: 0, precision, measurePlans, deterministic },
    ...(pairBins !== undefined && { pairBins }),
  };
  const model = await addon.createModel(spec, place, minimumSamples);
  await model.initialise(1n);
  const clips = noise(batch * samples, kind === 'train');
  if (kind === 'infer') return () => model.infer(clips, batch, samples, ['clipwise_output']);
  const session = await addon.createSession(model, spec, {
    ...{ batch, samples, mixup: false, loss: 'bce', frozen: [] },
    ...{ passesOff: work.passesOff ?? [], passesOn: work.passesOn ?? [] },
    optimizer: { kind: 'adam', attrs: { amsgrad: true } },
  });
  const target = new Float32Array(batch * CLASSES).map((_, i) => (i % 101 === 0 ? 1 : 0));
  let step = 0;
  // As a Trainer does: the clips of each step go up while the one before computes.
  const next = session.stages() && work.stages !== false ? clips : undefined;
  return async () => {
    const given = step > 0 && next !== undefined ? undefined : clips;
    const state = { seed: 1n, step: step++, lr: 1e-4, maxNorm: 0, update: true };
    const { loss } = await session.step(given, target, undefined, state, next);
    return loss;
  };
}

const run = await prepare(work);
const began = performance.now();
const first = await run();
const loss = work.kind === 'train' ? first : null;
console.log(JSON.stringify({ loss, firstMs: performance.now() - began }));
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'end') break;
  const start = performance.now();
  for (let i = 0; i < work.steps; i++) await run();
  console.log(((performance.now() - start) / work.steps).toFixed(4));
}
// What a GPU has given is not known to the addon: the peer's figure is the allocator's own too.
console.log(0);
process.exit(0);
