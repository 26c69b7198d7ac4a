import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import type { NativeAddon, OpTensor, StepState } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { alsoOnCuda } from '../cuda/emulator/ops.js';
import { type Oracle, openOracle } from './oracle.js';
import { type Peer, startPeer } from './peer.js';
import { type Draws, openDraws } from './random.js';
import { record } from './record.js';
import { compare, type Kind, worstErrors } from './tolerance.js';

export type Attrs = Parameters<NativeAddon['runOp']>[1];

/** One run of one op. */
export interface Call {
  readonly op: string;
  readonly attrs?: Attrs;
  readonly inputs: readonly OpTensor[];
  readonly state?: Partial<StepState>;
}

/** A run of an op that yields gradients: output i is that of the forward's input `of[i]`. */
export interface BackwardCall extends Call {
  readonly of: readonly number[];
}

/** What {@link checkOps} checks: forward and backward against PyTorch, tiers, threads, fusion. */
export interface OpCase extends Call {
  readonly name: string;
  readonly kind: Kind;
  /** Default: as forward. */
  readonly gradientKind?: Kind;
  /** How often the op runs for the gradients of its inputs; `outputs` are those of forward. */
  readonly backward?: (dy: OpTensor, outputs: readonly OpTensor[]) => readonly BackwardCall[];
  /** The root of differentiation: dy is one. */
  readonly loss?: boolean;
  /** The same by unfused ops: results in the order of forward's outputs, then of the gradients. */
  readonly unfused?: (run: Run, dy: OpTensor) => Promise<readonly OpTensor[]>;
  /** What of the outputs is compared, given what they should be: values of even accuracy. */
  readonly view?: (values: Float32Array, want: Float32Array) => Float32Array;
  /** False where PyTorch has no word on it: the random ops. */
  readonly oracle?: false;
}

export type Run = (call: Call) => Promise<OpTensor[]>;

/** What a test file of ops works with. */
export interface Lab extends Draws {
  readonly oracle: Oracle;
  readonly run: Run;
  /** The same op on the slower instruction sets, by name. */
  readonly tiers: ReadonlyMap<string, Run>;
  /** The same op on one core; undefined where that cannot be had, for the reason beside it. */
  readonly single: Run | undefined;
  readonly noSingle: string;
}

const tierNames = ['scalar', 'avx2', 'avx512'];

export const map = (shape: readonly number[], data: Float32Array): OpTensor => ({
  shape: [...shape],
  form: 'map',
  data,
});
export const dense = (shape: readonly number[], data: Float32Array): OpTensor => ({
  shape: [...shape],
  form: 'dense',
  data,
});
export const filter = (shape: readonly number[], data: Float32Array): OpTensor => ({
  shape: [...shape],
  form: 'filter',
  data,
});
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** The first output. */
export async function first(outputs: Promise<readonly OpTensor[]>): Promise<OpTensor> {
  const [y] = await outputs;
  if (y === undefined) throw new Error('the op has no output');
  return y;
}

/** Starts the oracle and a process for each other tier; all end with the test. */
export async function openLab(t: Test): Promise<Lab> {
  const native = loadNative();
  const { tier, cores } = native.cpu();
  const worker = (env: Record<string, string>, before: readonly string[] = []): Run => {
    const script = fileURLToPath(new URL('./op_worker.ts', import.meta.url));
    const [program = '', ...args] = [...before, process.execPath, ...process.execArgv, script];
    const peer = startPeer(program, args, env);
    t.teardown(() => peer.close());
    return (call) => runRemote(peer, call);
  };
  const slower = tierNames.slice(0, tierNames.indexOf(tier));
  const taskset = (process.env.PATH ?? '').split(':').some((p) => existsSync(join(p, 'taskset')));
  const noSingle = cores < 2 ? 'one core only' : taskset ? '' : 'no taskset to take cores away';
  return {
    ...openDraws(t),
    oracle: await openOracle(t),
    run: async (call) => {
      record(call);
      await alsoOnCuda(t, call);
      const { op, attrs = {}, inputs, state = {} } = call;
      // runOp takes attributes out of the object it is given.
      return native.runOp(op, { ...attrs }, [...inputs], state);
    },
    tiers: new Map(slower.map((name) => [name, worker({ PANNS_CPU: name })])),
    single: noSingle === '' ? worker({ PANNS_CPU: tier }, ['taskset', '-c', '0']) : undefined,
    noSingle,
  };
}

async function runRemote(peer: Peer, { op, attrs = {}, inputs, state = {} }: Call) {
  const { seed, ...rest } = state;
  const { header, arrays } = await peer.call(
    {
      op,
      attrs,
      tensors: inputs.map(({ shape, form }) => ({ shape, form })),
      state: { ...rest, ...(seed !== undefined && { seed: String(seed) }) },
    },
    inputs.map(({ data }) => data),
  );
  const tensors = header.tensors as Omit<OpTensor, 'data'>[];
  return tensors.map((tensor, i) => ({ ...tensor, data: arrays[i] ?? new Float32Array() }));
}

/**
 * Asserts that each tensor has the shape and values of its counterpart, and notes the largest error.
 * `least`: as {@link compare}, of each.
 */
export function sameTensors(
  t: Test,
  got: readonly OpTensor[],
  want: readonly { shape: readonly number[]; data: ArrayLike<number> }[],
  kind: Kind,
  what: string,
  least: readonly number[] = [],
): void {
  t.equal(got.length, want.length, `${what}: count`);
  want.forEach(({ shape, data }, i) => {
    t.same(got[i]?.shape, shape, `${what} ${i}: shape`);
    const found = compare(got[i]?.data ?? [], data, kind, least[i]);
    t.ok(found.ok, `${what} ${i}: ${found.message}`);
  });
}

const largestOf = (x: ArrayLike<number>): number => {
  let largest = 0;
  for (let i = 0; i < x.length; i++) largest = Math.max(largest, Math.abs(x[i] as number));
  return largest;
};

/** A maximum over so many independent sums is never near zero by chance: 0.05^16 is 2e-21. */
const ENOUGH = 16;

interface Gradients {
  /** Inputs that have a gradient, in order. */
  readonly wanted: readonly number[];
  readonly gradients: readonly OpTensor[];
}

async function gradientsOf(calls: readonly BackwardCall[], run: Run): Promise<Gradients> {
  const found = new Map<number, OpTensor>();
  for (const call of calls) {
    (await run(call)).forEach((gradient, i) => {
      found.set(call.of[i] ?? -1, gradient);
    });
  }
  const wanted = [...found.keys()].sort((a, b) => a - b);
  return { wanted, gradients: wanted.map((i) => found.get(i) as OpTensor) };
}

/**
 * The largest magnitude of each gradient over other dy of the same distribution: the size of its sums
 * where they do not cancel, which their rounding goes by. 0 for tensors whose own maximum says it.
 */
async function sizesOf(
  lab: Lab,
  { backward, loss }: OpCase,
  outputs: readonly OpTensor[],
  gradients: readonly OpTensor[],
): Promise<number[]> {
  const sizes = gradients.map(() => 0);
  const [y] = outputs;
  const fewest = Math.min(...gradients.map(({ data }) => data.length));
  if (y === undefined || backward === undefined || loss) return sizes;
  const { runOp } = loadNative();
  const run: Run = ({ op, attrs = {}, inputs, state = {} }) =>
    runOp(op, { ...attrs }, [...inputs], state);
  for (let seen = fewest; seen < ENOUGH; seen += fewest) {
    const dy = { ...y, data: lab.normals(y.data.length) };
    const others = await gradientsOf(backward(dy, outputs), run);
    others.gradients.forEach(({ data }, i) => {
      if (data.length < ENOUGH) sizes[i] = Math.max(sizes[i] ?? 0, largestOf(data));
    });
  }
  return sizes;
}

function sameOutputs(
  t: Test,
  { kind, view = (values) => values }: OpCase,
  got: readonly OpTensor[],
  want: readonly { shape: readonly number[]; data: Float32Array }[],
  what: string,
): void {
  const at = (i: number) => want[i]?.data ?? new Float32Array();
  const seen = got.map((tensor, i) => ({ ...tensor, data: view(tensor.data, at(i)) }));
  const truth = want.map(({ shape, data }) => ({ shape, data: view(data, data) }));
  sameTensors(t, seen, truth, kind, what);
}

function sameBits(t: Test, got: readonly OpTensor[], want: readonly OpTensor[], what: string) {
  const bits = ({ data }: OpTensor) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const equal = want.every((tensor, i) => {
    const other = got[i];
    return other !== undefined && bits(other).equals(bits(tensor));
  });
  t.ok(equal && got.length === want.length, `${what}: bit for bit`);
}

/** Runs every case as a subtest. */
export async function checkOps(t: Test, lab: Lab, cases: readonly OpCase[]): Promise<void> {
  for (const c of cases) await t.test(`${c.op}: ${c.name}`, (t) => checkOp(t, lab, c));
  for (const line of worstErrors()) t.comment(line);
}

async function checkOp(t: Test, lab: Lab, c: OpCase): Promise<void> {
  const outputs = await lab.run(c);
  const [y] = outputs;
  if (y === undefined) throw new Error('the op has no output');
  const ones = new Float32Array(y.data.length).fill(1);
  const dy = { ...y, data: c.loss ? ones : lab.normals(y.data.length) };
  const calls = c.backward?.(dy, outputs) ?? [];
  const { wanted, gradients } = await gradientsOf(calls, lab.run);
  const sizes = await sizesOf(lab, c, outputs, gradients);
  const gradientKind = c.gradientKind ?? c.kind;

  if (c.oracle !== false && lab.oracle.skip) {
    t.pass('against PyTorch', { skip: lab.oracle.skip });
  } else if (c.oracle !== false) {
    await againstTorch(t, lab, c, { outputs, wanted, gradients, sizes, dy: dy.data });
  }
  if (c.unfused !== undefined) {
    const plain = await c.unfused(lab.run, dy);
    const forward = outputs.slice(0, plain.length - gradients.length);
    const least = [...forward.map(() => 0), ...sizes];
    sameTensors(t, [...forward, ...gradients], plain, gradientKind, 'as unfused', least);
  }
  for (const [tier, run] of lab.tiers) {
    sameOutputs(t, c, await run(c), outputs, `${tier} output`);
    if (calls.length === 0) continue;
    const { gradients: own } = await gradientsOf(calls, run);
    sameTensors(t, own, gradients, gradientKind, `${tier} gradient`, sizes);
  }
  if (lab.single === undefined) {
    t.pass('one thread', { skip: lab.noSingle });
    return;
  }
  sameBits(t, await lab.single(c), outputs, 'one thread, outputs');
  const { gradients: own } = await gradientsOf(calls, lab.single);
  sameBits(t, own, gradients, 'one thread, gradients');
}

interface Results extends Gradients {
  readonly outputs: readonly OpTensor[];
  /** As {@link sizesOf}. */
  readonly sizes: readonly number[];
  readonly dy: Float32Array;
}

async function againstTorch(t: Test, lab: Lab, c: OpCase, found: Results): Promise<void> {
  const { outputs, wanted, gradients, sizes, dy } = found;
  const header = {
    op: c.op,
    attrs: c.attrs ?? {},
    shapes: c.inputs.map(({ shape }) => shape),
  };
  const data = c.inputs.map((input) => input.data);
  const truth = await lab.oracle.call('forward', header, data);
  const shapes = truth.header.shapes as number[][];
  const want = truth.arrays.map((values, i) => ({ shape: shapes[i] ?? [], data: values }));
  sameOutputs(t, c, outputs, want, 'output');
  if (wanted.length === 0) return;

  const seed = lab.random.uint32();
  const reply = await lab.oracle.call('gradient', { ...header, wants: wanted, seed, sizes }, [
    ...data,
    dy,
  ]);
  const probes = reply.header.probes as number[][];
  gradients.forEach((gradient, i) => {
    const autograd = reply.arrays[i] ?? new Float32Array();
    const input = c.inputs[wanted[i] ?? -1];
    const what = `gradient of input ${wanted[i]}`;
    const expected = [{ shape: input?.shape ?? [], data: autograd }];
    const size = sizes[i] ?? 0;
    sameTensors(t, [gradient], expected, c.gradientKind ?? c.kind, what, [size]);
    // Against the scale of the whole gradient: a probed element may be tiny.
    const largest = Math.max(size, largestOf(autograd));
    const at = (probes[i] ?? []).map((k) => gradient.data[k] ?? Number.NaN);
    const quotients = reply.arrays[gradients.length + i] ?? new Float32Array();
    const check = compare([...at, largest], [...quotients, largest], 'probe');
    t.ok(check.ok, `${what} by differences: ${check.message}`);
  });
}
