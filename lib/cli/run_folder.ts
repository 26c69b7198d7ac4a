import { appendFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PannsError } from '../errors.js';
import type { Model } from '../inference/model.js';
import { writeFileAtomic } from '../io/atomic.js';
import { ioError, systemCode } from '../io/failure.js';
import { makeFolder } from '../io/folder.js';
import { readTextIfAny } from '../io/text.js';
import type { Evaluation } from '../train/evaluate.js';
import type { Columns, SplitChoice } from './data.js';
import { plotSvg } from './plot.js';

/** What `config.json` keeps: all that resuming needs beside the checkpoint, and what was used. */
export interface RunConfig {
  readonly version: 1;
  readonly panns: string;
  readonly node: string;
  readonly platform: string;
  /** The absolute path of the data. */
  readonly data: string;
  readonly columns?: Columns;
  readonly split: SplitChoice;
  readonly classes: readonly string[];
  readonly model: { readonly name: string; readonly options: object };
  readonly recipe: object;
  readonly checkpointEpochs: number;
}

/** The results that are kept of an evaluation. */
export type Scores = Pick<Evaluation, 'clips' | 'loss' | 'mAP' | 'mAUC' | 'dPrime' | 'accuracy'>;

/** One line of `metrics.jsonl`: an epoch, or what was trained of it. */
export interface EpochRecord {
  readonly step: number;
  readonly epoch: number;
  /** The mean over the steps since the last line. */
  readonly loss: number;
  readonly lr: number;
  readonly clipsPerSecond: number;
  readonly validation?: Scores;
}

/** A folder that holds all of a training: configuration, checkpoints, metrics, curves and the model. */
export interface RunFolder {
  readonly checkpoints: string;
  readonly model: string;
  readonly curves: string;
  readonly metrics: string;
  readonly records: readonly EpochRecord[];
  add(record: EpochRecord): Promise<void>;
  /** Writes `metrics.json`. */
  summarise(summary: object): Promise<void>;
  /** Draws `curves.svg` from the records. */
  plot(): Promise<void>;
  /** Writes the model. */
  keep(model: Pick<Model, 'save'>): Promise<void>;
}

/** Paths in a run folder. */
function runPaths(folder: string) {
  return {
    config: join(folder, 'config.json'),
    checkpoints: join(folder, 'checkpoints'),
    lines: join(folder, 'metrics.jsonl'),
    metrics: join(folder, 'metrics.json'),
    curves: join(folder, 'curves.svg'),
    model: join(folder, 'model.safetensors'),
  };
}

/**
 * Makes a run folder for a new training. One that ended before its first checkpoint left nothing that
 * could go on, and makes room.
 *
 * @throws PannsError `ERR_PANNS_OPTION` when it holds a training already
 */
export async function createRun(folder: string, config: RunConfig): Promise<RunFolder> {
  const paths = runPaths(folder);
  const begun = (await readTextIfAny(paths.config)) !== undefined;
  if (begun && (await isWorthKeeping(paths))) {
    const what = 'this folder holds a training already: resume it with --resume, or choose another';
    throw new PannsError('ERR_PANNS_OPTION', what, { where: folder });
  }
  await makeFolder(folder);
  await writeFileAtomic(paths.config, [`${JSON.stringify(config, null, 2)}\n`]);
  return openWith(folder, []);
}

async function isWorthKeeping(paths: ReturnType<typeof runPaths>): Promise<boolean> {
  const results = [paths.lines, paths.metrics, paths.model];
  const found = await Promise.all(results.map((path) => stat(path).catch(() => undefined)));
  if (found.some((file) => file !== undefined)) return true;
  const names = await readdir(paths.checkpoints).catch((error) => {
    if (systemCode(error) === 'ENOENT') return [];
    throw ioError(error, 'read the folder', paths.checkpoints);
  });
  return names.length > 0;
}

/** How far the run in a folder is: its last validation once it has ended. */
export async function runState(folder: string): Promise<'none' | 'begun' | Scores> {
  const { config, metrics } = runPaths(folder);
  if ((await readTextIfAny(config)) === undefined) return 'none';
  const text = await readTextIfAny(metrics);
  if (text === undefined) return 'begun';
  return (parseKept(text, metrics) as { validation?: Scores }).validation ?? 'begun';
}

/** The configuration of a training. @throws PannsError `ERR_PANNS_CHECKPOINT` when there is none */
export async function readRunConfig(folder: string): Promise<RunConfig> {
  const path = runPaths(folder).config;
  const text = await readTextIfAny(path);
  const fail = (what: string) => new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
  if (text === undefined) throw fail('there is no training to resume here');
  const config = parseKept(text, path) as Partial<RunConfig>;
  const whole = config.version === 1 && config.data && config.split && config.classes;
  if (!whole) throw fail('this is not the configuration of a training of this version');
  return config as RunConfig;
}

/** Opens a run folder again, without the lines of steps that will be done again. */
export async function reopenRun(folder: string, step: number): Promise<RunFolder> {
  const { lines } = runPaths(folder);
  const records = ((await readTextIfAny(lines)) ?? '')
    .split('\n')
    .flatMap((line): EpochRecord[] => {
      try {
        const record = JSON.parse(line) as EpochRecord;
        return record.step <= step ? [record] : [];
      } catch {
        // An interrupted write leaves half a line.
        return [];
      }
    });
  await writeFileAtomic(
    lines,
    records.map((record) => `${JSON.stringify(record)}\n`),
  );
  return openWith(folder, records);
}

function openWith(folder: string, before: readonly EpochRecord[]): RunFolder {
  const { lines, metrics, checkpoints, model, curves } = runPaths(folder);
  const records = [...before];
  return {
    ...{ checkpoints, model, curves, metrics, records },
    async add(record) {
      records.push(record);
      try {
        await appendFile(lines, `${JSON.stringify(record)}\n`);
      } catch (error) {
        throw ioError(error, 'write', lines);
      }
    },
    async summarise(summary) {
      await writeFileAtomic(metrics, [`${JSON.stringify(summary, null, 2)}\n`]);
    },
    async plot() {
      await writeFileAtomic(curves, [curvesOf(records)]);
    },
    keep: (trained) => trained.save(model),
  };
}

function curvesOf(records: readonly EpochRecord[]): string {
  const evaluated = records.flatMap(({ epoch, validation }) =>
    validation === undefined ? [] : [{ epoch, ...validation }],
  );
  const training = records.map(({ epoch, loss }) => [epoch, loss] as const);
  const losses = [{ name: 'training', points: training }];
  if (evaluated.length === 0) return plotSvg('epoch', [{ title: 'loss', series: losses }]);
  const of = (value: (scores: Scores) => number | null | undefined) =>
    evaluated.map((scores) => [scores.epoch, value(scores) ?? Number.NaN] as const);
  losses.push({ name: 'validation', points: of(({ loss }) => loss) });
  const metrics = [{ name: 'mAP', points: of(({ mAP }) => mAP) }];
  if (evaluated.some(({ accuracy }) => typeof accuracy === 'number')) {
    metrics.push({ name: 'accuracy', points: of(({ accuracy }) => accuracy) });
  }
  return plotSvg('epoch', [
    { title: 'loss', series: losses },
    { title: 'validation', series: metrics, range: [0, 1] },
  ]);
}

/**
 * The object in the JSON of a file that a training keeps.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`
 */
export function parseKept(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Told below, as a value of another kind is.
  }
  if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  throw new PannsError('ERR_PANNS_CHECKPOINT', 'this file is not a JSON object', { where: path });
}
