// A profile of an emulated device: what is marked, in which order, and what 16 bits move.
import t from 'tap';
import { convBlock } from '../../lib/models/blocks.js';
import { logmelFrontend } from '../../lib/models/frontends.js';
import { head } from '../../lib/models/heads.js';
import { describeModel } from '../../lib/models/index.js';
import type { ModelRow } from '../../lib/models/row.js';
import { type ModelProfile, profileModel } from '../../lib/train/profile.js';
import { emulateHere, noEmulator } from './emulator/setup.js';

const skip = noEmulator;
if (!skip) emulateHere();

/** Small: the emulator takes a second for an update of millions of parameters. */
const Small: ModelRow = {
  name: 'Small',
  defaults: { sampleRate: 8000, melBins: 16, embeddingSize: 32 },
  build(b, waveform, config) {
    const front = logmelFrontend(b, waveform, config);
    const x = convBlock(b, 'conv_block2', convBlock(b, 'conv_block1', front, 16, 2), 32, 2);
    return head(b, x, front, config);
  },
};
const network = describeModel(Small, { classes: 8 });
const recipe = { batchSize: 2, clipSeconds: 0.2 };
const found = new Map<string, ModelProfile>();

for (const precision of ['fp32', 'bf16'] as const) {
  t.test(`${precision}: a training step on an emulated device`, { skip }, async (t) => {
    const begin = performance.now();
    const profile = await profileModel(network, { device: 'cuda', precision, recipe, runs: 2 });
    const elapsed = (performance.now() - begin) / 1000;
    t.match(profile, { device: 'cuda', training: true, batch: 2, samples: 1600, runs: 2 });
    t.match(profile.hardware, new RegExp(precision));
    const { nodes, total, rates, stepSeconds } = profile;
    t.ok(nodes.every(({ seconds, floorSeconds }) => seconds > 0 && floorSeconds >= 0));
    t.ok(total.seconds > 0 && stepSeconds > 0 && total.seconds + stepSeconds < elapsed);
    t.ok(rates.flopsPerSecond > 0 && rates.bytesPerSecond > 0);
    t.equal(nodes.filter(({ op }) => op === 'bce').length, 1);
    t.same(profile.byPass.map(({ name }) => name).sort(), ['backward', 'forward', 'optimizer']);
    found.set(precision, profile);
  });
}

t.test('16 bits move half, and an optimizer writes the weights twice', { skip }, async (t) => {
  const bytesOf = (precision: string, path: string, op: string) =>
    found.get(precision)?.nodes.find((node) => node.path === path && node.op === op)?.bytes ?? 0;
  const pair = (path: string, op: string) =>
    ['fp32', 'bf16'].map((precision) => bytesOf(precision, path, op)) as [number, number];
  const [single, half] = pair('conv_block2.conv1', 'conv');
  t.equal(half, single / 2, 'maps and weights');
  // The weight's gradient stays float.
  const gradient = 4 * 32 * 16 * 9;
  const [wide, narrow] = pair('conv_block2.conv1', 'conv_backward_weight');
  t.equal(narrow - gradient, (wide - gradient) / 2);
  // Adam with amsgrad reads five floats of each parameter and writes four.
  const [adam, adamHalf] = pair('optimizer', 'adam');
  t.equal(adamHalf / adam, 38 / 36);
});
