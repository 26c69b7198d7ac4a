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
  await checkInference(t, oracle, subject, clips(draws, 3, SAMPLES), 'sigmoid');
});

t.test('ten steps: Adam, cross_entropy', { skip }, async (t) => {
  const subject = await makeSubject(t, draws, 'Cnn10', SAMPLES, { activation: 'softmax' });
  await mirror(oracle, subject);
  await checkTraining(t, oracle, draws, subject, {
    loss: 'cross_entropy',
    optimizer: { kind: 'adam', attrs: {} },
    lr: 3e-4,
    batch: 2,
    mixup: false,
    steps: 10,
  });
});

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
