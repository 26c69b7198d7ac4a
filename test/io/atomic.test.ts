import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { createRandom } from '../../lib/data/random.js';
import { PannsError } from '../../lib/errors.js';
import { writeFileAtomic } from '../../lib/io/atomic.js';
import { ioError } from '../../lib/io/failure.js';
import { freshSeed } from '../data/fresh_seed.js';

t.test('chunks of every kind are written in order, views by their own bytes', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'out.bin');
  const random = createRandom(freshSeed(t));
  const floats = new Float32Array(5_000_000).map(() => random.uniform());
  const view = floats.subarray(3, floats.length - 5);
  async function* chunks() {
    yield 'é:';
    yield view;
    yield new Uint8Array(0);
    yield new DataView(floats.buffer, 8, 4);
    yield new Float32Array(new SharedArrayBuffer(8));
  }
  await writeFileAtomic(path, chunks());
  const expected = Buffer.concat([
    Buffer.from('é:'),
    Buffer.from(view.buffer, view.byteOffset, view.byteLength),
    Buffer.from(floats.buffer, 8, 4),
    Buffer.alloc(8),
  ]);
  t.ok(readFileSync(path).equals(expected));
  t.same(readdirSync(folder), ['out.bin'], 'no temporary file is left');
});

t.test('a failure half way leaves the old file and nothing else', async (t) => {
  const folder = t.testdir({ 'out.bin': 'old' });
  const path = join(folder, 'out.bin');
  const failure = new Error('the source failed');
  function* chunks() {
    yield new Uint8Array(100_000);
    t.equal(readdirSync(folder).length, 2, 'the new content goes to a file of its own');
    t.equal(readFileSync(path, 'utf8'), 'old');
    throw failure;
  }
  await t.rejects(writeFileAtomic(path, chunks()), failure);
  t.equal(readFileSync(path, 'utf8'), 'old');
  t.same(readdirSync(folder), ['out.bin']);
});

t.test('an old file keeps its permission bits, a link stays a link', async (t) => {
  const folder = t.testdir({ real: { file: 'old' } });
  const real = join(folder, 'real', 'file');
  const link = join(folder, 'link');
  chmodSync(real, 0o640);
  symlinkSync(real, link);
  await writeFileAtomic(link, ['new']);
  t.ok(lstatSync(link).isSymbolicLink());
  t.equal(readFileSync(real, 'utf8'), 'new');
  t.equal(statSync(real).mode & 0o777, 0o640);
  t.same(readdirSync(join(folder, 'real')), ['file']);
});

t.test('writers at the same time do not mix', async (t) => {
  const path = join(t.testdir(), 'out');
  const contents = Array.from({ length: 8 }, (_, i) => String(i).repeat(200_000));
  await Promise.all(contents.map((content) => writeFileAtomic(path, [content])));
  t.ok(contents.includes(readFileSync(path, 'utf8')));
});

t.test('system failures say the path, what failed and what to do', async (t) => {
  const folder = t.testdir({ file: 'x', sub: { inner: 'y' } });
  const cases: [string, RegExp][] = [
    [join(folder, 'none', 'out'), /cannot write: .*create the folder first \(ENOENT\)/],
    [join(folder, 'file', 'out'), /cannot write: .*a part of this path is a file.*\(ENOTDIR\)/],
    [join(folder, 'sub'), /cannot write: this path is a folder/],
    [join(folder, 'n'.repeat(300)), /choose a shorter one \(ENAMETOOLONG\)/],
  ];
  for (const [path, message] of cases) {
    const error = await writeFileAtomic(path, ['x']).catch((e: unknown) => e);
    t.match(error, { code: 'ERR_PANNS_IO', where: path, message });
    t.ok((error as PannsError).message.startsWith(path));
    t.ok((error as PannsError).cause instanceof Error);
  }
  t.same(readdirSync(folder).sort(), ['file', 'sub']);
  t.same(readdirSync(join(folder, 'sub')), ['inner']);
});

t.test(
  'a folder without write permission',
  {
    skip: process.getuid?.() === 0 ? 'root may write anywhere' : false,
  },
  async (t) => {
    const folder = t.testdir();
    mkdirSync(join(folder, 'closed'), { mode: 0o500 });
    const attempt = writeFileAtomic(join(folder, 'closed', 'out'), ['x']);
    await t.rejects(attempt, { code: 'ERR_PANNS_IO', message: /check the permissions/ });
  },
);

t.test('a file system that gives out: the old file stays', async (t) => {
  const folder = t.testdir({ 'out.bin': 'old' });
  const path = join(folder, 'out.bin');
  const script = fileURLToPath(new URL('./write_past_limit.ts', import.meta.url));
  // The shell's file size limit (in KiB) makes a real write fail half way, without a full disk. It is
  // above what the TypeScript loader may write to its cache.
  const command = ['ulimit -f 8192; exec "$@"', 'sh', process.execPath];
  const child = spawnSync('bash', ['-c', ...command, ...process.execArgv, script, path], {
    encoding: 'utf8',
  });
  const report = /REPORT (.*)/.exec(child.stdout)?.[1];
  if (report === undefined) {
    t.pass('not run', { skip: `no child here: ${child.signal ?? child.stderr.slice(-200)}` });
    return;
  }
  t.match(JSON.parse(report), { code: 'ERR_PANNS_IO', message: /cannot write: .*\(EFBIG\)/ });
  t.equal(readFileSync(path, 'utf8'), 'old');
  t.same(readdirSync(folder), ['out.bin']);
});

t.test('ioError knows the usual codes and keeps what it does not know', async (t) => {
  for (const code of ['ENOSPC', 'EDQUOT', 'EACCES', 'EPERM', 'EROFS', 'EMFILE', 'EIO']) {
    const cause = Object.assign(new Error(`${code}: low level text`), { code });
    const error = ioError(cause, 'write', '/some/file');
    t.equal(error.cause, cause);
    t.match(error.message, new RegExp(`^/some/file: cannot write: .+: .+ \\(${code}\\)$`));
    t.notMatch(error.message, /low level text/);
  }
  t.match(ioError(new Error('odd'), 'read', 'f').message, /^f: cannot read: odd$/);
  t.match(ioError('text', 'read', 'f').message, /^f: cannot read: text$/);
  const own = new PannsError('ERR_PANNS_DATA', 'x');
  t.equal(ioError(own, 'read', 'f'), own);
});

t.test('the temporary name never clashes with a file that is there', async (t) => {
  const folder = t.testdir({ '.out.tmp': 'mine' });
  await writeFileAtomic(join(folder, 'out'), ['x']);
  t.equal(readFileSync(join(folder, '.out.tmp'), 'utf8'), 'mine');
  writeFileSync(join(folder, 'out'), 'y');
});
