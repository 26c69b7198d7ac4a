import { randomInt } from 'node:crypto';

/** What a test prints, so that a failure can be repeated. */
interface Reporter {
  comment(text: string): void;
}

/** A new seed for each run, or the one in PANNS_TEST_SEED. */
export function freshSeed(t: Reporter): number {
  const fixed = process.env.PANNS_TEST_SEED;
  const seed = fixed === undefined ? randomInt(2 ** 31) : Number(fixed);
  t.comment(`seed ${seed} (repeat with PANNS_TEST_SEED=${seed})`);
  return seed;
}
