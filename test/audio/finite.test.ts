import t from 'tap';
import { findNotFinite, firstNotFinite, zeroNotFinite } from '../../lib/audio/finite.js';
import { createRandom } from '../../lib/data/random.js';
import { freshSeed } from '../data/fresh_seed.js';

t.test('the first number that is not finite is found, wherever it stands', async (t) => {
  const random = createRandom(freshSeed(t));
  const values = new Float32Array(400_000).map(() => random.between(-1, 1));
  t.equal(await findNotFinite(values), -1);
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const copy = values.slice();
    const [one, other] = [random.integer(copy.length), random.integer(copy.length)];
    copy[one] = bad;
    copy[other] = bad;
    t.equal(await findNotFinite(copy), Math.min(one, other));
    t.equal(firstNotFinite(copy), Math.min(one, other));
  }
});

t.test('what is not finite becomes 0, and nothing else', async (t) => {
  const random = createRandom(freshSeed(t));
  const values = new Float32Array(400_000).map(() => random.between(0.1, 1));
  const bad = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  const places = Array.from({ length: 30 }, () => random.integer(values.length));
  const want = values.slice();
  for (const [i, at] of places.entries()) {
    values[at] = bad[i % 3] ?? 0;
    want[at] = 0;
  }
  await zeroNotFinite(values);
  t.ok(Buffer.from(values.buffer).equals(Buffer.from(want.buffer)));
});

t.test('the event loop turns while many numbers are looked at', async (t) => {
  let turns = 0;
  const count = () => {
    turns++;
    immediate = setImmediate(count);
  };
  let immediate = setImmediate(count);
  await findNotFinite(new Float32Array(4_000_000));
  clearImmediate(immediate);
  // A millisecond of a slow core looks at a million.
  t.ok(turns >= 4, `${turns} turns`);
});
