import { tunePlans } from '../train/tune_plans.js';
import type { CommandSpec } from './args.js';
import { describeNetwork, NETWORK, networkOptions } from './network.js';
import { createProgress } from './progress.js';
import { defineVerb, EXIT } from './verb.js';

const command = {
  name: 'panns tune',
  summary: 'Time the ways a GPU can compute a model, and keep the fastest',
  positionals: [NETWORK],
  options: {
    ...networkOptions,
    train: { type: 'boolean', help: 'tune training too, not only inference' },
    gpu: { type: 'integer', min: 0, default: 0, help: 'which GPU' },
    precision: {
      type: 'string',
      choices: ['fp32', 'tf32', 'bf16', 'fp16'],
      default: 'fp32',
      help: 'in which the model will run',
    },
    json: { type: 'boolean', help: 'print JSON' },
  },
} as const satisfies CommandSpec;

/** `panns tune`: finds the fastest plans of a GPU for a network, ahead of its use. */
export const tune = defineVerb(
  command,
  async (values, [source = ''], { print, messages, signal }) => {
    const { batch, seconds, classes, train, gpu, precision, json } = values;
    const description = await describeNetwork(command, source, { classes });
    let progress: ReturnType<typeof createProgress> | undefined;
    const tuned = await tunePlans(description, {
      ...{ batch, seconds, gpu, precision, signal },
      ...(train && { recipe: { batchSize: batch, clipSeconds: seconds } }),
      onProgress: (done, total, node) => {
        progress ??= createProgress({
          ...{ label: 'tuning', total, unit: 'convolutions', stream: messages, silent: json },
        });
        progress.update(done, node);
      },
    });
    progress?.finish('');
    if (json) print(JSON.stringify({ model: description.name, ...tuned }));
    else {
      const parts = [
        `${tuned.inference} convolutions of inference`,
        ...(train ? [`${tuned.training} of training`] : []),
      ];
      print(`${description.name}: plans for ${parts.join(' and ')} are kept`);
    }
    return EXIT.ok;
  },
);
