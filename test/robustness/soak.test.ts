import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../lib/native.js';
import { reports, runProgram, testPath } from './small_model.js';

/** A small part of the whole run, `npm run soak`: it finds what leaks a model at a time. */
const COUNTS = ['600', '100'];

const skip = existsSync(join(packageRoot(), 'dist', 'index.js')) ? false : 'dist/ is not built';

t.test('models and trainings, made and disposed of hundreds of times', { skip }, async (t) => {
  const limit = 300_000;
  const result = await runProgram(
    process.execPath,
    ['--max-semi-space-size=1', testPath('soak.mjs'), ...COUNTS],
    { limit },
  );
  for (const { name, start, end } of reports(result)) {
    t.comment(`${name}: ${start} to ${end} MiB`);
  }
  t.match(result, { code: 0, signal: null, stderr: '' }, result.stdout + result.stderr);
  t.equal(reports(result).length, 2);
});
