import {
  type ModelProfile,
  type ProfiledNode,
  type ProfiledWork,
  type ProfileSum,
  profileModel,
} from '../train/profile.js';
import type { CommandSpec } from './args.js';
import { chosenDevice, deviceOptions } from './device.js';
import { type Column, formatNumber, formatPercent, formatTable } from './format.js';
import { describeNetwork, NETWORK, networkOptions } from './network.js';
import { createProgress } from './progress.js';
import { defineVerb, EXIT, UsageError } from './verb.js';

const command = {
  name: 'panns profile',
  summary: 'Show where the time of a model goes, layer by layer',
  positionals: [NETWORK],
  options: {
    ...networkOptions,
    // A CPU takes seconds for more; an inference computes no more of 10 s at once.
    batch: { type: 'integer', min: 1, default: 8, help: 'clips of a batch' },
    train: { type: 'boolean', help: 'profile a training step, not an inference' },
    mixup: { type: 'boolean', help: 'of a training step: on mixed pairs of clips' },
    runs: { type: 'integer', min: 1, max: 1000, default: 5, help: 'timed runs' },
    ...deviceOptions,
    json: { type: 'boolean', help: 'print JSON' },
  },
} as const satisfies CommandSpec;

/** `panns profile`: a network's program node by node, beside what the machine could do. */
export const profile = defineVerb(
  command,
  async (values, [source = ''], { print, messages, signal }) => {
    const { batch, seconds, classes, train, mixup, runs, json } = values;
    if (mixup && !train) {
      throw new UsageError(command, '--mixup is of a training step: give --train');
    }
    const description = await describeNetwork(command, source, { classes });
    const progress = createProgress({
      ...{ label: 'profiling', total: runs + 1, unit: 'runs', stream: messages, silent: json },
    });
    const found = await profileModel(description, {
      ...chosenDevice(values),
      ...{ batch, seconds, runs, signal },
      ...(train && { recipe: { batchSize: batch, clipSeconds: seconds, mixup } }),
      onProgress: (done) => progress.update(done),
    });
    progress.finish('');
    if (json) print(JSON.stringify(found));
    else for (const line of page(found)) print(line);
    return EXIT.ok;
  },
);

const WORK: readonly Column[] = [
  ...['ms', 'share', 'GFLOP', 'MB', 'GFLOP/s', 'GB/s', 'floor ms', 'x floor'].map(
    (title) => ({ title, align: 'right' }) as const,
  ),
];

const LAYERS: readonly Column[] = [
  ...[{ title: 'layer' }, { title: 'op' }, { title: 'makes' }],
  ...WORK,
];

function page(found: ModelProfile): string[] {
  const { model, device, hardware, training, batch, samples, runs, rates, nodes, total } = found;
  const { byPass, byOp, byBlock, stepSeconds } = found;
  const row = cells(total.seconds);
  const table = (title: string, sums: readonly ProfileSum[]) => [
    '',
    formatTable(
      [{ title }, { title: 'nodes', align: 'right' }, ...WORK],
      sums.map((sum) => [sum.name, sum.nodes, ...row(sum)]),
    ),
  ];
  const once = nodes.filter((node) => node.once);
  return [
    `${model} on ${device} (${hardware}), ${training ? 'training' : 'inference'}: ` +
      `${batch} ${batch === 1 ? 'clip' : 'clips'} of ${samples} samples, ${runs === 1 ? 'one run' : `medians of ${runs} runs`}`,
    `the device reaches ${formatNumber(rates.flopsPerSecond / 1e9)} GFLOP/s in a product of matrices, ` +
      `${formatNumber(rates.bytesPerSecond / 1e9)} GB/s in adding maps`,
    '',
    formatTable(
      LAYERS,
      nodes
        .filter((node) => !node.once)
        .map((node) => [node.path, opOf(node), node.shape.join('x'), ...row(node)]),
    ),
    ...(byPass.length > 1 ? table('pass', byPass) : []),
    ...table('op', byOp),
    ...table('block', [...byBlock, total]),
    '',
    `${formatNumber(1e3 * stepSeconds)} ms as usual, ${formatNumber(1e3 * total.seconds)} ms ` +
      `as the sum of all nodes, ${formatNumber(1e3 * total.floorSeconds)} ms as that of their floors`,
    ...(once.length === 0
      ? []
      : [`${once.length} nodes more run only when weights change: ${ops(once)}`]),
  ];
}

/** `conv 3x3 +bias +relu`: the kernel and what is fused to it, without the other attributes. */
function opOf({ op, detail }: ProfiledNode): string {
  return [op, ...(detail.match(/^\d+x\d+|(?<= )\+\w+/g) ?? [])].join(' ');
}

function ops(nodes: readonly ProfiledNode[]): string {
  return [...new Set(nodes.map(({ op }) => op))].join(', ');
}

function cells(all: number) {
  return ({ seconds, flops, bytes, floorSeconds }: ProfiledWork): string[] => [
    formatNumber(1e3 * seconds),
    formatPercent(seconds / all),
    flops === 0 ? '' : formatNumber(flops / 1e9),
    formatNumber(bytes / 1e6),
    flops === 0 ? '' : formatNumber(flops / seconds / 1e9),
    bytes === 0 ? '' : formatNumber(bytes / seconds / 1e9),
    formatNumber(1e3 * floorSeconds),
    floorSeconds === 0 ? '' : formatNumber(seconds / floorSeconds),
  ];
}
