// Servers that misbehave, and networks that fail.
import { randomInt } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { openUrl } from '../../lib/io/http.js';
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

t.test('silence: the connection is given up, and tried again', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const half = await serve(t, (request, response) => {
    const rest = head(request, response, content);
    if (firstByte(request) === 0) response.write(rest.subarray(0, 1_500_000));
    else response.end(rest);
  });
  const folder = t.testdir();
  const path = await fetchQuickly(row, { folder, mirror: half.mirror, timeout: 1000 });
  t.ok(readFileSync(path).equals(content));
  // On a busy machine a span may pass before anything is read, which is then asked for again.
  const first = half.requests.map(firstByte);
  t.equal(first[0], 0);
  t.ok((first.at(-1) ?? 0) > 0, `goes on at ${first.at(-1)}`);

  const mute = await serve(t, () => undefined);
  await t.rejects(fetchQuickly(madeUp(content), { folder, mirror: mute.mirror, timeout: 500 }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: /the connection stalls: 0 bytes came in 0.5 s, after 5 attempts; try again, name a m/,
  });
  t.equal(mute.requests.length, 5);
});

t.test('a trickle is not better than silence', async (t) => {
  const content = weightsOf(BYTES);
  const { mirror } = await serve(t, (request, response) => {
    const rest = head(request, response, content);
    let sent = 0;
    const timer = setInterval(() => response.write(rest.subarray(sent, ++sent)), 20);
    response.on('close', () => clearInterval(timer));
  });
  const options = { folder: t.testdir(), mirror, timeout: 200 };
  await t.rejects(fetchQuickly(madeUp(content), options), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: /the connection stalls: \d+ bytes came in 0.2 s/,
  });
});

t.test('lengths that are not true', async (t) => {
  const content = weightsOf(BYTES);
  const chunk = Buffer.alloc(100_000, 'x');
  const endless = await serve(t, (_, response) => {
    const more = (): void => {
      while (!response.closed && response.write(chunk));
      response.once('drain', more);
    };
    more();
  });
  const folder = t.testdir();
  const row = madeUp(content);
  await t.rejects(fetchQuickly(row, { folder, mirror: endless.mirror }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: new RegExp(`\\d+ bytes and more come, ${BYTES} are the most;`),
  });
  t.equal(endless.requests.length, 1, 'at once');
  t.same(readdirSync(folder), [], 'and nothing of it is kept');

  for (const wrong of [BYTES + 1, BYTES - 1, 513_950_654]) {
    const liar = await serve(t, (_, response) => {
      response.writeHead(200, { 'content-length': wrong });
      response.write(content.subarray(0, 1000));
    });
    await t.rejects(fetchQuickly(row, { folder, mirror: liar.mirror }), {
      code: 'ERR_PANNS_DOWNLOAD',
      message: `the server announces ${wrong} bytes, the file has ${BYTES}, after 5 attempts`,
    });
  }

  // Without an announced length, an end that comes too soon looks like any other.
  const short = await serve(t, (request, response, n) => {
    if (n > 0) honest(content)(request, response, n);
    else response.writeHead(200, { etag: '"one"' }).end(content.subarray(0, 2_000_000));
  });
  t.ok(readFileSync(await fetchQuickly(row, { folder, mirror: short.mirror })).equals(content));
  t.same(short.requests.map(firstByte), [0, 2_000_000]);

  // A size that only the server knows: what it announces has to come.
  const unknown = unverifiable(content);
  const cut = await serve(t, (request, response, n) =>
    (n === 0 ? breaksAfter(content, 400_000, folder) : honest(content))(request, response, n),
  );
  const path = await fetchQuickly(unknown, { folder, mirror: cut.mirror });
  t.ok(readFileSync(path).equals(content));
  t.same(cut.requests.map(firstByte), [0, 400_000]);
});

t.test('wrong bytes of the right length', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const wrong = Buffer.from(content);
  const place = randomInt(4, BYTES);
  wrong[place] = (wrong[place] ?? 0) ^ 0x10;
  const folder = t.testdir();
  const always = await serve(t, honest(wrong));
  await t.rejects(fetchQuickly(row, { folder, mirror: always.mirror }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: new RegExp(`is not the published file: it has sha256 \\w{64}, expected ${row.sha256}`),
  });
  t.same(always.requests.map(firstByte), [0, 0]);
  t.same(readdirSync(folder), []);

  const once = await serve(t, (request, response, n) =>
    honest(n === 0 ? wrong : content)(request, response, n),
  );
  t.ok(readFileSync(await fetchQuickly(row, { folder, mirror: once.mirror })).equals(content));

  const { sha256: _, bytes: __, ...md5Only } = madeUp(content);
  await t.rejects(fetchQuickly(md5Only, { folder, mirror: always.mirror }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: `expected ${md5Only.md5}`,
  });

  // A page of a hotel's network, where neither size nor digest would show it.
  const page = await serve(t, (_, response) => response.end('<html>Please log in</html>'));
  await t.rejects(fetchQuickly(unverifiable(content), { folder, mirror: page.mirror }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: 'it has no beginning of a PyTorch file (3c68746d)',
  });
  const empty = await serve(t, (_, response) => response.end());
  await t.rejects(fetchQuickly(unverifiable(content), { folder, mirror: empty.mirror }), {
    code: 'ERR_PANNS_DOWNLOAD',
  });
  const packed = await serve(t, (_, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end('x');
  });
  await t.rejects(fetchQuickly(row, { folder: t.testdir(), mirror: packed.mirror }), {
    message: /the server sends the file as "gzip"/,
  });
});

t.test('a server that does not give the range that was asked for', async (t) => {
  const content = weightsOf(BYTES);
  const other = weightsOf(BYTES);
  const folder = t.testdir();
  const begin = breaksAfter(content, 900_000, folder);
  /** The second request gets this; the others are served well. */
  const second = (answer: (response: import('node:http').ServerResponse) => void, rest = content) =>
    serve(t, (request, response, n) => {
      if (n === 0) begin(request, response, n);
      else if (n === 1) answer(response);
      else honest(rest, '"two"')(request, response, n);
    });
  const range = (first: number) => ({
    'content-range': `bytes ${first}-${BYTES - 1}/${BYTES}`,
    'content-length': BYTES - first,
  });
  const cases: [string, Awaited<ReturnType<typeof serve>>, Buffer, number[]][] = [
    ['ignores it', await second((r) => r.end(content)), content, [0, 900_000]],
    [
      'has a new file, and heeds If-Range',
      await second((r) => r.writeHead(200, { etag: '"two"' }).end(other)),
      other,
      [0, 900_000],
    ],
    [
      'has a new file, and does not',
      await second((r) => {
        r.writeHead(206, { etag: '"two"', ...range(900_000) }).end(other.subarray(900_000));
      }, other),
      other,
      [0, 900_000, 0],
    ],
    [
      'sends another range',
      await second((r) => r.writeHead(206, range(900_001)).end(content.subarray(900_001))),
      content,
      [0, 900_000, 0],
    ],
    ['has no such range', await second((r) => r.writeHead(416).end()), content, [0, 900_000, 0]],
  ];
  for (const [what, { mirror, requests }, expected, first] of cases) {
    for (const row of [madeUp(expected), unverifiable(expected)]) {
      (requests as unknown[]).length = 0;
      const path = await fetchQuickly(row, { folder, mirror });
      t.ok(readFileSync(path).equals(expected), what);
      t.same(requests.map(firstByte), first, what);
    }
  }
});

t.test('redirects', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const folder = t.testdir();
  const good = await serve(t, (request, response, n) => {
    const status = [301, 302, 307][n];
    const location = n === 1 ? `../x/${n}` : `/y/${n}?key=a%20b`;
    if (status === undefined) honest(content)(request, response, n);
    else response.writeHead(status, { location }).end();
  });
  t.ok(readFileSync(await fetchQuickly(row, { folder, mirror: good.mirror })).equals(content));
  t.same(
    good.requests.slice(1).map(({ url }) => url),
    [...['/y/0?key=a%20b', '/x/1', '/y/2?key=a%20b']],
  );

  const to = (location?: string) =>
    serve(t, (_, response) => {
      response.writeHead(302, location === undefined ? {} : { location }).end();
    });
  for (const [location, message, count] of [
    ['?again', /more than 5 redirects/, 6],
    ['file:///etc/passwd', /from http: to file:.*refused/, 1],
    ['http://[', /redirects to no address/, 1],
    [undefined, /redirects to no address/, 1],
  ] as const) {
    const { mirror, requests } = await to(location);
    const failed = fetchQuickly(madeUp(content), { folder, mirror });
    await t.rejects(failed, { code: 'ERR_PANNS_DOWNLOAD', message });
    t.equal(requests.length, count);
  }

  // From https only to https: a stand-in for the network, since a certificate needs an authority.
  const { fetch } = globalThis;
  t.teardown(() => {
    globalThis.fetch = fetch;
  });
  const asked: string[] = [];
  globalThis.fetch = async (url) => {
    asked.push(String(url));
    const location = asked.length === 1 ? 'https://b.invalid/f' : 'http://c.invalid/f';
    return new Response(null, { status: 302, headers: { location } });
  };
  const signal = new AbortController().signal;
  await t.rejects(openUrl(new URL('https://a.invalid/f'), {}, signal), {
    message: 'b.invalid redirects from https: to http://c.invalid, which is refused',
    again: false,
  });
  t.same(asked, ['https://a.invalid/f', 'https://b.invalid/f']);
});

t.test('answers that are refusals', async (t) => {
  const content = weightsOf(BYTES);
  const row = madeUp(content);
  const folder = t.testdir();
  const gone = await serve(t, (_, response) => response.writeHead(404).end('no'));
  await t.rejects(fetchQuickly(row, { folder, mirror: gone.mirror }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: `MadeUp: cannot download ${gone.mirror}/${encodeURIComponent(row.file)}: the server answers 404 Not Found; try again, name a mirror (PANNS_MIRROR), or fetch https://panns.invalid/files/${encodeURIComponent(row.file)} by hand and put it at ${join(folder, row.file)}`,
  });
  t.equal(gone.requests.length, 1, 'is not asked again');
  t.same(readdirSync(folder), []);

  const shaky = await serve(t, (request, response, n) =>
    n < 4
      ? response.writeHead([500, 502, 503, 408][n] ?? 0).end()
      : honest(content)(request, response, n),
  );
  t.ok(readFileSync(await fetchQuickly(row, { folder, mirror: shaky.mirror })).equals(content));
  const down = await serve(t, (_, response) => response.writeHead(503).end());
  await t.rejects(fetchQuickly(madeUp(content), { folder, mirror: down.mirror }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: /the server answers 503 Service Unavailable, after 5 attempts/,
  });
  t.equal(down.requests.length, 5);

  for (const wait of [() => '1', () => new Date(Date.now() + 2500).toUTCString()]) {
    const busy = await serve(t, (request, response, n) =>
      n === 0
        ? response.writeHead(429, { 'retry-after': wait() }).end()
        : honest(content)(request, response, n),
    );
    const start = performance.now();
    await fetchQuickly(madeUp(content), { folder, mirror: busy.mirror });
    const took = performance.now() - start;
    // A date has whole seconds: that of 2.5 s from now is 1.5 s away at least.
    t.ok(took >= 950, `waited ${Math.round(took)} ms`);
  }
  const later = await serve(t, (_, response) => {
    response.writeHead(429, { 'retry-after': '3600' }).end();
  });
  await t.rejects(fetchQuickly(madeUp(content), { folder, mirror: later.mirror }), {
    message: /answers 429 Too Many Requests and asks to wait 3600 s;/,
  });
  t.equal(later.requests.length, 1);
});

t.test('nobody there', async (t) => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  const closed = `http://127.0.0.1:${port}`;
  await t.rejects(fetchQuickly(madeUp(weightsOf(100)), { folder: t.testdir(), mirror: closed }), {
    code: 'ERR_PANNS_DOWNLOAD',
    message: /no answer from 127.0.0.1:\d+: connect ECONNREFUSED .*, after 5 attempts/,
  });
});
