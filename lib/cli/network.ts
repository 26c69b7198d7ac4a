import { storedModel } from '../inference/stored.js';
import { openWeights } from '../io/weights.js';
import { describeModel, modelNames } from '../models/index.js';
import type { ModelDescription } from '../models/row.js';

/** The argument that {@link describeNetwork} takes, for a command's description. */
export const NETWORK = {
  name: 'model',
  help: 'a name that "panns models" lists, or a file of weights',
} as const;

/** The network of that name, or the one whose weights a file holds; no weights are read. */
export async function describeNetwork(
  source: string,
  { classes }: { classes?: number | undefined } = {},
): Promise<ModelDescription> {
  if (modelNames.includes(source)) return describeModel(source, classes ? { classes } : {});
  await using file = await openWeights(source);
  return (await storedModel(file)).description;
}
