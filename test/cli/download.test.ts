import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runProgram } from '../../lib/cli/program.js';
import { publishedFiles } from '../../lib/models/pretrained.js';
import { sharedFile } from '../helpers/shared.js';
import { honest, serve, weightsOf } from '../inference/file_server.js';

for (const name of ['PANNS_MIRROR', 'PANNS_OFFLINE', 'PANNS_CACHE']) delete process.env[name];

/** Runs `panns download ...` in this process. */
async function download(...words: string[]) {
  let out = '';
  let messages = '';
  const code = await runProgram(['download', ...words], {
    print: (text) => {
      out += `${text}\n`;
    },
    messages: { write: (text) => (messages += text) },
    signal: new AbortController().signal,
  });
  const json = () =>
    out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { code, out, messages, json };
}

const real = sharedFile('data', 'efficientat_mn04_as', 'mn04_as_mAP_432.pt');

t.test('a published file is fetched, listed and checked', { skip: real.skip }, async (t) => {
  const folder = t.testdir();
  const { mirror, requests } = await serve(t, honest(readFileSync(real.path)));
  const path = join(folder, 'mn04_as_mAP_432.pt');
  const first = await download('mn04', '--folder', folder, '--mirror', mirror);
  t.equal(first.code, 0, first.messages);
  t.equal(first.out, `mn04 is in ${path} (4.07 MB, MIT)\n`);
  t.match(first.messages, /^mn04 +\d+ % .*MB\n(.*\n)*mn04 +100 % +4\.1\/4\.1 MB/);
  t.ok(readFileSync(path).equals(readFileSync(real.path)));

  const again = await download('mn04', 'mn04', '--folder', folder, '--mirror', mirror, '--json');
  t.same(again.json(), [{ name: 'mn04', model: 'mn04', path, bytes: 4066513 }]);
  t.equal(again.messages, '', 'nothing to show');
  t.equal(requests.length, 1);

  const here = await download('--list', 'mn04', 'Cnn14', '--folder', folder, '--json');
  t.match(here.json(), [
    { name: 'mn04', state: 'good', licence: 'MIT', path },
    { name: 'Cnn14', state: 'missing', licence: 'CC-BY-4.0', doi: '10.5281/zenodo.3987831' },
  ]);

  const good = await download('--check', '--folder', folder);
  t.equal(good.code, 0);
  t.equal(good.out, `mn04 is good, as published: ${path}\n`);
  const broken = readFileSync(path);
  broken[1000] = (broken[1000] ?? 0) ^ 1;
  writeFileSync(path, broken);
  const bad = await download('--check', '--folder', folder);
  t.equal(bad.code, 1);
  t.match(bad.out, /^mn04 has sha256 \w{64}, expected 899a8c62/);
  const listed = await download('--list', '--folder', folder);
  t.match(listed.out, /^mn04 .* MIT +damaged$/m);
});

t.test('a digest that nobody published is that of the day it came', async (t) => {
  const folder = t.testdir();
  const { mirror } = await serve(t, honest(weightsOf(100_000)));
  await download('LeeNet24', '--folder', folder, '--mirror', mirror);
  const { out, code } = await download('--check', 'LeeNet24', '--folder', folder);
  const path = join(folder, 'LeeNet24_mAP=0.336.pth');
  t.equal(out, `LeeNet24 is good, as it was when it came: ${path}\n`);
  t.equal(code, 0);
});

t.test('the list has a line a file', async (t) => {
  const folder = join(t.testdir(), 'none');
  const { code, out } = await download('--list', '--folder', folder);
  t.equal(code, 0);
  const [table = '', notes = ''] = out.split('\n\n');
  const [title = '', ...lines] = table.split('\n');
  t.same(title.split(/ {2,}/), ['name', 'model', 'options', 'size', 'mAP', 'licence', 'here']);
  t.same(
    lines.map((line) => line.split(' ')[0]),
    publishedFiles.map(({ name }) => name),
  );
  t.ok(lines.every((line) => line.endsWith('  -')));
  t.match(lines.join('\n'), /^Cnn14 +Cnn14 +327 MB +0\.431 +CC-BY-4\.0 +-$/m);
  t.match(lines.join('\n'), /^mn10_as_hop_15 +mn10 +hopSize 480 +- +0\.463 +MIT +-$/m);
  t.match(notes, 'https://zenodo.org/records/3987831');
  t.match(notes, folder);
  t.notOk(existsSync(folder), 'looking makes no folder');
  const none = await download('--check', '--folder', folder);
  t.equal(none.code, 0);
  t.match(none.out, `There are no published weights in ${folder}`);
});

t.test('mistakes', async (t) => {
  const folder = t.testdir();
  const cases: [string[], number, RegExp][] = [
    [[], 2, /name what to fetch, or see what there is with --list/],
    [['--list', '--check'], 2, /two commands/],
    [['Cnn41'], 1, /error ERR_PANNS_OPTION: .*did you mean "Cnn14"/],
    [['mn04', '--mirror', 'ftp://x'], 1, /ERR_PANNS_OPTION.*mirror/],
    [['--check', 'mn04'], 1, /^$/],
  ];
  for (const [words, exit, message] of cases) {
    const { code, messages } = await download(...words, '--folder', folder);
    t.equal(code, exit, words.join(' '));
    t.match(messages, message);
  }
  process.env.PANNS_OFFLINE = '1';
  t.teardown(() => delete process.env.PANNS_OFFLINE);
  const offline = await download('Cnn6', 'mn04', '--folder', folder);
  t.equal(offline.code, 1);
  t.match(offline.messages, /^error ERR_PANNS_OFFLINE: Cnn6: .* by hand and put it at .*Cnn6/);
});

t.test('a pause between two attempts is told', async (t) => {
  const folder = t.testdir();
  const content = honest(weightsOf(100_000));
  const { mirror } = await serve(t, (request, response, n) => {
    if (n > 0) return content(request, response, n);
    response.statusCode = 503;
    return response.end();
  });
  const { code, messages } = await download('LeeNet24', '--folder', folder, '--mirror', mirror);
  t.equal(code, 0, messages);
  t.match(messages, /^LeeNet24: the server answers 503 .*; trying again in 500 ms\n/);
});

t.test('put there by hand, nothing is fetched', { skip: real.skip }, async (t) => {
  const folder = t.testdir();
  copyFileSync(real.path, join(folder, 'mn04_as_mAP_432.pt'));
  const { code, out } = await download(
    'mn04',
    '--folder',
    folder,
    '--mirror',
    'http://127.0.0.1:1',
  );
  t.equal(code, 0);
  t.match(out, 'mn04 is in');
});
