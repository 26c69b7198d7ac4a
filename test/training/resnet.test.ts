import t from 'tap';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { checkSteps } from '../helpers/training.js';

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);

const recipes = {
  ResNet22: { seconds: 1, mixup: false },
} as const;

for (const [row, recipe] of Object.entries(recipes)) {
  t.test(`${row}: three steps`, { skip }, (t) => checkSteps(t, oracle, draws, row, recipe));
}

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
