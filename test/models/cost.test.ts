import t from 'tap';
import { layerCosts, modelCost } from '../../lib/models/cost.js';
import { buildGraph } from '../../lib/models/graph.js';
import { describeModel, modelNames, modelRows } from '../../lib/models/index.js';
import { resolveOptions } from '../../lib/models/options.js';

/**
 * For a clip of 10 s: values that train, 10^9 multiply-accumulates with the spectrogram as a
 * convolution, and 10^9 multiply-adds as the paper counts; null where nobody has printed the number.
 */
type Printed = readonly [parameters: number, macs: string | null, multiplyAdds: string | null];

const TABLE: Record<string, Printed> = {
  Cnn6: [4_837_455, '10.985', '21.986'],
  Cnn10: [5_219_279, '14.068', '28.166'],
  Cnn14: [80_753_615, '21.094', '42.220'],
  Cnn14_no_specaug: [80_753_615, '21.094', '42.220'],
  Cnn14_no_dropout: [80_753_615, '21.094', '42.220'],
  Cnn14_mixup_time_domain: [80_753_615, '21.094', '42.220'],
  Cnn14_emb512: [76_796_879, null, '42.21'],
  Cnn14_emb128: [75_807_695, null, '42.21'],
  Cnn14_emb32: [75_560_399, null, '42.21'],
  Cnn14_mel32: [80_753_551, '11.075', '22.167'],
  Cnn14_mel128: [80_753_743, '41.130', '82.325'],
  Cnn14_16k: [80_753_615, '20.305', '40.643'],
  Cnn14_8k: [80_753_615, '20.108', '40.248'],
  ResNet22: [63_675_087, '15.015', '30.081'],
  ResNet38: [73_783_247, '24.443', '48.962'],
  ResNet54: [104_318_159, '27.177', '54.563'],
  MobileNetV1: [4_796_303, '1.791', '3.614'],
  MobileNetV2: [4_075_343, '1.394', '2.810'],
  LeeNet11: [748_367, '2.352', '4.741'],
  LeeNet24: [10_003_791, '13.135', '26.369'],
  DaiNet19: [4_385_807, '15.149', '30.395'],
  Res1dNet31: [80_464_463, '16.268', '32.688'],
  Res1dNet51: [106_538_063, '30.813', '61.833'],
  Wavegram_Cnn14: [80_991_759, '22.088', '44.234'],
  Wavegram_Logmel_Cnn14: [81_065_487, '26.717', '53.510'],
  Wavegram_Logmel128_Cnn14: [81_262_735, '49.974', '100.065'],
  Cnn14_DecisionLevelMax: [80_753_615, '21.252', '42.220'],
  Cnn14_DecisionLevelAvg: [80_753_615, null, null],
  Cnn14_DecisionLevelAtt: [81_834_492, '21.285', '42.351'],
};

/**
 * EfficientAT's, as its authors print them: 10^6 parameters (mn04's: counted in its published file)
 * and 10^9 multiply-accumulates, without the spectrogram, which is an FFT there.
 */
const EFFICIENTAT: Record<string, readonly [parameters: string, macs: string]> = {
  mn04: ['0.9836', '0.11'],
  mn05: ['1.43', '0.16'],
  mn10: ['4.88', '0.54'],
  mn20: ['17.91', '2.06'],
  mn30: ['39.09', '4.55'],
  mn40: ['68.43', '8.03'],
};

/** A count in `unit`s with as many decimals as the printed one. */
const like = (printed: string, count: number, unit = 1e9) =>
  (count / unit).toFixed(printed.split('.')[1]?.length ?? 0);

const costOf = (name: string) => {
  const model = describeModel(name);
  return modelCost(model, 10 * model.config.sampleRate);
};

t.test('every model costs what is printed', async (t) => {
  t.same([...Object.keys(TABLE), ...Object.keys(EFFICIENTAT)], modelNames);
  for (const [name, [parameters, macs, adds]] of Object.entries(TABLE)) {
    const cost = costOf(name);
    t.equal(cost.parameters, parameters, `${name}: parameters`);
    if (macs) t.equal(like(macs, cost.macs + cost.spectrogramMacs), macs, `${name}: MACs`);
    if (adds) t.equal(like(adds, cost.multiplyAdds), adds, `${name}: multiply-adds`);
  }
  for (const [name, [parameters, macs]] of Object.entries(EFFICIENTAT)) {
    const cost = costOf(name);
    t.equal(like(parameters, cost.parameters, 1e6), parameters, `${name}: parameters`);
    t.equal(like(macs, cost.macs), macs, `${name}: MACs`);
    t.equal(cost.spectrogramMacs, 0);
  }
});

t.test('what the rows say was published is what is counted', async (t) => {
  for (const { name, published } of modelRows) {
    if (published?.multiplyAdds === undefined) continue;
    const { macs, multiplyAdds } = costOf(name);
    const [counted, digits] = name in TABLE ? [multiplyAdds, 3] : [macs, 2];
    t.equal((counted / 1e9).toFixed(digits), published.multiplyAdds.toFixed(digits), name);
  }
});

t.test('buffers', async (t) => {
  const counts = { Cnn14: 16_269, MobileNetV2: 34_293, Wavegram_Cnn14: 17_942, LeeNet11: 2_185 };
  for (const [name, buffers] of Object.entries(counts)) t.equal(costOf(name).buffers, buffers);
});

t.test('the rules, by hand on a small network', async (t) => {
  const config = resolveOptions({ melBins: 32 });
  const graph = buildGraph('Small', (b, waveform) => {
    const front = b.logmel(waveform, config);
    const outside = b.relu(b.conv('conv', front, { channels: 6, kernel: 3, padding: 1 }));
    const trunk = b.scope('resnet', () => {
      const x = b.relu(
        b.batchNorm(
          'bn',
          b.conv('deep', outside, { channels: 6, kernel: 5, groups: 3, stride: 2 }),
        ),
      );
      return b.relu6(b.pool(b.pool(x, 'avg', 2), 'max', [1, 2]));
    });
    const features = b.scope('features.0', () => {
      return b.batchNorm('2', b.conv('0', trunk, { channels: 4, kernel: 1, bias: true }));
    });
    const frames = b.linear('rows', b.meanOverFrequency(features), 5);
    b.unused('ghost', { weight: [7, 2] });
    return { logits: b.linear('fc', b.reduceTime(frames, 'max'), 3) };
  });
  const samples = 320 * 40;
  const T = 41;
  const spectrogram = 2 * 513 * 1024 * T;
  // conv 41 x 32; deep (41 - 5) / 2 + 1 = 19 by 14; mean pool 9 x 7; max pool 9 x 3.
  const macs = {
    conv: 9 * 6 * T * 32,
    deep: 25 * 2 * 6 * 19 * 14,
    point: 6 * 4 * 9 * 3,
    rows: 4 * 5 * 9,
    fc: 15,
  };
  const adds = [
    2 * (spectrogram + macs.conv + macs.deep + macs.point + macs.fc),
    // Biases of the 1x1 convolution, of one row of `rows` with its weights, and of `fc`.
    4 * 9 * 3 + (2 * 4 * 5 + 5) + 3,
    // Norm and ReLU of the trunk, the mean pool's windows, the norm after a gap.
    (2 + 2) * 6 * 19 * 14 + 4 * 6 * 9 * 7 + (2 + 1) * 4 * 9 * 3,
  ];
  const sum = (counts: readonly number[]) => counts.reduce((a, b) => a + b, 0);
  t.same(modelCost(graph, samples), {
    parameters: 54 + 300 + 12 + 24 + 4 + 8 + 25 + 18 + 14,
    buffers: 2 * 6 + 1 + 2 * 4 + 1,
    macs: sum(Object.values(macs)),
    spectrogramMacs: spectrogram,
    multiplyAdds: sum(adds),
  });
  const layers = layerCosts(graph, samples);
  const deep = graph.spec.nodes.findIndex(({ path }) => path === 'resnet.deep');
  t.same(layers[deep], { parameters: 300, macs: macs.deep, multiplyAdds: 2 * macs.deep });
  t.equal(layers.length, graph.spec.nodes.length);
});

t.test('a length that the network does not take', async (t) => {
  const model = describeModel('Wavegram_Logmel_Cnn14');
  const fault = { code: 'ERR_PANNS_SHAPE', where: 'Wavegram_Logmel_Cnn14' };
  t.throws(() => modelCost(model, 220_500), { ...fault, expected: 220_796, actual: 220_500 });
  for (const samples of [0, -1, 0.5, NaN, Infinity, 9_999]) {
    t.throws(() => modelCost(model, samples), { ...fault, expected: 10_236 });
  }
});
