// One of several processes: does what the request names and leaves what came of it.
//
//   mpirun -n 2 node worker.ts request.json
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Trainer } from '../../lib/index.js';
import {
  openProcessGroup,
  type ProcessGroup,
  type ProcessGroupOptions,
} from '../../lib/train/distributed.js';
import { tones } from '../trainer/synthetic.js';
import { type Norms, takeNorms } from './norms.js';
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
  /** Of `plain`, `frozen`, `together` and `norms`; default the CPU. */
  readonly device?: 'cpu' | 'cuda';
}

const { dataset, decode } = tones(31);

const scenarios = {
  plain: (group: ProcessGroup, { device }: Request) =>
    trainPlain(3 + group.rank, BATCH, group, [], device),

  frozen: (group: ProcessGroup, { device }: Request) =>
    trainPlain(3 + group.rank, BATCH, group, FROZEN, device),

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
  async together(group: ProcessGroup, { device }: Request) {
    const loader = () => noiseLoader(undefined, group.rank);
    const options = { loader, dataset: undefined, steps: 3, syncNorms: true };
    const { trainer, outcome } = await trainTiny(group, options, device);
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

  /** A step whose batch all share. */
  norms: (group: ProcessGroup, { folder, norms, device = 'cpu' }: Request) =>
    takeNorms(norms as Norms, folder, { device, index: group.localRank, threads: 1 }, group),

  /** As a process that is lost, in the middle of a step of the others. */
  async killed(group: ProcessGroup, { folder }: Request) {
    await writeFile(join(folder, `pid-${group.rank}`), String(process.pid));
    if (group.rank === 1) {
      await appears(join(folder, 'pid-0'));
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1500);
    }
    const { outcome } = await trainTiny(group, { steps: 1_000_000 });
    return { outcome };
  },

  /** As a process that goes on and comes no more. */
  async silent(group: ProcessGroup, { folder }: Request) {
    const began = performance.now();
    const waited = join(folder, 'waited');
    if (group.rank === 1) await appears(waited);
    const { outcome } = await trainTiny(group);
    if (group.rank === 0) await writeFile(waited, '');
    return { outcome, seconds: (performance.now() - began) / 1000, folder };
  },
};

/** Once another process has written it; whoever started these ends those that wait for ever. */
async function appears(path: string): Promise<void> {
  while (!existsSync(path)) await sleep(50);
}

const request = JSON.parse(await readFile(process.argv[2] as string, 'utf8')) as Request;
const { folder } = request;
const group = await openProcessGroup({ timeoutSeconds: 60, ...request.group });
const results: Record<string, unknown> = { engine: group.engine, size: group.size };
for (const name of request.scenarios) results[name] = await scenarios[name](group, request);
await writeFile(join(folder, `rank-${group.rank}.json`), JSON.stringify(results));
await group.close();
