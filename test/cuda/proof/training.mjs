// Worker: a small network trained for some steps: losses and gradients as on the CPU, and the same
// losses when the clips of each step go up while the one before computes.
//
//   node training.mjs <package>      a case is {name, precision}
import { cpu, cuda, error, failure, noise, openPackage, serve } from './worker.mjs';

const { addon, describeModel } = await openPackage(process.argv[2]);

/** Of a network's gradients: through some layers, with ReLUs that go the other way. */
const TOLERANCE = { fp32: 1e-3, tf32: 1e-2, bf16: 1e-1, fp16: 2e-2 };
/** What fp16 gradients are multiplied by in the first steps. */
const FIRST_LOSS_SCALE = 65536;
const ADAM = { kind: 'adam', attrs: { amsgrad: true } };
const SMALL = { sampleRate: 8000, windowSize: 256, hopSize: 80, fmax: 3900, classes: 5 };

/**
 * Losses of some steps, and the gradients of the first with the loss scale they carry; `ahead`: as a
 * Trainer hands over clips.
 */
async function train(device, { spec, minimumSamples }, run, ahead = false) {
  const { batch, samples, classes, steps } = run;
  const model = await addon.createModel(spec, device, minimumSamples);
  await model.initialise(7n);
  const session = await addon.createSession(model, spec, {
    ...{ batch, samples, mixup: true, loss: 'bce', optimizer: ADAM, frozen: [], passesOff: [] },
  });
  const clips = 2 * batch;
  const codes = Int16Array.from(noise(steps * clips * samples), (x) => 8191 * x);
  const waveforms = Array.from({ length: steps }, (_, step) =>
    codes.subarray(step * clips * samples, (step + 1) * clips * samples),
  );
  const hands = ahead && session.stages();
  const targets = noise(clips * classes).map((x) => (x > 0.5 ? 1 : 0));
  const lambda = Float32Array.from({ length: clips }, (_, i) => (i % 2 === 0 ? 0.7 : 0.3));
  const losses = [];
  const gradients = new Map();
  let scale = device.precision === 'fp16' && !process.env.PANNS_REHEARSAL ? FIRST_LOSS_SCALE : 1;
  for (let step = 0; step < steps; step++) {
    const state = { seed: 3n, step, lr: 1e-3, maxNorm: 0, update: true };
    const given = hands && step > 0 ? undefined : waveforms[step];
    const next = hands ? waveforms[step + 1] : undefined;
    let done = await session.step(given, targets, lambda, state, next);
    // Gradients that overflow say nothing of the first step, but how large they are.
    while (step === 0 && done.leftOut) {
      scale /= 2;
      done = await session.step(given, targets, lambda, state, next);
    }
    losses.push(done.loss);
    if (step > 0) continue;
    for (const { name, trainable } of model.parameters()) {
      if (trainable && session.trains(name)) gradients.set(name, await session.gradient(name));
    }
  }
  session.dispose();
  model.dispose();
  return { losses, gradients, scale };
}

async function prove(name, precision) {
  // A Wavegram's learned features are laid out for the published sizes.
  const whole = name.startsWith('Wavegram');
  const description = describeModel(name, whole ? { classes: SMALL.classes } : SMALL);
  const run = { batch: 2, samples: whole ? 64000 : 16000, classes: SMALL.classes, steps: 4 };
  const reference = await train(cpu, description, run);
  const one = await train(cuda(precision), description, run);
  const two = await train(cuda(precision), description, run, true);
  let worst = { parameter: '', error: 0 };
  for (const [parameter, want] of reference.gradients) {
    const got = (one.gradients.get(parameter) ?? new Float32Array()).map((x) => x / one.scale);
    const found = error(got, want);
    if (found > worst.error) worst = { parameter, error: found };
  }
  const repeats = one.losses.every((loss, i) => loss === two.losses[i]);
  const ok = worst.error <= TOLERANCE[precision] && repeats;
  return { ok, scale: one.scale, losses: one.losses, reference: reference.losses, worst, repeats };
}

await serve(async ({ name, precision }) => [
  { name, precision, ...(await prove(name, precision).catch(failure)) },
]);
