import t from 'tap';
import { describeModel, modelNames } from '../../lib/models/index.js';
import { loadNative } from '../../lib/native.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { checkModel } from '../helpers/training.js';

const native = loadNative();
const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);

/** How much the blocks shrink time, and the shortest clip, of the paper's table. */
const known = { Cnn6: [16, 4800], Cnn14: [32, 9920] } as const;

for (const [name, [stride, shortest]] of Object.entries(known)) {
  const { spec, minimumSamples } = describeModel(name);
  t.test(`${name}: frames left at the end, by the seconds of a clip`, async (t) => {
    const model = await native.createModel(spec, { device: 'null', threads: 1 }, 32000);
    for (const seconds of [1, 2, 5, 7, 10, 30]) {
      const text = await model.text(1, 32000 * seconds, []);
      const frames = 100 * seconds + 1;
      t.match(text, new RegExp(`^logmel .* 1x1x${frames}x64 `, 'm'), `${seconds} s: frames`);
      const left = /= reduce\(%\d+\)\s+1x\d+x(\d+)x1 /.exec(text)?.[1];
      t.equal(Number(left), Math.floor(frames / stride), `${seconds} s: segments`);
    }
    t.equal(minimumSamples, shortest);
    await t.rejects(model.text(1, shortest - 1, []), { code: 'ERR_PANNS_SHAPE' });
    await t.resolves(model.text(1, shortest, []));
    model.dispose();
  });
}

/** They differ from Cnn14 in training alone. */
const asCnn14 = ['Cnn14_no_specaug', 'Cnn14_no_dropout', 'Cnn14_mixup_time_domain'];

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

// Those with more parameters have test files of their own.
const large = /^(Cnn14|ResNet|Res1dNet|Wavegram|mn[34]0)/;

for (const name of modelNames.filter((row) => !large.test(row))) {
  t.test(`${name}: every output`, { skip }, (t) => checkModel(t, oracle, draws, name, 2));
}

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
