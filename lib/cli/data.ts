import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { type CsvOptions, fromCsv } from '../data/csv.js';
import type { Clip, Dataset } from '../data/dataset.js';
import { dataError } from '../data/dataset.js';
import { fromFolder } from '../data/folder.js';
import { fromHdf5 } from '../data/hdf5.js';
import { fromPacked, isPacked } from '../data/packed.js';
import { splitStratified } from '../data/split.js';
import { PannsError } from '../errors.js';
import { ioError } from '../io/failure.js';
import { isHdf5 } from '../io/hdf5/file.js';
import { printable } from './format.js';
import type { ProgressStream } from './progress.js';

/** Which clips train and which validate; without folds, a share of each class validates. */
export interface SplitChoice {
  /** Default all folds that do not validate. */
  readonly trainFolds: readonly string[] | undefined;
  readonly valFolds: readonly string[] | undefined;
  /** 0 for no validation. */
  readonly valFraction: number;
  readonly seed: number;
}

/** How a command line says what the columns of a CSV file are. */
export const columnOptions = {
  'file-column': { type: 'string', value: 'name', help: 'of a CSV file; usual names are known' },
  'label-column': { type: 'string', value: 'name', help: 'likewise' },
  'fold-column': { type: 'string', value: 'name', help: 'likewise' },
  'label-separator': { type: 'string', value: ';', help: 'between the labels of a cell' },
} as const;

/** What a CSV file is read with, as a run folder stores it. */
export type Columns = Pick<
  CsvOptions,
  'fileColumn' | 'labelColumn' | 'foldColumn' | 'labelSeparator'
>;

/** The values of {@link columnOptions}. */
export function chosenColumns(
  values: {
    readonly [name in keyof typeof columnOptions]: string | undefined;
  },
): Columns {
  return {
    fileColumn: values['file-column'],
    labelColumn: values['label-column'],
    foldColumn: values['fold-column'],
    labelSeparator: values['label-separator'],
  };
}

/** How a command waits for its data: what stops it, and where it is told of; `json` tells nothing. */
export interface Waiting {
  readonly signal?: AbortSignal;
  readonly messages?: ProgressStream;
  readonly json?: boolean;
}

/**
 * Reads a folder with one folder a class, a packed one, a CSV file, or an HDF5 pack or index; `classes`
 * fixes their order. An HDF5 index of AudioSet takes its time: that is told, and stops on the signal.
 */
export async function openDataset(
  path: string,
  columns: Columns = {},
  classes?: readonly string[],
  { signal, messages, json }: Waiting = {},
): Promise<Dataset> {
  const options = classes === undefined ? {} : { classes };
  let found: Stats;
  try {
    found = await stat(path);
  } catch (error) {
    throw ioError(error, 'read the data', path);
  }
  const isFolder = found.isDirectory();
  // What a pipe has given is gone.
  const isPack = found.isFile() && (await isHdf5(path));
  if (!isFolder && !isPack) return fromCsv(path, { ...columns, ...options });
  if (Object.values(columns).some((column) => column !== undefined)) {
    const what = `columns are those of a CSV file, this is ${isPack ? 'an HDF5 file' : 'a folder'}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: path });
  }
  if (isPack) {
    if (!json) messages?.write(`reading the names and labels in ${printable(path)}\n`);
    return fromHdf5(path, { ...options, signal });
  }
  return (await isPacked(path)) ? fromPacked(path, options) : fromFolder(path, options);
}

/** The clips of the given folds. @throws PannsError `ERR_PANNS_DATA` for a fold that does not exist */
export function selectFolds(dataset: Dataset, folds: readonly string[]): Dataset {
  const known = new Set(dataset.clips.map(({ fold }) => fold));
  const absent = folds.filter((fold) => !known.has(fold));
  if (absent.length > 0) {
    const expected = [...known].filter((fold) => fold !== undefined).sort();
    const what = `there is no fold ${absent.join(', ')} (there are: ${expected.join(', ') || 'none'})`;
    throw dataError('folds', what, { expected, actual: absent });
  }
  return keep(dataset, ({ fold }) => folds.includes(fold ?? ''));
}

/** Two data sets over the same classes; no validation where none is asked for. */
export function divide(
  dataset: Dataset,
  { trainFolds, valFolds, valFraction, seed }: SplitChoice,
): { training: Dataset; validation: Dataset | undefined } {
  if (valFolds !== undefined || trainFolds !== undefined) {
    const validation = valFolds && selectFolds(dataset, valFolds);
    const both = trainFolds?.filter((fold) => valFolds?.includes(fold)) ?? [];
    if (both.length > 0) {
      throw dataError('folds', `fold ${both.join(', ')} would both train and validate`);
    }
    const training =
      trainFolds === undefined
        ? keep(dataset, ({ fold }) => !valFolds?.includes(fold ?? ''))
        : selectFolds(dataset, trainFolds);
    if (training.clips.length === 0) throw dataError('folds', 'no clip is left to train on');
    return { training, validation };
  }
  if (valFraction === 0) return { training: dataset, validation: undefined };
  const { train, test } = splitStratified(dataset, { testFraction: valFraction, seed });
  return { training: train, validation: test };
}

function keep(dataset: Dataset, wanted: (clip: Clip) => boolean): Dataset {
  return { ...dataset, clips: dataset.clips.filter(wanted) };
}
