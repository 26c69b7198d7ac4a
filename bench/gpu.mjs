// What must hold on a GPU, on a machine that has one: no network, no packages, and nothing but this
// folder is needed (scripts/gpu-proof.mjs packs it). Writes one JSON file.
//
//   node gpu.mjs <result.json> [--cases=cases] [--addon=panns.node] [--dist=dist] [--quick]
//
// 1. Every recorded op call: CUDA as the CPU, in fp32, bf16 and fp16; captured as eager, and run
//    again, bit for bit.
// 2. A small network trained for some steps: losses and gradients as on the CPU; twice the same.
// 3. How long Cnn14 takes: inference and a training step, by batch and precision.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { deserialize } from 'node:v8';

const here = dirname(fileURLToPath(import.meta.url));
const option = (name, otherwise) =>
  process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise;
const quick = process.argv.includes('--quick');
const target = process.argv.slice(2).find((word) => !word.startsWith('--')) ?? 'gpu.json';
const addonPath = resolve(option('addon', join(here, 'panns.node')));
const addon = createRequire(import.meta.url)(addonPath);
const models = join(resolve(option('dist', join(here, 'dist'))), 'models', 'index.js');
const { describeModel } = await import(pathToFileURL(models).href);

/**
 * Largest ||cuda - cpu|| / ||cpu|| of an output. Maps and filters are rounded to the type before
 * both sides compute, so that what is left is the order of sums and the rounding of results.
 */
const TOLERANCE = { fp32: 2e-5, bf16: 1e-2, fp16: 1.5e-3 };
const SCALED = ['bce_backward', 'cross_entropy_backward', 'grad_norm'];
/** What fp16 gradients are multiplied by in the first steps. */
const FIRST_LOSS_SCALE = 65536;

/** Of a network's gradients: through some layers, with ReLUs that go the other way. */
const GRADIENT_TOLERANCE = { fp32: 1e-3, bf16: 1e-1, fp16: 2e-2 };

const cuda = (precision) => ({ device: 'cuda', threads: 0, precision });
const cpu = { device: 'cpu', threads: 0 };

const bits = new DataView(new ArrayBuffer(4));

/** The nearest number of the type, ties to even. */
function rounded(x, precision) {
  if (precision === 'bf16') {
    bits.setFloat32(0, x);
    const word = bits.getUint32(0);
    const up = word + 0x7fff + ((word >>> 16) & 1);
    bits.setUint32(0, up & 0xffff0000);
    return bits.getFloat32(0);
  }
  if (precision === 'fp16') {
    const magnitude = Math.abs(x);
    if (magnitude === 0) return x;
    const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
    const unit = 2 ** (exponent - 10);
    const steps = magnitude / unit;
    const below = Math.floor(steps);
    const rest = steps - below;
    const up = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? 1 : 0;
    return Math.sign(x) * (below + up) * unit;
  }
  return x;
}

/** What a tensor holds once the device has stored it: maps of one channel stay float. */
function stored(tensor, precision) {
  const narrow =
    (tensor.form === 'map' && tensor.shape[1] !== 1) ||
    (tensor.form === 'filter' && precision !== 'fp32');
  if (!narrow || precision === 'fp32') return tensor;
  return { ...tensor, data: tensor.data.map((x) => rounded(x, precision)) };
}

function norm(values) {
  return Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
}

/** Of the finite values; where one side is not finite the other must be the same. */
function error(got, want) {
  if (got.length !== want.length) return Number.POSITIVE_INFINITY;
  const finite = (x, i) => Number.isFinite(x) && Number.isFinite(want[i]);
  if (got.some((x, i) => !finite(x, i) && !Object.is(x, want[i]))) return Number.POSITIVE_INFINITY;
  const difference = norm(got.map((x, i) => (finite(x, i) ? x - want[i] : 0)));
  return difference / Math.max(norm(want.filter(Number.isFinite)), 1e-12);
}

function sameBits(a, b) {
  const bytes = ({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return a.length === b.length && a.every((tensor, i) => bytes(tensor).equals(bytes(b[i])));
}

async function proveOps() {
  const folder = resolve(option('cases', join(here, 'cases')));
  const results = [];
  for (const name of readdirSync(folder).sort()) {
    const { op, attrs, inputs, state } = deserialize(readFileSync(join(folder, name)));
    for (const precision of Object.keys(TOLERANCE)) {
      // In fp16 these carry the loss scale: what that does shows in the training below.
      if (precision === 'fp16' && SCALED.includes(op)) continue;
      const given = inputs.map((tensor) => stored(tensor, precision));
      const run = (device) => addon.runOp(op, { ...attrs }, given, state, device);
      const result = { op, name, precision, shape: inputs[0].shape };
      const want = await run(cpu).catch(({ code }) => code);
      try {
        const got = await run({ ...cuda(precision), eager: true });
        const errors = want.map(({ data }, i) => error(got[i]?.data ?? [], data));
        result.error = Math.max(...errors);
        result.replay = sameBits(await run(cuda(precision)), got);
        result.again = sameBits(await run({ ...cuda(precision), eager: true }), got);
        result.ok = result.error <= TOLERANCE[precision] && result.replay && result.again;
      } catch (e) {
        // Calls that no device takes are refused by each for the same reason.
        result.unsupported = e.code === 'ERR_PANNS_UNSUPPORTED';
        result.ok = result.unsupported || e.code === want;
        result.message = `${e.code}: ${e.message}`;
      }
      if (!result.ok) console.log('FAILED', JSON.stringify(result));
      results.push(result);
    }
  }
  return results;
}

/** Numbers in -1..1 that are the same everywhere. */
function noise(count) {
  const values = new Float32Array(count);
  let x = 12345;
  for (let i = 0; i < count; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    values[i] = x / 2 ** 31 - 1;
  }
  return values;
}

const ADAM = { kind: 'adam', attrs: { amsgrad: true } };

/** Losses of some steps, and the gradients of the first. */
async function train(device, { spec, minimumSamples }, { batch, samples, classes, steps }) {
  const model = await addon.createModel(spec, device, minimumSamples);
  await model.initialise(7n);
  const session = await addon.createSession(model, spec, {
    ...{ batch, samples, mixup: true, loss: 'bce', optimizer: ADAM, frozen: [], passesOff: [] },
  });
  const clips = 2 * batch;
  const waveform = noise(clips * samples).map((x) => x / 4);
  const targets = noise(clips * classes).map((x) => (x > 0.5 ? 1 : 0));
  const lambda = Float32Array.from({ length: clips }, (_, i) => (i % 2 === 0 ? 0.7 : 0.3));
  const losses = [];
  const gradients = new Map();
  for (let step = 0; step < steps; step++) {
    const state = { seed: 3n, step, lr: 1e-3, maxNorm: 0, update: true };
    losses.push((await session.step(waveform, targets, lambda, state)).loss);
    if (step > 0) continue;
    for (const { name, trainable } of model.parameters()) {
      if (trainable && session.trains(name)) gradients.set(name, await session.gradient(name));
    }
  }
  session.dispose();
  model.dispose();
  return { losses, gradients };
}

async function proveTraining() {
  const size = { sampleRate: 8000, windowSize: 256, hopSize: 80, fmax: 3900, classes: 5 };
  const run = { batch: 2, samples: 16000, classes: size.classes, steps: 4 };
  const results = [];
  for (const name of ['Cnn6', 'MobileNetV1', 'ResNet22', 'Wavegram_Logmel_Cnn14']) {
    // A Wavegram's learned features are laid out for the published sizes.
    const description = name.startsWith('Wavegram')
      ? describeModel(name, { classes: 5 })
      : describeModel(name, size);
    const sized = name.startsWith('Wavegram') ? { ...run, samples: 64000 } : run;
    const reference = await train(cpu, description, sized);
    for (const precision of Object.keys(GRADIENT_TOLERANCE)) {
      const result = { name, precision };
      try {
        const one = await train(cuda(precision), description, sized);
        const two = await train(cuda(precision), description, sized);
        const scale = precision === 'fp16' ? FIRST_LOSS_SCALE : 1;
        const errors = [...reference.gradients].map(([key, want]) => {
          const got = one.gradients.get(key) ?? new Float32Array();
          return [
            key,
            error(
              got.map((x) => x / scale),
              want,
            ),
          ];
        });
        const worst = errors.reduce((a, b) => (b[1] > a[1] ? b : a), ['', 0]);
        Object.assign(result, {
          losses: one.losses,
          reference: reference.losses,
          worst: { parameter: worst[0], error: worst[1] },
          repeats: one.losses.every((loss, i) => loss === two.losses[i]),
        });
        result.ok = worst[1] <= GRADIENT_TOLERANCE[precision] && result.repeats;
      } catch (e) {
        result.ok = false;
        result.message = `${e.code}: ${e.message}`;
      }
      console.log(result.ok ? 'ok' : 'FAILED', JSON.stringify(result));
      results.push(result);
    }
  }
  return results;
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

/** Milliseconds of a call, of several after some that warm up. */
async function time(call, { warm = 3, runs = 15 } = {}) {
  const times = [];
  for (let i = 0; i < warm + runs; i++) {
    const begin = performance.now();
    await call();
    if (i >= warm) times.push(performance.now() - begin);
  }
  return { median: median(times), least: Math.min(...times), most: Math.max(...times), runs };
}

async function measure() {
  const results = [];
  const { spec, minimumSamples } = describeModel('Cnn14', {});
  const samples = 320000;
  for (const precision of quick ? ['bf16'] : ['fp32', 'bf16', 'fp16']) {
    for (const batch of quick ? [32] : [1, 32, 128]) {
      const result = { model: 'Cnn14', precision, batch };
      try {
        const device = { ...cuda(precision), measurePlans: option('tune', '') !== '' };
        const model = await addon.createModel(spec, device, minimumSamples);
        await model.initialise(7n);
        const shared = new Float32Array(new SharedArrayBuffer(4 * batch * samples));
        shared.set(noise(batch * samples));
        result.inference = await time(() =>
          model.infer(shared, batch, samples, ['clipwise_output']),
        );
        if (batch > 1) {
          const session = await addon.createSession(model, spec, {
            ...{ batch, samples, mixup: false, loss: 'bce', optimizer: ADAM },
            ...{ frozen: [], passesOff: [] },
          });
          const targets = new Float32Array(batch * 527);
          let step = 0;
          result.step = await time(() => {
            const state = { seed: 3n, step: step++, lr: 1e-4, maxNorm: 0, update: true };
            return session.step(shared, targets, undefined, state);
          });
          result.clipsPerSecond = (batch / result.step.median) * 1000;
          session.dispose();
        }
        model.dispose();
      } catch (e) {
        result.message = `${e.code}: ${e.message}`;
      }
      console.log(JSON.stringify(result));
      results.push(result);
    }
  }
  return results;
}

const status = await addon.cudaStatus();
console.log(status);
const result = { date: new Date().toISOString(), version: addon.version, status, cpu: addon.cpu() };
if (status.available) {
  result.ops = await proveOps();
  result.training = await proveTraining();
  result.speed = await measure();
}
writeFileSync(target, `${JSON.stringify(result, null, 1)}\n`);
const proofs = [...(result.ops ?? []), ...(result.training ?? [])];
const passed = proofs.filter(({ ok }) => ok).length;
console.log(`${passed} of ${proofs.length} proofs hold; ${target}`);
addon.stop();
process.exitCode = status.available && passed === proofs.length ? 0 : 1;
