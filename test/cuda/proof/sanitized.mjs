// Worker of sanitizer.mjs, under compute-sanitizer: runs on CUDA what there is, and compares nothing.
//
//   node sanitized.mjs <package>     a case is {files}, recorded calls, or {train, precision}
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { deserialize } from 'node:v8';
import { cpu, cuda, failure, noise, openPackage, serve } from './worker.mjs';

const { addon, describeModel } = await openPackage(process.argv[2]);

const BATCH = 2;
const SMALL = { sampleRate: 8000, windowSize: 256, hopSize: 80, fmax: 3900, classes: 5 };
const ADAM = { kind: 'adam', attrs: { amsgrad: true } };

/** Kernel by kernel, the first of some calls that both devices take: there are some that none does. */
async function runCall(files, precision) {
  for (const file of files) {
    const { op, attrs, inputs, state } = deserialize(readFileSync(file));
    const run = async (device) => addon.runOp(op, { ...attrs }, inputs, state, device);
    const done = { op, name: basename(file), precision, ok: true };
    try {
      await run(cpu);
    } catch {
      continue;
    }
    try {
      await run({ ...cuda(precision), eager: true });
      return done;
    } catch (error) {
      if (error.code !== 'ERR_PANNS_UNSUPPORTED') return { ...done, ...failure(error) };
    }
  }
  return { name: basename(files[0]), precision, ok: true, refused: true };
}

/** Two steps, with all that is random: the second one launches what the first has captured. */
async function train(name, precision) {
  const { spec, minimumSamples: samples } = describeModel(name, SMALL);
  const model = await addon.createModel(spec, cuda(precision), samples);
  await model.initialise(7n);
  const session = await addon.createSession(model, spec, {
    ...{ batch: BATCH, samples, mixup: true, loss: 'bce', optimizer: ADAM },
    ...{ frozen: [], passesOff: [] },
  });
  const waveform = Int16Array.from(noise(2 * BATCH * samples), (x) => 8191 * x);
  const target = noise(2 * BATCH * SMALL.classes).map((x) => (x > 0.5 ? 1 : 0));
  const lambda = Float32Array.from({ length: 2 * BATCH }, (_, i) => (i % 2 === 0 ? 0.7 : 0.3));
  for (let step = 0; step < 2; step++) {
    const state = { seed: 3n, step, lr: 1e-3, maxNorm: 1, update: true };
    await session.step(waveform, target, lambda, state);
  }
  session.dispose();
  model.dispose();
}

await serve(async ({ files, train: name, precision }) => {
  if (files !== undefined) return [await runCall(files, 'fp32'), await runCall(files, 'bf16')];
  const done = { train: name, precision, ok: true };
  return [
    await train(name, precision).then(
      () => done,
      (error) => ({ ...done, ...failure(error) }),
    ),
  ];
});
