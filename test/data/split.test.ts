import t from 'tap';
import type { Clip, Dataset } from '../../lib/data/dataset.js';
import { createRandom } from '../../lib/data/random.js';
import { fewShot, kFold, splitByFold, splitStratified } from '../../lib/data/split.js';
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
  for (const folds of [{ test: [1] }, '1', 1, undefined]) {
    const wrong = { code: 'ERR_PANNS_OPTION', message: /array of folds/ };
    t.throws(() => splitByFold(dataset(clips), folds as never), wrong);
    if (folds !== undefined)
      t.throws(() => kFold(dataset(clips), { folds: folds as never }), wrong);
  }
  for (const options of [undefined, null, [1], { fraction: 0.2 }]) {
    const wrong = { code: 'ERR_PANNS_OPTION' };
    t.throws(() => splitStratified(dataset(clips), options as never), wrong);
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
  t.throws(
    () =>
      splitStratified(set, { testFraction: 0.2, seed, sede: 2 } as {
        testFraction: number;
        seed: number;
      }),
    {
      code: 'ERR_PANNS_OPTION',
      message: /did you mean "seed"/,
    },
  );
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

/** Clips with labels of classes of these sizes, one file each. */
const singles = (sizes: readonly number[]) =>
  sizes.flatMap((size, label) =>
    Array.from({ length: size }, (_, i) => ({ path: `${label}/${i}`, labels: [label] })),
  );

t.test('k folds: every clip tests once, each class as evenly as it can', async (t) => {
  const seed = freshSeed(t);
  const sizes = [50, 23, 10, 7];
  const set = dataset(singles(sizes));
  for (const k of [2, 3, 5]) {
    const folds = kFold(set, { k, seed });
    t.same(
      folds.map(({ name }) => name),
      Array.from({ length: k }, (_, i) => String(i + 1)),
    );
    t.same(folds.flatMap(({ test }) => ids(test)).sort(), ids(set).sort(), `${k} folds: once each`);
    for (const { train, test } of folds) {
      t.same([...ids(train), ...ids(test)].sort(), ids(set).sort(), 'no clip is lost');
      for (const [label, size] of sizes.entries()) {
        const count = test.clips.filter(({ labels }) => labels[0] === label).length;
        t.ok(count === Math.floor(size / k) || count === Math.ceil(size / k), `${size} in ${k}`);
      }
    }
    const again = kFold(set, { k, seed });
    t.same(
      again.map(({ test }) => ids(test)),
      folds.map(({ test }) => ids(test)),
    );
    const other = kFold(set, { k, seed: seed + 1 });
    t.notSame(
      other.map(({ test }) => ids(test)),
      folds.map(({ test }) => ids(test)),
    );
  }
});

t.test('k folds of clips with any labels: files stay whole, sizes and shares near', async (t) => {
  const seed = freshSeed(t);
  const random = createRandom(seed);
  const clips = Array.from({ length: 1500 }, (_, i) => {
    const labels = Array.from({ length: 6 }, (_, label) => label);
    return {
      path: `${Math.floor(i / 3)}`,
      labels: labels.filter((label) => random.uniform() < 0.5 / (1 + label)),
      start: i % 3,
    };
  });
  const set = dataset(clips, 6);
  const folds = kFold(set, { k: 4, seed });
  t.same(folds.flatMap(({ test }) => ids(test)).sort(), ids(set).sort());
  for (const { train, test } of folds) {
    const paths = new Set(train.clips.map(({ path }) => path));
    t.notOk(test.clips.some(({ path }) => paths.has(path)));
    t.ok(Math.abs(test.clips.length / 1500 - 0.25) < 0.02, `${test.clips.length} clips`);
    for (let label = 0; label < 6; label++) {
      const count = (side: Dataset) =>
        side.clips.filter(({ labels }) => labels.includes(label)).length;
      const share = count(test) / count(set);
      t.ok(Math.abs(share - 0.25) < 0.07, `class ${label}: ${share.toFixed(3)}`);
    }
  }
});

t.test('folds by name: all in their order, or some', async (t) => {
  const clips = ['10', '2', '1', '2'].map((fold, i) => ({ path: `${i}`, labels: [0], fold }));
  const folds = kFold(dataset(clips));
  t.same(
    folds.map(({ name, test }) => [name, ids(test)]),
    [
      ['1', ['2']],
      ['2', ['1', '3']],
      ['10', ['0']],
    ],
  );
  t.same(
    kFold(dataset(clips), { folds: [10] }).map(({ train }) => ids(train)),
    [['1', '2', '3']],
  );
  const data = { code: 'ERR_PANNS_DATA' };
  t.throws(() => kFold(dataset(clips), { folds: ['3'] }), data);
  t.throws(() => kFold(dataset([...clips, { path: 'x', labels: [0] }])), data);
  t.throws(() => kFold(dataset(clips), { k: 5, seed: 0 }), data);
  const option = { code: 'ERR_PANNS_OPTION' };
  t.throws(() => kFold(dataset(clips), { k: 1, seed: 0 }), option);
  t.throws(() => kFold(dataset(clips), { k: 2, seed: 0, folds: [1] }), option);
  t.throws(() => kFold(dataset(clips), { fold: ['1'] } as object), option);
});

t.test('few shots: so many of each class, nested, by seed', async (t) => {
  const seed = freshSeed(t);
  const set = dataset(singles([40, 20, 12, 12]));
  const drawn = [1, 2, 5, 12].map((perClass) => fewShot(set, { perClass, seed }));
  for (const [i, few] of drawn.entries()) {
    const perClass = [1, 2, 5, 12][i] ?? 0;
    for (let label = 0; label < 4; label++) {
      t.equal(few.clips.filter(({ labels }) => labels[0] === label).length, perClass);
    }
    const more = new Set(ids(drawn[i + 1] ?? set));
    t.ok(
      ids(few).every((id) => more.has(id)),
      `${perClass} a class are among the more`,
    );
    t.same(ids(fewShot(set, { perClass, seed })), ids(few));
  }
  t.notSame(ids(fewShot(set, { perClass: 5, seed: seed + 1 })), ids(drawn[2] ?? set));
  t.throws(() => fewShot(set, { perClass: 13, seed }), {
    code: 'ERR_PANNS_DATA',
    message: /13 clips of c2, c3/,
  });
  for (const perClass of [0, 1.5, Number.NaN]) {
    t.throws(() => fewShot(set, { perClass, seed }), { code: 'ERR_PANNS_OPTION' });
  }
  const both = dataset(
    [0, 1, 2, 3].map((i) => ({ path: `${i}`, labels: [0, 1] })),
    2,
  );
  t.equal(fewShot(both, { perClass: 2, seed }).clips.length, 2, 'a clip of both counts for both');
});
