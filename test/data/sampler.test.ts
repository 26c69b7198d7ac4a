import t from 'tap';
import { createRandom } from '../../lib/data/random.js';
import {
  balancedSampler,
  type Sampler,
  sequentialSampler,
  uniformSampler,
} from '../../lib/data/sampler.js';
import { freshSeed } from './fresh_seed.js';

function counts(items: readonly number[], size: number): number[] {
  const out = new Array(size).fill(0);
  for (const item of items) out[item]++;
  return out;
}

t.test('sequential: each clip once, then nothing', async (t) => {
  const sampler = sequentialSampler(5);
  t.equal(sampler.endless, false);
  t.same(sampler.take(3), [0, 1, 2]);
  t.equal(sampler.epoch(), 0);
  t.same(sampler.take(3), [3, 4]);
  t.same(sampler.take(3), []);
  t.equal(sampler.epoch(), 1);
});

t.test('uniform: each epoch holds each clip once, in its own order', async (t) => {
  const seed = freshSeed(t);
  const sampler = uniformSampler(40, seed);
  const epochs = Array.from({ length: 4 }, () => sampler.take(40));
  for (const epoch of epochs) t.same(counts(epoch, 40), new Array(40).fill(1));
  t.equal(new Set(epochs.map(String)).size, 4);
  t.equal(sampler.epoch(), 4);
  const pieces = uniformSampler(40, seed);
  const sizes = [1, 7, 40, 0, 63, 49];
  t.same(
    sizes.flatMap((size) => pieces.take(size)),
    epochs.flat(),
    'pieces do not matter',
  );
  t.notSame(uniformSampler(40, seed + 1).take(40), epochs[0]);
});

t.test('balanced: classes evenly, clips of a class evenly, whatever their number', async (t) => {
  const seed = freshSeed(t);
  // Class 0 has 60 clips, 1 has 5, 2 has 1, 3 none; clip 65 has classes 1 and 2 (named twice).
  const labels = [
    ...Array.from({ length: 60 }, () => [0]),
    ...Array.from({ length: 5 }, () => [1]),
    [1, 2, 2],
    [],
  ];
  const sampler = balancedSampler(labels, 4, seed);
  const rounds = 600;
  const drawn = sampler.take(3 * rounds);
  const byClip = counts(drawn, labels.length);
  t.equal(byClip[66], 0, 'a clip without a label never comes');
  t.same(byClip.slice(0, 60), new Array(60).fill(10), 'each of class 0 in turn');
  t.same(byClip.slice(60, 65), new Array(5).fill(100), 'each of class 1 in turn');
  t.equal(byClip[65], 100 + rounds, 'once for each of its labels');
  t.equal(sampler.epoch(), rounds);
  const orders = new Set<string>();
  for (let i = 0; i < drawn.length; i += 3) {
    orders.add(
      drawn
        .slice(i, i + 3)
        .map((clip) => (clip < 60 ? 0 : 1))
        .join(''),
    );
  }
  t.equal(orders.size, 3, 'the classes of a round come in every order');
});

t.test('balanced: no clips to balance by, and labels out of range', async (t) => {
  t.throws(() => balancedSampler([[], []], 3, 0), { code: 'ERR_PANNS_OPTION' });
  t.throws(() => balancedSampler([[3]], 3, 0), { code: 'ERR_PANNS_OPTION', message: /label 3/ });
  t.throws(() => balancedSampler([[-1]], 3, 0), { code: 'ERR_PANNS_OPTION' });
  for (const count of [0, -1, 1.5, Number.NaN]) {
    t.throws(() => uniformSampler(count, 0), { code: 'ERR_PANNS_OPTION' });
    t.throws(() => sequentialSampler(count), { code: 'ERR_PANNS_OPTION' });
  }
});

t.test('a state continues the same order, at any place, after a trip through JSON', async (t) => {
  const seed = freshSeed(t);
  const random = createRandom(seed);
  const labels = Array.from({ length: 30 }, () => [random.integer(5), random.integer(6)]);
  const makers: (() => Sampler)[] = [
    () => uniformSampler(30, seed),
    () => balancedSampler(labels, 7, seed),
    () => sequentialSampler(30),
  ];
  for (const make of makers) {
    for (let place = 0; place <= 130; place++) {
      const sampler = make();
      sampler.take(place);
      const state = JSON.parse(JSON.stringify(sampler.state()));
      const ahead = sampler.take(70);
      const resumed = make();
      resumed.take(random.integer(50));
      resumed.restore(state);
      if (String(resumed.take(70)) !== String(ahead)) t.fail(`${sampler.kind} at ${place}`);
    }
    t.pass(make().kind);
  }
  const state = JSON.stringify(uniformSampler(2_000_000, seed).state());
  t.ok(state.length < 200, 'the state does not hold the order');
});

t.test('a state of another data set, seed or sampler is refused', async (t) => {
  const labels = [[0], [1], [1]];
  const uniform = uniformSampler(3, 1);
  const balanced = balancedSampler(labels, 2, 1);
  const sequential = sequentialSampler(3);
  const good = { u: uniform.state(), b: balanced.state(), s: sequential.state() };
  const cases: [Sampler, unknown][] = [
    [uniform, good.b],
    [balanced, good.u],
    [sequential, good.u],
    [uniform, null],
    [uniform, 'uniform'],
    [uniform, {}],
    [uniform, { ...good.u, seed: 2 }],
    [uniform, { ...good.u, count: 4 }],
    [uniform, { ...good.u, position: 3 }],
    [uniform, { ...good.u, position: -1 }],
    [uniform, { ...good.u, epoch: 0.5 }],
    [sequential, { ...good.s, position: 4 }],
    [balanced, { ...good.b, counts: [1, 3] }],
    [balanced, { ...good.b, counts: [1] }],
    [balanced, { ...good.b, positions: [0, 2] }],
    [balanced, { ...good.b, positions: [0] }],
    [balanced, { ...good.b, epochs: 'ab' }],
    [balanced, { ...good.b, queue: null }],
    [balanced, { ...good.b, queue: { epoch: 0, position: 2 } }],
  ];
  for (const [sampler, state] of cases) {
    const before = sampler.state();
    t.throws(() => sampler.restore(state as never), { code: 'ERR_PANNS_CHECKPOINT' });
    t.same(sampler.state(), before, 'a refused state changes nothing');
  }
});
