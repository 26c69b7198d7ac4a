import t from 'tap';
import { modelNames } from '../../lib/models/index.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';
import { worstErrors } from '../helpers/tolerance.js';
import { checkModel } from '../helpers/training.js';

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);
// Of 39 to 107 million parameters: a second is enough, but for networks that leave one frame of it,
// too few for statistics.
const secondsOf = (row: string) => (row.startsWith('Res1dNet') ? 2 : 1);
const rows = modelNames.filter((row) => /^(ResNet|Res1dNet|Wavegram|mn[34]0)/.test(row));

for (const name of rows) {
  t.test(`${name}: every output`, { skip }, (t) =>
    checkModel(t, oracle, draws, name, secondsOf(name)),
  );
}

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
