// Worker of curve.mjs: our gradients of first steps, into a file, and the losses of some hundred.
//
//   node curve_own.mjs <package>
//
// The first case of a file writes it: weights, clips, targets and batches, which PyTorch reads too.
import { existsSync } from 'node:fs';
import { cuda, failure, loadFrom, openPackage, serve } from './worker.mjs';

const [, , folder] = process.argv;
const { addon, describeModel } = await openPackage(folder);
const { readSafetensors } = await loadFrom(folder, 'io/safetensors.js');
const { writeSafetensors } = await loadFrom(folder, 'io/safetensors_writer.js');
const { createRandom } = await loadFrom(folder, 'data/random.js');

const ADAM = { kind: 'adam', attrs: { amsgrad: true } };
/** What fp16 gradients are multiplied by in the first step. */
const FIRST_LOSS_SCALE = 65536;
/** A norm that no gradient has: nothing is clipped, but a step says its norm, of which an overflow has none. */
const NO_CLIPPING = 1e30;

/**
 * The network that both sides have. Dropout and SpecAugment are left out: their masks are Philox's,
 * which PyTorch does not draw, and ops.mjs compares them with the CPU's.
 */
function describe({ model, classes }) {
  const { spec, minimumSamples, config } = describeModel(model, { classes, specAugment: false });
  const nodes = spec.nodes.map((node) =>
    node.op === 'dropout' ? { ...node, attrs: { ...node.attrs, p: 0 } } : node,
  );
  return { spec: { ...spec, nodes }, minimumSamples, config };
}

/** Clips of noise, in which each label is a tone of its own: there is something to learn. */
function makeClips(random, { clips, classes, samples }, sampleRate) {
  const codes = new Int16Array(clips * samples);
  const targets = new Float32Array(clips * classes);
  for (let n = 0; n < clips; n++) {
    const noise = random.between(0.01, 0.1);
    const x = Float32Array.from({ length: samples }, () => noise * random.normal());
    for (let i = 0; i < 2; i++) {
      const label = random.integer(classes);
      targets[n * classes + label] = 1;
      // From 200 Hz to 12 kHz, at even steps of pitch.
      const hz = 200 * 60 ** (label / classes);
      const turn = (2 * Math.PI * hz) / sampleRate;
      const phase = random.between(0, 2 * Math.PI);
      for (let s = 0; s < samples; s++) x[s] += 0.15 * Math.sin(turn * s + phase);
    }
    for (let s = 0; s < samples; s++) {
      codes[n * samples + s] = Math.round(32767 * Math.max(-1, Math.min(1, x[s])));
    }
  }
  return { codes, targets };
}

async function writeStart(run, { spec, minimumSamples, config }) {
  const model = await addon.createModel(spec, { device: 'cpu', threads: 0 }, minimumSamples);
  await model.initialise(BigInt(run.seed));
  const tensors = new Map();
  const floats = (shape, data) => ({ dtype: 'F32', shape, data });
  for (const { name, shape } of model.parameters()) {
    tensors.set(name, floats(shape, await model.get(name)));
  }
  model.dispose();
  const { melW } = await addon.frontendTensors(config);
  tensors.set('logmel_extractor.melW', floats([config.windowSize / 2 + 1, config.melBins], melW));
  const random = createRandom(run.seed);
  const { codes, targets } = makeClips(random, run, config.sampleRate);
  const { steps, batch, clips, samples, classes } = run;
  const rows = [steps, 2 * batch];
  const order = Int32Array.from({ length: 2 * steps * batch }, () => random.integer(clips));
  const lambda = new Float32Array(order.length);
  for (let i = 0; i < lambda.length; i += 2) {
    lambda[i] = random.uniform();
    lambda[i + 1] = 1 - lambda[i];
  }
  tensors.set('run.clips', { dtype: 'I16', shape: [clips, samples], data: codes });
  tensors.set('run.targets', floats([clips, classes], targets));
  tensors.set('run.order', { dtype: 'I32', shape: rows, data: order });
  tensors.set('run.lambda', floats(rows, lambda));
  await writeSafetensors(run.start, tensors);
}

/** A training from the file's weights: `take(step, lr)` takes that step of it. */
async function open(run, { spec, minimumSamples }, tensors) {
  const { batch, samples, classes, precision, seed } = run;
  const data = (name) => tensors.get(name).data;
  const model = await addon.createModel(spec, cuda(precision), minimumSamples);
  for (const { name } of model.parameters()) await model.set(name, data(name));
  const session = await addon.createSession(model, spec, {
    ...{ batch, samples, mixup: true, loss: 'bce', optimizer: ADAM, frozen: [], passesOff: [] },
  });
  const [clips, targets] = [data('run.clips'), data('run.targets')];
  const part = (name, step) => data(name).subarray(2 * step * batch, 2 * (step + 1) * batch);
  const take = async (step, lr) => {
    const order = part('run.order', step);
    const waveform = new Int16Array(order.length * samples);
    const target = new Float32Array(order.length * classes);
    order.forEach((clip, i) => {
      waveform.set(clips.subarray(clip * samples, (clip + 1) * samples), i * samples);
      target.set(targets.subarray(clip * classes, (clip + 1) * classes), i * classes);
    });
    const maxNorm = precision === 'fp16' ? NO_CLIPPING : 0;
    const state = { seed: BigInt(seed), step, lr, maxNorm, update: true };
    return session.step(waveform, target, part('run.lambda', step), state);
  };
  const dispose = () => {
    session.dispose();
    model.dispose();
  };
  return { model, session, take, dispose };
}

/** Of several batches, each from the file's weights, as "<step>/<name>". */
async function gradients(run, description, tensors) {
  const { model, session, take, dispose } = await open(run, description, tensors);
  let scale = run.precision === 'fp16' && !process.env.PANNS_REHEARSAL ? FIRST_LOSS_SCALE : 1;
  const found = new Map();
  const parameters = model.parameters().filter(({ trainable }) => trainable);
  for (let step = 0; step < run.gradientSteps; ) {
    // A step that overflows in fp16 halves the scale, and any other moves nothing at a rate of 0.
    await take(step, 0);
    let finite = true;
    for (const { name, shape } of parameters) {
      const values = await session.gradient(name);
      finite &&= values.every(Number.isFinite);
      const data = values.map((x) => x / scale);
      found.set(`${step}/${name}`, { dtype: 'F32', shape, data });
    }
    if (finite || scale === 1) step++;
    else scale /= 2;
  }
  dispose();
  await writeSafetensors(run.gradients, found);
}

async function train(run, description, tensors) {
  const { take, dispose } = await open(run, description, tensors);
  const losses = [];
  let leftOut = 0;
  const began = performance.now();
  for (let step = 0; step < run.steps; step++) {
    const { loss, gradNorm } = await take(step, run.lr);
    losses.push(loss);
    if (!Number.isFinite(gradNorm)) leftOut++;
  }
  const seconds = (performance.now() - began) / 1000;
  dispose();
  return { losses, leftOut, seconds };
}

async function prove(run) {
  const description = describe(run);
  if (!existsSync(run.start)) await writeStart(run, description);
  const { tensors } = await readSafetensors(run.start);
  await gradients(run, description, tensors);
  return { ok: true, ...(await train(run, description, tensors)) };
}

await serve(async (run) => [await prove(run).catch(failure)]);
