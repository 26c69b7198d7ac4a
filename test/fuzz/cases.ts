import { createRandom, type Random } from '../../lib/data/random.js';
import { PannsError } from '../../lib/errors.js';
import { mutations } from './mutations.js';

/** What became of mutated files. */
export interface Outcome {
  cases: number;
  /** Read to the end. */
  read: number;
  /** Refused with an error of the package, by code. */
  readonly refused: Map<string, number>;
  /** Anything else: a defect. */
  readonly faults: string[];
  /** Of the slowest case, in ms, and the seed that made it. */
  slowest: number;
  slowestSeed: number;
}

/** Cases without a pause: longer ones wait for threads, and the event loop turns anyway. */
const AT_ONCE = 256;

/**
 * Runs `cases` cases, each with random numbers of its own: equal seeds give equal cases.
 *
 * One that returns was read, and one that fails with a code of `expected` refused; anything else is a
 * fault, of which twenty are kept.
 */
export async function runCases(
  seed: number,
  cases: number,
  expected: RegExp,
  one: (random: Random) => Promise<void>,
): Promise<Outcome> {
  const outcome: Outcome = {
    ...{ cases: 0, read: 0, refused: new Map(), faults: [], slowest: 0, slowestSeed: 0 },
  };
  const { refused, faults } = outcome;
  for (let i = 0; i < cases; i++) {
    const own = (seed + i) >>> 0;
    const start = performance.now();
    try {
      await one(createRandom(own));
      outcome.read++;
    } catch (error) {
      if (error instanceof PannsError && expected.test(error.code)) {
        refused.set(error.code, (refused.get(error.code) ?? 0) + 1);
      } else if (faults.length < 20) {
        faults.push(`seed ${own}: ${error instanceof Error ? error.stack : String(error)}`);
      }
    }
    const elapsed = performance.now() - start;
    if (elapsed > outcome.slowest) {
      outcome.slowest = elapsed;
      outcome.slowestSeed = own;
    }
    outcome.cases++;
    if (i % AT_ONCE === 0) await new Promise(setImmediate);
  }
  return outcome;
}

/** A copy with one to three mutations; `others` give bytes to splice in. */
export function mutate(file: Uint8Array, random: Random, others: readonly Buffer[]): Buffer {
  let bytes: Buffer = Buffer.from(file);
  for (let n = 1 + random.integer(3); n > 0; n--) {
    bytes = mutations[random.integer(mutations.length)]?.(bytes, random, others) ?? bytes;
  }
  return bytes;
}

interface Reporter {
  comment(text: string): void;
}

/** Says what became of the cases. */
export function tell(t: Reporter, outcome: Outcome): void {
  const { cases, read, refused, slowest, slowestSeed } = outcome;
  const codes = [...refused].map((pair) => pair.join(' ')).join(', ');
  t.comment(`${cases} files: ${read} read, ${codes}`);
  t.comment(`the slowest took ${slowest.toFixed(1)} ms (seed ${slowestSeed})`);
}
