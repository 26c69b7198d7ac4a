import { PannsError } from '../errors.js';
import { permutation } from './random.js';

/** Where a sampler stands, as JSON. It says what was drawn so far, not the random numbers used. */
export type SamplerState =
  | { kind: 'sequential'; count: number; position: number }
  | { kind: 'uniform'; seed: number; count: number; epoch: number; position: number }
  | {
      kind: 'balanced';
      seed: number;
      counts: number[];
      queue: { epoch: number; position: number };
      epochs: number[];
      positions: number[];
    };

/** One process's part of what several draw together: the rows of `rank` among those of `size`. */
export interface Share {
  readonly rank: number;
  readonly size: number;
}

/** Says which clips come next; `state` and `restore` continue the same order after a restart. */
export interface Sampler {
  readonly kind: SamplerState['kind'];
  /** False when `take` runs dry after one pass. */
  readonly endless: boolean;
  /** Whose rows these are, where they are not all. */
  readonly share?: Share;
  /** The next `count` clip indices; fewer, at last none, only where `endless` is false. */
  take(count: number): number[];
  /** Complete passes: over the clips, or for balanced sampling over the classes. */
  epoch(): number;
  state(): SamplerState;
  /** @throws PannsError `ERR_PANNS_CHECKPOINT` when the state is of another sampler or data set */
  restore(state: SamplerState): void;
}

/** Streams of the seed, so that the class queue and the class lists never share random numbers. */
const STREAM = { uniform: 1, queue: 2, class: 3 };

/**
 * Every clip once, in order, then nothing: for evaluation.
 *
 * @throws PannsError `ERR_PANNS_OPTION` when `count` is not a whole number >= 1
 */
export function sequentialSampler(count: number): Sampler {
  checkCount(count);
  let position = 0;
  return {
    kind: 'sequential',
    endless: false,
    take(wanted) {
      const first = position;
      position = Math.min(count, position + wanted);
      return Array.from({ length: position - first }, (_, i) => first + i);
    },
    epoch: () => (position === count ? 1 : 0),
    state: () => ({ kind: 'sequential', count, position }),
    restore(state) {
      checkState(state, 'sequential', (s) => s.count === count && isIndex(s.position, count + 1));
      position = (state as { position: number }).position;
    },
  };
}

/**
 * Every clip once an epoch, each epoch in a new order that `seed` fixes, without end.
 *
 * @throws PannsError `ERR_PANNS_OPTION` when `count` is not a whole number >= 1 or `seed` none >= 0
 */
export function uniformSampler(count: number, seed: number): Sampler {
  checkCount(count);
  const cursor = shuffledCursor((epoch) => permutation(count, seed, STREAM.uniform, epoch));
  return {
    kind: 'uniform',
    endless: true,
    take: (wanted) => Array.from({ length: wanted }, () => cursor.next()),
    epoch: () => cursor.epoch,
    state: () => ({
      kind: 'uniform',
      seed,
      count,
      epoch: cursor.epoch,
      position: cursor.position,
    }),
    restore(state) {
      checkState(
        state,
        'uniform',
        (s) =>
          s.seed === seed && s.count === count && isIndex(s.epoch) && isIndex(s.position, count),
      );
      const { epoch, position } = state as { epoch: number; position: number };
      cursor.move(epoch, position);
    },
  };
}

/**
 * Every class equally often, without end, as PANNs trains on AudioSet.
 *
 * The classes come in rounds of random order; each gives the next clip of its own shuffled list,
 * which is shuffled again when it has been used up. A clip stands in the list of each of its labels.
 * Classes without clips are passed over. Source: panns BalancedTrainSampler, with a random order that
 * does not depend on how often it was asked.
 *
 * `labels` holds the class indices of every clip, `classes` is the number of classes.
 *
 * @throws PannsError `ERR_PANNS_OPTION` when no clip has a label, or one lies outside 0..classes-1
 */
export function balancedSampler(
  labels: readonly (readonly number[])[],
  classes: number,
  seed: number,
): Sampler {
  const members: number[][] = Array.from({ length: classes }, () => []);
  labels.forEach((own, clip) => {
    for (const label of new Set(own)) {
      const list = members[label];
      if (list === undefined) {
        throw new PannsError('ERR_PANNS_OPTION', `clip ${clip} has the label ${label}`, {
          where: 'balancedSampler',
          expected: `labels in 0..${classes - 1}`,
          actual: label,
        });
      }
      list.push(clip);
    }
  });
  const counts = members.map((list) => list.length);
  const present = [...counts.keys()].filter((label) => counts[label]);
  if (present.length === 0) {
    throw new PannsError('ERR_PANNS_OPTION', 'no clip has a label to balance by', {
      where: 'balancedSampler',
      expected: 'at least one labelled clip',
      actual: `${labels.length} clips without labels`,
    });
  }
  const queue = shuffledCursor((epoch) => {
    return permutation(present.length, seed, STREAM.queue, epoch).map((i) => present[i] ?? 0);
  });
  const lists = members.map((list, label) =>
    shuffledCursor((epoch) => {
      const order = permutation(list.length, seed, STREAM.class, label, epoch);
      return order.map((i) => list[i] ?? 0);
    }),
  );
  const draw = (): number => {
    const list = lists[queue.next()];
    return list === undefined ? 0 : list.next();
  };
  return {
    kind: 'balanced',
    endless: true,
    take: (wanted) => Array.from({ length: wanted }, draw),
    epoch: () => queue.epoch,
    state: () => ({
      kind: 'balanced',
      seed,
      counts: [...counts],
      queue: { epoch: queue.epoch, position: queue.position },
      epochs: lists.map((list) => list.epoch),
      positions: lists.map((list) => list.position),
    }),
    restore(state) {
      checkState(
        state,
        'balanced',
        (s) =>
          s.seed === seed &&
          isList(s.counts, (n, label) => n === counts[label], classes) &&
          isList(s.epochs, (n) => isIndex(n), classes) &&
          isList(s.positions, (n, label) => isIndex(n, Math.max(1, counts[label] ?? 0)), classes) &&
          typeof s.queue === 'object' &&
          s.queue !== null &&
          isIndex(s.queue.epoch) &&
          isIndex(s.queue.position, present.length),
      );
      const saved = state as Extract<SamplerState, { kind: 'balanced' }>;
      queue.move(saved.queue.epoch, saved.queue.position);
      lists.forEach((list, label) => {
        list.move(saved.epochs[label] ?? 0, saved.positions[label] ?? 0);
      });
    },
  };
}

/**
 * One process's rows of an endless sampler's: each `take` draws for all processes, in their order. The
 * state is that of the whole, and equal in all.
 */
export function sharedSampler(sampler: Sampler, share: Share): Sampler {
  const { rank, size } = share;
  return {
    ...sampler,
    share,
    take: (wanted) => sampler.take(size * wanted).slice(rank * wanted, (rank + 1) * wanted),
  };
}

interface Cursor {
  readonly epoch: number;
  readonly position: number;
  next(): number;
  move(epoch: number, position: number): void;
}

/** Walks through orders that an epoch number fixes; an order is made when it is first needed. */
function shuffledCursor(orderOf: (epoch: number) => Uint32Array): Cursor {
  let epoch = 0;
  let position = 0;
  let order: Uint32Array | undefined;
  return {
    get epoch() {
      return epoch;
    },
    get position() {
      return position;
    },
    next() {
      order ??= orderOf(epoch);
      const item = order[position] ?? 0;
      position++;
      if (position === order.length) {
        epoch++;
        position = 0;
        order = undefined;
      }
      return item;
    },
    move(toEpoch, toPosition) {
      epoch = toEpoch;
      position = toPosition;
      order = undefined;
    },
  };
}

function checkCount(count: number): void {
  if (Number.isSafeInteger(count) && count >= 1 && count < 2 ** 32) return;
  throw new PannsError('ERR_PANNS_OPTION', `a sampler needs at least one clip, got ${count}`, {
    where: 'sampler',
    expected: 'a whole number in 1..2^32-1',
    actual: count,
  });
}

function isIndex(value: unknown, end = Number.MAX_SAFE_INTEGER): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < end;
}

function isList(
  value: unknown,
  test: (item: unknown, index: number) => boolean,
  length: number,
): boolean {
  return Array.isArray(value) && value.length === length && value.every(test);
}

/** Fields of a state that may come from an old or a damaged file. */
type Unchecked = Record<string, unknown> & { queue?: Record<string, unknown> | null };

function checkState(
  state: unknown,
  kind: SamplerState['kind'],
  fits: (state: Unchecked) => boolean,
): void {
  const valid = typeof state === 'object' && state !== null;
  if (valid && (state as Unchecked).kind === kind && fits(state as Unchecked)) return;
  throw new PannsError(
    'ERR_PANNS_CHECKPOINT',
    `the saved state is not of this ${kind} sampler: resume with the same clips, seed and sampler`,
    { where: 'sampler', expected: kind, actual: state },
  );
}
