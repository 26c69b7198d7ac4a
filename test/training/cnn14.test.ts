import t from 'tap';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { checkInference, checkTraining, clips, makeSubject, mirror } from '../helpers/training.js';

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);
// A second: the last blocks then see 3 frames.
const SAMPLES = 32000;

t.test('inference, then three steps: Adam, bce, mixup', { skip }, async (t) => {
  const subject = await makeSubject(t, draws, 'Cnn14', SAMPLES, { smooth: true });
  await mirror(oracle, subject);
  await checkInference(t, oracle, subject, clips(draws, 2, SAMPLES), 2);
  await checkTraining(t, oracle, draws, subject, {
    loss: 'bce',
    optimizer: { kind: 'adam', attrs: {} },
    lr: 2e-6,
    batch: 2,
    mixup: true,
    // 80 million parameters: each step of the oracle moves gigabytes.
    steps: 3,
    smooth: true,
  });
});

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
