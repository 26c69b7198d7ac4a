import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeFolder } from '../../lib/io/folder.js';

t.test('folders are made with those above them, also by many at once', async (t) => {
  const root = t.testdir();
  const path = join(root, 'a', 'b', 'c');
  await Promise.all(Array.from({ length: 8 }, () => makeFolder(path)));
  t.ok(statSync(path).isDirectory());
  await makeFolder(path);
  await makeFolder('.');
  await makeFolder('/');
});

t.test('what cannot be made is an error', async (t) => {
  const root = t.testdir();
  writeFileSync(join(root, 'file'), 'text');
  const refused = (path: string, message: RegExp) =>
    t.rejects(makeFolder(path), { code: 'ERR_PANNS_IO', message, where: path });
  await refused(join(root, 'file'), /there is a file of this name/);
  await refused(join(root, 'file', 'a', 'b'), /is a file and not a folder/);
  await t.rejects(makeFolder(''), { code: 'ERR_PANNS_IO', message: /cannot create the folder/ });
  mkdirSync(join(root, 'locked'), 0o500);
  const skip = process.getuid?.() === 0 && 'the superuser may write anywhere';
  await t.test('without permission', { skip }, async (t) => {
    await t.rejects(makeFolder(join(root, 'locked', 'a')), { code: 'ERR_PANNS_IO' });
  });
});

const skip = existsSync('/proc/self') ? false : 'there is no /proc here';
t.test('a file system that makes no folders is an error, and no wait', { skip }, async (t) => {
  await t.rejects(makeFolder('/proc/run/first'), { code: 'ERR_PANNS_IO' });
});
