import { createServer, connect as dial, isIP, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NativeGroup } from '../addon.js';
import { PannsError } from '../errors.js';
import { systemCode } from '../io/failure.js';
import { createLink, type Link } from './link.js';

/** Where processes meet, and which of them this is. */
export interface Meeting {
  readonly rank: number;
  readonly size: number;
  /** Of process 0, which listens there. */
  readonly address: string;
  readonly port: number;
  /** For the meeting, and at any one point later; 0 is without end. */
  readonly timeoutSeconds: number;
}

/** What a process says when it comes. */
interface Hello {
  readonly panns: 1;
  readonly rank: number;
  readonly size: number;
}

/** What a stranger has to say something in; a process of ours says it at once. */
const STRANGER_SECONDS = 10;

/** Between two looks for a process 0 that does not listen yet. */
const RETRY_MS = 100;

/**
 * Brings processes together over TCP, process 0 in the middle: for the few numbers and bytes by which
 * they find each other. Whoever else connects is let go. Nothing is encrypted.
 *
 * @throws PannsError `ERR_PANNS_PARALLEL` when the others do not come in time, do not agree on how many
 *   they are, or two have one rank; when the address is in use, or process 0 is not what listens there
 */
export async function meet(meeting: Meeting): Promise<NativeGroup> {
  const { rank, size, address, port } = meeting;
  const links = rank === 0 ? await gather(meeting) : [await join(meeting)];
  const engine = `TCP (${address}:${port})`;
  return createStar({ rank, size, engine }, links, meeting.timeoutSeconds);
}

/** Process 0: the connections of all others, by rank from 1 on. */
async function gather({ size, address, port, timeoutSeconds }: Meeting): Promise<Link[]> {
  const place = `${address}:${port}`;
  const links: (Link | undefined)[] = new Array(size - 1).fill(undefined);
  if (size === 1) return [];
  let strangers = 0;
  const open = new Set<Link>();
  const server = createServer();
  const complete = new Promise<void>((resolve, reject) => {
    const welcome = async (link: Link) => {
      const { kind, bytes } = await link.receive(STRANGER_SECONDS);
      const hello = kind === 'hello' ? readHello(bytes) : undefined;
      if (hello === undefined) throw new Error('not one of ours');
      const own = links[hello.rank - 1];
      if (hello.size !== size) {
        const what = `process ${hello.rank} was started as one of ${hello.size}, process 0 of ${size}`;
        reject(failure(0, what));
      } else if (hello.rank === 0 || (own !== undefined && !own.ended)) {
        reject(failure(0, `two processes were started as number ${hello.rank} of ${size}`));
      } else {
        links[hello.rank - 1] = link;
        if (!links.includes(undefined)) resolve();
      }
    };
    server.on('connection', (socket) => {
      const link = createLink(socket);
      open.add(link);
      welcome(link).catch(() => {
        strangers++;
        open.delete(link);
        link.close();
      });
    });
    server.once('error', (error) => reject(cannotListen(error, place)));
  });
  // A name may be one that the others reach this machine by, and not one of its own.
  server.listen(port, isLoopback(address) ? address : undefined);
  try {
    await within(complete, timeoutSeconds, () => {
      const here = links.filter((link) => link !== undefined).length + 1;
      const others = strangers > 0 ? `, and ${strangers} connections of other programs` : '';
      const what = `after ${timeoutSeconds} s ${here} of ${size} processes had come to ${place}${others}`;
      return failure(0, what);
    });
    const whole = links.filter((link) => link !== undefined);
    for (const link of whole) link.send('welcome');
    for (const link of open) if (!whole.includes(link)) link.close();
    return whole;
  } catch (error) {
    // So that none of them has to wait for its own time to run out.
    for (const link of open) {
      link.send('refused', Buffer.from((error as Error).message));
      link.close();
    }
    throw error;
  } finally {
    server.close();
  }
}

/** Any other process: its connection to process 0. */
async function join({ rank, size, address, port, timeoutSeconds }: Meeting): Promise<Link> {
  const place = `${address}:${port}`;
  const ends = timeoutSeconds > 0 ? performance.now() + 1000 * timeoutSeconds : Infinity;
  const nothing = 'nothing answered';
  let last = nothing;
  while (performance.now() < ends) {
    const left = (ends - performance.now()) / 1000;
    try {
      const link = createLink(await connect(address, port, left));
      const hello: Hello = { panns: 1, rank, size };
      link.send('hello', Buffer.from(JSON.stringify(hello)));
      const { kind, bytes } = await link.receive(left);
      if (kind === 'welcome') return link;
      link.close();
      if (kind === 'refused') throw failure(rank, Buffer.from(bytes).toString());
      last = 'what listens there is another program';
    } catch (error) {
      if (error instanceof PannsError) throw error;
      // An attempt that the end of the time cuts short knows less than the one before it.
      if (performance.now() < ends || last === nothing) last = (error as Error).message;
    }
    await sleep(RETRY_MS);
  }
  throw failure(
    rank,
    `waited ${timeoutSeconds} s for process 0 at ${place} (MASTER_ADDR and MASTER_PORT): ${last}`,
  );
}

/** The processes that have met, as the exchanges of a group. */
function createStar(
  { rank, size, engine }: Pick<NativeGroup, 'rank' | 'size' | 'engine'>,
  links: readonly Link[],
  timeoutSeconds: number,
): NativeGroup {
  const receive = async (link: Link, kind: 'sum' | 'bytes', from: number): Promise<Uint8Array> => {
    const lost = (why: string) => failure(rank, `process ${from} ${why}`);
    const frame = await link.receive(timeoutSeconds).catch((error: Error) => {
      throw lost(error.message);
    });
    if (frame.kind === kind) return frame.bytes;
    throw lost('is at another point of the training');
  };
  const middle = links[0] as Link;
  return {
    ...{ rank, size, engine },
    async sum(values) {
      if (rank !== 0) {
        middle.send('sum', bytesOf(values));
        return doublesOf(await receive(middle, 'sum', 0));
      }
      const sums = values.slice();
      for (const [i, link] of links.entries()) {
        const theirs = doublesOf(await receive(link, 'sum', i + 1));
        if (theirs.length !== sums.length) {
          throw failure(rank, `process ${i + 1} is at another point of the training`);
        }
        for (const [k, value] of theirs.entries()) sums[k] = (sums[k] as number) + value;
      }
      for (const link of links) link.send('sum', bytesOf(sums));
      return sums;
    },
    async broadcast(bytes, root) {
      if (rank !== 0 && rank === root) middle.send('bytes', bytes);
      if (rank !== 0) return rank === root ? bytes : receive(middle, 'bytes', 0);
      const own = root === 0 ? bytes : await receive(links[root - 1] as Link, 'bytes', root);
      for (const [i, link] of links.entries()) if (i + 1 !== root) link.send('bytes', own);
      return own;
    },
    async leave() {
      for (const link of links) link.close();
    },
  };
}

function readHello(bytes: Uint8Array): Hello | undefined {
  try {
    const { panns, rank, size } = JSON.parse(Buffer.from(bytes).toString()) as Partial<Hello>;
    const whole = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
    return panns === 1 && whole(rank) && whole(size) && rank < size
      ? { panns, rank, size }
      : undefined;
  } catch {
    return undefined;
  }
}

async function connect(address: string, port: number, seconds: number): Promise<Socket> {
  const socket = dial(port, address);
  const connected = new Promise<Socket>((resolve, reject) => {
    socket.once('connect', () => resolve(socket)).once('error', reject);
  });
  try {
    return await within(connected, seconds, () => new Error('nothing answered'));
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function within<T>(promise: Promise<T>, seconds: number, late: () => Error): Promise<T> {
  if (!(seconds > 0 && Number.isFinite(seconds))) return promise;
  let timer: NodeJS.Timeout | undefined;
  const end = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), 1000 * seconds);
  });
  try {
    return await Promise.race([promise, end]);
  } finally {
    clearTimeout(timer);
  }
}

function cannotListen(error: Error, place: string): PannsError {
  const taken = systemCode(error) === 'EADDRINUSE';
  const what = taken
    ? `${place} is in use: by a second process of rank 0, a training that has not ended, or another ` +
      'program; MASTER_PORT names another port'
    : `process 0 cannot listen at ${place}: ${error.message}`;
  return new PannsError('ERR_PANNS_PARALLEL', what, { where: 'process 0', cause: error });
}

function failure(rank: number, what: string): PannsError {
  return new PannsError('ERR_PANNS_PARALLEL', what, { where: `process ${rank}` });
}

function isLoopback(address: string): boolean {
  return address === 'localhost' || (isIP(address) !== 0 && /^(127\.|::1$)/.test(address));
}

const bytesOf = (x: Float64Array) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);

const doublesOf = (x: Uint8Array) => new Float64Array(x.slice().buffer);
