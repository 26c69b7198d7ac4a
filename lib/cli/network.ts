import { storedModel } from '../inference/stored.js';
import { openWeights } from '../io/weights.js';
import { describeModel, modelNames } from '../models/index.js';
import type { ModelDescription } from '../models/row.js';
import type { CommandSpec } from './args.js';
import { UsageError } from './verb.js';

/** The argument that {@link describeNetwork} takes, for a command's description. */
export const NETWORK = {
  name: 'model',
  help: 'a name that "panns models" lists, or a file of weights',
} as const;

/** What --model takes where weights are needed. */
export const MODEL_HELP = 'a file of weights, or the name of published ones: mn04';

/** A shape of its work, for the commands that ask about it. */
export const networkOptions = {
  batch: { type: 'integer', min: 1, default: 32, help: 'clips of a batch' },
  seconds: { type: 'number', min: 0.01, max: 3600, default: 10, help: 'length of a clip' },
  classes: { type: 'integer', min: 1, help: "of a network by name; default AudioSet's 527" },
} as const satisfies CommandSpec['options'];

/**
 * The network of that name, or the one whose weights a file holds; no weights are read.
 *
 * @throws UsageError for a file of another number of classes
 */
export async function describeNetwork(
  command: CommandSpec,
  source: string,
  { classes }: { classes?: number | undefined } = {},
): Promise<ModelDescription> {
  if (modelNames.includes(source)) return describeModel(source, classes ? { classes } : {});
  await using file = await openWeights(source);
  const { description } = await storedModel(file);
  if (classes !== undefined && description.config.classes !== classes) {
    throw new UsageError(command, '--classes is for a network by name, not for a file');
  }
  return description;
}
