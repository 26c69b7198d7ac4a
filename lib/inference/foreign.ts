import { basename } from 'node:path';
import { PannsError } from '../errors.js';
import { TRANSFER_LAYER, type WeightsEntry, type WeightsFile } from '../io/weights.js';
import { audiosetLabels } from '../labels.js';
import { describeModel, modelNames, modelRows } from '../models/index.js';
import { logmelDefaults, type ModelOptions } from '../models/options.js';
import { publishedFiles } from '../models/pretrained.js';
import type { ModelDescription, ModelRow } from '../models/row.js';
import type { StateEntry } from '../models/tensor.js';
import { misfit, sameShape } from './state.js';

/** What a file of weights is loaded from; {@link WeightsFile} is one. */
export type Tensors = Pick<WeightsFile, 'path' | 'entries'>;

/** A model that a file's tensors fit. */
export interface Recognised {
  readonly row: ModelRow;
  /** What the tensors say of them; the others are the row's defaults. */
  readonly options: ModelOptions;
  readonly description: ModelDescription;
  /** Other models with the same tensors: only the file's name, or the caller, tells them apart. */
  readonly alternatives: readonly string[];
}

/** The options whose values can be read off a tensor's shape, and a change that every row takes. */
const VISIBLE = [
  ['classes', 1],
  ['embeddingSize', 1],
  ['melBins', 2],
] as const;

const CLASSIFIER = 'fc_audioset.';
const TRANSFORM = 'spectrogram_extractor.stft.conv_real.weight';

/**
 * Says which model a file of another program holds: by the names and shapes of its tensors, then by
 * the file's name.
 *
 * `model` limits the search to one row. Where several models have the same tensors (Cnn14 and its
 * variants by training and by decision level), the one that the file is named after counts, else the
 * first.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` naming the nearest model and what does not fit
 */
export async function recognise(file: Tensors, model?: string | ModelRow): Promise<Recognised> {
  const candidates = model === undefined ? modelRows : [rowOf(model)];
  const hint = hintOf(file.path);
  const found: (Omit<Recognised, 'alternatives'> & { changes: number })[] = [];
  let nearest: { row: ModelRow; faults: ReturnType<typeof compareNames> } | undefined;
  for (const row of candidates) {
    // A description takes some milliseconds.
    await new Promise(setImmediate);
    const usual = describeModel(row);
    const faults = compareNames(usual.stateDict, file.entries);
    const count = faults.missing.length + faults.unexpected.length;
    if (count > 0) {
      const least = nearest?.faults;
      if (!least || count < least.missing.length + least.unexpected.length)
        nearest = { row, faults };
      continue;
    }
    const derived = derive(row, usual, file.entries);
    const hinted = hint.row === row.name ? hint.options : {};
    const options = { ...derived, ...hinted };
    const description = describe(row, options, file.path);
    const changes = Object.keys(derived).filter((key) => key !== 'classes').length;
    const fits = description?.stateDict.every(({ name, shape }) => {
      const entry = file.entries.get(name);
      return entry === undefined || sameShape(shape, entry.shape);
    });
    if (description !== undefined && (fits || model !== undefined)) {
      found.push({ row, options, description, changes });
    }
  }
  const least = Math.min(...found.map(({ changes }) => changes));
  const best = found.filter(({ changes }) => changes === least);
  const chosen = best.find(({ row }) => row.name === hint.row) ?? best[0];
  if (chosen !== undefined) {
    const { row, options, description } = chosen;
    const alternatives = best.flatMap((other) => (other === chosen ? [] : [other.row.name]));
    return { row, options, description, alternatives };
  }
  throw unrecognised(file, nearest, model);
}

/**
 * The tensors of a file whose classifier was exchanged as PANNs' transfer models do it: the added layer
 * takes the classifier's place, and the old one is left away.
 */
export function withoutTransfer<F extends WeightsFile>(file: F): F {
  const added = [...file.entries.keys()].filter((name) => name.startsWith(TRANSFER_LAYER));
  const rest = [...file.entries.keys()].filter((name) => !name.startsWith(CLASSIFIER));
  if (added.length === 0) return file;
  const renamed = (name: string) => name.replace(TRANSFER_LAYER, CLASSIFIER);
  const own = (name: string) =>
    name.startsWith(CLASSIFIER) ? name.replace(CLASSIFIER, TRANSFER_LAYER) : name;
  const entries = new Map(
    rest.map((name) => [renamed(name), file.entries.get(name) as WeightsEntry]),
  );
  return { ...file, entries, read: (name, memory) => file.read(own(name), memory) };
}

/** Whether {@link withoutTransfer} exchanges the classifier; such models end in a softmax. */
export function isTransfer({ entries }: Tensors): boolean {
  return entries.has(`${TRANSFER_LAYER}weight`);
}

/** The names of the tensors whose shapes follow the number of classes. */
export function classTensors(row: string | ModelRow, options: ModelOptions): ReadonlySet<string> {
  const now = describeModel(row, options);
  const other = describeModel(row, { ...options, classes: now.config.classes + 1 });
  const shapes = new Map(other.stateDict.map(({ name, shape }) => [name, shape]));
  const changed = now.stateDict.filter(({ name, shape }) => {
    return !sameShape(shape, shapes.get(name) ?? []);
  });
  return new Set(changed.map(({ name }) => name));
}

function rowOf(model: string | ModelRow): ModelRow {
  if (typeof model !== 'string') return model;
  // Throws for a name that is unknown.
  const { name } = describeModel(model);
  return modelRows.find((row) => row.name === name) as ModelRow;
}

function compareNames(
  stateDict: readonly StateEntry[],
  entries: ReadonlyMap<string, WeightsEntry>,
): { missing: string[]; unexpected: string[] } {
  const known = new Set(stateDict.map(({ name }) => name));
  const needed = stateDict.filter(({ role }) => role === 'parameter' || role === 'buffer');
  return {
    missing: needed.flatMap(({ name }) => (entries.has(name) ? [] : [name])),
    unexpected: [...entries.keys()].filter((name) => !known.has(name)),
  };
}

/** Options by the shapes of tensors, as far as they are not the row's defaults. */
function derive(
  row: ModelRow,
  usual: ModelDescription,
  entries: ReadonlyMap<string, WeightsEntry>,
): ModelOptions {
  const options: Record<string, unknown> = {};
  for (const [option, change] of VISIBLE) {
    const value = usual.config[option];
    const other = describe(row, { [option]: value + change });
    const shapes = new Map(other?.stateDict.map(({ name, shape }) => [name, shape]));
    for (const { name, shape } of usual.stateDict) {
      const changed = shapes.get(name);
      const axis = shape.findIndex((n, i) => n === value && changed?.[i] === value + change);
      const size = axis < 0 ? undefined : entries.get(name)?.shape[axis];
      if (size === undefined) continue;
      if (size !== value) options[option] = size;
      break;
    }
  }
  const window = entries.get(TRANSFORM)?.shape[2];
  if (window !== undefined && window !== usual.config.windowSize) {
    // Published models have windows of 32 ms. Others are told by checking the filter bank.
    const sampleRate = Math.round(window / 0.032);
    if (logmelDefaults(sampleRate).windowSize === window) options.sampleRate = sampleRate;
    else options.windowSize = window;
  }
  const classes = options.classes ?? usual.config.classes;
  if (classes === audiosetLabels.length) options.classes = audiosetLabels;
  return options;
}

/** Undefined where the options are out of range: then the tensors are not those of this row. */
function describe(row: ModelRow, options: ModelOptions, path = ''): ModelDescription | undefined {
  try {
    return describeModel(row, options);
  } catch (error) {
    if (error instanceof PannsError && /^ERR_PANNS_(OPTION|SPEC)$/.test(error.code))
      return undefined;
    throw path === ''
      ? error
      : new PannsError('ERR_PANNS_CHECKPOINT', String(error), { where: path });
  }
}

/** What a file's name says: a published file's is known, others may begin with a model's name. */
function hintOf(path: string): { row: string | undefined; options: ModelOptions } {
  const name = basename(path);
  const published = publishedFiles.find(({ file }) => file === name);
  if (published !== undefined) return { row: published.model, options: published.options ?? {} };
  const inside = modelNames.filter((model) => name.toLowerCase().includes(model.toLowerCase()));
  // The longest: "Cnn14_16k" holds "Cnn14" as well.
  const [row] = inside.sort((a, b) => b.length - a.length);
  return { row, options: {} };
}

function unrecognised(
  { path, entries }: Tensors,
  nearest: { row: ModelRow; faults: ReturnType<typeof compareNames> } | undefined,
  model: string | ModelRow | undefined,
): PannsError {
  const faults = nearest === undefined ? 'their shapes differ' : misfit(nearest.faults);
  const what =
    model !== undefined
      ? `the ${entries.size} tensors of this file are not those of ${typeof model === 'string' ? model : model.name}: ${faults}`
      : `the ${entries.size} tensors of this file fit no model${nearest ? `; the nearest is ${nearest.row.name}` : ''}: ${faults}; the option \`model\` may name one`;
  return new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
}
