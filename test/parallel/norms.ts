// One step of a network with norms, whose batch processes may share: drawn by a test, taken by each.
import { readFileSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { DeviceOptions, Spec } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import type { ProcessGroup } from '../../lib/train/distributed.js';
import type { Draws } from '../helpers/random.js';
import {
  clips,
  makeSubject,
  type Subject,
  type SubjectOptions,
  targets,
} from '../helpers/training.js';

/** A step at given weights. */
export interface Norms {
  readonly spec: Spec;
  readonly samples: number;
  /** Clips of each process. */
  readonly batch: number;
  /** Files of float32: parameters by name, then waveforms and targets of all processes in turn. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly waveform: string;
  readonly target: string;
  readonly loss: 'bce';
  /** Whether norms see the rows of all processes. */
  readonly syncNorms: boolean;
}

/** What a process found in such a step: files of gradients by parameter, and running statistics. */
export interface NormsStep {
  readonly loss: number;
  readonly gradients: Readonly<Record<string, string>>;
  readonly running: Readonly<Record<string, number[]>>;
}

/** Clips of each process in {@link drawNorms}. */
const BATCH = 3;

/** Weights and clips for a step of Cnn6 in so many processes, away from the kinks of its ReLUs. */
export async function drawNorms(
  t: Test,
  draws: Draws,
  folder: string,
  processes: number,
  syncNorms: boolean,
  options: SubjectOptions = {},
): Promise<{
  subject: Subject;
  norms: Norms;
  waveform: Float32Array;
  target: Float32Array;
}> {
  const samples = 8000;
  const subject = await makeSubject(t, draws, 'Cnn6', samples, {
    ...options,
    smooth: true,
  });
  const { spec, model, classes } = subject;
  const save = (name: string, values: Float32Array) => {
    const path = join(folder, `${name}.f32`);
    writeFileSync(path, values);
    return path;
  };
  const parameters: Record<string, string> = {};
  for (const { name } of model.parameters()) parameters[name] = save(name, await model.get(name));
  const waveform = clips(draws, processes * BATCH, samples);
  const target = targets(draws, processes * BATCH, classes, 'bce');
  const files = { waveform: save('waveform', waveform), target: save('target', target) };
  const facts = { spec, samples, batch: BATCH, parameters, syncNorms } as const;
  return { subject, norms: { ...facts, ...files, loss: 'bce' }, waveform, target };
}

export function readFloats(path: string): Float32Array {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).slice();
}

/** Takes this process's share of the step, or all of it by itself; gradients go to the folder. */
export async function takeNorms(
  { spec, samples, batch, parameters, loss, syncNorms, ...files }: Norms,
  folder: string,
  device: DeviceOptions,
  group?: ProcessGroup,
): Promise<NormsStep> {
  const rank = group?.rank ?? 0;
  const waveform = readFloats(files.waveform);
  const size = group === undefined ? waveform.length / (batch * samples) : 1;
  const model = await loadNative().createModel(spec, device, samples);
  if (rank === 0) {
    for (const [name, path] of Object.entries(parameters)) await model.set(name, readFloats(path));
  }
  const session = await loadNative().createSession(model, spec, {
    ...{ batch: size * batch, samples, mixup: false, loss, syncNorms, frozen: [], passesOff: [] },
    optimizer: { kind: 'sgd', attrs: {} },
  });
  await group?.join(session, 'norms');
  const share = (all: Float32Array) => {
    const length = all.length / (group?.size ?? 1);
    return all.slice(rank * length, (rank + 1) * length);
  };
  const state = { seed: 1n, step: 0, lr: 1, maxNorm: 0, update: false };
  const given = [share(waveform), share(readFloats(files.target))] as const;
  const step = await session.step(...given, undefined, state);
  const gradients: Record<string, string> = {};
  const running: Record<string, number[]> = {};
  for (const { name, trainable } of model.parameters()) {
    if (!trainable) {
      running[name] = [...(await model.get(name))];
      continue;
    }
    gradients[name] = join(folder, `gradient-${rank}-${name}.f32`);
    await writeFile(gradients[name], await session.gradient(name));
  }
  session.dispose();
  model.dispose();
  return { loss: step.loss, gradients, running };
}
