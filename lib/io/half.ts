import { PannsError } from '../errors.js';
import type { SafetensorsTensor } from './safetensors.js';

/**
 * IEEE 754 binary16, as its 16 bits: 1 of sign, 5 of exponent (bias 15), 10 of fraction. Node.js has no
 * array of them before version 24.
 */

/** The largest number that it holds; from 65520 on numbers round to infinity. */
const LARGEST = 65504;
const ROUNDS_UP = 65520;

/** Numbers that are rounded without a pause: less than a millisecond. */
const ROUNDED_AT_ONCE = 1 << 16;

/** The number that 16 bits stand for. */
export function halfToNumber(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/**
 * Float32 values rounded to the nearest of 16 bits, ties to even; `where` names them in errors.
 *
 * @throws PannsError `ERR_PANNS_NAN` for values that are no numbers, or too large
 */
export async function toHalf(values: Float32Array, where: string): Promise<Uint16Array> {
  const halves = new Uint16Array(values.length);
  for (let at = 0; at < values.length; at += ROUNDED_AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    const end = Math.min(values.length, at + ROUNDED_AT_ONCE);
    for (let i = at; i < end; i++) {
      const value = values[i] ?? Number.NaN;
      if (!(Math.abs(value) < ROUNDS_UP)) {
        const what = `expected numbers up to ${LARGEST}, which 16 bits hold; value ${i} is ${value}`;
        throw new PannsError('ERR_PANNS_NAN', what, { where });
      }
      halves[i] = rounded(value);
    }
  }
  return halves;
}

/** Of a number whose magnitude is below {@link ROUNDS_UP}. */
function rounded(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  // Halves from 2^e on lie 2^(e - 10) apart, the smallest ones 2^-24.
  const exponent = Math.max(-14, Math.min(15, Math.floor(Math.log2(size))));
  const steps = roundToEven(size * 2 ** (10 - exponent));
  // The first of the 2^10 steps from 2^e on has the bits e + 15 and 0; a carry moves on by itself.
  return sign | (steps + ((exponent + 14) << 10));
}

/** Below 2^53, ties to even. */
function roundToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

/**
 * A tensor as weights are kept in 16 bits: matrices and filters are rounded, vectors stay as they are,
 * since norms divide by them and they are small.
 *
 * @throws PannsError `ERR_PANNS_NAN`
 */
export async function halved(tensor: SafetensorsTensor, name: string): Promise<SafetensorsTensor> {
  if (tensor.dtype !== 'F32' || tensor.shape.length < 2) return tensor;
  return { dtype: 'F16', shape: tensor.shape, data: await toHalf(tensor.data, name) };
}
