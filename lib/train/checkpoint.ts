import { readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { NativeSession } from '../addon.js';
import { findNotFinite } from '../audio/finite.js';
import type { LoaderState } from '../data/loader.js';
import { PannsError } from '../errors.js';
import { modelMetadata, OPTIMIZER_PREFIX } from '../inference/description.js';
import { type Model, modelInternals } from '../inference/model.js';
import { sameShape } from '../inference/state.js';
import { ioError, systemCode } from '../io/failure.js';
import { makeFolder } from '../io/folder.js';
import { openSafetensors, type SafetensorsFile } from '../io/safetensors.js';
import { type WritableTensor, writeSafetensors } from '../io/safetensors_writer.js';
import { allocate, callNative } from '../native/call.js';
import type { Recipe } from './recipe.js';

/** The best evaluation so far. */
export interface Best {
  /** mAP, or accuracy for single-label data. */
  readonly metric: 'mAP' | 'accuracy';
  readonly value: number;
  readonly step: number;
}

/** Where a training stands, beside its tensors; stored as JSON. */
export interface TrainingState {
  readonly version: 1;
  /** Steps done. */
  readonly step: number;
  readonly recipe: Recipe;
  /** Batches and mixup weights follow from it. */
  readonly loader: LoaderState;
  /** The step after which the last evaluation was made; 0 for none. */
  readonly evaluatedStep: number;
  readonly best: Best | undefined;
  /** How many processes trained together; absent: one. */
  readonly processes?: number;
}

/** The key of a checkpoint's metadata that holds the {@link TrainingState}. */
const KEY = 'panns.training';

/** Six digits, so that names sort as steps do; more when there are more steps. */
const NAME = /^step-(\d{6,})\.safetensors$/;

/** What a killed process leaves of a file that was being written. */
const REMAINS = /^\.step-\d{6,}\.safetensors\.[0-9a-f]+\.tmp$/;

/**
 * Writes `step-NNNNNN.safetensors`: a model file ({@link loadModel} reads it) that also holds the
 * optimizer's state and the {@link TrainingState}. Older ones beyond `keep` are removed once it is safe.
 *
 * @throws PannsError `ERR_PANNS_NAN` when a tensor is not finite, and then nothing is written;
 *   `ERR_PANNS_IO`
 */
export async function writeCheckpoint(
  folder: string,
  model: Model,
  session: NativeSession,
  state: TrainingState,
  keep: number,
): Promise<string> {
  await makeFolder(folder);
  const { description } = modelInternals(model);
  const tensors = await model.stateDict();
  for (const { name, shape } of trained(model, session)) {
    for (const slot of session.slots()) {
      const data = await callNative(name, () => session.getSlot(slot, name));
      tensors.set(slotName(slot, name), { dtype: 'F32', shape, data });
    }
  }
  await checkFinite(tensors);
  const path = join(folder, `step-${String(state.step).padStart(6, '0')}.safetensors`);
  const metadata: [string, string][] = [
    ...modelMetadata(description),
    [KEY, JSON.stringify(state)],
  ];
  await writeSafetensors(path, tensors, metadata);
  const older = (await listCheckpoints(folder)).filter(({ step }) => step <= state.step);
  for (const { path: old } of older.slice(keep)) await unlink(old).catch(() => undefined);
  return path;
}

/** The checkpoints in a folder, the newest first. @throws PannsError `ERR_PANNS_IO` */
export async function listCheckpoints(folder: string): Promise<{ path: string; step: number }[]> {
  const found = (await list(folder)).flatMap((name) => {
    const digits = NAME.exec(name)?.[1];
    return digits === undefined ? [] : [{ path: join(folder, name), step: Number(digits) }];
  });
  return found.sort((a, b) => b.step - a.step);
}

/** An open checkpoint. */
export interface OpenCheckpoint {
  readonly path: string;
  readonly file: SafetensorsFile;
  readonly state: TrainingState;
}

/**
 * Opens the newest whole checkpoint of a folder; damaged ones are passed over, and what killed
 * processes left half written is removed.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` when there is none; `ERR_PANNS_IO`
 */
export async function openLatest(folder: string): Promise<OpenCheckpoint> {
  for (const name of await list(folder)) {
    if (REMAINS.test(name)) await unlink(join(folder, name)).catch(() => undefined);
  }
  const reasons: string[] = [];
  for (const { path } of await listCheckpoints(folder)) {
    try {
      return await openCheckpoint(path);
    } catch (error) {
      const damaged = error instanceof PannsError && error.code === 'ERR_PANNS_CHECKPOINT';
      if (!damaged) throw error;
      reasons.push(error.message);
    }
  }
  const what =
    reasons.length === 0
      ? 'there is no checkpoint here: a training that ended before its first one begins anew'
      : reasons.join('; ');
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, {
    where: folder,
    expected: 'step-NNNNNN.safetensors',
  });
}

async function openCheckpoint(path: string): Promise<OpenCheckpoint> {
  const file = await openSafetensors(path);
  try {
    return { path, file, state: readState(file.metadata.get(KEY), path) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Another number of processes would draw other batches from here on.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`
 */
export function checkProcesses({ state, path }: OpenCheckpoint, size: number): void {
  const { processes = 1 } = state;
  if (processes === size) return;
  const what = `this training runs in ${processes} processes: resume it with as many, not ${size}`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, {
    where: path,
    expected: processes,
    actual: size,
  });
}

/** Puts the optimizer's state back. @throws PannsError `ERR_PANNS_CHECKPOINT` */
export async function restoreOptimizer(
  { file, path }: OpenCheckpoint,
  model: Model,
  session: NativeSession,
): Promise<void> {
  const parameters = trained(model, session);
  const sizeOf = (shape: readonly number[]) => shape.reduce((product, n) => product * n, 1);
  // Shared, and the core reads it in place: other memory would be copied on the event loop.
  const memory = allocate(parameters.reduce((most, { shape }) => Math.max(most, sizeOf(shape)), 0));
  for (const { name, shape } of parameters) {
    for (const slot of session.slots()) {
      const key = slotName(slot, name);
      const entry = file.entries.get(key);
      if (entry === undefined) {
        const what = `it lacks ${key}; was it written with another optimizer or freeze?`;
        throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
      }
      if (entry.dtype !== 'F32' || !sameShape(entry.shape, shape)) {
        const what = `expected ${key} to be [${shape}] of F32, got [${entry.shape}] of ${entry.dtype}`;
        throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
      }
      const values = memory.subarray(0, sizeOf(shape));
      await file.read(key, new Uint8Array(values.buffer, 0, values.byteLength));
      await callNative(path, () => session.setSlot(slot, name, values));
    }
  }
}

function slotName(slot: string, parameter: string): string {
  return `${OPTIMIZER_PREFIX}${slot}.${parameter}`;
}

function trained(model: Model, session: NativeSession): { name: string; shape: number[] }[] {
  return model.parameters().filter(({ name }) => session.trains(name));
}

async function checkFinite(tensors: ReadonlyMap<string, WritableTensor>): Promise<void> {
  for (const [name, { dtype, data }] of tensors) {
    if (dtype !== 'F32' || (await findNotFinite(data)) < 0) continue;
    const what = `${name} has become NaN or infinite; no checkpoint was written`;
    throw new PannsError('ERR_PANNS_NAN', what, { where: 'Trainer' });
  }
}

function readState(text: string | undefined, path: string): TrainingState {
  const damaged = (what: string) => new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
  if (text === undefined) throw damaged('this file holds a model and no training');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw damaged('the state of the training is not JSON');
  }
  const state = value as Partial<TrainingState> | null;
  if (state?.version !== 1) {
    throw damaged(`the training has format version ${state?.version}, this package reads 1`);
  }
  const counts = [state.step, state.evaluatedStep].every((n) => Number.isSafeInteger(n));
  const objects = [state.recipe, state.loader].every((part) => typeof part === 'object' && part);
  if (!(counts && objects)) throw damaged('the state of the training is incomplete');
  return state as TrainingState;
}

async function list(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw ioError(error, 'read the folder', folder);
  }
}
