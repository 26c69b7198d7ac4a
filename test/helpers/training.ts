import type { Test } from 'tap';
import type {
  NativeModel,
  NativeSession,
  OptimizerOptions,
  SessionOptions,
  Spec,
  SpecNode,
} from '../../lib/addon.js';
import { describeModel, modelRows } from '../../lib/models/index.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { loadNative } from '../../lib/native.js';
import type { Oracle } from './oracle.js';
import type { Draws } from './random.js';
import { type Comparison, compare, compareNorms, type Kind, tolerances } from './tolerance.js';

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
   * Norms end in the middle of a straight or curved piece of the activation that follows, far from
   * its kinks: gradients then depend smoothly on rounding, and can be compared closely.
   */
  readonly smooth?: boolean;
  readonly threads?: number;
  /** Subjects of one seed share the filters that their models share; default a fresh one. */
  readonly seed?: number;
}

/** Makes a published row for some classes, with norms away from 0 and 1; it ends with the test. */
export async function makeSubject(
  t: Test,
  draws: Draws,
  row: string,
  samples: number,
  { smooth = false, threads = 0, seed = draws.random.uint32(), ...options }: SubjectOptions = {},
): Promise<Subject> {
  const classes = 6;
  const takes = !modelRows.find(({ name }) => name === row)?.without?.includes('specAugment');
  const plain = takes ? { specAugment: false } : {};
  const description = describeModel(row, { classes, ...plain, ...options });
  const spec = withoutDropout(description.spec);
  const model = await loadNative().createModel(spec, { device: 'cpu', threads }, samples);
  t.teardown(() => model.dispose());
  await model.initialise(BigInt(seed));
  const regimes = regimesOf(spec);
  for (const { name, shape } of model.parameters()) {
    const value = drawParameter(draws, name, shape, regimes, smooth);
    if (value !== undefined) await model.set(name, value);
  }
  return { row, spec, model, classes, samples };
}

/**
 * What the values of a parameter depend on: for norms the log-mel they belong to or what their result
 * passes through, for linear layers whether they begin with (nearly) nothing.
 */
type Regime = 'logmel' | 'relu' | 'relu6' | 'hard_swish' | 'branch' | 'line' | 'small' | 'free';

/** The regime of every module with parameters, by its path. */
function regimesOf({ nodes }: Spec): Map<string, Regime> {
  const consumers = nodes.map((_, i) => nodes.filter(({ inputs }) => inputs.includes(`#${i}`)));
  const through = new Set(['pool', 'dropout', 'add']);
  const activation = (i: number): Regime => {
    for (const node of consumers[i] ?? []) {
      const { op } = node;
      const found = through.has(op) ? activation(nodes.indexOf(node)) : op;
      if (found === 'relu' || found === 'relu6' || found === 'hard_swish') return found;
    }
    return 'line';
  };
  const regime = ({ op, attrs }: SpecNode, i: number): Regime => {
    if (op === 'linear') return attrs.init === 'normal' ? 'small' : 'free';
    if (op !== 'batch_norm') return 'free';
    if (attrs.axis === 'freq') return 'logmel';
    return attrs.zero_gamma === true ? 'branch' : activation(i);
  };
  return new Map(nodes.map((node, i) => [node.path, regime(node, i)]));
}

/**
 * Least and largest gamma, then beta, that keep a norm's results, mostly within 6 deviations, away
 * from the kinks of what follows: 0 of relu, also after the sum with a shortcut, 0 and 6 of relu6,
 * -3 and 3 of hard_swish.
 */
const SMOOTH: Partial<Record<Regime, readonly [number, number, number, number]>> = {
  relu: [0.3, 0.7, 5, 6],
  branch: [0.3, 0.7, 0, 0.5],
  relu6: [0.2, 0.4, 2.7, 3.3],
  hard_swish: [0.2, 0.4, -0.5, 0.5],
};

/** Undefined: as the model was initialised. */
function drawParameter(
  draws: Draws,
  name: string,
  shape: readonly number[],
  regimes: ReadonlyMap<string, Regime>,
  smooth: boolean,
): Float32Array | undefined {
  const count = shape.reduce((a, b) => a * b, 1);
  const [, path = '', tensor = ''] = /^(.*)\.(\w+)$/.exec(name) ?? [];
  const regime = regimes.get(path) ?? 'free';
  const logmel = regime === 'logmel';
  // Log-mel values of noise lie around -20 dB.
  if (tensor === 'running_mean') return draws.normals(count, logmel ? 3 : 0.3, logmel ? -20 : 0);
  if (tensor === 'running_var') {
    return logmel ? draws.uniforms(count, 10, 60) : draws.uniforms(count, 0.3, 1.5);
  }
  const ranges = smooth ? SMOOTH[regime] : undefined;
  if (tensor === 'bias' && ranges) return draws.uniforms(count, ranges[2], ranges[3]);
  if (tensor === 'bias') return draws.normals(count, 0.1);
  if (regime !== 'free' && regime !== 'small') {
    // Branches weigh less than what they are added to, as a chain of fifty norms grows chaotic.
    const [least, most] = ranges ?? (regime === 'branch' ? [0.2, 0.6] : [0.5, 1.5]);
    return draws.uniforms(count, least, most);
  }
  const inputs = shape[1] ?? 1;
  if (regime === 'small') return draws.normals(count, inputs ** -0.5);
  // After smooth norms the head sees values around 12. Scores must not saturate: near one a float32
  // keeps few digits of 1 - p, and the losses of float32 and float64 differ.
  if (smooth && path === 'fc1') return draws.normals(count, 0.25 * inputs ** -0.5);
  if (smooth && path === 'fc_audioset') return draws.normals(count, inputs ** -0.5);
  return undefined;
}

/** What {@link mirror} told each oracle last; gone once the oracle's model changes by itself. */
const told = new WeakMap<Oracle, { dtype: string; values: Map<string, Float32Array> }>();

/** To be called when the oracle's model has been trained: it is told everything anew. */
export const forget = (oracle: Oracle): boolean => told.delete(oracle);

/** Gives the oracle the same model with the same state, of which it may hold tensors already. */
export async function mirror(oracle: Oracle, subject: Subject, dtype = 'float64'): Promise<void> {
  const { row, model, classes } = subject;
  const before = told.get(oracle);
  told.delete(oracle);
  const values = new Map<string, Float32Array>();
  for (const { name } of model.parameters()) values.set(name, await model.get(name));
  const holds = (name: string, value: Float32Array) => {
    const held = before?.dtype === dtype ? before.values.get(name) : undefined;
    return held !== undefined && bytesOf(held).equals(bytesOf(value));
  };
  const same: string[] = [];
  const sent: string[] = [];
  for (const [name, value] of values) (holds(name, value) ? same : sent).push(name);
  const arrays = sent.map((name) => values.get(name) as Float32Array);
  await oracle.call('create', { row, classes, names: [...same, ...sent], dtype }, arrays);
  told.set(oracle, { dtype, values });
}

const bytesOf = (x: Float32Array) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);

/**
 * Gives both running statistics near those that the clips have, so that at inference too no layer
 * drowns its signal or lets it explode.
 */
export async function calibrate(
  oracle: Oracle,
  draws: Draws,
  { row, model, samples }: Subject,
  waveform: Float32Array,
): Promise<void> {
  const request = { row, batch: waveform.length / samples, seed: draws.random.uint32() };
  const { header, arrays } = await oracle.call('calibrate', request, [waveform]);
  for (const [i, name] of (header.names as string[]).entries()) {
    const value = arrays[i] as Float32Array;
    await model.set(name, value);
    told.get(oracle)?.values.set(name, value);
  }
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
  /** The subject is smooth: gradients are compared element by element. */
  readonly smooth: boolean;
  /** What trains and how fast, as the core takes it; `frozen` holds whole names. */
  readonly transfer?: Pick<SessionOptions, 'frozen' | 'frozenNorms' | 'rates'>;
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

/** Inference against PyTorch: every output of the model, of clips as long as the waveform says. */
export async function checkInference(
  t: Test,
  oracle: Oracle,
  { row, spec, model }: Subject,
  waveform: Float32Array,
  batch: number,
  activation: 'sigmoid' | 'softmax' = 'sigmoid',
  kind: 'output' | 'network' = 'output',
): Promise<void> {
  const by = kind === 'output' ? compare : compareNorms;
  const names = Object.keys(spec.outputs);
  const found = await model.infer(waveform, batch, waveform.length / batch, names);
  const truth = await oracle.call('infer', { row, batch, activation }, [waveform]);
  const outputs = truth.header.outputs as string[];
  t.same([...names].sort(), [...outputs].sort(), 'the same outputs');
  for (const [i, name] of outputs.entries()) {
    check(t, found[name], truth.arrays[i], kind, name, by);
  }
}

/**
 * A published model with random parameters against PyTorch: every output, of clips of about so many
 * seconds and of the shortest there may be.
 */
export async function checkModel(
  t: Test,
  oracle: Oracle,
  draws: Draws,
  row: string,
  seconds: number,
  seed?: number,
): Promise<void> {
  const { config, minimumSamples, lengthFor } = describeModel(row);
  const samples = lengthFor(seconds * config.sampleRate);
  const options = seed === undefined ? {} : { seed };
  const subject = await makeSubject(t, draws, row, samples, options);
  await mirror(oracle, subject);
  // The same clips, or a difference in colour between clips grows from layer to layer.
  const waveform = clips(draws, 2, samples);
  await calibrate(oracle, draws, subject, waveform);
  for (const length of [samples, lengthFor(minimumSamples)]) {
    const part = new Float32Array(2 * length);
    part.set(waveform.subarray(0, length));
    part.set(waveform.subarray(samples, samples + length), length);
    await checkInference(t, oracle, subject, part, 2, 'sigmoid', 'network');
  }
  subject.model.dispose();
}

/**
 * Three steps of a published model against PyTorch. Smooth, or the kinks of dozens of layers would
 * leave PyTorch's own float32 off by several percent; by norms, as maxima of equals still differ.
 */
export async function checkSteps(
  t: Test,
  oracle: Oracle,
  draws: Draws,
  row: string,
  { seconds, mixup }: { seconds: number; mixup: boolean },
): Promise<void> {
  const { config, lengthFor } = describeModel(row);
  const samples = lengthFor(seconds * config.sampleRate);
  const subject = await makeSubject(t, draws, row, samples, { smooth: true });
  await mirror(oracle, subject);
  // With a greater rate float32 and float64 part: gradients of random networks are large.
  const sgd = { optimizer: { kind: 'sgd', attrs: {} }, lr: 1e-5 } as const;
  const recipe = { ...sgd, loss: 'bce', batch: 2, mixup, steps: 3, smooth: false } as const;
  await checkTraining(t, oracle, draws, subject, recipe);
  subject.model.dispose();
}

/**
 * In standard deviations, what float32 may move: of two frames as loud as that in a channel either may
 * be the head's maximum, and one that goes the other way moves gradients by up to a tenth.
 */
const KINK = 3e-5;

/** So many draws, of which the one farthest from a kink is taken. */
const TRIES = 4;

/** Of the gradient of a norm's scale: what its shift's is measured by where that should be 0. */
const SHIFT = 1e-3;

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
  const transfer = recipe.transfer ?? { frozen: [] };
  const count = recipe.batch * (mixup ? 2 : 1);
  const network = { row, clips: count, mixup, ...transfer };
  const draw = () => {
    const waveform = clips(draws, count, samples);
    const target = targets(draws, count, classes, loss);
    const lambda = mixup ? new Float32Array(count) : undefined;
    lambda?.forEach((_, i) => {
      lambda[i] = i % 2 === 0 ? draws.random.uniform() : 1 - (lambda[i - 1] as number);
    });
    return { waveform, target, lambda };
  };
  const marginOf = async ({ waveform, lambda }: ReturnType<typeof draw>) => {
    const arrays = lambda ? [waveform, lambda] : [waveform];
    const { header } = await oracle.call('margin', network, arrays);
    return (header.margin as number | null) ?? Number.POSITIVE_INFINITY;
  };
  const session = await openSession(subject, recipe, transfer);
  t.teardown(() => session.dispose());
  const before = new Map<string, Float32Array>();
  for (const { name } of model.parameters()) before.set(name, await model.get(name));
  const losses: number[] = [];
  const given: Float32Array[] = [];
  const gradients = new Map<string, Float32Array>();
  const buffers = new Map<string, Float32Array>();
  for (let step = 0; step < recipe.steps; step++) {
    let drawn = draw();
    // Of the first step gradients are compared. A wide head has a kink near whatever is drawn, and one
    // of its many maxima weighs little.
    let margin = step === 0 ? await marginOf(drawn) : Number.POSITIVE_INFINITY;
    for (let tries = 1; tries < TRIES && margin < KINK; tries++) {
      const other = draw();
      const its = await marginOf(other);
      if (its > margin) [drawn, margin] = [other, its];
    }
    const { waveform, target, lambda } = drawn;
    given.push(waveform, target, ...(lambda ? [lambda] : []));
    const state = { seed: 1n, step, lr, maxNorm: 0, update: true };
    losses.push((await session.step(waveform, target, lambda, state)).loss);
    if (step > 0) continue;
    for (const { name, trainable } of model.parameters()) {
      if (session.trains(name)) gradients.set(name, await session.gradient(name));
      else if (!trainable) buffers.set(name, await model.get(name));
    }
  }
  const request = { ...network, loss, lr, kind: optimizer.kind, attrs: optimizer.attrs };
  told.delete(oracle);
  const truth = await oracle.call('train', request, given);
  const names = truth.header.gradients as string[];
  t.same([...gradients.keys()].sort(), [...names].sort(), 'the same parameters train');
  const norms = new Map(names.map((name, i) => [name, normOf(truth.arrays[i] as Float32Array)]));
  names.forEach((name, i) => {
    // Where a norm follows with no kink between, a shift has no gradient but rounding.
    const scale = norms.get(name.replace(/bias$/, 'weight')) ?? 0;
    const by: Compare = (got, want, kind) => compareNorms(got, want, kind, SHIFT * scale);
    if (recipe.smooth) check(t, gradients.get(name), truth.arrays[i], 'gradient', name);
    else check(t, gradients.get(name), truth.arrays[i], 'kinked', name, by);
  });
  for (const [i, name] of (truth.header.buffers as string[]).entries()) {
    check(t, buffers.get(name), truth.arrays[names.length + i], 'running', name);
  }
  if (recipe.transfer !== undefined) {
    const moved = truth.arrays.slice(-names.length);
    await checkMoves(t, subject, before, new Map(names.map((name, i) => [name, moved[i]])));
  }
  const expected = truth.header.losses as number[];
  t.comment(`losses ${losses.map((v) => v.toFixed(5)).join(' ')}`);
  t.comment(`PyTorch ${expected.map((v) => v.toFixed(5)).join(' ')}`);
  // Before any update there is nothing that could have drifted.
  const first = recipe.smooth ? 'output' : 'network';
  check(t, losses.slice(0, 1), expected.slice(0, 1), first, 'the first loss');
  if (recipe.steps > 1) check(t, losses, expected, 'losses', 'every loss');
}

/** Of a weight: moves below it are lost in the rounding of the weight, once a step for three steps. */
const ROUNDED = (3 * 2 ** -24) / tolerances.f32.kinked.rtol;

/** What trains has moved as PyTorch's has, in sum; all else is as it was, bit for bit. */
async function checkMoves(
  t: Test,
  { model }: Subject,
  before: ReadonlyMap<string, Float32Array>,
  moves: ReadonlyMap<string, Float32Array | undefined>,
): Promise<void> {
  // As of gradients: a shift before a norm should not move at all.
  const least =
    1e-4 * Math.max(...[...moves.values()].map((x) => normOf(x ?? new Float32Array(0))));
  for (const { name, trainable } of model.parameters()) {
    const then = before.get(name) ?? new Float32Array(0);
    const now = await model.get(name);
    const wanted = moves.get(name);
    if (wanted === undefined) {
      if (trainable) t.ok(bytesOf(now).equals(bytesOf(then)), `${name} stays`);
      continue;
    }
    const moved = now.map((value, i) => value - (then[i] ?? Number.NaN));
    const floor = Math.max(least, ROUNDED * normOf(then));
    const by: Compare = (got, want, kind) => compareNorms(got, want, kind, floor);
    check(t, moved, wanted, 'kinked', `the move of ${name}`, by);
  }
}

const normOf = (x: Float32Array) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));

type Compare = (got: ArrayLike<number>, want: ArrayLike<number>, kind: Kind) => Comparison;

function check(
  t: Test,
  got: ArrayLike<number> | undefined,
  want: ArrayLike<number> | undefined,
  kind: Kind,
  what: string,
  by: Compare = compare,
): void {
  const found = by(got ?? [], want ?? [Number.NaN], kind);
  t.ok(found.ok, `${what}: ${found.message}`);
}
