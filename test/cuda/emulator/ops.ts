import type { Test } from 'tap';
import type { DeviceOptions, OpTensor } from '../../../lib/addon.js';
import { loadNative } from '../../../lib/native.js';
import type { Call } from '../../helpers/op.js';
import { emulateHere, noEmulator } from './setup.js';

/**
 * Largest ||cuda - cpu|| / ||cpu|| of an output. Maps and filters are rounded to the type before both
 * sides compute: what is left is the order of sums and the rounding of results.
 */
const TOLERANCE = { fp32: 2e-5, bf16: 1e-2, fp16: 1.5e-3 };
type Precision = keyof typeof TOLERANCE;
const PRECISIONS: readonly Precision[] = ['fp32', 'bf16', 'fp16'];
/** In fp16 these carry the loss scale: what that does shows in whole networks. */
const SCALED: readonly string[] = ['bce_backward', 'cross_entropy_backward', 'grad_norm'];

const bits = new DataView(new ArrayBuffer(4));

/** The nearest number of the type, ties to even. */
export function rounded(x: number, precision: Precision): number {
  if (precision === 'fp32' || !Number.isFinite(x) || x === 0) return x;
  if (precision === 'bf16') {
    bits.setFloat32(0, x);
    const word = bits.getUint32(0);
    bits.setUint32(0, (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000);
    return bits.getFloat32(0);
  }
  bits.setFloat32(0, x);
  const exponent = ((bits.getUint32(0) >>> 23) & 0xff) - 127;
  const unit = 2 ** (Math.max(exponent, -14) - 10);
  const steps = x / unit;
  const below = Math.floor(steps);
  const rest = steps - below;
  const up = rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? 1 : 0;
  return Math.abs(x) < 65520 ? (below + up) * unit : Math.sign(x) * Number.POSITIVE_INFINITY;
}

/** What a tensor holds once the device has stored it: maps of one channel stay float. */
function stored(tensor: OpTensor, precision: Precision): OpTensor {
  const narrow = tensor.form === 'filter' || (tensor.form === 'map' && tensor.shape[1] !== 1);
  if (!narrow || precision === 'fp32') return tensor;
  return { ...tensor, data: tensor.data.map((x) => rounded(x, precision)) };
}

/** The Euclidean norm of the finite values. */
export const norm = (values: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    const x = values[i] as number;
    if (Number.isFinite(x)) sum += x * x;
  }
  return Math.sqrt(sum);
};

/**
 * ||got - want|| / ||want|| of the finite values; what is not finite must be the same. `least`: a norm
 * below which `want` counts as that large.
 */
export function distance(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  least = Number.MIN_VALUE,
): number {
  if (got.length !== want.length) return Number.POSITIVE_INFINITY;
  let apart = 0;
  for (let i = 0; i < want.length; i++) {
    const [a, b] = [got[i] as number, want[i] as number];
    if (Number.isFinite(a) && Number.isFinite(b)) apart += (a - b) ** 2;
    else if (!Object.is(a, b)) return Number.POSITIVE_INFINITY;
  }
  return apart === 0 ? 0 : Math.sqrt(apart) / Math.max(norm(want), least);
}

function sameBits(a: readonly OpTensor[], b: readonly OpTensor[]): boolean {
  const bytes = ({ data }: OpTensor) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return (
    a.length === b.length && a.every((x, i) => b[i] !== undefined && bytes(x).equals(bytes(b[i])))
  );
}

type Outcome = { outputs: readonly OpTensor[]; code?: string; message?: string };

async function attempt(
  call: Call,
  inputs: OpTensor[],
  device?: DeviceOptions & { eager?: true },
): Promise<Outcome> {
  const { op, attrs = {}, state = {} } = call;
  try {
    return { outputs: await loadNative().runOp(op, { ...attrs }, inputs, state, device) };
  } catch (error) {
    const { code, message } = error as Error & { code: string };
    return { outputs: [], code, message };
  }
}

if (noEmulator === false && process.env.PANNS_CUDA_LIBRARY === undefined) emulateHere();

/**
 * Asserts that the call does on the emulated GPU what it does on the CPU, in each precision; captured
 * the same bits as eager. Nothing where there is no emulator.
 */
export async function alsoOnCuda(t: Test, call: Call): Promise<void> {
  if (noEmulator !== false) return;
  for (const precision of PRECISIONS) {
    if (precision === 'fp16' && SCALED.includes(call.op)) continue;
    const inputs = call.inputs.map((tensor) => stored(tensor, precision));
    const cuda = { device: 'cuda', threads: 0, precision } as const;
    const want = await attempt(call, inputs);
    const got = await attempt(call, inputs, { ...cuda, eager: true });
    const what = `${call.op} on emulated CUDA, ${precision}`;
    if (got.code !== undefined || want.code !== undefined) {
      // Calls that no device takes are refused by each for the same reason.
      const refused = got.code === 'ERR_PANNS_UNSUPPORTED' || got.code === want.code;
      t.ok(refused, `${what}: ${want.code ?? 'computes'}, there ${got.message ?? 'computes'}`);
      continue;
    }
    // What vanishes in exact arithmetic, as the attention's gradient of one frame, is rounding here.
    const least = 1e-2 * Math.max(...want.outputs.map(({ data }) => norm(data)));
    const errors = want.outputs.map(({ data }, i) =>
      distance(got.outputs[i]?.data ?? [], data, least),
    );
    const error = Math.max(0, ...errors);
    t.ok(error <= TOLERANCE[precision], `${what}: ${error.toExponential(2)} from the CPU`);
    const replayed = await attempt(call, inputs, cuda);
    t.ok(sameBits(replayed.outputs, got.outputs), `${what}: captured as eager`);
  }
}
