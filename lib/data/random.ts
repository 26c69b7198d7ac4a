import { PannsError } from '../errors.js';
import { cosineOfTurns, log2, power } from './exact_math.js';

/** The state of a generator: four 32-bit words; JSON keeps it. */
export type RandomState = readonly [number, number, number, number];

/** A stream of random numbers that a seed fixes on every platform. */
export interface Random {
  /** A whole number in 0..2^32-1. */
  uint32(): number;
  /** A number in [0, 1), of 53 random bits. */
  uniform(): number;
  /** A number in [low, high). */
  between(low: number, high: number): number;
  /** A whole number in 0..count-1, each as likely as the others; count in 1..2^32. */
  integer(count: number): number;
  /** A normal deviate of mean 0 and variance 1. */
  normal(): number;
  /** A Gamma(shape, 1) deviate, shape > 0. */
  gamma(shape: number): number;
  /** A Beta(alpha, beta) deviate, both > 0: in [0, 1]. */
  beta(alpha: number, beta: number): number;
  /** Puts the elements of `items` in random order, in place. */
  shuffle<T extends { length: number; [index: number]: number }>(items: T): T;
  state(): RandomState;
  restore(state: RandomState): void;
}

/**
 * A generator (xoshiro128**, Blackman and Vigna 2018) for a seed and, optionally, a stream of it.
 *
 * Equal arguments give equal numbers; `stream` words (a class index, an epoch) give as many
 * independent streams as needed without any state to keep. Seeds and words are whole numbers in
 * 0..2^53-1.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for a seed that is no such number
 */
export function createRandom(seed: number, ...stream: readonly number[]): Random {
  // In a typed array: 32-bit numbers in plain variables would be boxed anew at every draw.
  const words = seedState([seed, ...stream]);

  const uint32 = (): number => {
    const a = words[0] as number;
    const b = words[1] as number;
    const c = (words[2] as number) ^ a;
    const d = (words[3] as number) ^ b;
    words[0] = a ^ d;
    words[1] = b ^ c;
    words[2] = c ^ (b << 9);
    words[3] = rotate(d, 11);
    return Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
  };
  const uniform = (): number => (uint32() * 2 ** 21 + (uint32() >>> 11)) * 2 ** -53;
  const integer = (count: number): number => {
    // Draws past the last whole multiple of count are repeated, or small values would be favoured.
    const limit = 2 ** 32 - (2 ** 32 % count);
    let draw = uint32();
    while (draw >= limit) draw = uint32();
    return draw % count;
  };
  const normal = (): number => {
    // Box and Muller; the second deviate is not kept, so the state stays four words.
    const radius = Math.sqrt(-2 * Math.LN2 * log2(1 - uniform()));
    return radius * cosineOfTurns(uniform());
  };
  const gamma = (shape: number): number => {
    if (shape < 1) return gamma(shape + 1) * power(1 - uniform(), 1 / shape);
    // Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
    const base = shape - 1 / 3;
    const spread = 1 / Math.sqrt(9 * base);
    for (;;) {
      const x = normal();
      const root = 1 + spread * x;
      if (root <= 0) continue;
      const v = root * root * root;
      const bound = 0.5 * x * x + base * (1 - v + Math.LN2 * log2(v));
      if (Math.LN2 * log2(1 - uniform()) < bound) return base * v;
    }
  };
  const beta = (alpha: number, other: number): number => {
    if (!(alpha > 0 && other > 0 && Number.isFinite(alpha + other))) {
      throw new PannsError('ERR_PANNS_OPTION', 'the parameters of a Beta draw must be above 0', {
        where: 'beta',
        expected: 'two finite numbers > 0',
        actual: [alpha, other],
      });
    }
    if (alpha === 1 && other === 1) return uniform();
    for (;;) {
      const x = gamma(alpha);
      const sum = x + gamma(other);
      // Tiny parameters can underflow both to 0, which says nothing: draw again.
      if (sum > 0) return x / sum;
    }
  };
  return {
    uint32,
    uniform,
    between: (low, high) => low + (high - low) * uniform(),
    integer,
    normal,
    gamma,
    beta,
    shuffle(items) {
      for (let i = items.length - 1; i > 0; i--) {
        const j = integer(i + 1);
        const kept = items[i] as number;
        items[i] = items[j] as number;
        items[j] = kept;
      }
      return items;
    },
    state: () => {
      const [a = 0, b = 0, c = 0, d = 0] = new Uint32Array(words);
      return [a, b, c, d];
    },
    restore(state) {
      words.set(checkedWords(state));
    },
  };
}

/**
 * The numbers 0..count-1 in an order that the seed and the stream words fix.
 *
 * Samplers ask for "the order of epoch 3" again after a restart instead of storing it.
 */
export function permutation(
  count: number,
  seed: number,
  ...stream: readonly number[]
): Uint32Array {
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  return createRandom(seed, ...stream).shuffle(order);
}

/**
 * Mixup weights for `pairs` pairs, [l0, 1 - l0, l1, 1 - l1, ...], l ~ Beta(alpha, alpha).
 *
 * PANNs draws with alpha = 1, which is uniform in [0, 1).
 */
export function mixupWeights(pairs: number, alpha: number, random: Random): Float32Array {
  const weights = new Float32Array(2 * pairs);
  for (let i = 0; i < pairs; i++) {
    const weight = random.beta(alpha, alpha);
    weights[2 * i] = weight;
    weights[2 * i + 1] = 1 - weight;
  }
  return weights;
}

function rotate(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}

/** Absorbs the words one by one, then squeezes four; each step is a bijection of the 32-bit state. */
function seedState(words: readonly number[]): Int32Array {
  const state = new Int32Array(4);
  // Golden-ratio start values, so that all-zero words do not give the all-zero state.
  for (let i = 0; i < 4; i++) state[i] = Math.imul(i + 1, 0x9e3779b9);
  for (const word of words) {
    if (!Number.isSafeInteger(word) || word < 0) {
      throw new PannsError('ERR_PANNS_OPTION', `a seed must be a whole number >= 0, got ${word}`, {
        where: 'seed',
        expected: 'a whole number in 0..2^53-1',
        actual: word,
      });
    }
    absorb(state, word >>> 0);
    absorb(state, Math.floor(word / 2 ** 32));
  }
  absorb(state, words.length);
  // The one state that never leaves itself.
  if (state.every((word) => word === 0)) state[0] = 1;
  return state;
}

function absorb(state: Int32Array, word: number): void {
  let carry = word | 0;
  // Two rounds, so that the last word reaches all four lanes.
  for (let i = 0; i < 8; i++) {
    const lane = i & 3;
    carry = mix((state[lane] ?? 0) ^ carry) + 0x9e3779b9;
    state[lane] = carry;
  }
}

/** The 32-bit finaliser of MurmurHash3 (Appleby): every input bit flips half of the output bits. */
function mix(x: number): number {
  let h = x;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function checkedWords(state: unknown): [number, number, number, number] {
  const valid =
    Array.isArray(state) &&
    state.length === 4 &&
    state.every((word) => Number.isInteger(word) && word >= 0 && word < 2 ** 32) &&
    state.some((word) => word !== 0);
  if (!valid) {
    throw new PannsError('ERR_PANNS_CHECKPOINT', 'the state of a random generator is damaged', {
      where: 'random',
      expected: 'four 32-bit numbers, not all 0',
      actual: state,
    });
  }
  return state as [number, number, number, number];
}
