import { cosineOfTurns, exp2, sineOfTurns } from '../data/exact_math.js';
import type { Random } from '../data/random.js';

/** The smallest parts of a synthetic sound. Times in seconds, frequencies in Hz, `rate` in Hz. */

/** A filter with a memory: one sample in, one out. */
export type Filter = (sample: number) => number;

/** Passes a band around `frequency`; `q` is the frequency over the bandwidth. Peak gain 1. */
export function bandPass(frequency: number, q: number, rate: number): Filter {
  // The constant-peak band-pass of R. Bristow-Johnson's "Cookbook formulae for audio EQ".
  const turns = inBand(frequency, rate) / rate;
  const alpha = sineOfTurns(turns) / (2 * q);
  const gain = alpha / (1 + alpha);
  const a1 = (-2 * cosineOfTurns(turns)) / (1 + alpha);
  const a2 = (1 - alpha) / (1 + alpha);
  let x1 = 0;
  let x2 = 0;
  let y1 = 0;
  let y2 = 0;
  return (x) => {
    const y = gain * (x - x2) - a1 * y1 - a2 * y2;
    x2 = x1;
    x1 = x;
    y2 = y1;
    y1 = y;
    return y;
  };
}

/** First-order low-pass: -3 dB near `frequency`. */
export function lowPass(frequency: number, rate: number): Filter {
  const keep = decayFactor(Math.LN2 / (2 * Math.PI * inBand(frequency, rate)), rate);
  let y = 0;
  return (x) => {
    y = x + keep * (y - x);
    return y;
  };
}

/** The factor a sample that halves a value every `halfLife` seconds. */
export function decayFactor(halfLife: number, rate: number): number {
  return exp2(-1 / (halfLife * rate));
}

/** White noise, uniform in [-1, 1). */
export function noise(random: Random): number {
  return random.between(-1, 1);
}

/** Adds `draw(i)` for `seconds` from `start` on; what falls outside `out` is cut. */
export function addEvent(
  out: Float64Array,
  start: number,
  seconds: number,
  rate: number,
  draw: (i: number) => number,
): void {
  const first = Math.round(start * rate);
  const count = Math.min(Math.round(seconds * rate), out.length - first);
  for (let i = 0; i < count; i++) out[first + i] = (out[first + i] ?? 0) + draw(i);
}

/** Rises and falls as half a squared sine over 0..1. */
export function hump(position: number): number {
  const s = sineOfTurns(position / 2);
  return s * s;
}

/** 0 to 1 over the first `ramp` seconds, 1, and back to 0 over the last. */
export function gate(time: number, seconds: number, ramp: number): number {
  return Math.max(0, Math.min(1, time / ramp, (seconds - time) / ramp));
}

/** Frequencies stay under 0.45 of the rate, where filters and tones still mean something. */
export function inBand(frequency: number, rate: number): number {
  return Math.min(frequency, 0.45 * rate);
}

/** The largest magnitude. */
export function peakOf(samples: Float64Array): number {
  let peak = 0;
  for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
  return peak;
}

/** Root mean square. */
export function rmsOf(samples: Float64Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / samples.length);
}
