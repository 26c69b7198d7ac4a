import t from 'tap';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { checkInference, checkTraining, clips, makeSubject, mirror } from '../helpers/training.js';

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);
const SAMPLES = 16000;

t.test('inference', { skip }, async (t) => {
  const subject = await makeSubject(t, draws, 'Cnn10', SAMPLES);
  await mirror(oracle, subject);
  await checkInference(t, oracle, subject, clips(draws, 3, SAMPLES), 3);
});

const recipe = {
  loss: 'cross_entropy',
  optimizer: { kind: 'adam', attrs: {} },
  lr: 2e-5,
  batch: 2,
  mixup: false,
} as const;

for (const smooth of [true, false]) {
  const name = smooth ? 'ten steps: Adam, cross_entropy' : 'gradients where ReLUs close';
  t.test(name, { skip }, async (t) => {
    const options = { activation: 'softmax', smooth } as const;
    const subject = await makeSubject(t, draws, 'Cnn10', SAMPLES, options);
    await mirror(oracle, subject);
    const steps = smooth ? 10 : 1;
    await checkTraining(t, oracle, draws, subject, { ...recipe, steps, smooth });
  });
}

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
