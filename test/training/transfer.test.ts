import t from 'tap';
import { describeModel } from '../../lib/models/index.js';
import { type Freeze, frozenParameters } from '../../lib/train/freeze.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { calibrate, checkTraining, clips, makeSubject, mirror } from '../helpers/training.js';

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);
const SECONDS = 0.5;

const sgd = { optimizer: { kind: 'sgd', attrs: { momentum: 0.9 } }, lr: 1e-3 } as const;

interface Choice {
  readonly row: string;
  readonly freeze: Freeze;
  readonly frozenNorms: 'eval' | 'train';
  readonly rates?: Record<string, number>;
}

// A classifier alone, half a network (its last norms and all behind them train), norms that evaluate
// between convolutions that train, one-dimensional and depthwise convolutions, residual sums.
const choices: readonly Choice[] = [
  { row: 'Cnn6', freeze: 'base', frozenNorms: 'eval' },
  { row: 'Cnn6', freeze: 'base', frozenNorms: 'train' },
  { row: 'Cnn6', freeze: { upTo: 'conv_block2' }, frozenNorms: 'eval' },
  { row: 'Cnn6', freeze: { upTo: 'conv_block2' }, frozenNorms: 'train' },
  {
    row: 'Cnn6',
    freeze: ['bn0', ...[1, 2, 3, 4].map((i) => `conv_block${i}.bn1`)],
    frozenNorms: 'eval',
  },
  {
    row: 'Cnn6',
    freeze: 'none',
    frozenNorms: 'eval',
    rates: { conv_block: 0.1, 'conv_block4.conv1': 2, fc1: 0.5, bn0: 0.03 },
  },
  { row: 'LeeNet11', freeze: { upTo: 'conv_block5' }, frozenNorms: 'eval' },
  { row: 'mn04', freeze: { upTo: 'features.12' }, frozenNorms: 'eval', rates: { features: 0.3 } },
];

for (const { row, freeze, frozenNorms, rates = {} } of choices) {
  const name = `${row}, ${JSON.stringify(freeze)}, norms ${frozenNorms}, ${JSON.stringify(rates)}`;
  t.test(`three steps: ${name}`, { skip }, async (t) => {
    const { config, lengthFor } = describeModel(row);
    const samples = lengthFor(SECONDS * config.sampleRate);
    const subject = await makeSubject(t, draws, row, samples, { smooth: true });
    await mirror(oracle, subject);
    await calibrate(oracle, draws, subject, clips(draws, 2, samples));
    const description = describeModel(row, { classes: subject.classes });
    const frozen = frozenParameters(freeze, description);
    await checkTraining(t, oracle, draws, subject, {
      ...{ ...sgd, loss: 'bce', batch: 2, mixup: false, steps: 3, smooth: row === 'Cnn6' },
      transfer: { frozen, frozenNorms, rates },
    });
    subject.model.dispose();
  });
}

t.test('layer-wise rates of Adam', { skip }, async (t) => {
  const subject = await makeSubject(t, draws, 'Cnn6', 16000, { smooth: true });
  await mirror(oracle, subject);
  await checkTraining(t, oracle, draws, subject, {
    ...{ loss: 'bce', batch: 2, mixup: false, steps: 3, smooth: true, lr: 2e-5 },
    optimizer: { kind: 'adam', attrs: { amsgrad: true, weight_decay: 0.1, decoupled: true } },
    transfer: { frozen: [], rates: { conv_block1: 0.5, conv_block: 0.1, fc: 3 } },
  });
});

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
