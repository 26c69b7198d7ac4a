import { openProcessGroup } from '../train/distributed.js';
import { command, type TrainValues } from './train_command.js';
import { contextOf, type TrainContext } from './train_distributed.js';
import { resumeFolds, trainFewShots, trainFolds } from './train_many.js';
import { beginRun, resumeRun, runTraining } from './train_run.js';
import { defineVerb, EXIT, UsageError } from './verb.js';

/** What a run that is resumed may still be told. */
const RESUMABLE = [
  ...['out', 'resume', 'epochs', 'threads', 'distributed', 'json'],
  ...['device', 'gpu', 'precision'],
];

/** `panns train`: trains into a run folder, or several runs, and goes on with them. */
export const train = defineVerb(command, async (values, _, context) => {
  if (!values.distributed) {
    if (!values['sync-norms']) return trainWith(values, context);
    throw new UsageError(command, '--sync-norms needs --distributed');
  }
  for (const other of ['folds', 'shots', 'gpu'] as const) {
    if (values[other] === undefined) continue;
    throw new UsageError(command, `--${other} does not go with --distributed`);
  }
  if (values.device === 'auto') {
    throw new UsageError(command, '--distributed needs --device cpu or cuda, the same in all');
  }
  await using group = await openProcessGroup({
    engine: values.device === 'cuda' ? 'nccl' : 'mpi',
  });
  return await trainWith(values, contextOf(context, group));
});

async function trainWith(values: TrainValues, context: TrainContext): Promise<number> {
  if (values.resume) {
    const fixed = Object.entries(values).find(
      ([name, value]) => value !== undefined && value !== false && !RESUMABLE.includes(name),
    );
    if (fixed !== undefined) {
      throw new UsageError(command, `--${fixed[0]} is settled by the run that is resumed`);
    }
    if (await resumeFolds(values, context)) return EXIT.ok;
    const { trainer, run } = await resumeRun(values, context);
    await runTraining(trainer, run, values, context);
    return EXIT.ok;
  }
  checkTogether(values);
  if (values.folds !== undefined) await trainFolds(values, values.folds, context);
  else if (values.shots !== undefined) await trainFewShots(values, values.shots, context);
  else {
    const { trainer, run } = await beginRun(values, context);
    await runTraining(trainer, run, values, context);
  }
  return EXIT.ok;
}

/** Options that contradict each other, or say nothing without another. */
function checkTogether(values: TrainValues): void {
  const fail = (what: string) => {
    throw new UsageError(command, what);
  };
  if (values.data === undefined) fail('the option --data is missing');
  if (values.folds !== undefined) {
    for (const other of ['train-folds', 'val-folds', 'val-fraction', 'shots'] as const) {
      if (values[other] !== undefined) fail(`--${other} does not go with --folds`);
    }
  }
  if (values.seeds !== undefined && values.shots === undefined) fail('--seeds needs --shots');
  const base = (values.freeze ?? 'none') !== 'none';
  if (values['cache-features'] && !base) fail('--cache-features needs --freeze');
}
