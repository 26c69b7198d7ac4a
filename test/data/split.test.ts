import t from 'tap';
import type { Clip, Dataset } from '../../lib/data/dataset.js';
import { createRandom } from '../../lib/data/random.js';
import { splitByFold, splitStratified } from '../../lib/data/split.js';
import { freshSeed } from './fresh_seed.js';

function dataset(clips: Omit<Clip, 'id'>[], classes = 4): Dataset {
  return {
    classes: Array.from({ length: classes }, (_, i) => `c${i}`),
    clips: clips.map((clip, i) => ({ id: String(i), ...clip })),
    skipped: [],
  };
}

const ids = (set: Dataset) => set.clips.map(({ id }) => id);

t.test('by fold', async (t) => {
  const clips = ['1', '2', '3', '1'].map((fold, i) => ({ path: `${i}`, labels: [0], fold }));
  const { train, test } = splitByFold(dataset(clips), [1, '3']);
  t.same(ids(test), ['0', '2', '3']);
  t.same(ids(train), ['1']);
  for (const folds of [[4], [], [1, 2, 3]]) {
    t.throws(() => splitByFold(dataset(clips), folds), { code: 'ERR_PANNS_DATA' });
  }
  const loose = dataset([...clips, { path: 'x', labels: [0] }]);
  t.throws(() => splitByFold(loose, [1]), { code: 'ERR_PANNS_DATA', message: /1 of 5 clips/ });
});

t.test('stratified: each class by its share, both sides, by seed', async (t) => {
  const seed = freshSeed(t);
  const sizes = [50, 20, 5, 2];
  const clips = sizes.flatMap((size, label) =>
    Array.from({ length: size }, (_, i) => ({ path: `${label}/${i}`, labels: [label] })),
  );
  const set = dataset(clips);
  const { train, test } = splitStratified(set, { testFraction: 0.2, seed });
  const share = (side: Dataset) =>
    sizes.map((_, k) => side.clips.filter((c) => c.labels[0] === k).length);
  t.same(share(test), [10, 4, 1, 1]);
  t.same(share(train), [40, 16, 4, 1]);
  t.same([...ids(train), ...ids(test)].sort(), ids(set).sort(), 'every clip is on one side');
  t.same(ids(splitStratified(set, { testFraction: 0.2, seed }).test), ids(test));
  t.notSame(ids(splitStratified(set, { testFraction: 0.2, seed: seed + 1 }).test), ids(test));
});

t.test(
  'stratified: parts of a file stay together, several labels come near their shares',
  async (t) => {
    const seed = freshSeed(t);
    const random = createRandom(seed);
    const clips = Array.from({ length: 2000 }, (_, i) => {
      const labels = [
        ...new Set([random.integer(3), Math.floor(random.uniform() ** 2 * 6)]),
      ].sort();
      return { path: `${Math.floor(i / 2)}`, labels, start: i % 2 };
    });
    const set = dataset(clips, 6);
    const { train, test } = splitStratified(set, { testFraction: 0.3, seed });
    const paths = new Set(train.clips.map(({ path }) => path));
    t.notOk(test.clips.some(({ path }) => paths.has(path)));
    for (let label = 0; label < 6; label++) {
      const count = (side: Dataset) =>
        side.clips.filter(({ labels }) => labels.includes(label)).length;
      const share = count(test) / count(set);
      t.ok(Math.abs(share - 0.3) < 0.06, `class ${label}: ${share.toFixed(3)}`);
    }
  },
);

t.test('stratified: fractions and sets that leave a side empty', async (t) => {
  const one = dataset([{ path: 'a', labels: [0] }]);
  for (const testFraction of [0, 1, -1, Number.NaN]) {
    t.throws(() => splitStratified(one, { testFraction, seed: 0 }), { code: 'ERR_PANNS_OPTION' });
  }
  t.throws(() => splitStratified(one, { testFraction: 0.5, seed: 0 }), { code: 'ERR_PANNS_DATA' });
});
