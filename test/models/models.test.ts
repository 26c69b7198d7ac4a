import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { convBlock5x5 } from '../../lib/models/blocks.js';
import { buildGraph } from '../../lib/models/graph.js';
import { describeModel, modelNames } from '../../lib/models/index.js';
import { resolveOptions } from '../../lib/models/options.js';
import type { ModelDescription } from '../../lib/models/row.js';
import type { Builder, Tensor } from '../../lib/models/tensor.js';

const root = join(import.meta.dirname, '..', '..');
const shared = process.env.PANNS_SHARED ?? join(root, '..', 'shared');
const reference = join(shared, 'reference', 'panns_state_dicts.json');

/** Parameters that train, and values in norms' buffers, of the paper's models as PyTorch counts them. */
const COUNTS: Record<string, readonly [trainable: number, buffers: number]> = {
  Cnn6: [4_837_455, 2_053],
  Cnn10: [5_219_279, 3_977],
  Cnn14: [80_753_615, 16_269],
  Cnn14_no_specaug: [80_753_615, 16_269],
  Cnn14_no_dropout: [80_753_615, 16_269],
  Cnn14_mixup_time_domain: [80_753_615, 16_269],
  Cnn14_emb512: [76_796_879, 16_269],
  Cnn14_emb128: [75_807_695, 16_269],
  Cnn14_emb32: [75_560_399, 16_269],
  Cnn14_mel32: [80_753_551, 16_205],
  Cnn14_mel128: [80_753_743, 16_397],
  Cnn14_16k: [80_753_615, 16_269],
  Cnn14_8k: [80_753_615, 16_269],
  ResNet22: [63_675_087, 18_072],
  ResNet38: [73_783_247, 25_512],
  ResNet54: [104_318_159, 61_625],
  MobileNetV1: [4_796_303, 22_044],
  MobileNetV2: [4_075_343, 34_293],
  LeeNet11: [748_367, 2_185],
  LeeNet24: [10_003_791, 11_922],
  DaiNet19: [4_385_807, 9_749],
  Res1dNet31: [80_464_463, 50_595],
  Res1dNet51: [106_538_063, 73_655],
  Wavegram_Cnn14: [80_991_759, 17_942],
  Wavegram_Logmel_Cnn14: [81_065_487, 17_942],
  Wavegram_Logmel128_Cnn14: [81_262_735, 18_582],
  Cnn14_DecisionLevelMax: [80_753_615, 16_269],
  Cnn14_DecisionLevelAvg: [80_753_615, 16_269],
  Cnn14_DecisionLevelAtt: [81_834_492, 17_324],
};

/** EfficientAT's, in millions: mn04's as in its published weights, the others as its authors print. */
const MILLIONS: Record<string, number> = {
  mn04: 0.9836,
  mn05: 1.43,
  mn10: 4.88,
  mn20: 17.91,
  mn30: 39.09,
  mn40: 68.43,
};

/** Values in the tensors of these roles; what is stored and unused counts as PyTorch counts it. */
function count({ stateDict }: ModelDescription, trains: boolean): number {
  const sizes = stateDict.map(({ name, shape, role }) => {
    const buffer = /(running_mean|running_var|num_batches_tracked)$/.test(name);
    return role === 'derived' || buffer === trains ? 0 : shape.reduce((size, n) => size * n, 1);
  });
  return sizes.reduce((sum, size) => sum + size, 0);
}

t.test('the models have the parameters that were published', async (t) => {
  t.same(modelNames, [...Object.keys(COUNTS), ...Object.keys(MILLIONS)]);
  for (const [name, counts] of Object.entries(COUNTS)) {
    const model = describeModel(name);
    t.same([count(model, true), count(model, false)], counts, name);
  }
  for (const [name, millions] of Object.entries(MILLIONS)) {
    const digits = millions < 1 ? 4 : 2;
    t.equal(
      (count(describeModel(name), true) / 1e6).toFixed(digits),
      millions.toFixed(digits),
      name,
    );
  }
});

const absent = existsSync(reference) ? false : `${reference} is not there`;
t.test('state dicts equal those of the published models', { skip: absent }, async (t) => {
  const published = JSON.parse(readFileSync(reference, 'utf8')) as Record<string, unknown>;
  t.same(Object.keys(COUNTS), Object.keys(published));
  for (const name of Object.keys(COUNTS)) {
    const entries = describeModel(name).stateDict.map(({ name, shape, dtype }) => {
      return [name, shape, dtype === 'F32' ? 'float32' : 'int64'];
    });
    t.same(entries, published[name], name);
  }
});

t.test('the shortest clip keeps one frame after the last pool', async (t) => {
  t.equal(describeModel('Cnn6').minimumSamples, 4800);
  t.equal(describeModel('Cnn10').minimumSamples, 4800);
  t.equal(describeModel('Cnn14').minimumSamples, 9920);
  t.equal(describeModel('Cnn14', { sampleRate: 16000 }).minimumSamples, 4960);
  const least: Record<string, number> = {
    ResNet38: 9920,
    MobileNetV2: 9920,
    Cnn14_DecisionLevelAtt: 9920,
    Cnn14_8k: 2480,
    Wavegram_Cnn14: 10236,
    Wavegram_Logmel_Cnn14: 10236,
    LeeNet11: 1,
    LeeNet24: 1,
    DaiNet19: 332,
    Res1dNet31: 20476,
    // Half a window of the transform, and what pre-emphasis takes.
    mn10: 514,
  };
  for (const [name, samples] of Object.entries(least)) {
    t.equal(describeModel(name).minimumSamples, samples, name);
  }
  // With a long window the reflection at the edges asks for more than the pools do.
  const long = describeModel('Cnn6', { windowSize: 8192, hopSize: 100 });
  t.equal(long.minimumSamples, 4097);
});

t.test('a learned and a computed spectrogram meet at the next length both can have', async (t) => {
  const { lengthFor } = describeModel('Wavegram_Logmel_Cnn14');
  const rule = (samples: number) => {
    const even = Math.floor(samples / 320) % 2 === 0;
    return samples >= 10236 && (even || samples % 320 >= 316);
  };
  for (const samples of [1, 10237, 220_500, 320_000, 320_001, 32_000 * 7 + 300, 99_999]) {
    let next = samples;
    while (!rule(next)) next++;
    t.equal(lengthFor(samples), next, `${samples}`);
  }
  t.equal(describeModel('Cnn14').lengthFor(220_500), 220_500);
});

t.test('the front-end follows the sample rate', async (t) => {
  const rates: Record<number, readonly [window: number, hop: number, fmax: number]> = {
    32000: [1024, 320, 14000],
    16000: [512, 160, 8000],
    8000: [256, 80, 4000],
    44100: [1412, 441, 14000],
  };
  for (const [rate, [windowSize, hopSize, fmax]] of Object.entries(rates)) {
    const sampleRate = Number(rate);
    t.match(resolveOptions({ sampleRate }), { sampleRate, windowSize, hopSize, fmax, fmin: 50 });
  }
  t.match(resolveOptions({ sampleRate: 16000, hopSize: 320, fmax: 7000 }), {
    windowSize: 512,
    hopSize: 320,
    fmax: 7000,
  });
});

t.test('options choose what the graph has', async (t) => {
  const ops = (options: Parameters<typeof describeModel>[1]) => {
    return describeModel('Cnn6', options).spec.nodes.map(({ op }) => op);
  };
  const all = ops({});
  t.equal(all.filter((op) => op === 'dropout').length, 6, 'four blocks, two in the head');
  t.equal(ops({ dropout: false }).filter((op) => op === 'dropout').length, 2);
  t.notOk(ops({ specAugment: false }).includes('spec_augment'));
  t.notOk(ops({ mixup: false }).includes('mixup'));
  t.ok(ops({ activation: 'softmax' }).includes('softmax'));
  const logits = describeModel('Cnn6', { activation: 'logits' }).spec.outputs;
  t.equal(logits.clipwise_output, logits.logits);
  const order = [
    'logmel',
    'batch_norm',
    'spec_augment',
    'mixup',
    'conv',
    'batch_norm',
    'relu',
    'pool',
  ];
  t.same(all.slice(0, order.length), order);

  for (const [melBins, freqWidth] of [
    [32, 4],
    [64, 8],
    [128, 16],
  ]) {
    const { specAugment } = resolveOptions({ melBins: melBins as number });
    t.same(specAugment, { timeWidth: 64, freqWidth });
  }
  t.same(resolveOptions({ specAugment: { timeWidth: 9 } }).specAugment, {
    timeWidth: 9,
    freqWidth: 8,
  });
  t.same(describeModel('Cnn6', { classes: ['a', 'b'] }).labels, ['a', 'b']);
  t.equal(describeModel('Cnn6', { classes: 3 }).labels, undefined);
});

t.test('the embedding is dropped out after the classifier has read it', async (t) => {
  const { nodes, outputs } = describeModel('Cnn14').spec;
  const embedding = nodes[outputs.embedding ?? -1];
  const classifier = nodes.find(({ path }) => path === 'fc_audioset');
  t.equal(embedding?.op, 'dropout');
  t.same(embedding?.inputs, classifier?.inputs);
});

t.test('wrong options name what is right', async (t) => {
  const code = 'ERR_PANNS_OPTION';
  t.throws(() => describeModel('CNN41'), { code, message: /did you mean "Cnn14"/ });
  const misspelt = { melbins: 64 } as Parameters<typeof describeModel>[1];
  t.throws(() => describeModel('Cnn6', misspelt), { code, message: /did you mean "melBins"/ });
  const wrong: Parameters<typeof describeModel>[1][] = [
    { classes: 0 },
    { classes: ['a', 'a'] },
    { sampleRate: 16000.5 },
    { windowSize: 1023 },
    { hopSize: 0 },
    { melBins: 514 },
    { fmin: 14000 },
    { sampleRate: 16000, fmax: 14000 },
    { dropout: 1 },
    { specAugment: { timeWidth: 0 } },
    { activation: 'relu' as 'sigmoid' },
  ];
  for (const options of wrong) t.throws(() => describeModel('Cnn6', options), { code });
  t.throws(() => describeModel('Cnn14', { melBins: 16 }), {
    code: 'ERR_PANNS_SPEC',
    where: 'Cnn14/conv_block5.pool',
  });
});

const build = (body: (b: Builder, x: Tensor<'map'>) => Tensor<'map'>) =>
  buildGraph('Test', (b, waveform) => {
    const x = body(b, b.logmel(waveform, resolveOptions()));
    return { logits: b.linear('fc', b.reduceTime(b.meanOverFrequency(x), 'max'), 2) };
  });

t.test('registration fixes the order of the state dict', async (t) => {
  const { stateDict, spec } = build((b, x) =>
    b.scope('block', () => {
      b.register('second', 'first');
      const one = b.conv('first', x, { channels: 2, kernel: 3, padding: 1 });
      return b.conv('second', one, { channels: 4, kernel: [1, 3], padding: [0, 1] });
    }),
  );
  const own = stateDict.filter(({ role }) => role === 'parameter');
  t.same(
    own.map(({ name, shape }) => [name, shape]),
    [
      ['block.second.weight', [4, 2, 1, 3]],
      ['block.first.weight', [2, 1, 3, 3]],
      ['fc.weight', [2, 4]],
      ['fc.bias', [2]],
    ],
  );
  t.same(
    spec.nodes.map(({ path }) => path),
    ['logmel', 'block.first', 'block.second', 'reduce', 'reduce', 'fc'],
  );
});

t.test('the builder refuses what cannot be', async (t) => {
  const code = 'ERR_PANNS_SPEC';
  const twice = () =>
    build((b, x) =>
      b.conv('a', b.conv('a', x, { channels: 1, kernel: 1 }), { channels: 1, kernel: 1 }),
    );
  t.throws(twice, { code, where: 'Test/a' });
  const unused = () =>
    build((b, x) => {
      b.register('ghost');
      return x;
    });
  t.throws(unused, { code, where: 'Test/ghost' });
  t.throws(() => build((b, x) => b.pool(x, 'avg', [1, 65])), { code });
  const none = undefined as never;
  const size = { channels: 1, kernel: 1 };
  const wrong: [Parameters<typeof build>[0], string, RegExp][] = [
    [(b) => b.conv('a', none, size), 'a', /argument 2 of conv to be a tensor, got undefined/],
    [(b, x) => b.add(x, null as never), 'add', /argument 2 of add .* got null/],
    [(b) => b.scope('s', () => b.relu({} as never)), 's.relu', /argument 1 of relu .* got Object/],
    [(b) => convBlock5x5(b, 'c', none, 4, 2), 'c.conv1', /got undefined/],
  ];
  for (const [body, path, message] of wrong) {
    t.throws(() => build(body), { code, where: `Test/${path}`, message });
  }
  t.throws(() => buildGraph('Test', () => ({ y: none })), { code, where: 'Test/y' });
  t.throws(() => build((b, x) => b.add(x, b.pool(x, 'max', 2))), { code });
  t.throws(
    () => buildGraph('Test', (b, w) => ({ y: b.reduceTime(b.logmel(w, resolveOptions()), 'max') })),
    {
      code,
    },
  );
});
