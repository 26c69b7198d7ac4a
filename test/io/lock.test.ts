import { spawnSync } from 'node:child_process';
import {
  existsSync,
  readdirSync,
  readFileSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { withFileLock } from '../../lib/io/lock.js';

/** In ms; a lock is stale after six of them. */
const HEARTBEAT = 50;
const options = { heartbeat: HEARTBEAT };

/** A lock of someone else. */
const lockOf = (pid: number, host = hostname()) => JSON.stringify({ token: 'other', host, pid });

t.test('one at a time, in whatever order', async (t) => {
  const path = join(t.testdir(), 'lock');
  let inside = 0;
  const done: number[] = [];
  const jobs = Array.from({ length: 12 }, (_, i) =>
    withFileLock(path, options, async () => {
      inside++;
      t.equal(inside, 1);
      await sleep(5);
      inside--;
      done.push(i);
      return i;
    }),
  );
  t.same(await Promise.all(jobs), [...Array(12).keys()]);
  t.equal(done.length, 12);
  t.notOk(existsSync(path), 'and the file is gone');
});

t.test('a failure frees the lock and passes through', async (t) => {
  const path = join(t.testdir(), 'lock');
  const failed = withFileLock(path, options, async () => Promise.reject(new Error('inside')));
  await t.rejects(failed, { message: 'inside' });
  t.notOk(existsSync(path));
  await t.rejects(
    withFileLock(join(path, 'no', 'lock'), options, async () => 1),
    {
      code: 'ERR_PANNS_IO',
      message: /cannot write: .*ENOENT/,
    },
  );
});

t.test('a process that is no more leaves nothing locked', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'lock');
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  writeFileSync(path, lockOf(pid));
  const start = performance.now();
  t.equal(await withFileLock(path, { heartbeat: 5000 }, async () => 1), 1);
  t.ok(performance.now() - start < 4000, 'at once');
  t.same(readdirSync(folder), []);
});

t.test('silence for six heartbeats ends a lock, a touch prolongs it', async (t) => {
  for (const text of [lockOf(1, 'elsewhere.invalid'), 'no lock at all']) {
    const path = join(t.testdir(), 'lock');
    writeFileSync(path, text);
    const start = performance.now();
    const touched = setInterval(() => utimesSync(path, new Date(), new Date()), 20);
    setTimeout(() => clearInterval(touched), 500);
    await withFileLock(path, options, async () => undefined);
    const took = performance.now() - start;
    t.ok(took >= 500 + 4 * HEARTBEAT, `${Math.round(took)} ms`);
  }
});

t.test('a living owner is waited for, unless the caller gives up', async (t) => {
  const path = join(t.testdir(), 'lock');
  const owner = withFileLock(path, options, async () => sleep(14 * HEARTBEAT));
  await sleep(HEARTBEAT);
  const early = withFileLock(path, { ...options, signal: AbortSignal.timeout(50) }, async () => 1);
  await t.rejects(early, { name: 'AbortError', code: 'ABORT_ERR' });
  const start = performance.now();
  await withFileLock(path, options, async () => undefined);
  t.ok(performance.now() - start > 9 * HEARTBEAT, 'its heartbeats count');
  await owner;
});

t.test('whoever was taken over stops, and begins anew when it is free', async (t) => {
  const path = join(t.testdir(), 'lock');
  let runs = 0;
  const work = withFileLock(path, options, async (held) => {
    runs++;
    if (runs === 1) await sleep(10_000, undefined, { signal: held });
    return JSON.parse(readFileSync(path, 'utf8')).token;
  });
  await sleep(HEARTBEAT);
  writeFileSync(path, lockOf(process.pid));
  await sleep(3 * HEARTBEAT);
  t.equal(runs, 1, 'waits');
  t.match(readFileSync(path, 'utf8'), '"other"', 'and leaves the lock of the other');
  unlinkSync(path);
  t.not(await work, 'other');
  t.equal(runs, 2);
  t.notOk(existsSync(path));
});
