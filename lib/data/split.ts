import { checkOptions, kindOf, optionCheck, PannsError } from '../errors.js';
import { type Clip, type Dataset, dataError, firstTen, sourceOf } from './dataset.js';
import { createRandom } from './random.js';

/** Two data sets over the same classes. */
export interface Split {
  readonly train: Dataset;
  readonly test: Dataset;
}

/**
 * Splits by fold: the clips of `testFolds` are the test set, all others the training set.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for folds that are no list; `ERR_PANNS_DATA` for a fold that no
 *   clip is in, clips without a fold, or an empty side
 */
export function splitByFold(dataset: Dataset, testFolds: readonly (string | number)[]): Split {
  checkFolds(testFolds, 'testFolds', 'splitByFold');
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

function checkFolds(folds: unknown, name: string, where: string): void {
  if (Array.isArray(folds)) return;
  const actual = kindOf(folds);
  const what = `expected ${name} to be an array of folds, such as [1], got ${actual}`;
  throw new PannsError('ERR_PANNS_OPTION', what, { where, expected: 'array', actual });
}

/**
 * Splits at random, with each class as near to `testFraction` in the test set as whole clips allow.
 *
 * Clips of one file stay on one side. With one label a clip, a class of two files or more is on both
 * sides; clips with several are placed by their rarest class first (after Sechidis et al. 2011).
 * Equal seeds give equal splits.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, also for a fraction outside 0..1; `ERR_PANNS_DATA` when a side
 *   would be empty
 */
export function splitStratified(
  dataset: Dataset,
  options: { testFraction: number; seed: number },
): Split {
  checkOptions(options ?? null, ['testFraction', 'seed'], 'splitStratified');
  const { testFraction, seed } = options;
  const inside = testFraction > 0 && testFraction < 1;
  optionCheck('splitStratified')('testFraction', testFraction, inside, 'a number between 0 and 1');
  const labelsOf = labelsOfFiles(dataset);
  const files = shuffledFiles(labelsOf, seed);
  const test = chooseTest(files, labelsOf, testFraction);
  if (test.size === 0 || test.size === files.length) {
    throw dataError('splitStratified', `${files.length} files are too few for ${testFraction}`);
  }
  return divide(dataset, (clip) => test.has(sourceOf(clip)));
}

/** All labels of each file's clips. */
function labelsOfFiles(dataset: Dataset): Map<string, Set<number>> {
  const labelsOf = new Map<string, Set<number>>();
  for (const clip of dataset.clips) {
    const file = sourceOf(clip);
    const own = labelsOf.get(file) ?? new Set();
    for (const label of clip.labels) own.add(label);
    labelsOf.set(file, own);
  }
  return labelsOf;
}

function shuffledFiles(labelsOf: ReadonlyMap<string, unknown>, seed: number): string[] {
  const files = [...labelsOf.keys()];
  const order = createRandom(seed).shuffle(Uint32Array.from(files.keys()));
  return Array.from(order, (i) => files[i] ?? '');
}

/** The files of each label, in their order. */
function membersOf(
  files: readonly string[],
  labelsOf: ReadonlyMap<string, ReadonlySet<number>>,
): Map<number, string[]> {
  const members = new Map<number, string[]>();
  for (const file of files) {
    for (const label of labelsOf.get(file) ?? []) {
      const list = members.get(label);
      if (list === undefined) members.set(label, [file]);
      else list.push(file);
    }
  }
  return members;
}

function chooseTest(
  files: readonly string[],
  labelsOf: ReadonlyMap<string, ReadonlySet<number>>,
  fraction: number,
): Set<string> {
  const members = membersOf(files, labelsOf);
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

/** One round of a cross-validation. */
export interface Fold extends Split {
  readonly name: string;
}

/** How {@link kFold} divides: by the folds that the data set names, or at random into `k`. */
export type KFoldOptions =
  | { readonly folds?: readonly (string | number)[] | undefined }
  | { readonly k: number; readonly seed: number };

/**
 * The rounds of a cross-validation: each fold is the test set once, all other clips train.
 *
 * `folds` are those of the data set that are tested, default all. With `k` and `seed` the clips are
 * divided at random, each class as evenly as whole files allow, and clips of one file stay together
 * (for several labels a clip after Sechidis et al. 2011). Equal seeds give equal folds.
 *
 * @throws PannsError `ERR_PANNS_OPTION`; `ERR_PANNS_DATA` for clips without a fold, or too few of them
 */
export function kFold(dataset: Dataset, options: KFoldOptions = {}): Fold[] {
  checkOptions(options, ['folds', 'k', 'seed'], 'kFold');
  if (!('k' in options)) {
    if (options.folds !== undefined) checkFolds(options.folds, 'folds', 'kFold');
    const named = options.folds ?? foldNames(dataset);
    return named.map((fold) => ({ name: String(fold), ...splitByFold(dataset, [fold]) }));
  }
  const { k, seed } = options;
  if (!(Number.isSafeInteger(k) && k >= 2) || 'folds' in options) {
    const what = 'folds' in options ? 'it was given beside folds' : `got ${k}`;
    throw new PannsError('ERR_PANNS_OPTION', `expected k to be a whole number >= 2; ${what}`, {
      where: 'kFold',
    });
  }
  const labelsOf = labelsOfFiles(dataset);
  if (labelsOf.size < k)
    throw dataError('kFold', `${labelsOf.size} files are too few for ${k} folds`);
  const foldOf = spread(shuffledFiles(labelsOf, seed), labelsOf, k);
  return Array.from({ length: k }, (_, i) => {
    return { name: String(i + 1), ...divide(dataset, (clip) => foldOf.get(sourceOf(clip)) === i) };
  });
}

/** The folds that a data set names, numbers in their order. @throws PannsError `ERR_PANNS_DATA` */
function foldNames({ clips }: Dataset): string[] {
  const names = new Set(clips.map(({ fold }) => fold));
  const found = [...names].flatMap((name) => (name === undefined ? [] : [name]));
  if (found.length === names.size && found.length >= 2) {
    return found.sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  }
  const what = 'expected at least two folds, and every clip in one; or give k and seed';
  throw dataError('kFold', what, { actual: found });
}

/** The fold of each file: label by label, the rarest first, to the fold that lacks it most. */
function spread(
  files: readonly string[],
  labelsOf: ReadonlyMap<string, ReadonlySet<number>>,
  k: number,
): Map<string, number> {
  const members = membersOf(files, labelsOf);
  const room = new Array<number>(k).fill(files.length / k);
  const wanted = new Map(
    [...members].map(([label, list]) => [label, new Array<number>(k).fill(list.length / k)]),
  );
  const foldOf = new Map<string, number>();
  const place = (file: string, label: number | undefined): void => {
    const lack = label === undefined ? room : (wanted.get(label) ?? room);
    let best = 0;
    for (let i = 1; i < k; i++) {
      const more = (lack[i] ?? 0) - (lack[best] ?? 0);
      // Shares like 10 / 3 are not exact, and neither are their differences.
      const equal = Math.abs(more) < 1e-6;
      if (equal ? (room[i] ?? 0) > (room[best] ?? 0) + 1e-6 : more > 0) best = i;
    }
    foldOf.set(file, best);
    room[best] = (room[best] ?? 0) - 1;
    for (const own of labelsOf.get(file) ?? []) {
      const shares = wanted.get(own);
      if (shares !== undefined) shares[best] = (shares[best] ?? 0) - 1;
    }
  };
  for (const [label, list] of [...members].sort(([a, x], [b, y]) => x.length - y.length || a - b)) {
    for (const file of list) if (!foldOf.has(file)) place(file, label);
  }
  for (const file of files) if (!foldOf.has(file)) place(file, undefined);
  return foldOf;
}

/**
 * `perClass` clips of each class, drawn at random: of clips with several labels at least as many.
 *
 * Equal seeds give equal clips, and more of each class contain the fewer of the same seed where every
 * clip has one label.
 *
 * @throws PannsError `ERR_PANNS_OPTION`; `ERR_PANNS_DATA` naming classes with too few clips
 */
export function fewShot(
  dataset: Dataset,
  options: { readonly perClass: number; readonly seed: number },
): Dataset {
  checkOptions(options, ['perClass', 'seed'], 'fewShot');
  const { perClass, seed } = options;
  if (!(Number.isSafeInteger(perClass) && perClass >= 1)) {
    const what = `expected perClass to be a whole number >= 1, got ${perClass}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'fewShot', actual: perClass });
  }
  const { classes, clips } = dataset;
  const members = classes.map((): number[] => []);
  for (const index of createRandom(seed).shuffle(Uint32Array.from(clips.keys()))) {
    for (const label of clips[index]?.labels ?? []) members[label]?.push(index);
  }
  const short = classes.filter((_, label) => (members[label]?.length ?? 0) < perClass);
  if (short.length > 0) {
    throw dataError('fewShot', `there are fewer than ${perClass} clips of ${firstTen(short)}`);
  }
  const chosen = new Set<number>();
  for (const list of [...members].sort((a, b) => a.length - b.length)) {
    // What was chosen for a rarer class counts.
    let count = list.filter((index) => chosen.has(index)).length;
    for (const index of list) {
      if (count >= perClass) break;
      if (chosen.has(index)) continue;
      chosen.add(index);
      count++;
    }
  }
  return { classes, clips: clips.filter((_, index) => chosen.has(index)), skipped: [] };
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
