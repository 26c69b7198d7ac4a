import type { ProcessGroup } from '../train/distributed.js';
import type { FeatureStore } from '../train/features.js';
import type { RunFolder } from './run_folder.js';
import type { Context } from './verb.js';

/** What a training sees of the world. */
export interface TrainContext extends Context {
  /** The processes that share the training, if it is more than this one. */
  readonly distributed?: ProcessGroup;
  /** Features of clips that it shares with other trainings. */
  readonly features?: FeatureStore;
}

/** The world of one process of several: the first alone is heard. */
export function contextOf(context: Context, distributed: ProcessGroup): TrainContext {
  if (distributed.rank === 0) return { ...context, distributed };
  const silent = { write: () => undefined };
  return { ...context, distributed, print: () => undefined, messages: silent };
}

/** A run folder that the first process keeps; all call the same, and fail together. */
export async function sharedRun(
  group: ProcessGroup | undefined,
  open: () => Promise<RunFolder>,
): Promise<RunFolder> {
  if (group === undefined) return open();
  let own: RunFolder | undefined;
  const paths = await group.first(async () => {
    own = await open();
    const { checkpoints, model, curves, metrics } = own;
    return { checkpoints, model, curves, metrics };
  });
  const kept = (body: (run: RunFolder) => Promise<void>) =>
    group.first(() => body(own as RunFolder));
  return {
    ...paths,
    records: own?.records ?? [],
    add: (record) => kept((run) => run.add(record)),
    plot: () => kept((run) => run.plot()),
    summarise: (summary) => kept((run) => run.summarise(summary)),
    keep: (model) => kept((run) => run.keep(model)),
  };
}
