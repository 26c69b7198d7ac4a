import { createHash } from 'node:crypto';
import { deserialize, serialize } from 'node:v8';
import type { JoinOptions, NativeGroup, NativeSession } from '../addon.js';
import {
  AbortError,
  checkOptions,
  fromNative,
  isErrorCode,
  optionCheck,
  PannsError,
} from '../errors.js';
import { callNative } from '../native/call.js';
import { loadNative } from '../native.js';
import { findLauncher, meetingPoint, mpiLibraries } from './launcher.js';
import { meet } from './rendezvous.js';

const check = optionCheck('openProcessGroup');

/** Options of {@link openProcessGroup}. */
export interface ProcessGroupOptions {
  /**
   * What sums gradients: `'mpi'`, the default, for models on the CPU; `'nccl'` for models on GPUs, one a
   * process, which then meet through MPI, or over TCP where torchrun started them. No GPU has run that
   * yet.
   */
  engine?: 'mpi' | 'nccl' | undefined;
  /** With `'nccl'`, the GPU of this process, and of its model; default {@link ProcessGroup.localRank}. */
  gpu?: number | undefined;
  /**
   * How long to wait for the other processes at any one point, in seconds; default 1800, and 0 is
   * without end. Must cover an evaluation, during which all wait for the first process.
   */
  timeoutSeconds?: number | undefined;
  /**
   * Whether gradients are averaged beside the rest of the backward pass, as they come, or after it;
   * default true. The results are the same, bit for bit.
   */
  overlap?: boolean | undefined;
  /** How many bytes of gradients are averaged at once, at most; default 8 MiB. */
  bucketBytes?: number | undefined;
}

/** What a training asks of the processes it runs in; {@link alone} is one by itself. */
export interface Processes {
  /** 0..size - 1; the process 0 evaluates, writes and prints. */
  readonly rank: number;
  readonly size: number;
  /**
   * Does the same thing in every process, and gives what it gave here. When it fails in some, it fails
   * in all, with the error of the first of them; so it does where it is undefined in some alone.
   */
  together<T>(body: () => Promise<T>): Promise<T>;
  /** Does something in process 0, and gives its result, or its error, in all. */
  first<T>(body: () => Promise<T>): Promise<T>;
  /** Makes a session one of all processes, with the state of process 0; `facts` must be equal. */
  join(session: NativeSession, facts: unknown): Promise<void>;
}

/** One process, which needs no others. */
export const alone: Processes = {
  rank: 0,
  size: 1,
  together: (body) => body(),
  first: (body) => body(),
  join: async () => undefined,
};

/** What a process says of itself in an exchange. */
const FLAG = { failed: 1, left: 2 } as const;

/** Two weeks: a bound for a mistyped number. */
const MOST_SECONDS = 14 * 24 * 3600;

/**
 * Joins the processes that `mpirun`, `mpiexec` or `srun` started, one training in all of them (for
 * models on GPUs also torchrun, or whoever sets its variables):
 *
 * ```ts
 * await using group = await openProcessGroup(); // mpirun -n 2 node train.js
 * const trainer = new Trainer(model, { dataset, batchSize: 16, distributed: group });
 * ```
 *
 * The messages go through the MPI of the launcher (Open MPI, MPICH, or one with MPICH's binary
 * interface), which is looked for where the launcher lies; `PANNS_MPI_LIBRARY` names another libmpi.so.
 * A process can join once in its life, and ends with {@link ProcessGroup.close}.
 *
 * @throws PannsError `ERR_PANNS_PARALLEL` without a launcher, without MPI, or when the two do not
 *   belong together; `ERR_PANNS_BUSY` the second time; `ERR_PANNS_OPTION`
 */
export async function openProcessGroup(options: ProcessGroupOptions = {}): Promise<ProcessGroup> {
  const where = 'openProcessGroup';
  checkOptions(options, ['engine', 'gpu', 'timeoutSeconds', 'overlap', 'bucketBytes'], where);
  const { engine = 'mpi', timeoutSeconds = 1800, overlap = true, bucketBytes } = options;
  check('engine', engine, engine === 'mpi' || engine === 'nccl', '"mpi" or "nccl"');
  const bounded = timeoutSeconds >= 0 && timeoutSeconds <= MOST_SECONDS;
  check('timeoutSeconds', timeoutSeconds, bounded, `a number in 0..${MOST_SECONDS}`);
  check('overlap', overlap, typeof overlap === 'boolean', 'true or false');
  const sized = bucketBytes === undefined || (Number.isSafeInteger(bucketBytes) && bucketBytes > 0);
  check('bucketBytes', bucketBytes, sized, 'a whole number above 0');
  const averaging: JoinOptions = { overlap, ...(bucketBytes !== undefined && { bucketBytes }) };
  const launcher = findLauncher();
  if (launcher === undefined) {
    const what =
      'no launcher has started this process beside others: start it as `mpirun -n 2 panns train ...`, ' +
      'or with mpiexec or srun';
    throw new PannsError('ERR_PANNS_PARALLEL', what, { where });
  }
  const { kind, rank, size, localRank } = launcher;
  if (kind === 'torchrun' && engine === 'mpi') {
    const what =
      "processes started with torchrun's variables have no MPI between them, which models on the CPU " +
      'need: start them with mpirun, mpiexec or srun; or train on GPUs, with engine: "nccl"';
    throw new PannsError('ERR_PANNS_UNSUPPORTED', what, { where });
  }
  const addon = loadNative();
  const libraries = mpiLibraries(kind);
  const found =
    kind === 'torchrun'
      ? await meet({ rank, size, ...meetingPoint(), timeoutSeconds })
      : await callNative(where, () => addon.openMpi({ libraries, size, timeoutSeconds }));
  const group = new ProcessGroup(found, { localRank, averaging });
  if (engine === 'mpi') return group;
  // In all, so that one that lacks NCCL says so before the others wait for it.
  const own = await group.together(() => callNative(where, () => addon.ncclId(rank === 0)));
  const id = await group.first(async () => own);
  const index = options.gpu ?? localRank;
  const nccl = await group.together(() =>
    callNative(where, () => addon.openNccl({ index, rank, size, id, timeoutSeconds })),
  );
  return new ProcessGroup(nccl, { localRank, averaging, below: group });
}

/** What a group is beside the exchanges of its engine. */
interface Membership {
  readonly localRank: number;
  readonly averaging: JoinOptions;
  /** That the processes met by. */
  readonly below?: ProcessGroup;
}

/** Processes that train together; made by {@link openProcessGroup}. */
export class ProcessGroup implements Processes {
  readonly rank: number;
  readonly size: number;
  /** Among the processes on this machine. */
  readonly localRank: number;
  /** The library underneath, and the file it came from. */
  readonly engine: string;
  readonly #native: NativeGroup;
  readonly #averaging: JoinOptions;
  readonly #below: ProcessGroup | undefined;
  #closed = false;

  /** @internal */
  constructor(native: NativeGroup, { localRank, averaging, below }: Membership) {
    this.#native = native;
    this.#averaging = averaging;
    this.#below = below;
    this.rank = native.rank;
    this.size = native.size;
    this.engine = native.engine;
    this.localRank = localRank;
  }

  async together<T>(body: () => Promise<T>): Promise<T> {
    const own = await settle(body);
    const without = await this.#agree(own.error, own.value === undefined);
    if (without === 0 || without === this.size) return own.value as T;
    const what = `${without} of ${this.size} processes have come to the end of their data, the others not`;
    throw new PannsError('ERR_PANNS_PARALLEL', what, { where: `process ${this.rank}` });
  }

  async first<T>(body: () => Promise<T>): Promise<T> {
    const leads = this.rank === 0;
    const { value, error }: Settled<T> = leads ? await settle(body) : {};
    await this.#agree(error);
    const answer = await this.#native.broadcast(leads ? serialize(value) : new Uint8Array(), 0);
    return leads ? (value as T) : (deserialize(answer) as T);
  }

  async join(session: NativeSession, facts: unknown): Promise<void> {
    const own = createHash('sha256').update(JSON.stringify(facts)).digest();
    const theirs = await callNative('join', () => this.#native.broadcast(own, 0));
    await this.together(async () => {
      if (own.equals(theirs)) return true;
      const what = 'the model, recipe, data set or step is another one than in process 0';
      throw new PannsError('ERR_PANNS_PARALLEL', what, { where: `process ${this.rank}` });
    });
    await callNative('join', () => session.join(this.#native, this.#averaging));
  }

  /**
   * Leaves, as every process must before it ends, once all have come here. Where one comes here alone,
   * as after an error of its own, the others fail with `ERR_PANNS_PARALLEL` instead of waiting for it,
   * and the launcher may complain.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const flags = new Float64Array(this.size + 1);
    flags[this.rank] = FLAG.left;
    // After an exchange that failed there is nobody to take leave of.
    const sums = await this.#native.sum(flags).catch(() => undefined);
    if (sums?.subarray(0, this.size).every((flag) => flag === FLAG.left)) {
      await callNative('close', () => this.#native.leave());
      await this.#below?.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Waits for all; throws when one has failed or left. Every exchange begins with flags in this form,
   * the core's too, so that what does not belong together fails instead of hanging. Returns how many
   * have nothing to give.
   */
  async #agree(own: unknown, empty = false): Promise<number> {
    if (this.#closed) {
      const what = 'this process has left the others';
      throw new PannsError('ERR_PANNS_DISPOSED', what, { where: `process ${this.rank}` });
    }
    const flags = new Float64Array(this.size + 1);
    if (own !== undefined) flags[this.rank] = FLAG.failed;
    flags[this.size] = Number(empty && own === undefined);
    try {
      const sums = await this.#native.sum(flags);
      const lost = sums.indexOf(FLAG.left);
      if (lost >= 0 && lost < this.size) {
        const what = `process ${lost} has left while the others go on`;
        throw new PannsError('ERR_PANNS_PARALLEL', what, { where: `process ${this.rank}` });
      }
      const failed = sums.indexOf(FLAG.failed);
      if (failed < 0 || failed >= this.size) return sums[this.size] ?? 0;
      const said = failed === this.rank ? serialize(told(own)) : new Uint8Array();
      const heard = await this.#native.broadcast(said, failed);
      throw failed === this.rank ? own : retold(deserialize(heard) as Told, failed);
    } catch (error) {
      // What happened here says more than that it could not be told.
      throw own ?? fromNative(error, `process ${this.rank}`);
    }
  }
}

/** What is said of an error. */
interface Told {
  readonly aborted: boolean;
  readonly code: string;
  readonly message: string;
}

interface Settled<T> {
  readonly value?: T;
  readonly error?: unknown;
}

async function settle<T>(body: () => Promise<T>): Promise<Settled<T>> {
  try {
    return { value: await body() };
  } catch (error) {
    return { error: error ?? new Error(String(error)) };
  }
}

function told(error: unknown): Told {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return {
    aborted: error instanceof AbortError,
    code: isErrorCode(code) ? code : 'ERR_PANNS_INTERNAL',
    message: String(message ?? error),
  };
}

function retold({ aborted, code, message }: Told, rank: number): PannsError | AbortError {
  if (aborted) return new AbortError(`${message} (in process ${rank})`);
  return new PannsError(isErrorCode(code) ? code : 'ERR_PANNS_INTERNAL', message, {
    where: `process ${rank}`,
  });
}
