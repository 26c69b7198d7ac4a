import type { Test } from 'tap';
import type {
  NativeModel,
  NativeSession,
  OptimizerOptions,
  SessionOptions,
  Spec,
} from '../../lib/addon.js';
import { describeModel } from '../../lib/models/index.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { loadNative } from '../../lib/native.js';
import type { Oracle } from './oracle.js';
import type { Draws } from './random.js';
import { compare, compareNorms, type Kind } from './tolerance.js';

/** A model of the addon with random norms, and what a test needs to know of it. */
export interface Subject {
  readonly row: string;
  readonly spec: Spec;
  readonly model: NativeModel;
  readonly classes: number;
  readonly samples: number;
}

/** The same graph with every dropout at probability 0: its masks are not PyTorch's. */
export function withoutDropout(spec: Spec): Spec {
  const nodes = spec.nodes.map((node) =>
    node.op === 'dropout' ? { ...node, attrs: { ...node.attrs, p: 0 } } : node,
  );
  return { ...spec, nodes };
}

/** How the parameters of a {@link Subject} are drawn. */
export interface SubjectOptions extends ModelOptions {
  /**
   * Norms end far above zero, so that no ReLU of a block is near its kink: gradients then depend
   * smoothly on rounding, and can be compared closely.
   */
  readonly smooth?: boolean;
  readonly threads?: number;
}

/** Makes a published row for some classes, with norms away from 0 and 1; it ends with the test. */
export async function makeSubject(
  t: Test,
  draws: Draws,
  row: string,
  samples: number,
  { smooth = false, threads = 0, ...options }: SubjectOptions = {},
): Promise<Subject> {
  const classes = 6;
  const description = describeModel(row, { classes, specAugment: false, ...options });
  const spec = withoutDropout(description.spec);
  const model = await loadNative().createModel(spec, { device: 'cpu', threads }, samples);
  t.teardown(() => model.dispose());
  await model.initialise(BigInt(draws.random.uint32()));
  for (const { name, shape } of model.parameters()) {
    const count = shape.reduce((a, b) => a * b, 1);
    const value = drawParameter(draws, name, count, smooth);
    if (value !== undefined) await model.set(name, value);
  }
  return { row, spec, model, classes, samples };
}

/** Undefined: as the model was initialised. */
function drawParameter(draws: Draws, name: string, count: number, smooth: boolean) {
  const front = name.startsWith('bn0.');
  // Log-mel values of noise lie around -20 dB.
  if (name.endsWith('running_mean')) return draws.normals(count, front ? 3 : 0.3, front ? -20 : 0);
  if (name.endsWith('running_var')) {
    return front ? draws.uniforms(count, 10, 60) : draws.uniforms(count, 0.3, 1.5);
  }
  const norm = /bn\d+\.(weight|bias)$/.exec(name)?.[1];
  if (norm === 'weight')
    return smooth ? draws.uniforms(count, 0.3, 0.7) : draws.uniforms(count, 0.5, 1.5);
  if (norm === 'bias' && smooth && !front) return draws.uniforms(count, 5, 6);
  // After such norms the head sees values around 12. Scores must not saturate: near one a float32
  // keeps few digits of 1 - p, and the losses of float32 and float64 differ.
  if (name === 'fc1.weight' && smooth) return draws.normals(count, 0.25 / count ** 0.25);
  if (name === 'fc_audioset.weight' && smooth) return draws.normals(count, 1 / count ** 0.5);
  return name.endsWith('.bias') ? draws.normals(count, 0.1) : undefined;
}

/** Gives the oracle the same model with the same state. */
export async function mirror(oracle: Oracle, subject: Subject, dtype = 'float64'): Promise<void> {
  const { row, model, classes } = subject;
  const names = model.parameters().map(({ name }) => name);
  const values: Float32Array[] = [];
  for (const name of names) values.push(await model.get(name));
  await oracle.call('create', { row, classes, names, dtype }, values);
}

/** Noise whose colour and loudness differ from clip to clip, so that clips can be told apart. */
export function clips(draws: Draws, count: number, samples: number): Float32Array {
  const waveform = draws.normals(count * samples, 0.1);
  for (let n = 0; n < count; n++) {
    const smooth = draws.random.between(0, 0.95);
    const gain = draws.random.between(0.3, 3);
    let last = 0;
    for (let i = n * samples; i < (n + 1) * samples; i++) {
      last = smooth * last + (1 - smooth) * (waveform[i] as number);
      waveform[i] = gain * last;
    }
  }
  return waveform;
}

/** Targets of clips: any labels for bce, one class a clip for cross_entropy. */
export function targets(draws: Draws, count: number, classes: number, loss: string): Float32Array {
  const target = new Float32Array(count * classes);
  for (let n = 0; n < count; n++) {
    if (loss === 'bce') {
      for (let k = 0; k < classes; k++) target[n * classes + k] = draws.random.integer(2);
    } else {
      target[n * classes + draws.random.integer(classes)] = 1;
    }
  }
  return target;
}

export interface Recipe {
  readonly loss: 'bce' | 'cross_entropy';
  readonly optimizer: OptimizerOptions;
  readonly lr: number;
  readonly batch: number;
  readonly mixup: boolean;
  readonly steps: number;
  /** The subject is smooth: gradients are compared element by element, and all losses. */
  readonly smooth: boolean;
}

export const openSession = (
  subject: Subject,
  recipe: Pick<Recipe, 'batch' | 'loss' | 'mixup' | 'optimizer'>,
  other: Partial<SessionOptions> = {},
): Promise<NativeSession> => {
  const { batch, loss, mixup, optimizer } = recipe;
  const { spec, model, samples } = subject;
  const options = { batch, loss, mixup, optimizer, samples, frozen: [], passesOff: [], ...other };
  return loadNative().createSession(model, spec, options);
};

/** Inference against PyTorch: every output of the model. */
export async function checkInference(
  t: Test,
  oracle: Oracle,
  subject: Subject,
  waveform: Float32Array,
  activation: 'sigmoid' | 'softmax',
): Promise<void> {
  const { row, model, samples } = subject;
  const batch = waveform.length / samples;
  const names = ['embedding', 'logits', 'clipwise_output'] as const;
  const found = await model.infer(waveform, batch, samples, [...names]);
  const truth = await oracle.call('infer', { row, batch, activation }, [waveform]);
  for (const [i, name] of names.entries()) check(t, found[name], truth.arrays[i], 'output', name);
}

/**
 * Training against PyTorch: the first step's gradients and running statistics, every step's loss.
 *
 * The oracle must mirror the subject, whose parameters change.
 */
export async function checkTraining(
  t: Test,
  oracle: Oracle,
  draws: Draws,
  subject: Subject,
  recipe: Recipe,
): Promise<void> {
  const { row, model, samples, classes } = subject;
  const { loss, optimizer, lr, mixup } = recipe;
  const session = await openSession(subject, recipe);
  t.teardown(() => session.dispose());
  const count = recipe.batch * (mixup ? 2 : 1);
  const losses: number[] = [];
  const given: Float32Array[] = [];
  const gradients = new Map<string, Float32Array>();
  const buffers = new Map<string, Float32Array>();
  for (let step = 0; step < recipe.steps; step++) {
    const waveform = clips(draws, count, samples);
    const target = targets(draws, count, classes, loss);
    const lambda = mixup ? new Float32Array(count) : undefined;
    lambda?.forEach((_, i) => {
      lambda[i] = i % 2 === 0 ? draws.random.uniform() : 1 - (lambda[i - 1] as number);
    });
    given.push(waveform, target, ...(lambda ? [lambda] : []));
    const state = { seed: 1n, step, lr, maxNorm: 0, update: true };
    losses.push((await session.step(waveform, target, lambda, state)).loss);
    if (step > 0) continue;
    for (const { name, trainable } of model.parameters()) {
      if (trainable) gradients.set(name, await session.gradient(name));
      else buffers.set(name, await model.get(name));
    }
  }
  const request = {
    row,
    clips: count,
    mixup,
    loss,
    lr,
    kind: optimizer.kind,
    attrs: optimizer.attrs,
  };
  const truth = await oracle.call('train', request, given);
  const names = truth.header.gradients as string[];
  t.same([...gradients.keys()].sort(), [...names].sort(), 'the same parameters train');
  names.forEach((name, i) => {
    if (recipe.smooth) check(t, gradients.get(name), truth.arrays[i], 'gradient', name);
    else check(t, gradients.get(name), truth.arrays[i], 'kinked', name, compareNorms);
  });
  for (const [i, name] of (truth.header.buffers as string[]).entries()) {
    check(t, buffers.get(name), truth.arrays[names.length + i], 'running', name);
  }
  const expected = truth.header.losses as number[];
  t.comment(`losses ${losses.map((v) => v.toFixed(5)).join(' ')}`);
  t.comment(`PyTorch ${expected.map((v) => v.toFixed(5)).join(' ')}`);
  // Before any update there is nothing that could have drifted.
  check(t, losses.slice(0, 1), expected.slice(0, 1), 'output', 'the first loss');
  if (recipe.smooth) check(t, losses, expected, 'losses', 'every loss');
}

function check(
  t: Test,
  got: ArrayLike<number> | undefined,
  want: ArrayLike<number> | undefined,
  kind: Kind,
  what: string,
  by = compare,
): void {
  const found = by(got ?? [], want ?? [Number.NaN], kind);
  t.ok(found.ok, `${what}: ${found.message}`);
}
