// Networks on a device of one's choice, for comparisons of one with another.
import type { DeviceOptions, NativeModel, OptimizerOptions, Spec } from '../../../lib/addon.js';
import { createRandom } from '../../../lib/data/random.js';
import { describeModel } from '../../../lib/models/index.js';
import type { ModelOptions } from '../../../lib/models/options.js';
import { loadNative } from '../../../lib/native.js';

/** How a network runs; plain data, so that another process can be told. */
export interface Run {
  readonly name: string;
  readonly options: ModelOptions;
  readonly device: DeviceOptions;
  readonly seed: number;
  readonly batch: number;
  /** Of each clip; raised to what the network takes. */
  readonly samples?: number;
  /** 0: inference. */
  readonly steps: number;
  readonly mixup?: boolean;
  readonly loss?: 'bce' | 'cross_entropy';
  readonly optimizer?: OptimizerOptions;
  readonly maxNorm?: number;
  /** The learning rate; 1e-3 when left out. */
  readonly lr?: number;
  /** Multiplies the waveforms. */
  readonly loudness?: number;
}

/** Everything that came out, by name: outputs, or losses, gradients, parameters. */
export type Found = Map<string, Float32Array>;

async function trained(run: Run, model: NativeModel, spec: Spec, samples: number): Promise<Found> {
  const { batch, mixup = false, loss = 'bce', maxNorm = 0, lr = 1e-3, steps } = run;
  const optimizer = run.optimizer ?? { kind: 'adam', attrs: { amsgrad: true } };
  const session = await loadNative().createSession(model, spec, {
    ...{ batch, samples, mixup, loss, optimizer, frozen: [], passesOff: [] },
  });
  const clips = mixup ? 2 * batch : batch;
  const classes = Number(run.options.classes);
  const found: Found = new Map();
  const losses: number[] = [];
  const { normal, integer, between } = createRandom(run.seed + 1);
  for (let step = 0; step < steps; step++) {
    const waveform = Float32Array.from({ length: clips * samples }, () => normal() / 5);
    const target = new Float32Array(clips * classes);
    for (let i = 0; i < clips; i++) target[i * classes + integer(classes)] = 1;
    const share = Array.from({ length: batch }, () => between(0.2, 0.8));
    const lambda = mixup
      ? Float32Array.from({ length: clips }, (_, i) =>
          i % 2 ? 1 - (share[i >> 1] ?? 0) : (share[i >> 1] ?? 0),
        )
      : undefined;
    const state = { seed: 3n, step, lr, maxNorm, update: true };
    const { loss: value, gradNorm } = await session.step(waveform, target, lambda, state);
    losses.push(value);
    found.set(`norm ${step}`, Float32Array.of(gradNorm));
    if (step > 0) continue;
    for (const { name, trainable } of model.parameters()) {
      if (!trainable || !session.trains(name)) continue;
      found.set(`gradient ${name}`, await session.gradient(name));
    }
  }
  found.set('losses', Float32Array.from(losses));
  for (const { name } of model.parameters()) found.set(`parameter ${name}`, await model.get(name));
  session.dispose();
  return found;
}

/**
 * Norms away from 0 and 1, and with statistics that keep what they pass on in the range of a half.
 * Log-mel values of noise lie around -20 dB.
 */
async function drawNorms(model: NativeModel, spec: Spec, seed: number): Promise<void> {
  const { normal, between } = createRandom(seed + 2);
  const norms = new Map(
    spec.nodes.filter(({ op }) => op === 'batch_norm').map(({ path, attrs }) => [path, attrs]),
  );
  for (const { name, shape } of model.parameters()) {
    const [, path = '', tensor = ''] = /^(.*)\.(\w+)$/.exec(name) ?? [];
    const attrs = norms.get(path);
    if (attrs === undefined) continue;
    const logmel = attrs.axis === 'freq';
    const draw = {
      running_mean: () => (logmel ? -20 + 3 * normal() : 0.3 * normal()),
      running_var: () => (logmel ? between(10, 60) : between(0.3, 1.5)),
      weight: () => between(0.5, 1.5),
      bias: () => 0.1 * normal(),
    }[tensor];
    if (draw !== undefined)
      await model.set(name, Float32Array.from({ length: shape[0] ?? 0 }, draw));
  }
}

/** Runs it from the beginning: weights and inputs follow from the seed alone. */
export async function runNetwork(run: Run): Promise<Found> {
  const { name, options, device, seed, batch, loudness = 1 } = run;
  const { spec, minimumSamples, lengthFor, outputs } = describeModel(name, options);
  const samples = lengthFor(run.samples ?? 0);
  const model = await loadNative().createModel(spec, device, minimumSamples);
  await model.initialise(BigInt(seed));
  await drawNorms(model, spec, seed);
  try {
    if (run.steps > 0) return await trained(run, model, spec, samples);
    const { normal } = createRandom(seed + 1);
    const waveform = Float32Array.from(
      { length: batch * samples },
      () => (loudness * normal()) / 5,
    );
    return new Map(
      Object.entries(await model.infer(waveform, batch, samples, Object.keys(outputs))),
    );
  } finally {
    model.dispose();
  }
}
