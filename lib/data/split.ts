import { PannsError } from '../errors.js';
import { type Clip, type Dataset, dataError } from './dataset.js';
import { createRandom } from './random.js';

/** Two data sets over the same classes. */
export interface Split {
  readonly train: Dataset;
  readonly test: Dataset;
}

/**
 * Splits by fold: the clips of `testFolds` are the test set, all others the training set.
 *
 * @throws PannsError `ERR_PANNS_DATA` for a fold that no clip is in, clips without a fold, or an
 *   empty side
 */
export function splitByFold(dataset: Dataset, testFolds: readonly (string | number)[]): Split {
  const wanted = new Set(testFolds.map(String));
  const found = new Set(dataset.clips.map((clip) => clip.fold));
  if (found.has(undefined)) {
    const loose = dataset.clips.filter((clip) => clip.fold === undefined).length;
    throw dataError('splitByFold', `${loose} of ${dataset.clips.length} clips have no fold`);
  }
  const absent = [...wanted].filter((fold) => !found.has(fold));
  if (absent.length > 0 || wanted.size === 0 || wanted.size === found.size) {
    const what = absent.length > 0 ? `there is no fold ${absent.join(', ')}` : 'one side is empty';
    throw dataError('splitByFold', what, {
      expected: `some, not all, of ${[...found].sort().join(', ')}`,
      actual: [...wanted],
    });
  }
  return divide(dataset, (clip) => wanted.has(clip.fold ?? ''));
}

/**
 * Splits at random, with each class as near to `testFraction` in the test set as whole clips allow.
 *
 * Clips of one file stay on one side. With one label a clip, a class of two files or more is on both
 * sides; clips with several are placed by their rarest class first (after Sechidis et al. 2011).
 * Equal seeds give equal splits.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for a fraction outside 0..1, `ERR_PANNS_DATA` when a side
 *   would be empty
 */
export function splitStratified(
  dataset: Dataset,
  options: { testFraction: number; seed: number },
): Split {
  const { testFraction, seed } = options;
  if (!(testFraction > 0 && testFraction < 1)) {
    throw new PannsError('ERR_PANNS_OPTION', `testFraction is ${testFraction}`, {
      where: 'splitStratified',
      expected: 'a number between 0 and 1',
      actual: testFraction,
    });
  }
  const labelsOf = new Map<string, Set<number>>();
  for (const { path, labels } of dataset.clips) {
    const own = labelsOf.get(path) ?? new Set();
    for (const label of labels) own.add(label);
    labelsOf.set(path, own);
  }
  const files = [...labelsOf.keys()];
  const order = createRandom(seed).shuffle(Uint32Array.from(files.keys()));
  const shuffled = Array.from(order, (i) => files[i] ?? '');
  const test = chooseTest(shuffled, labelsOf, testFraction);
  if (test.size === 0 || test.size === files.length) {
    throw dataError('splitStratified', `${files.length} files are too few for ${testFraction}`);
  }
  return divide(dataset, (clip) => test.has(clip.path));
}

function chooseTest(
  files: readonly string[],
  labelsOf: ReadonlyMap<string, ReadonlySet<number>>,
  fraction: number,
): Set<string> {
  const members = new Map<number, string[]>();
  for (const file of files) {
    for (const label of labelsOf.get(file) ?? []) {
      const list = members.get(label);
      if (list === undefined) members.set(label, [file]);
      else list.push(file);
    }
  }
  // How many files of each class the test set still wants.
  const wanted = new Map<number, number>();
  for (const [label, list] of members) {
    const share = Math.round(list.length * fraction);
    const most = list.length > 1 ? list.length - 1 : 0;
    wanted.set(label, Math.min(Math.max(share, Math.min(1, most)), most));
  }
  const rarestFirst = [...members].sort(([a, x], [b, y]) => x.length - y.length || a - b);
  const test = new Set<string>();
  const placed = new Set<string>();
  for (const [label, list] of rarestFirst) {
    for (const file of list) {
      if (placed.has(file)) continue;
      placed.add(file);
      if ((wanted.get(label) ?? 0) <= 0) continue;
      test.add(file);
      for (const other of labelsOf.get(file) ?? []) wanted.set(other, (wanted.get(other) ?? 0) - 1);
    }
  }
  return test;
}

function divide(dataset: Dataset, isTest: (clip: Clip) => boolean): Split {
  const train: Clip[] = [];
  const test: Clip[] = [];
  for (const clip of dataset.clips) (isTest(clip) ? test : train).push(clip);
  const { classes } = dataset;
  return {
    train: { classes, clips: train, skipped: [] },
    test: { classes, clips: test, skipped: [] },
  };
}
