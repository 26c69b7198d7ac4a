import t from 'tap';
import { describeModel, modelNames } from '../../lib/models/index.js';
import { loadNative } from '../../lib/native.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { calibrate, checkInference, clips, makeSubject, mirror } from '../helpers/training.js';

const native = loadNative();
const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);
const BATCH = 2;

/** Frames that the head sees of a clip of 10 s, and the shortest clip; by the paper's models. */
const known: Record<string, readonly [frames: number, shortest: number]> = {
  Cnn6: [62, 4800],
  Cnn10: [62, 4800],
  Cnn14: [31, 9920],
  Cnn14_mel32: [31, 9920],
  Cnn14_mel128: [31, 9920],
  Cnn14_16k: [31, 4960],
  Cnn14_8k: [31, 2480],
  ResNet22: [31, 9920],
  ResNet38: [31, 9920],
  ResNet54: [31, 9920],
  MobileNetV1: [31, 9920],
  MobileNetV2: [31, 9920],
  LeeNet11: [17, 1],
  LeeNet24: [49, 1],
  DaiNet19: [1249, 332],
  Res1dNet31: [15, 20476],
  Res1dNet51: [15, 20476],
  Wavegram_Cnn14: [31, 10236],
  // Of lengths that leave both branches as many frames.
  Wavegram_Logmel_Cnn14: [31, 10236],
  Wavegram_Logmel128_Cnn14: [31, 10236],
  Cnn14_DecisionLevelMax: [31, 9920],
  Cnn14_DecisionLevelAvg: [31, 9920],
  Cnn14_DecisionLevelAtt: [31, 9920],
  mn10: [32, 513],
};

/** They differ from Cnn14 in training alone. */
const asCnn14 = ['Cnn14_no_specaug', 'Cnn14_no_dropout', 'Cnn14_mixup_time_domain'];

for (const name of modelNames) {
  const { stateDict, spec, config, minimumSamples, lengthFor } = describeModel(name);
  const { sampleRate } = config;

  t.test(`${name}: the core has the same parameters`, async (t) => {
    const model = await native.createModel(spec, { device: 'null', threads: 1 }, sampleRate);
    const core = model.parameters().map(({ name, shape, trainable }) => ({
      name,
      size: shape.reduce((a, b) => a * b),
      trainable,
    }));
    const expected = stateDict
      .filter(({ role }) => role === 'parameter' || role === 'buffer')
      .map(({ name, shape, role }) => ({
        name,
        size: shape.reduce((a, b) => a * b),
        trainable: role === 'parameter',
      }));
    const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
    t.same(core.sort(byName), expected.sort(byName));
    model.dispose();
  });

  const [frames, shortest] = known[name] ?? [];
  if (frames === undefined || shortest === undefined) continue;
  t.test(`${name}: frames that the head sees, the shortest clip`, async (t) => {
    const model = await native.createModel(spec, { device: 'null', threads: 1 }, 10 * sampleRate);
    const text = await model.text(1, 10 * sampleRate, []);
    const axisIsFrequency = /= reduce\(%\d+\)\s+1x\d+x(\d+)x1 /.exec(text)?.[1];
    t.equal(Number(axisIsFrequency), frames);
    t.equal(minimumSamples, shortest);
    t.equal(lengthFor(1), shortest);
    await t.resolves(model.text(1, shortest, []));
    if (shortest > 1) {
      await t.rejects(model.text(1, shortest - 1, []), { code: 'ERR_PANNS_SHAPE' });
    }
    model.dispose();
  });
}

t.test('variants of training are the same network at inference', async (t) => {
  const textOf = async (row: string) => {
    const { spec } = describeModel(row);
    const model = await native.createModel(spec, { device: 'null', threads: 1 }, 32000);
    const text = await model.text(2, 64000, []);
    model.dispose();
    return text.replaceAll(row, 'Cnn14');
  };
  const expected = await textOf('Cnn14');
  for (const row of asCnn14) t.equal(await textOf(row), expected, row);
});

for (const name of modelNames.filter((row) => !asCnn14.includes(row))) {
  t.test(`${name}: every output is PyTorch's`, { skip }, async (t) => {
    const { config, minimumSamples, lengthFor } = describeModel(name);
    const samples = lengthFor(2 * config.sampleRate);
    const subject = await makeSubject(t, draws, name, samples);
    await mirror(oracle, subject);
    await calibrate(oracle, draws, subject, clips(draws, BATCH, samples));
    for (const length of [samples, lengthFor(minimumSamples)]) {
      await checkInference(t, oracle, subject, clips(draws, BATCH, length), BATCH);
    }
    subject.model.dispose();
  });
}

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
