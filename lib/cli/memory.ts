import type { MemoryNeed } from '../inference/memory.js';
import { placeModel } from '../inference/model.js';
import { trainingMemory } from '../train/memory.js';
import { chosenDevice, deviceOptions } from './device.js';
import { type Column, formatBytes, formatNumber, formatTable } from './format.js';
import { describeNetwork, NETWORK, networkOptions } from './network.js';
import { defineVerb, EXIT } from './verb.js';

const command = {
  name: 'panns memory',
  summary: 'Say what a model needs of memory, and the largest batch that fits',
  positionals: [NETWORK],
  options: {
    ...networkOptions,
    optimizer: { type: 'string', choices: ['adam', 'sgd'], default: 'adam', help: 'of training' },
    mixup: { type: 'boolean', help: 'train on mixed pairs of clips' },
    freeze: {
      type: 'string',
      value: 'what',
      help: 'none, base (all but the classifier), or the last layer that does not train; default none',
    },
    ...deviceOptions,
    json: { type: 'boolean', help: 'print JSON' },
  },
} as const;

/** `panns memory`: what inference and training would allocate, without allocating it. */
export const memory = defineVerb(command, async (values, [source = ''], { print }) => {
  const { batch, seconds, classes, optimizer, mixup, freeze = 'none', json } = values;
  const description = await describeNetwork(command, source, { classes });
  using model = await placeModel(description, chosenDevice(values));
  const inference = await model.memory({ batch, seconds });
  const training = await trainingMemory(model, {
    batchSize: batch,
    clipSeconds: seconds,
    optimizer: { kind: optimizer },
    mixup,
    freeze: freeze === 'none' || freeze === 'base' ? freeze : { upTo: freeze },
  });
  if (json) print(JSON.stringify({ model: description.name, inference, training }));
  else for (const line of page(description.name, seconds, inference, training)) print(line);
  return EXIT.ok;
});

const COLUMNS: readonly Column[] = [
  { title: '' },
  { title: 'inference', align: 'right' },
  { title: 'training', align: 'right' },
];

const PARTS = [
  ...(['weights', 'gradients', 'optimizer', 'activations', 'scratch', 'kernels', 'total'] as const),
];

function page(name: string, seconds: number, ...needs: [MemoryNeed, MemoryNeed]): string[] {
  const [{ device, samples }] = needs;
  const row = (title: string, cell: (need: MemoryNeed) => string) => [title, ...needs.map(cell)];
  const rows = [
    row('clips at once', ({ batch }) => `${batch}`),
    ...PARTS.map((part) => row(part, (need) => formatBytes(need[part]))),
    row('free beside the weights', ({ free }) => (free === undefined ? '-' : formatBytes(free))),
    row('fits', ({ fits }) => (fits ? 'yes' : 'no')),
    row('largest batch that fits', ({ largestBatch }) => `${largestBatch}`),
  ];
  return [
    `${name} on ${device}, clips of ${formatNumber(seconds)} s (${samples} samples)`,
    '',
    formatTable(COLUMNS, rows),
  ];
}
