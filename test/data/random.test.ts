import t from 'tap';
import {
  cosineOfTurns,
  exp2,
  fromDecibels,
  log2,
  power,
  sineOfTurns,
} from '../../lib/data/exact_math.js';
import { createRandom, mixupWeights, permutation, type Random } from '../../lib/data/random.js';
import { freshSeed } from './fresh_seed.js';

/** xoshiro128** as its authors define it, in BigInt arithmetic. */
function* reference(state: readonly number[]): Generator<number> {
  const mask = 0xffffffffn;
  const rotate = (x: bigint, k: bigint) => ((x << k) | (x >> (32n - k))) & mask;
  const s = state.map(BigInt) as [bigint, bigint, bigint, bigint];
  for (;;) {
    yield Number((rotate((s[1] * 5n) & mask, 7n) * 9n) & mask);
    const shifted = (s[1] << 9n) & mask;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 11n);
  }
}

/** Kolmogorov and Smirnov: the largest gap to the distribution, times sqrt(n). */
function gap(draws: number[], distribution: (x: number) => number): number {
  const sorted = Float64Array.from(draws).sort();
  let largest = 0;
  sorted.forEach((x, i) => {
    const p = distribution(x);
    largest = Math.max(largest, p - i / sorted.length, (i + 1) / sorted.length - p);
  });
  return largest * Math.sqrt(sorted.length);
}

/**
 * Of sqrt(n)-scaled gaps about one in 2e10 is above this when the distribution is right: by the limit of
 * Kolmogorov, 2 exp(-2 x^2).
 */
const UNLIKELY = 3.5;

/** Standard deviations of a count: 2.6e-12 of normal deviates lie beyond them. */
const SIGMAS = 7;

const draws = (count: number, draw: () => number) => Array.from({ length: count }, draw);

t.test('the generator is xoshiro128**, and its state continues it', async (t) => {
  const random = createRandom(freshSeed(t), 3);
  const expected = reference(random.state());
  for (let i = 0; i < 1000; i++) {
    const draw = random.uint32();
    if (draw !== expected.next().value) t.fail(`draw ${i} differs`);
  }
  const saved = JSON.parse(JSON.stringify(random.state()));
  const ahead = draws(50, random.uniform);
  const other = createRandom(0);
  other.restore(saved);
  t.same(draws(50, other.uniform), ahead);
});

t.test('a seed fixes the numbers for good', async (t) => {
  // These values are a promise: published seeds must keep their meaning.
  const random = createRandom(1234);
  t.same(draws(4, random.uint32), [387483427, 2517110969, 3468168774, 582817703]);
  t.same([...permutation(8, 7, 1, 2)], [7, 1, 2, 3, 5, 4, 0, 6]);
});

t.test('seeds, streams and their order all matter', async (t) => {
  const seeds = [
    [0],
    [1],
    [2 ** 32],
    [2 ** 53 - 1],
    [0, 0],
    [0, 1],
    [1, 0],
    [0, 0, 0],
    [5, 6],
    [6, 5],
  ];
  const first = seeds.map(([seed = 0, ...stream]) => createRandom(seed, ...stream).uint32());
  t.equal(new Set(first).size, seeds.length);
  const neighbours = draws(20_000, () => 0).map((_, i) => createRandom(i).uniform());
  t.ok(gap(neighbours, (x) => x) < UNLIKELY, 'neighbouring seeds are independent');
  for (const seed of [-1, 1.5, Number.NaN, 2 ** 53]) {
    t.throws(() => createRandom(seed), { code: 'ERR_PANNS_OPTION' });
  }
  for (const state of [null, [1, 2, 3], [0, 0, 0, 0], [1, 2, 3, -1], [1, 2, 3, 2 ** 32], 'abcd']) {
    t.throws(() => createRandom(0).restore(state as never), { code: 'ERR_PANNS_CHECKPOINT' });
  }
});

t.test('draws have the distributions they claim', async (t) => {
  const random = createRandom(freshSeed(t));
  const n = 40_000;
  const near = (name: string, value: number) =>
    t.ok(value < UNLIKELY, `${name}: ${value.toFixed(2)}`);
  near(
    'uniform',
    gap(draws(n, random.uniform), (x) => x),
  );
  near(
    'between',
    gap(
      draws(n, () => random.between(-3, 5)),
      (x) => (x + 3) / 8,
    ),
  );
  near(
    'beta(1, 1)',
    gap(
      draws(n, () => random.beta(1, 1)),
      (x) => x,
    ),
  );
  near(
    'beta(2, 1)',
    gap(
      draws(n, () => random.beta(2, 1)),
      (x) => x * x,
    ),
  );
  near(
    'beta(1/2, 1/2)',
    gap(
      draws(n, () => random.beta(0.5, 0.5)),
      (x) => (2 / Math.PI) * Math.asin(Math.sqrt(x)),
    ),
  );
  near(
    'gamma(1)',
    gap(
      draws(n, () => random.gamma(1)),
      (x) => 1 - Math.exp(-x),
    ),
  );
  near(
    'gamma(2)',
    gap(
      draws(n, () => random.gamma(2)),
      (x) => 1 - Math.exp(-x) * (1 + x),
    ),
  );
  // A squared normal deviate pair is exponential; its signs are even.
  near(
    'normal',
    gap(
      draws(n, () => (random.normal() ** 2 + random.normal() ** 2) / 2),
      (x) => 1 - Math.exp(-x),
    ),
  );
  const signs = draws(n, random.normal).filter((x) => x > 0).length;
  t.ok(Math.abs(signs - n / 2) < SIGMAS * Math.sqrt(n / 4));
  t.ok(draws(1000, () => random.beta(1e-3, 1e-3)).every((x) => x >= 0 && x <= 1));
  for (const alpha of [0, -1, Number.NaN, Infinity]) {
    t.throws(() => random.beta(alpha, 1), { code: 'ERR_PANNS_OPTION' });
  }
});

t.test('whole numbers are even, also where 2^32 is no multiple', async (t) => {
  const random = createRandom(freshSeed(t));
  const count = 3 * 2 ** 30;
  const n = 60_000;
  // By plain remainder, the first third would be drawn twice as often as the others.
  const low = draws(n, () => random.integer(count)).filter((x) => x < 2 ** 30).length;
  t.ok(Math.abs(low - n / 3) < SIGMAS * Math.sqrt((n * 2) / 9), `${low} of ${n}`);
  t.same(
    draws(20, () => random.integer(1)),
    new Array(20).fill(0),
  );
  const faces = new Array(6).fill(0);
  for (let i = 0; i < n; i++) faces[random.integer(6)]++;
  t.ok(
    faces.every((face) => Math.abs(face - n / 6) < SIGMAS * Math.sqrt((n * 5) / 36)),
    String(faces),
  );
});

t.test('shuffles reach every order evenly', async (t) => {
  const random: Random = createRandom(freshSeed(t));
  const counts = new Map<string, number>();
  const n = 48_000;
  for (let i = 0; i < n; i++) {
    const order = random.shuffle([0, 1, 2, 3]).join('');
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  t.equal(counts.size, 24);
  t.ok([...counts.values()].every((c) => Math.abs(c - 2000) < SIGMAS * Math.sqrt(2000)));
  t.same(
    [...permutation(50, 1)].sort((a, b) => a - b),
    [...new Array(50).keys()],
  );
  t.equal(permutation(0, 1).length, 0);
});

t.test('mixup weights come in pairs that sum to 1', async (t) => {
  const weights = mixupWeights(10_000, 1, createRandom(freshSeed(t)));
  t.equal(weights.length, 20_000);
  for (let i = 0; i < weights.length; i += 2) {
    const sum = (weights[i] ?? 0) + (weights[i + 1] ?? 0);
    if (Math.abs(sum - 1) > 1e-7) t.fail(`pair ${i / 2} sums to ${sum}`);
  }
  t.ok(gap([...weights.filter((_, i) => i % 2 === 0)], (x) => x) < UNLIKELY);
});

t.test('the exact functions agree with those of Math', async (t) => {
  const random = createRandom(freshSeed(t));
  let worst = { sine: 0, cosine: 0, exp2: 0, log2: 0, power: 0, decibels: 0 };
  for (let i = 0; i < 20_000; i++) {
    const turns = random.between(-20, 20);
    const angle = 2 * Math.PI * (turns - Math.round(turns));
    const x = random.between(-1000, 1000);
    const y = 2 ** random.between(-1000, 1000);
    const z = random.between(0.01, 100);
    const p = random.between(-5, 5);
    worst = {
      sine: Math.max(worst.sine, Math.abs(sineOfTurns(turns) - Math.sin(angle))),
      cosine: Math.max(worst.cosine, Math.abs(cosineOfTurns(turns) - Math.cos(angle))),
      exp2: Math.max(worst.exp2, Math.abs(exp2(x) / 2 ** x - 1)),
      log2: Math.max(
        worst.log2,
        Math.abs(log2(y) - Math.log2(y)) / Math.max(1, Math.abs(Math.log2(y))),
      ),
      power: Math.max(worst.power, Math.abs(power(z, p) / z ** p - 1)),
      decibels: Math.max(worst.decibels, Math.abs(fromDecibels(10 * p) / 10 ** (p / 2) - 1)),
    };
  }
  for (const [name, error] of Object.entries(worst)) t.ok(error < 2e-14, `${name}: ${error}`);
  t.equal(exp2(-2000), 0);
  t.equal(exp2(2000), Infinity);
  t.equal(exp2(10), 1024);
  t.equal(log2(2 ** -1074), -1074);
  t.equal(sineOfTurns(0), 0);
});
