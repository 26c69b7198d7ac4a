// One of several processes: does what the request names and leaves what came of it.
//
//   mpirun -n 2 node worker.ts request.json
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Spec } from '../../lib/addon.js';
import { createModel, Trainer } from '../../lib/index.js';
import { loadNative } from '../../lib/native.js';
import {
  openProcessGroup,
  type ProcessGroup,
  type ProcessGroupOptions,
} from '../../lib/train/distributed.js';
import { tones } from '../trainer/synthetic.js';
import {
  BATCH,
  decodeBut,
  digestOf,
  FROZEN,
  noiseLoader,
  outcomeOf,
  STEPS,
  trainPlain,
  trainTiny,
} from './trainings.js';

/** What a test asks for. */
export interface Request {
  readonly folder: string;
  readonly scenarios: readonly (keyof typeof scenarios)[];
  readonly group?: ProcessGroupOptions;
  readonly norms?: Norms;
  /** Of `plain`, `frozen` and `refused`; default the CPU. */
  readonly device?: 'cpu' | 'cuda';
}

/** A step at given weights; row r of the batch is the process r's. */
export interface Norms {
  readonly spec: Spec;
  readonly samples: number;
  readonly batch: number;
  /** Files of float32: parameters by name, then waveforms and targets of all processes. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly waveform: string;
  readonly target: string;
  readonly loss: 'bce';
  /** Whether norms see the rows of all processes. */
  readonly syncNorms: boolean;
}

const { dataset, decode } = tones(31);

async function floats(path: string): Promise<Float32Array> {
  const bytes = await readFile(path);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).slice();
}

const scenarios = {
  plain: (group: ProcessGroup, { device }: Request) =>
    trainPlain(3 + group.rank, BATCH, group, [], device),

  frozen: (group: ProcessGroup, { device }: Request) =>
    trainPlain(3 + group.rank, BATCH, group, FROZEN, device),

  /** Norms over all processes, which models on GPUs do not have. */
  async refused(group: ProcessGroup, { device }: Request) {
    const { classes } = dataset;
    const gpu = group.localRank;
    using model = await createModel('Cnn6', { classes, device, gpu, sampleRate: 8000 });
    const options = { dataset, decode, batchSize: 2, clipSeconds: 1, steps: 1 };
    return await outcomeOf(new Trainer(model, { ...options, distributed: group, syncNorms: true }));
  },

  /** Evaluation and checkpoints on the way, then going on from one in the middle. */
  async resumed(group: ProcessGroup, { folder }: Request) {
    const validation = tones(9).dataset;
    const checkpoint = { folder: join(folder, 'whole'), every: 2 };
    const common = { validation, evaluateEvery: 2, mixup: true } as const;
    const whole = await trainTiny(group, { ...common, checkpoint });
    const half = { folder: join(folder, 'half') };
    const schedule = { kind: 'constant' } as const;
    await trainTiny(group, { ...common, schedule, checkpoint: half, steps: 2 });
    const trainer = await Trainer.resume(half.folder, {
      ...{ dataset, decode, validation, distributed: group, steps: STEPS, threads: 1 },
    });
    const second = await outcomeOf(trainer);
    const [whose, best] = [await digestOf(whole.trainer.model, true), whole.trainer.best];
    return { whole: whole.outcome, second, whose, best };
  },

  /** What only a process of its own would show: that its masks are its own. */
  async masks(group: ProcessGroup) {
    const loader = () => noiseLoader(undefined);
    const { trainer } = await trainTiny(group, { ...{ loader, dataset: undefined }, steps: 1 });
    return { running: await digestOf(trainer.model, true) };
  },

  /** Masks of one's own, and yet the norms of all. */
  async together(group: ProcessGroup) {
    const loader = () => noiseLoader(undefined, group.rank);
    const options = { loader, dataset: undefined, steps: 3, syncNorms: true };
    const { trainer, outcome } = await trainTiny(group, options);
    return { outcome, running: await digestOf(trainer.model, true) };
  },

  async nan(group: ProcessGroup) {
    const loader = () => noiseLoader(group.rank === 1 ? 2 : undefined);
    const { trainer, outcome } = await trainTiny(group, { loader, dataset: undefined });
    const again = await outcomeOf(trainer);
    return { outcome, again };
  },

  async aborted(group: ProcessGroup, { folder }: Request) {
    const controller = new AbortController();
    const checkpoint = { folder: join(folder, 'aborted'), every: 100 };
    const { signal } = controller;
    let steps = 0;
    const loader = () => {
      const inner = noiseLoader(undefined);
      return {
        ...inner,
        next: async () => {
          if (group.rank === 1 && ++steps === 3) controller.abort();
          return inner.next();
        },
      };
    };
    const { trainer, outcome } = await trainTiny(group, {
      ...{ loader, dataset: undefined, signal, checkpoint },
    });
    return { outcome, saved: await trainer.save(), step: trainer.step };
  },

  async undecodable(group: ProcessGroup) {
    const bad = group.rank === 1 ? decodeBut('17') : decode;
    const { outcome } = await trainTiny(group, { decode: bad, cache: 'none', steps: 40 });
    return { outcome };
  },

  /** Another recipe in one process than in the other. */
  async unlike(group: ProcessGroup) {
    const { outcome } = await trainTiny(group, { seed: group.rank });
    return { outcome };
  },

  async norms(group: ProcessGroup, { folder, norms }: Request) {
    const { spec, samples, batch, parameters, loss, syncNorms, ...files } = norms as Norms;
    const model = await loadNative().createModel(spec, { device: 'cpu', threads: 1 }, samples);
    if (group.rank === 0) {
      for (const [name, path] of Object.entries(parameters)) {
        await model.set(name, await floats(path));
      }
    }
    const session = await loadNative().createSession(model, spec, {
      ...{ batch, samples, mixup: false, loss, syncNorms, frozen: [], passesOff: [] },
      optimizer: { kind: 'sgd', attrs: {} },
    });
    await group.join(session, 'norms');
    const share = (all: Float32Array) => {
      const size = all.length / group.size;
      return all.slice(group.rank * size, (group.rank + 1) * size);
    };
    const [waveform, target] = [await floats(files.waveform), await floats(files.target)];
    const state = { seed: 1n, step: 0, lr: 1, maxNorm: 0, update: false };
    const step = await session.step(share(waveform), share(target), undefined, state);
    const gradients: Record<string, string> = {};
    const running: Record<string, number[]> = {};
    for (const { name, trainable } of model.parameters()) {
      if (!trainable) {
        running[name] = [...(await model.get(name))];
        continue;
      }
      gradients[name] = join(folder, `gradient-${group.rank}-${name}.f32`);
      await writeFile(gradients[name], await session.gradient(name));
    }
    return { loss: step.loss, gradients, running };
  },

  /** As a process that is lost, in the middle of a step of the others. */
  async killed(group: ProcessGroup, { folder }: Request) {
    if (group.rank === 1) {
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1500);
    }
    await writeFile(join(folder, `pid-${group.rank}`), String(process.pid));
    const { outcome } = await trainTiny(group, { steps: 1_000_000 });
    return { outcome };
  },

  /** As a process that goes on and comes no more. */
  async silent(group: ProcessGroup, { folder }: Request) {
    const began = performance.now();
    if (group.rank === 1) await sleep(6000);
    const { outcome } = await trainTiny(group);
    return { outcome, seconds: (performance.now() - began) / 1000, folder };
  },
};

const request = JSON.parse(await readFile(process.argv[2] as string, 'utf8')) as Request;
const { folder } = request;
const group = await openProcessGroup({ timeoutSeconds: 60, ...request.group });
const results: Record<string, unknown> = { engine: group.engine, size: group.size };
for (const name of request.scenarios) results[name] = await scenarios[name](group, request);
await writeFile(join(folder, `rank-${group.rank}.json`), JSON.stringify(results));
await group.close();
