import t from 'tap';
import { modelNames } from '../../lib/models/index.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { checkModel } from '../helpers/training.js';

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);
// Of one seed, so that the oracle holds most of a model's 80 million parameters already.
const seed = draws.random.uint32();
// models.test.ts shows that the others are Cnn14 at inference.
const rows = modelNames.filter((row) => /^Cnn14(?!_no_|_mixup)/.test(row));

for (const name of rows) {
  t.test(`${name}: every output`, { skip }, (t) => checkModel(t, oracle, draws, name, 1, seed));
}

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
