import { join, resolve } from 'node:path';
import type { Dataset } from '../data/dataset.js';
import { rememberClips } from '../data/reader.js';
import { fewShot, kFold } from '../data/split.js';
import { PannsError } from '../errors.js';
import { writeFileAtomic } from '../io/atomic.js';
import { makeFolder } from '../io/folder.js';
import { readTextIfAny } from '../io/text.js';
import { crossValidate, type Spread, spreadOf } from '../train/cross_validate.js';
import { createFeatureStore } from '../train/features.js';
import { chosenColumns, divide, openDataset } from './data.js';
import { formatNumber, formatTable } from './format.js';
import { plotSvg } from './plot.js';
import { createProgress } from './progress.js';
import { parseKept, runState, type Scores } from './run_folder.js';
import { command, DEFAULTS, type TrainValues } from './train_command.js';
import { planModel, planRecipe, wholeNumber } from './train_options.js';
import { beginRun, resumeRun, runTraining } from './train_run.js';
import { type Context, UsageError } from './verb.js';

/** What `folds.json` keeps of a cross-validation, so that it can go on. */
interface FoldsConfig {
  readonly version: 1;
  readonly folds: readonly string[];
  readonly values: TrainValues;
}

/** The scores that summaries are made of. */
const METRICS = ['accuracy', 'mAP', 'mAUC', 'dPrime', 'loss'] as const;

/** Decoded clips that stay in memory from one training to the next: 3,200 of 5 s at 32 kHz. */
const REMEMBERED_BYTES = 1024 ** 3;

const DEFAULT_SEEDS = 5;

/** A run for each fold, in a folder of its own, and their mean and spread. */
export async function trainFolds(
  values: TrainValues,
  wanted: readonly string[],
  context: Context,
): Promise<void> {
  const path = join(values.out, 'folds.json');
  if ((await readTextIfAny(path)) !== undefined || (await runState(values.out)) !== 'none') {
    const what = 'this folder holds a training already: resume it with --resume, or choose another';
    throw new PannsError('ERR_PANNS_OPTION', what, { where: values.out });
  }
  const dataset = await openDataset(values.data ?? '', chosenColumns(values), undefined, {
    ...context,
    json: values.json,
  });
  const all = wanted.length === 1 && wanted[0] === 'all';
  const folds = kFold(dataset, all ? {} : { folds: wanted }).map(({ name }) => name);
  await makeFolder(values.out);
  const config: FoldsConfig = {
    ...{ version: 1, folds },
    values: { ...values, data: resolve(values.data ?? '') },
  };
  await writeFileAtomic(path, [`${JSON.stringify(config, null, 2)}\n`]);
  await runFolds(config, values, context);
}

/** Goes on with a cross-validation; false where the folder holds none. */
export async function resumeFolds(values: TrainValues, context: Context): Promise<boolean> {
  const path = join(values.out, 'folds.json');
  const text = await readTextIfAny(path);
  if (text === undefined) return false;
  if (values.epochs !== undefined) {
    throw new UsageError(command, '--epochs is settled by the cross-validation that is resumed');
  }
  const config = parseKept(text, path) as Partial<FoldsConfig>;
  const { version, folds, values: stored } = config;
  if (version !== 1 || !Array.isArray(folds) || typeof stored !== 'object' || stored === null) {
    const what = 'this is not the configuration of a cross-validation of this version';
    throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
  }
  await runFolds({ version, folds, values: stored }, values, context);
  return true;
}

/** Runs the folds that are not done yet, then sums up all of them. */
async function runFolds(
  { folds, values }: FoldsConfig,
  { out, threads, json }: TrainValues,
  context: Context,
): Promise<void> {
  const rows: ({ fold: string } & Scores)[] = [];
  const world = { ...context, features: createFeatureStore() };
  for (const fold of folds) {
    const folder = join(out, `fold-${fold}`);
    const own = { ...values, out: folder, threads, json, 'val-folds': [fold] };
    const state = await runState(folder);
    let scores = typeof state === 'object' ? state : undefined;
    if (scores === undefined) {
      if (!json) context.print(`fold ${fold} of ${folds.join(', ')}`);
      const begun = state === 'begun';
      const { trainer, run } = begun ? await resumeRun(own, world) : await beginRun(own, world);
      scores = await runTraining(trainer, run, { ...own, resume: begun }, context);
    }
    if (scores === undefined) {
      const what = 'the run was not validated, so there is nothing to sum up';
      throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: folder });
    }
    rows.push({ fold, ...scores });
  }
  const summary = Object.fromEntries(
    METRICS.map((metric) => [metric, spreadOf(rows.map((row) => row[metric] ?? Number.NaN))]),
  );
  const path = join(out, 'summary.json');
  await writeFileAtomic(path, [`${JSON.stringify({ folds: rows, ...summary }, null, 2)}\n`]);
  if (json) {
    context.print(JSON.stringify({ event: 'folds', folds: rows, ...summary }));
    return;
  }
  const shown = METRICS.filter((metric) => !Number.isNaN(summary[metric]?.mean));
  const table = formatTable(
    [{ title: 'fold' }, ...shown.map((title) => ({ title, align: 'right' }) as const)],
    [
      ...rows.map((row) => [row.fold, ...shown.map((metric) => formatNumber(row[metric] ?? 0))]),
      ['mean ± sd', ...shown.map((metric) => spreadText(summary[metric]))],
    ],
  );
  context.print(`${table}\nsummary: ${path}`);
}

/** Trains on few clips of each class, drawn anew for each seed, and draws the curve. */
export async function trainFewShots(
  values: TrainValues,
  shots: readonly string[],
  context: Context,
): Promise<void> {
  const { out, json, seed: firstSeed = 0, seeds = DEFAULT_SEEDS } = values;
  const { signal, print, messages } = context;
  const counts = shots.map((text) => wholeNumber('shots', text)).sort((a, b) => a - b);
  const dataset = await openDataset(values.data ?? '', chosenColumns(values), undefined, {
    signal,
    messages,
    json,
  });
  const { training, validation } = divide(dataset, {
    trainFolds: values['train-folds'],
    valFolds: values['val-folds'],
    valFraction: values['val-fraction'] ?? DEFAULTS['val-fraction'],
    seed: firstSeed,
  });
  if (validation === undefined) {
    throw new UsageError(command, '--shots needs clips to validate on');
  }
  const plan = await planModel(values, dataset);
  const { seed: _, ...recipe } = await planRecipe(values, dataset);
  const decode = rememberClips(REMEMBERED_BYTES);
  const features = createFeatureStore();
  // A class with too few clips is found before the first training.
  for (const perClass of counts) fewShot(training, { perClass, seed: firstSeed });
  const progress = createProgress({
    ...{ label: 'few shots', total: counts.length * seeds, unit: 'trainings' },
    ...{ stream: messages, silent: json },
  });
  const rows: { shots: number; seed: number; accuracy?: number; mAP: number; seconds: number }[] =
    [];
  for (const perClass of counts) {
    for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
      const fold = foldOf(training, validation, perClass, seed);
      const { folds } = await crossValidate({
        ...{ ...recipe, seed, folds: [fold], model: () => plan.make(seed), signal },
        ...{ decode, features },
      });
      for (const { seconds, evaluation } of folds) {
        const { accuracy, mAP } = evaluation;
        const row = { shots: perClass, seed, ...(accuracy !== undefined && { accuracy }), mAP };
        rows.push({ ...row, seconds });
        if (json) print(JSON.stringify({ event: 'shots', ...row, seconds }));
      }
      progress.update(rows.length, `${perClass} a class, seed ${seed}`);
    }
  }
  progress.finish();
  const single = rows.every(({ accuracy }) => accuracy !== undefined);
  const metrics = single ? (['accuracy', 'mAP'] as const) : (['mAP'] as const);
  const summary = counts.map((perClass) => {
    const own = rows.filter((row) => row.shots === perClass);
    const of = (metric: 'accuracy' | 'mAP') =>
      spreadOf(own.map((row) => row[metric] ?? Number.NaN));
    return { shots: perClass, ...Object.fromEntries(metrics.map((name) => [name, of(name)])) };
  }) as ({ shots: number } & Partial<Record<'accuracy' | 'mAP', Spread>>)[];
  const [file, curve] = [join(out, 'few_shot.json'), join(out, 'few_shot.svg')];
  await makeFolder(out);
  const written = { model: plan.name, from: values.from, recipe, rows, summary };
  await writeFileAtomic(file, [`${JSON.stringify(written, null, 2)}\n`]);
  const series = metrics.map((name) => {
    return { name, points: summary.map((row) => [row.shots, row[name]?.mean ?? 0] as const) };
  });
  const chart = { title: 'validation, mean over seeds', series, range: [0, 1] } as const;
  await writeFileAtomic(curve, [plotSvg('clips of each class', [chart])]);
  if (json) {
    print(JSON.stringify({ event: 'end', summary, file }));
    return;
  }
  const table = formatTable(
    [{ title: 'shots', align: 'right' }, ...metrics.map((title) => ({ title }))],
    summary.map((row) => [row.shots, ...metrics.map((name) => spreadText(row[name]))]),
  );
  print(`${table}\nresults: ${file}\ncurve: ${curve}`);
}

function foldOf(training: Dataset, test: Dataset, perClass: number, seed: number) {
  return { name: `${perClass}/${seed}`, train: fewShot(training, { perClass, seed }), test };
}

function spreadText(spread: Spread | undefined): string {
  const { mean = Number.NaN, sd = Number.NaN } = spread ?? {};
  return Number.isNaN(sd) ? formatNumber(mean) : `${formatNumber(mean)} ± ${formatNumber(sd)}`;
}
