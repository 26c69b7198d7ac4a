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
  for (const activation of ['sigmoid', 'softmax'] as const) {
    const subject = await makeSubject(t, draws, 'Cnn6', SAMPLES, { activation });
    await mirror(oracle, subject);
    await checkInference(t, oracle, subject, clips(draws, 3, SAMPLES), 3, activation);
  }
});

// Adam moves every weight by the learning rate at once: a larger one saturates the scores, and the
// losses of float32 and float64 then part for good.
const recipes = {
  'Adam, bce, mixup': {
    loss: 'bce',
    optimizer: { kind: 'adam', attrs: {} },
    lr: 2e-5,
    batch: 2,
    mixup: true,
  },
  'Adam with amsgrad and decay, cross_entropy': {
    loss: 'cross_entropy',
    optimizer: { kind: 'adam', attrs: { amsgrad: true, weight_decay: 1e-2 } },
    lr: 2e-5,
    batch: 3,
    mixup: false,
  },
  'SGD with momentum, bce': {
    loss: 'bce',
    optimizer: { kind: 'sgd', attrs: { momentum: 0.9 } },
    lr: 1e-3,
    batch: 4,
    mixup: false,
  },
} as const;

for (const [name, recipe] of Object.entries(recipes)) {
  t.test(`ten steps: ${name}`, { skip }, async (t) => {
    const activation = recipe.loss === 'bce' ? 'sigmoid' : 'softmax';
    const subject = await makeSubject(t, draws, 'Cnn6', SAMPLES, { activation, smooth: true });
    await mirror(oracle, subject);
    await checkTraining(t, oracle, draws, subject, { ...recipe, steps: 10, smooth: true });
  });
}

t.test('gradients where ReLUs close', { skip }, async (t) => {
  const subject = await makeSubject(t, draws, 'Cnn6', SAMPLES);
  await mirror(oracle, subject);
  const recipe = { ...recipes['Adam, bce, mixup'], steps: 1, smooth: false };
  await checkTraining(t, oracle, draws, subject, recipe);
});

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
