// Downloads beside other processes, and on disks that give out.
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { fetchPublished } from '../../lib/inference/download.js';
import type { PublishedFile } from '../../lib/models/pretrained.js';
import { firstByte, head, honest, madeUp, serve, unverifiable, weightsOf } from './file_server.js';

/** Three times what fits on the small disks below. */
const BYTES = 3_000_000;

const worker = fileURLToPath(new URL('./download_worker.ts', import.meta.url));

/** Starts a download in another process. */
function start(row: PublishedFile, folder: string, mirror: string) {
  const request = JSON.stringify([row, { folder, mirror }]);
  const child = spawn(process.execPath, [...process.execArgv, worker, request]);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (text: Buffer) => {
      output += text;
    });
  }
  const end = new Promise<string>((done) => child.on('close', () => done(output)));
  return { child, end };
}

t.test('several processes want one file: it is fetched once', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const { mirror, requests } = await serve(t, (request, response) => {
    const rest = head(request, response, content);
    response.write(rest.subarray(0, BYTES / 2));
    setTimeout(() => response.end(rest.subarray(BYTES / 2)), 1500);
  });
  const folder = t.testdir();
  const path = join(folder, row.file);
  const outputs = await Promise.all([1, 2, 3].map(() => start(row, folder, mirror).end));
  for (const output of outputs) t.match(output, `path ${path}\n`);
  t.ok(readFileSync(path).equals(content));
  t.equal(requests.length, 1);
  t.same(readdirSync(folder).sort(), [row.file, `${row.file}.verified.json`]);
});

t.test('a process that is killed leaves what the next one goes on with', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const folder = t.testdir();
  const { mirror, requests } = await serve(t, (request, response, n) => {
    const rest = head(request, response, content);
    if (n > 0) response.end(rest);
    else response.write(rest.subarray(0, 2_000_000));
  });
  const { child, end } = start(row, folder, mirror);
  const part = join(folder, `${row.file}.part`);
  const arrived = () => (statSync(part, { throwIfNoEntry: false })?.size ?? 0) === 2_000_000;
  while (!arrived()) await new Promise((done) => setTimeout(done, 20));
  child.kill('SIGKILL');
  await end;
  t.same(readdirSync(folder).sort(), [
    ...[`${row.file}.lock`, `${row.file}.part`, `${row.file}.part.json`],
  ]);
  const path = await fetchPublished(row, { folder, mirror });
  t.ok(readFileSync(path).equals(content));
  t.same(requests.map(firstByte), [0, 2_000_000]);
  t.same(readdirSync(folder).sort(), [row.file, `${row.file}.verified.json`]);
});

/** Runs `use` with the path of a small disk of its own; skips where that cannot be. */
async function withDisk(t: Test, use: (disk: string) => Promise<void>): Promise<void> {
  const disk = mkdtempSync(join(tmpdir(), 'panns-disk-'));
  const mount = ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk];
  const { status, error, stderr } = spawnSync('mount', mount, { encoding: 'utf8' });
  try {
    if (status === 0) await use(disk);
    else t.pass('not run', { skip: `no disk to mount: ${error?.message ?? stderr.trim()}` });
  } finally {
    if (status === 0) spawnSync('umount', ['-l', disk]);
    rmdirSync(disk);
  }
}

t.test('a full disk', async (t) => {
  const content = weightsOf(BYTES);
  const { mirror, requests } = await serve(t, (request, response) => {
    // Without a length nobody can know beforehand that it will not fit.
    if (request.url?.includes('unannounced')) {
      response.write(content.subarray(0, 1000));
      response.end(content.subarray(1000));
    } else honest(content)(request, response, 0);
  });
  await withDisk(t, async (disk) => {
    await t.rejects(fetchPublished(madeUp(content), { folder: disk, mirror }), {
      code: 'ERR_PANNS_IO',
      message: /cannot write 3000000 bytes, \d+ are free: the disk is full.*\(ENOSPC\)/,
    });
    t.same(readdirSync(disk), []);
    const row = { ...unverifiable(content), file: 'unannounced.pth' };
    const chunked = fetchPublished(row, { folder: disk, mirror });
    const full = { code: 'ERR_PANNS_IO', message: /cannot write: the disk is full.*\(ENOSPC\)/ };
    await t.rejects(chunked, full);
    t.same(readdirSync(disk), [], 'a full disk is not left full');
    t.equal(requests.length, 2, 'a disk does not grow by trying again');
  });
});

t.test('a read-only folder: what is there is used, nothing else can be', async (t) => {
  const content = weightsOf(500_000);
  const [here, missing] = [madeUp(content), { ...madeUp(content), file: 'missing.pth' }];
  const { mirror, requests } = await serve(t, honest(content));
  await withDisk(t, async (disk) => {
    await writeFile(join(disk, here.file), content);
    chmodSync(disk, 0o755);
    const { status, stderr } = spawnSync('mount', ['-o', 'remount,ro', disk], { encoding: 'utf8' });
    if (status !== 0) return void t.pass('not run', { skip: stderr.trim() });
    const options = { folder: disk, mirror };
    t.equal(await fetchPublished(here, options), join(disk, here.file));
    t.equal(await fetchPublished(here, options), join(disk, here.file), 'also unremembered');
    await t.rejects(fetchPublished(missing, options), {
      code: 'ERR_PANNS_IO',
      message: /missing\.pth\.lock: cannot write: the file system is read-only.*\(EROFS\)/,
    });
    t.equal(requests.length, 0);
    t.same(readdirSync(disk), [here.file]);
  });
});
