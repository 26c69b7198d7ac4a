import t from 'tap';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { checkSteps } from '../helpers/training.js';

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);

const recipes = {
  MobileNetV1: { seconds: 2, mixup: false },
  MobileNetV2: { seconds: 2, mixup: false },
  mn04: { seconds: 2, mixup: false },
} as const;

for (const [row, recipe] of Object.entries(recipes)) {
  t.test(`${row}: three steps`, { skip }, (t) => checkSteps(t, oracle, draws, row, recipe));
}

t.test('mn04: three steps, mixup', { skip }, (t) =>
  checkSteps(t, oracle, draws, 'mn04', { seconds: 1, mixup: true }),
);

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
