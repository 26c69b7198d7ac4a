import { checkOptions, nearest, optionCheck } from '../errors.js';

const check = optionCheck('schedule');

/** The learning rate of a step; steps count from 0. */
export type Schedule = (step: number) => number;

/** How the learning rate moves; a warm-up rises linearly to the rate of the step it ends at. */
export type ScheduleOptions = {
  /** The base learning rate. */
  rate: number;
  /** Steps of linear warm-up, 0 by default: step 0 has 1/warmup of the rate. */
  warmup?: number | undefined;
} & (
  | { kind: 'constant' }
  /** Falls along half a cosine from the end of the warm-up to `floor` (default 0) at `steps`. */
  | { kind: 'cosine'; steps: number; floor?: number | undefined }
  /** Is multiplied by `factor` (default 0.1) after each `every` steps. */
  | { kind: 'step'; every: number; factor?: number | undefined }
);

const OPTION_NAMES: Record<ScheduleOptions['kind'], readonly string[]> = {
  constant: ['kind', 'rate', 'warmup'],
  cosine: ['kind', 'rate', 'warmup', 'steps', 'floor'],
  step: ['kind', 'rate', 'warmup', 'every', 'factor'],
};

/**
 * A learning-rate schedule: a function of the step alone, so resuming needs no state.
 *
 * PANNs trains with `{ kind: 'constant', rate: 1e-3 }`.
 *
 * @throws PannsError `ERR_PANNS_OPTION`
 */
export function createSchedule(options: ScheduleOptions): Schedule {
  const { kind, rate, warmup = 0 } = options;
  if (!Object.hasOwn(OPTION_NAMES, kind)) {
    const kinds = Object.keys(OPTION_NAMES);
    const guess = nearest(String(kind), kinds);
    check('kind', kind, false, `one of ${kinds.join(', ')}, perhaps ${guess}`);
  }
  checkOptions(options, OPTION_NAMES[kind], 'schedule');
  check('rate', rate, rate >= 0 && Number.isFinite(rate), 'a finite number >= 0');
  check('warmup', warmup, isCount(warmup, 0), 'a whole number >= 0');
  const shape = decay(options, warmup);
  // Every schedule follows its own curve from the start; the warm-up only scales its first steps.
  return (step) => (step < warmup ? ((step + 1) / warmup) * shape(warmup) : shape(step));
}

function decay(options: ScheduleOptions, warmup: number): Schedule {
  const { rate } = options;
  switch (options.kind) {
    case 'constant':
      return () => rate;
    case 'cosine': {
      const { steps, floor = 0 } = options;
      check('steps', steps, isCount(steps, warmup + 1), `a whole number > warmup (${warmup})`);
      check('floor', floor, floor >= 0 && floor <= rate, `a number in 0..rate (${rate})`);
      return (step) => {
        const done = Math.min(1, (step - warmup) / (steps - warmup));
        return floor + (rate - floor) * 0.5 * (1 + Math.cos(Math.PI * done));
      };
    }
    case 'step': {
      const { every, factor = 0.1 } = options;
      check('every', every, isCount(every, 1), 'a whole number >= 1');
      check('factor', factor, factor > 0 && factor <= 1, 'a number in (0, 1]');
      return (step) => rate * factor ** Math.floor(step / every);
    }
  }
}

function isCount(value: number, least: number): boolean {
  return Number.isSafeInteger(value) && value >= least;
}
