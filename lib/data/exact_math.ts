/**
 * Elementary functions built from + - * / and sqrt alone, which IEEE 754 defines to the last bit.
 *
 * Math.sin, Math.exp and Math.log may differ in the last place between JavaScript engines and
 * versions; what is drawn from a seed must not.
 */

/** Factors of the sine series at `turns`: (-1)^k (2 pi)^(2k+1) / (2k+1)!, k = 0 to 10. */
const SINE = series(2 * Math.PI, 11);

/** Factors of 2^x: ln(2)^k / k!, k = 0 to 15; the next is under 1e-17 for |x| <= 1/2. */
const EXP2 = powersOverFactorials(Math.LN2, 16);

/** sin(2 pi t) of a phase in turns (one turn is a full period), within 1e-13. */
export function sineOfTurns(turns: number): number {
  // To [-1/2, 1/2], then by symmetry to [-1/4, 1/4], where the series converges fast.
  let t = turns - Math.round(turns);
  if (t > 0.25) t = 0.5 - t;
  else if (t < -0.25) t = -0.5 - t;
  return t * horner(SINE, t * t);
}

/** cos(2 pi t) of a phase in turns, within 1e-13. */
export function cosineOfTurns(turns: number): number {
  return sineOfTurns(turns - Math.round(turns) + 0.25);
}

/** 2^x, within 2 units in the last place where the result is a normal number. */
export function exp2(x: number): number {
  // Past the range of doubles in either direction, subnormal ones included.
  if (x < -1100) return 0;
  if (x > 1100) return Number.POSITIVE_INFINITY;
  const whole = Math.round(x);
  let scale = 1;
  const factor = whole < 0 ? 0.5 : 2;
  for (let i = Math.abs(whole); i > 0; i--) scale *= factor;
  return horner(EXP2, x - whole) * scale;
}

/** log2(x) of a finite x > 0, within 1e-14 absolute. */
export function log2(x: number): number {
  let mantissa = x;
  let exponent = 0;
  while (mantissa >= Math.SQRT2) {
    mantissa /= 2;
    exponent++;
  }
  while (mantissa < Math.SQRT1_2) {
    mantissa *= 2;
    exponent--;
  }
  // ln m = 2 artanh((m - 1) / (m + 1)); |z| <= 0.172, so 12 terms reach 1e-20.
  const z = (mantissa - 1) / (mantissa + 1);
  let sum = 0;
  for (let k = 23; k >= 1; k -= 2) sum = sum * z * z + 1 / k;
  return exponent + (2 * z * sum) / Math.LN2;
}

/** x^y of a finite x > 0. */
export function power(x: number, y: number): number {
  return exp2(y * log2(x));
}

/** The amplitude factor of a level in decibels. */
export function fromDecibels(decibels: number): number {
  // 20 log10(a) = level, so log2(a) = level * log2(10) / 20.
  return exp2((decibels * Math.LOG2E * Math.LN10) / 20);
}

function horner(factors: Float64Array, x: number): number {
  let sum = 0;
  for (let k = factors.length - 1; k >= 0; k--) sum = sum * x + (factors[k] ?? 0);
  return sum;
}

function series(w: number, terms: number): Float64Array {
  const all = powersOverFactorials(w, 2 * terms);
  return Float64Array.from({ length: terms }, (_, k) => (k % 2 ? -1 : 1) * (all[2 * k + 1] ?? 0));
}

function powersOverFactorials(x: number, count: number): Float64Array {
  const out = new Float64Array(count).fill(1);
  for (let k = 1; k < count; k++) out[k] = ((out[k - 1] ?? 0) * x) / k;
  return out;
}
