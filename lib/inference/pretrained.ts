import { PannsError } from '../errors.js';
import { DESCRIPTION_KEY, openWeights, type WeightsFile } from '../io/weights.js';
import { describeModel } from '../models/index.js';
import type { ModelOptions } from '../models/options.js';
import { classifierParameters } from '../models/parts.js';
import type { ModelDescription, ModelRow } from '../models/row.js';
import { OPTIMIZER_PREFIX } from './description.js';
import { downloadWeights } from './download.js';
import { classTensors } from './foreign.js';
import { applyState, checkTables } from './load.js';
import type { ModelInternals } from './model.js';
import { matchState, type StateReport, sameShape } from './state.js';
import { storedModel } from './stored.js';

/** A model that is to begin with the weights of a file. */
export interface Start {
  readonly description: ModelDescription;
  readonly file: WeightsFile;
  /** Tensors that keep their random values. */
  readonly fresh: ReadonlySet<string>;
  /** Tensors of the file that are passed over. */
  readonly dropped: ReadonlySet<string>;
}

/**
 * Plans a model over the weights of a file, or of the published file of its name: options that are not
 * given follow from the file, and what does not fit another classifier is left to chance.
 *
 * @throws PannsError as `createModel`; `ERR_PANNS_CHECKPOINT`; the file is closed then
 */
export async function planStart(
  model: string | ModelRow,
  pretrained: true | string,
  options: ModelOptions,
): Promise<Start> {
  if (pretrained !== true && typeof pretrained !== 'string') {
    const what = `expected pretrained to be true or a path, got ${pretrained}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'createModel', actual: pretrained });
  }
  const name = typeof model === 'string' ? model : model.name;
  // A wrong option is found before a download.
  describeModel(model, options);
  const path = pretrained === true ? await downloadWeights(name) : pretrained;
  const opened = await openWeights(path);
  try {
    // Another row may have the tensors of the one that the file was saved from.
    const described = opened.metadata.has(DESCRIPTION_KEY) && typeof model === 'string';
    const stored = await storedModel(opened, described ? undefined : model);
    const { file, description: saved } = stored;
    const { dropout, specAugment, mixup, ...base } = saved.config;
    // How another row trains is its own affair.
    const training = saved.name === name ? { dropout, specAugment, mixup } : {};
    const own = { ...base, ...training, classes: saved.labels ?? saved.config.classes };
    const given = Object.fromEntries(
      Object.entries(options).filter(([, value]) => value !== undefined),
    );
    const chosen: ModelOptions = { ...(own as ModelOptions), ...given };
    const description = describeModel(model, chosen);
    return { description, file, ...exchanged(model, chosen, description, saved) };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** What another classifier than the file's leaves without weights, and without a place. */
function exchanged(
  model: string | ModelRow,
  options: ModelOptions,
  wanted: ModelDescription,
  stored: ModelDescription,
): Pick<Start, 'fresh' | 'dropped'> {
  const other = !sameClasses(wanted, stored);
  const fresh = other ? new Set(classTensors(model, options)) : new Set<string>();
  // The same network with the file's head: what differs from it is the new head's alone.
  const before = describeModel(model, { ...stored.config } as ModelOptions);
  if (headOf(wanted) === headOf(before)) return { fresh, dropped: new Set() };
  const shapes = new Map(before.stateDict.map(({ name, shape }) => [name, shape]));
  const names = new Set(wanted.stateDict.map(({ name }) => name));
  const classifier = new Set(classifierParameters(wanted));
  for (const { name, shape } of wanted.stateDict) {
    const known = shapes.get(name);
    const changed = known !== undefined && classifier.has(name) && !sameShape(known, shape);
    if (known === undefined || changed) fresh.add(name);
  }
  return { fresh, dropped: new Set([...shapes.keys()].filter((name) => !names.has(name))) };
}

function headOf({ config }: ModelDescription): string {
  return JSON.stringify([config.head, config.classifierLayers]);
}

/** Names decide where both are known, their number elsewhere. */
function sameClasses(wanted: ModelDescription, stored: ModelDescription): boolean {
  const { labels } = stored;
  return wanted.labels !== undefined && labels !== undefined
    ? wanted.labels.length === labels.length && wanted.labels.every((name, i) => name === labels[i])
    : wanted.config.classes === stored.config.classes;
}

/**
 * Loads a file into a model strictly, but for what the plan leaves out.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`, `ERR_PANNS_NAN`, `ERR_PANNS_IO`
 */
export async function loadStart(internals: ModelInternals, start: Start): Promise<StateReport> {
  const { file, fresh, dropped, description } = start;
  const wanted = description.stateDict.filter(({ name }) => !fresh.has(name));
  const entries = new Map(
    [...file.entries].filter(([name]) => {
      return !fresh.has(name) && !dropped.has(name) && !name.startsWith(OPTIMIZER_PREFIX);
    }),
  );
  const report = matchState(wanted, entries, true, file.path);
  await checkTables(internals, report, file.read);
  await applyState(internals, report, file.read);
  return report;
}
