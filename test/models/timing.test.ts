import t from 'tap';
import { createModel, modelInternals } from '../../lib/inference/model.js';
import { convBlock } from '../../lib/models/blocks.js';
import { logmelFrontend } from '../../lib/models/frontends.js';
import { head } from '../../lib/models/heads.js';
import { describeModel, modelNames } from '../../lib/models/index.js';
import type { ModelRow } from '../../lib/models/row.js';
import { segmentGrid } from '../../lib/models/timing.js';
import { openDraws } from '../helpers/random.js';

const RATE = 8000;
const HOP = 80;

/** Pools as PANNs, and strides with one-sided steps as MobileNetV3. */
const rows: readonly ModelRow[] = [
  {
    name: 'Pooled',
    build(b, waveform, config) {
      const front = logmelFrontend(b, waveform, config);
      const x = convBlock(b, 'conv_block1', front, 4, 2);
      return head(b, convBlock(b, 'conv_block2', x, 4, 2), front, config);
    },
  },
  {
    name: 'Strided',
    build(b, waveform, config) {
      const front = logmelFrontend(b, waveform, config);
      const step = { channels: 4, kernel: 5, stride: 2, padding: 2 } as const;
      const x = b.relu(b.conv('one', front, step));
      return head(b, b.relu(b.conv('two', x, { ...step, kernel: 3, padding: 1 })), front, config);
    },
  },
];

t.test('the middle of a segment is the middle of what it hears', async (t) => {
  const { random } = openDraws(t);
  for (const row of rows) {
    using model = await createModel(row, {
      ...{ sampleRate: RATE, melBins: 16, head: 'max', classes: ['a', 'b'], threads: 1 },
      ...{ seed: random.integer(1000), windowSize: 256, hopSize: HOP },
    });
    const { description } = modelInternals(model);
    const grid = segmentGrid(description);
    if (grid === undefined) throw new Error(`${row.name} has no segments`);
    const samples = 120 * HOP;
    const noise = Float32Array.from({ length: samples }, () => random.between(-0.3, 0.3));
    const infer = async (x: Float32Array) => {
      const { framewise_output } = await model.infer(x, { outputs: ['framewise_output'] });
      return framewise_output.data;
    };
    const base = await infer(noise);
    const count = grid.count(samples);
    t.ok(count >= 25 && count <= 31, `${count} segments`);
    // Which segments a change around each frame reaches.
    const reached = Array.from({ length: count }, (): number[] => []);
    for (let frame = 0; frame < 120; frame++) {
      const changed = noise.slice();
      for (let i = 0; i < HOP; i++) changed[frame * HOP + i] = random.between(-1, 1);
      const scores = await infer(changed);
      for (let s = 0; s < count; s++) {
        const at = s * grid.ratio * 2;
        const differs = scores[at] !== base[at] || scores[at + 1] !== base[at + 1];
        if (differs) reached[s]?.push(frame);
      }
    }
    // Away from the ends, where nothing is cut off.
    for (let s = 10; s < 18; s++) {
      const own = reached[s] ?? [];
      const middle = (((own[0] ?? NaN) + (own.at(-1) ?? NaN) + 1) / 2) * HOP;
      const told = grid.first + s * grid.step;
      // Frames of 80 samples tell either end to within one.
      t.ok(Math.abs(middle - told) <= HOP, `${row.name} ${s}: ${middle}, told ${told}`);
    }
  }
});

t.test(
  'published heads: segments stand in the middle of the frames that repeat them',
  async (t) => {
    const grid = segmentGrid(describeModel('Cnn14_DecisionLevelMax'));
    t.match(grid, { first: 15.5 * 320, step: 32 * 320, ratio: 32 });
    t.equal(grid?.count(320_000), 31);
    // Every strided layer of MobileNetV3 begins with the first frame; pre-emphasis takes a sample.
    t.match(segmentGrid(describeModel('mn04', { head: 'max' })), { first: 1, step: 32 * 320 });
    for (const name of modelNames) t.doesNotThrow(() => segmentGrid(describeModel(name)), name);
    t.equal(segmentGrid(describeModel('Cnn14')), undefined);
  },
);
