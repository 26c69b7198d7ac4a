import { randomUUID } from 'node:crypto';
import { link, readFile, rename, stat, unlink, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { AbortError, throwIfAborted } from '../errors.js';
import { ioError, systemCode } from './failure.js';

/** Options of {@link withFileLock}. */
export interface LockOptions {
  signal?: AbortSignal | undefined;
  /** How often the owner touches its lock, in ms. Default 5000; the same for all who use the file. */
  heartbeat?: number;
}

const HEARTBEAT_MS = 5_000;

/** A lock that was not touched for so many heartbeats has lost its owner. */
const STALE_BEATS = 6;

/** A waiting process looks so often during a heartbeat: every 200 ms. */
const LOOKS = 25;

interface Owner {
  readonly token: string;
  readonly host: string;
  readonly pid: number;
}

/**
 * Runs `body` while the file `path` says that this process is at work; others wait for it.
 *
 * The owner touches the file now and then. A file whose owner has ended, or is silent for six
 * heartbeats, is taken over; `held` is aborted when that happens to us (after a suspended machine, say),
 * and the work begins anew once the other is done. The folder must exist.
 *
 * @throws PannsError `ERR_PANNS_IO` when the file cannot be written; AbortError
 */
export async function withFileLock<T>(
  path: string,
  options: LockOptions,
  body: (held: AbortSignal) => Promise<T>,
): Promise<T> {
  const { signal, heartbeat = HEARTBEAT_MS } = options;
  for (;;) {
    const token = await acquire(path, heartbeat, signal);
    const lost = new AbortController();
    const timer = setInterval(() => void touch(path, token, lost), heartbeat);
    timer.unref();
    const signals = signal === undefined ? [lost.signal] : [lost.signal, signal];
    try {
      return await body(AbortSignal.any(signals));
    } catch (error) {
      if (signal?.aborted || !lost.signal.aborted) throw error;
    } finally {
      clearInterval(timer);
      const owner = await readOwner(path);
      if (owner?.token === token) await unlink(path).catch(() => undefined);
    }
  }
}

async function acquire(
  path: string,
  heartbeat: number,
  signal: AbortSignal | undefined,
): Promise<string> {
  const owner: Owner = { token: randomUUID(), host: hostname(), pid: process.pid };
  // The age is measured by this clock, from when a state was first seen: file servers have their own.
  let seen: { state: string; since: number } | undefined;
  for (;;) {
    throwIfAborted(signal);
    try {
      await writeFile(path, JSON.stringify(owner), { flag: 'wx' });
      return owner.token;
    } catch (error) {
      // Windows answers EPERM while another process removes the file.
      const taken = systemCode(error) === 'EEXIST' || (await exists(path));
      if (!taken) throw ioError(error, 'write', path);
    }
    const other = await readOwner(path);
    const state = `${other?.token} ${await touchedAt(path)}`;
    if (seen?.state !== state) seen = { state, since: performance.now() };
    if (hasEnded(other) || performance.now() - seen.since > STALE_BEATS * heartbeat) {
      await takeAway(path, other?.token, owner.token);
      seen = undefined;
      continue;
    }
    await sleep(heartbeat / LOOKS, undefined, { signal }).catch(() => undefined);
  }
}

/** Whether the owner was a process of this machine that is no more. */
function hasEnded(owner: Owner | undefined): boolean {
  return owner !== undefined && owner.host === hostname() && !isAlive(owner.pid);
}

/** Whether a process of this machine has this number, whoever's it is. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== 'ESRCH';
  }
}

/**
 * Removes the lock that was seen, and no other: between the look and the removal someone else may
 * have done the same and locked anew. Renaming shows which one it was.
 */
async function takeAway(path: string, token: string | undefined, by: string): Promise<void> {
  const aside = `${path}.${by}`;
  try {
    await rename(path, aside);
  } catch {
    return;
  }
  if ((await readOwner(aside))?.token !== token) await link(aside, path).catch(() => undefined);
  await unlink(aside).catch(() => undefined);
}

async function touch(path: string, token: string, lost: AbortController): Promise<void> {
  const owner = await readOwner(path);
  if (owner?.token !== token) {
    lost.abort(new AbortError('another process has taken over'));
    return;
  }
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined);
}

async function readOwner(path: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Owner;
  } catch {
    return undefined;
  }
}

async function touchedAt(path: string): Promise<number> {
  return stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  );
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
