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

/** In ms; a lock is stale after six of them, a pause that a busy machine does not make. */
const HEARTBEAT = 250;
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
  // At once: its silence would tell after hours.
  const patient = { heartbeat: 3_600_000, signal: AbortSignal.timeout(60_000) };
  t.equal(await withFileLock(path, patient, async () => 1), 1);
  t.same(readdirSync(folder), []);
});

t.test('silence for six heartbeats ends a lock, a touch prolongs it', async (t) => {
  const [heartbeat, touching] = [100, 800];
  for (const text of [lockOf(1, 'elsewhere.invalid'), 'no lock at all']) {
    const path = join(t.testdir(), 'lock');
    const took: number[] = [];
    // A machine that pauses us for six heartbeats keeps the touches away: it will not each time.
    while (took.length < 5 && !((took.at(-1) ?? 0) >= touching + 4 * heartbeat)) {
      writeFileSync(path, text);
      const start = performance.now();
      const touch = () => existsSync(path) && utimesSync(path, new Date(), new Date());
      const touched = setInterval(touch, 20);
      setTimeout(() => clearInterval(touched), touching);
      await withFileLock(path, { heartbeat }, async () => clearInterval(touched));
      took.push(performance.now() - start);
    }
    t.ok((took.at(-1) ?? 0) >= touching + 4 * heartbeat, `${took.map(Math.round)} ms`);
  }
});

t.test('a living owner is waited for, unless the caller gives up', async (t) => {
  const path = join(t.testdir(), 'lock');
  let leave = () => {};
  const work = new Promise<void>((done) => {
    leave = done;
  });
  const order: string[] = [];
  const owner = new Promise<void>((inside) => {
    const whole = withFileLock(path, options, async () => {
      inside();
      await work;
      order.push('the owner ends');
    });
    t.teardown(() => whole);
  });
  await owner;
  const early = withFileLock(path, { ...options, signal: AbortSignal.timeout(50) }, async () => 1);
  await t.rejects(early, { name: 'AbortError', code: 'ABORT_ERR' });
  const next = withFileLock(path, options, async () => order.push('the next begins'));
  // Without its heartbeats it would have lost the lock after six.
  await sleep(9 * HEARTBEAT);
  t.same(order, []);
  leave();
  await next;
  t.same(order, ['the owner ends', 'the next begins']);
});

t.test('whoever was taken over stops, and begins anew when it is free', async (t) => {
  const path = join(t.testdir(), 'lock');
  let runs = 0;
  let [begun, stopped] = [() => {}, () => {}];
  const inside = new Promise<void>((done) => {
    begun = done;
  });
  const outside = new Promise<void>((done) => {
    stopped = done;
  });
  const work = withFileLock(path, options, async (held) => {
    runs++;
    if (runs === 1) {
      held.addEventListener('abort', stopped);
      begun();
      await sleep(600_000, undefined, { signal: held });
    }
    return JSON.parse(readFileSync(path, 'utf8')).token;
  });
  await inside;
  writeFileSync(path, lockOf(process.pid));
  await outside;
  await sleep(HEARTBEAT);
  t.equal(runs, 1, 'waits');
  t.match(readFileSync(path, 'utf8'), '"other"', 'and leaves the lock of the other');
  unlinkSync(path);
  t.not(await work, 'other');
  t.equal(runs, 2);
  t.notOk(existsSync(path));
});
