import {
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { cacheFolder, examineFile } from '../../lib/inference/cache.js';
import {
  type DownloadOptions,
  type DownloadProgress,
  downloadWeights,
} from '../../lib/inference/download.js';
import type { PublishedFile } from '../../lib/models/pretrained.js';
import { sharedFile } from '../helpers/shared.js';
import {
  BYTES,
  breaksAfter,
  fetchQuickly,
  firstByte,
  head,
  honest,
  madeUp,
  serve,
  unverifiable,
  weightsOf,
} from './file_server.js';

/** What a failed download may leave is what it goes on with, and nothing under the file's name. */
function leftovers(folder: string, { file }: PublishedFile): string[] {
  return readdirSync(folder).filter(
    (name) => ![`${file}.part`, `${file}.part.json`].includes(name),
  );
}

t.test('a file comes whole, is remembered, and is fetched once', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const { mirror, requests } = await serve(t, honest(content));
  const folder = join(t.testdir(), 'deep', 'down');
  const seen: DownloadProgress[] = [];
  const options = { folder, mirror, onProgress: (p: DownloadProgress) => void seen.push(p) };
  const path = await fetchQuickly(row, options);
  t.equal(path, join(folder, row.file));
  t.ok(readFileSync(path).equals(content));
  t.same(readdirSync(folder).sort(), [row.file, `${row.file}.verified.json`]);
  t.equal(requests[0]?.url, `/some/folder/${encodeURIComponent(row.file)}`);
  t.equal(requests[0]?.headers.range, undefined);
  t.equal(requests[0]?.headers['accept-encoding'], 'identity');
  t.ok(seen.length > 3);
  t.match(seen[0], { name: 'MadeUp', file: row.file, received: 0, total: BYTES });
  t.match(seen.at(-1), { received: BYTES, total: BYTES });
  for (const [i, { received }] of seen.entries()) {
    if (i > 0) t.ok(received >= (seen[i - 1]?.received ?? 0), 'grows', { quiet: true });
  }
  t.equal(await fetchQuickly(row, options), path);
  t.equal(requests.length, 1);

  // Same size and time: taken as it is, without reading it. That is what a check is for.
  // utimes has whole milliseconds.
  const mtime = new Date(Math.floor(statSync(path).mtimeMs));
  utimesSync(path, mtime, mtime);
  t.equal((await examineFile(row, path)).state, 'good');
  const broken = Buffer.from(content);
  broken[BYTES - 7] = (broken[BYTES - 7] ?? 0) ^ 1;
  writeFileSync(path, broken);
  utimesSync(path, mtime, mtime);
  t.equal((await examineFile(row, path)).state, 'good');
  t.match(await examineFile(row, path, { afresh: true }), { state: 'bad', fault: row.sha256 });
  // Another time: read again, found damaged, fetched anew.
  utimesSync(path, mtime, new Date(mtime.getTime() + 1000));
  t.equal(await fetchQuickly(row, options), path);
  t.ok(readFileSync(path).equals(content));
  t.equal(requests.length, 2);
  // Untouched bytes with another time are only read.
  utimesSync(path, mtime, new Date(mtime.getTime() + 2000));
  await fetchQuickly(row, options);
  t.equal(requests.length, 2);
});

t.test('a file put there by hand is taken when it is the one', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const folder = t.testdir();
  writeFileSync(join(folder, row.file), content);
  t.equal(await fetchQuickly(row, { folder, offline: true }), join(folder, row.file));
  writeFileSync(join(folder, row.file), content.subarray(1));
  const fault = `the file there has ${BYTES - 1} bytes, expected ${BYTES}`;
  await t.rejects(fetchQuickly(row, { folder, offline: true }), {
    code: 'ERR_PANNS_OFFLINE',
    message: fault,
  });
});

t.test('what breaks off goes on where it was', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const folder = t.testdir();
  const { mirror, requests } = await serve(t, (request, response, n) =>
    (n < 2 ? breaksAfter(content, 700_000 + n, folder) : honest(content))(request, response, n),
  );
  const path = await fetchQuickly(row, { folder, mirror });
  t.ok(readFileSync(path).equals(content));
  t.same(requests.map(firstByte), [0, 700_000, 1_400_001]);
  t.equal(requests[1]?.headers['if-range'], '"one"');
  t.same(leftovers(folder, row), [row.file, `${row.file}.verified.json`]);
});

t.test('an abort in the middle keeps what came, and a later call goes on', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const { mirror, requests } = await serve(t, (request, response, n) => {
    const rest = head(request, response, content);
    if (n === 0) response.write(rest.subarray(0, 1_000_000));
    else response.end(rest);
  });
  const folder = t.testdir();
  const controller = new AbortController();
  const { signal } = controller;
  const onProgress = ({ received }: DownloadProgress) => {
    if (received === 1_000_000) controller.abort(new Error('enough'));
  };
  const failed = fetchQuickly(row, { folder, mirror, signal, onProgress });
  await t.rejects(failed, { name: 'AbortError', code: 'ABORT_ERR', cause: { message: 'enough' } });
  t.same(leftovers(folder, row), []);
  t.equal(statSync(join(folder, `${row.file}.part`)).size, 1_000_000);
  await t.rejects(fetchQuickly(row, { folder, mirror, signal }), { code: 'ABORT_ERR' });
  t.equal(requests.length, 1, 'an aborted call asks for nothing');
  const path = await fetchQuickly(row, { folder, mirror });
  t.ok(readFileSync(path).equals(content));
  t.equal(firstByte(requests[1] as never), 1_000_000);

  // Where no digest is known, what an earlier process left is not trusted.
  const other = unverifiable(content);
  const origin = {
    url: `${mirror}/${encodeURIComponent(other.file)}`,
    etag: '"one"',
    total: BYTES,
  };
  writeFileSync(join(folder, `${other.file}.part`), 'PK\x03\x04 of another file');
  writeFileSync(join(folder, `${other.file}.part.json`), JSON.stringify(origin));
  t.ok(readFileSync(await fetchQuickly(other, { folder, mirror })).equals(content));
  t.equal(requests[2]?.headers.range, undefined);
});

t.test('two at once: one fetches, both have it', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  let [begun, goOn] = [() => {}, () => {}];
  const asked = new Promise<void>((done) => {
    begun = done;
  });
  const released = new Promise<void>((done) => {
    goOn = done;
  });
  const { mirror, requests } = await serve(t, (request, response) => {
    begun();
    const rest = head(request, response, content);
    response.write(rest.subarray(0, 1000));
    void released.then(() => response.end(rest.subarray(1000)));
  });
  const folder = t.testdir();
  const controller = new AbortController();
  const first = fetchQuickly(row, { folder, mirror });
  const second = fetchQuickly(row, { folder, mirror });
  // Not the one that fetches: that is one of the first two.
  await asked;
  const third = fetchQuickly(row, { folder, mirror, signal: controller.signal });
  setTimeout(() => controller.abort(), 100);
  await t.rejects(third, { code: 'ABORT_ERR' }, 'who waits can leave');
  goOn();
  for (const path of await Promise.all([first, second])) {
    t.ok(readFileSync(path).equals(content));
  }
  t.equal(requests.length, 1);
  t.same(leftovers(folder, row), [row.file, `${row.file}.verified.json`]);
});

t.test('files beside it that something else wrote', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const { mirror, requests } = await serve(t, honest(content));
  const address = `${mirror}/${encodeURIComponent(row.file)}`;
  const origins = ['', 'null', '[]', '"x"', `{"url":"${address}","etag":5}`, '{"url":{}}'];
  for (const origin of origins) {
    const folder = t.testdir({
      [`${row.file}.part`]: content.subarray(0, 1000),
      [`${row.file}.part.json`]: origin,
      [`${row.file}.verified.json`]: origin,
      [row.file]: 'not it',
    });
    t.ok(readFileSync(await fetchQuickly(row, { folder, mirror })).equals(content), origin);
  }
  t.same(requests.map(firstByte), new Array(origins.length).fill(0));
  // Bytes of an earlier attempt that are not those of the file show in the end: once more, then.
  const folder = t.testdir({
    [`${row.file}.part`]: weightsOf(1000),
    [`${row.file}.part.json`]: JSON.stringify({ url: address, etag: '"one"', total: BYTES }),
  });
  t.ok(readFileSync(await fetchQuickly(row, { folder, mirror })).equals(content));
  t.same(requests.slice(origins.length).map(firstByte), [1000, 0]);
});

t.test('a folder as mirror, also without the network', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const mirror = t.testdir({ 'with blank': { [row.file]: content } });
  const from = join(mirror, 'with blank');
  for (const [i, name] of [from, pathToFileURL(from).href].entries()) {
    const folder = join(mirror, `cache ${i}`);
    const seen: number[] = [];
    const onProgress = ({ received }: DownloadProgress) => void seen.push(received);
    const path = await fetchQuickly(row, { folder, mirror: name, offline: true, onProgress });
    t.ok(readFileSync(path).equals(content));
    t.equal(seen.at(-1), BYTES);
    t.same(readdirSync(folder).sort(), [row.file, `${row.file}.verified.json`]);
  }
  const folder = join(mirror, 'empty');
  await t.rejects(fetchQuickly({ ...row, file: 'gone.pth' }, { folder, mirror: from }), {
    code: 'ERR_PANNS_IO',
    message: /gone\.pth: cannot copy: .*ENOENT/,
  });
  await t.rejects(fetchQuickly({ ...row, bytes: 7 }, { folder, mirror: from }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: `has ${BYTES} bytes, expected 7`,
  });
  t.same(readdirSync(folder), []);
});

t.test('options and the environment', async (t) => {
  const content = weightsOf(1000);
  const row = madeUp(content);
  const folder = t.testdir();
  const { mirror, requests } = await serve(t, honest(content));
  const away = { PANNS_MIRROR: mirror, PANNS_OFFLINE: '1', PANNS_CACHE: folder };
  t.teardown(() => {
    for (const name of Object.keys(away)) delete process.env[name];
  });
  Object.assign(process.env, away);
  await t.rejects(fetchQuickly(row, {}), {
    code: 'ERR_PANNS_OFFLINE',
    message: `MadeUp: the weights of MadeUp are not at ${join(folder, row.file)} (there is no such file) and downloading is switched off: unset PANNS_OFFLINE and the option offline, or fetch https://panns.invalid/files/${encodeURIComponent(row.file)} by hand and put it at ${join(folder, row.file)}`,
  });
  t.equal(requests.length, 0);
  t.equal(await fetchQuickly(row, { offline: false }), join(folder, row.file));
  process.env.PANNS_OFFLINE = '0';
  t.ok(existsSync(await fetchQuickly(madeUp(content), {})));
  t.equal(requests.length, 2);

  const wrong: [DownloadOptions, RegExp][] = [
    [{ mirrow: mirror } as DownloadOptions, /unknown option "mirrow"; did you mean "mirror"\?/],
    [{ mirror: 'ftp://x/y' }, /expected mirror to be an http or https address, or a folder/],
    [{ mirror: 'http://[' }, /expected mirror/],
    [{ mirror: 'https://me:secret@x/y' }, /without user name and password, got x$/],
    [{ folder: '' }, /expected folder to be a text/],
    [{ timeout: 0 }, /expected timeout to be a time in ms > 0, got 0/],
    [{ timeout: Number.NaN }, /expected timeout/],
  ];
  for (const [options, message] of wrong) {
    await t.rejects(fetchQuickly(row, options), { code: 'ERR_PANNS_OPTION', message });
  }
  await t.rejects(downloadWeights('Cn14'), {
    code: 'ERR_PANNS_OPTION',
    message: /no published weights "Cn14"; did you mean "Cnn14"\?/,
  });
});

t.test('the cache folder of each platform', async (t) => {
  const home = process.env.HOME ?? '';
  t.equal(cacheFolder({ PANNS_CACHE: '/a', XDG_CACHE_HOME: '/b' }, 'linux'), '/a');
  t.equal(cacheFolder({ XDG_CACHE_HOME: '/b' }, 'linux'), join('/b', 'panns'));
  t.equal(cacheFolder({}, 'linux'), join(home, '.cache', 'panns'));
  t.equal(cacheFolder({}, 'darwin'), join(home, 'Library', 'Caches', 'panns'));
  t.equal(cacheFolder({ LOCALAPPDATA: 'L' }, 'win32'), join('L', 'panns', 'Cache'));
});

const real = sharedFile('data', 'efficientat_mn04_as', 'mn04_as_mAP_432.pt');

t.test('a published file', { skip: real.skip }, async (t) => {
  const content = readFileSync(real.path);
  const folder = join(t.testdir(), 'x');
  const { mirror, requests } = await serve(t, (request, response, n) =>
    (n < 2 ? breaksAfter(content, 1_500_000, folder) : honest(content))(request, response, n),
  );
  const path = await downloadWeights('mn04', { folder, mirror });
  t.ok(readFileSync(path).equals(content));
  t.same(requests.map(firstByte), [0, 1_500_000, 3_000_000]);
  t.equal(requests[0]?.url, '/some/folder/mn04_as_mAP_432.pt');
});
