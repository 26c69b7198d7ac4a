// Our side of bench/gpu.mjs: reads the work as JSON from argv; the protocol is that of side.mjs, with
// the milliseconds of one step for each "go" and the number of steps in a row. Work: training steps,
// inference, log-mel alone, or a Trainer with its data (`data`, gpu_trainer.mjs).
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const work = JSON.parse(process.argv[2]);
const load = (file) => import(pathToFileURL(`${work.package}/dist/${file}`).href);
const { loadNative } = await load('native.js');
const { describeModel } = await load('models/index.js');
const CLASSES = 527;
const OUTPUTS = ['clipwise_output'];

/** Clips as they are packed, a quarter of full scale; in memory that is read in place. */
function noise(length) {
  const values = new Int16Array(new SharedArrayBuffer(2 * length));
  let state = 12345;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    values[i] = state >> 18;
  }
  return values;
}

/** A network of `copies` log-mels of the same samples, of each of which one number a clip comes back. */
function logmels(copies) {
  const [logmel] = describeModel('Cnn14', {}).spec.nodes;
  const reduce = (path, from, attrs) => ({ op: 'reduce', path, inputs: [`#${from}`], attrs });
  const nodes = Array.from({ length: copies }, (_, i) => [
    { ...logmel, path: `logmel${i}` },
    reduce(`bins${i}`, 3 * i, { axis: 'freq', kind: 'mean' }),
    reduce(`frames${i}`, 3 * i + 1, { axis: 'time', kind: 'max+mean' }),
  ]);
  const outputs = Object.fromEntries(nodes.map((_, i) => [`copy${i}`, 3 * i + 2]));
  return { spec: { name: 'logmel', nodes: nodes.flat(), outputs }, minimumSamples: 1024 };
}

function place({ device, precision, measurePlans = false, deterministic = true, pairBins }) {
  const choice = { device, threads: 0, precision, measurePlans, deterministic };
  return pairBins === undefined ? choice : { ...choice, pairBins };
}

/** The session's options, in full where gpu.mjs names some. */
function sessionOptions({ batch, samples, mixup, passesOff = [], passesOn = [] }) {
  return {
    ...{ batch, samples, mixup, loss: 'bce', frozen: [], passesOff, passesOn },
    optimizer: { kind: 'adam', attrs: { amsgrad: true } },
  };
}

const totalOf = ({ device, free, largestBatch, ...parts }) =>
  Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);

const repeated = (one) => async (count) => {
  let last;
  for (let i = 0; i < count; i++) last = await one();
  return last;
};

async function prepareInference(model, outputs) {
  const { batch, samples } = work;
  const clips = noise(batch * samples);
  const bytes = totalOf(await model.memory(batch, samples, outputs, false));
  return { bytes, run: repeated(() => model.infer(clips, batch, samples, outputs)) };
}

async function prepareTraining(addon, model, spec) {
  const { batch, samples, mixup } = work;
  const options = sessionOptions(work);
  const bytes = totalOf(await model.sessionMemory(spec, options, false));
  const session = await addon.createSession(model, spec, options);
  const rows = mixup ? 2 * batch : batch;
  const clips = noise(rows * samples);
  const target = new Float32Array(rows * CLASSES).map((_, i) => (i % 101 === 0 ? 1 : 0));
  const drawWeights = () => {
    const weights = new Float32Array(rows);
    for (let i = 0; i < rows; i += 2) {
      weights[i] = Math.random();
      weights[i + 1] = 1 - weights[i];
    }
    return weights;
  };
  let step = 0;
  // As a Trainer does: the clips of each step go up while the one before computes.
  const next = session.stages() && work.stages !== false ? clips : undefined;
  const begin = () => {
    const given = step > 0 && next !== undefined ? undefined : clips;
    const state = { seed: 1n, step: step++, lr: 1e-4, maxNorm: 0, update: true };
    return session.begin(given, target, mixup ? drawWeights() : undefined, state, next);
  };
  // And each loss is read when the next step is in flight.
  const depth = work.inFlight === false ? 1 : session.depth();
  const run = async (count) => {
    let loss;
    for (let begun = 0, finished = 0; finished < count; finished++) {
      for (; begun < Math.min(count, finished + depth); begun++) await begin();
      ({ loss } = await session.finish());
    }
    return loss;
  };
  return { bytes, run };
}

async function prepare() {
  if (work.data !== undefined) {
    const { prepareTrainer } = await import('./gpu_trainer.mjs');
    const { bytes, step } = await prepareTrainer(work, load, noise);
    return { bytes, run: repeated(step) };
  }
  const addon = loadNative();
  const logmel = work.kind === 'logmel';
  const { spec, minimumSamples } = logmel ? logmels(work.copies) : describeModel(work.model, {});
  const model = await addon.createModel(spec, place(work), minimumSamples);
  await model.initialise(1n);
  if (work.kind === 'train') return prepareTraining(addon, model, spec);
  return prepareInference(model, logmel ? Object.keys(spec.outputs) : OUTPUTS);
}

/** `run`: so many steps, of which it gives the last one's loss. */
const { run, bytes } = await prepare();
const began = performance.now();
const first = await run(1);
const loss = work.kind === 'train' ? first : null;
const { libraries } = work.device === 'cuda' ? await loadNative().cudaStatus() : { libraries: [] };
const versions = Object.fromEntries(libraries.map(({ name, version }) => [name, version]));
console.log(JSON.stringify({ loss, firstMs: performance.now() - began, versions }));
for await (const line of createInterface({ input: process.stdin })) {
  const [order, count] = line.split(' ');
  if (order === 'end') break;
  const steps = Number(count);
  const start = performance.now();
  await run(steps);
  console.log(((performance.now() - start) / steps).toFixed(4));
}
// By the plan, which takes nothing beyond it: weights, gradients, state, activations, scratch.
console.log((bytes / 2 ** 20).toFixed(0));
process.exit(0);
