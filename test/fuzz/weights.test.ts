import t, { type Test } from 'tap';
import { freshSeed } from '../data/fresh_seed.js';
import { type Outcome, tell } from './cases.js';
import { fuzz } from './fuzzer.js';

/** More are run by PANNS_FUZZ_CASES. */
const CASES = Number(process.env.PANNS_FUZZ_CASES ?? 10_000);

/** Of memory that is kept; what a case allocates is free again after it. */
const MOST_GROWTH = 128 * 2 ** 20;

/** Far above the slowest, which waits for a garbage collection: shared machines stand still. */
const MOST_MS = 2000;

function check(t: Test, outcome: Outcome): void {
  tell(t, outcome);
  const { cases, read, refused, faults, slowest } = outcome;
  t.same(faults, []);
  t.ok(slowest < MOST_MS);
  t.ok(read > cases / 200, 'some mutations are harmless');
  t.ok((refused.get('ERR_PANNS_CHECKPOINT') ?? 0) > cases / 10, 'most are found');
}

t.test('damaged files are read or refused: the same every time', async (t) => {
  check(t, await fuzz(20261123, CASES));
});

t.test('damaged files are read or refused: others every time', async (t) => {
  const before = process.memoryUsage().heapUsed;
  check(t, await fuzz(freshSeed(t), CASES));
  const growth = process.memoryUsage().heapUsed - before;
  t.ok(growth < MOST_GROWTH, `${growth} bytes`);
});
