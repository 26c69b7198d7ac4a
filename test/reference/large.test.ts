import t from 'tap';
import { modelNames } from '../../lib/models/index.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { checkModel } from '../helpers/training.js';

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);
// Of 61 to 107 million parameters, but mn30: a second is enough.
const rows = modelNames.filter((row) => /^(ResNet|Res1dNet|Wavegram|mn[34]0)/.test(row));

for (const name of rows) {
  t.test(`${name}: every output`, { skip }, (t) => checkModel(t, oracle, draws, name, 1));
}

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
