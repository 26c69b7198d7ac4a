import { randomInt } from 'node:crypto';

/** What a test prints, so that a failure can be repeated. */
interface Reporter {
  comment(text: string): void;
}

const given = process.env.PANNS_TEST_SEED;
const first = given === undefined ? randomInt(2 ** 31) : Number(given);
let drawn = 0;

/** Another seed for each call, new in each run or else the ones that PANNS_TEST_SEED stands for. */
export function freshSeed(t: Reporter): number {
  // The golden ratio of 2^31 leads to numbers that no other call is near.
  const seed = (first + drawn++ * 1_327_217_885) % 2 ** 31;
  t.comment(`seed ${seed} (repeat with PANNS_TEST_SEED=${first})`);
  return seed;
}
