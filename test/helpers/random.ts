import { createRandom, type Random } from '../../lib/data/random.js';
import { freshSeed } from '../data/fresh_seed.js';

/** Draws for the inputs of tests. */
export interface Draws {
  readonly random: Random;
  /** Normal deviates of that scale around that mean. */
  normals(count: number, scale?: number, mean?: number): Float32Array;
  /** Numbers in [low, high). */
  uniforms(count: number, low?: number, high?: number): Float32Array;
}

/** A fresh stream of random numbers; its seed is printed, and PANNS_TEST_SEED repeats it. */
export function openDraws(t: { comment(text: string): void }): Draws {
  const random = createRandom(freshSeed(t));
  const fill = (count: number, draw: () => number) => Float32Array.from({ length: count }, draw);
  return {
    random,
    normals: (count, scale = 1, mean = 0) => fill(count, () => mean + scale * random.normal()),
    uniforms: (count, low = 0, high = 1) => fill(count, () => random.between(low, high)),
  };
}
