import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t, { type Test } from 'tap';
import ts from 'typescript';
import { createRandom } from '../../lib/data/random.js';
import { freshSeed } from '../data/fresh_seed.js';
import { manifestOf, type Ran, root, run } from './consumer.js';

const here = `${process.platform}-${process.arch}`;
const built = process.env.PANNS_BINDING ?? join(root, 'build', 'Release', 'panns.node');
const skip =
  here !== 'linux-x64'
    ? `the faults are those of linux-x64, this is ${here}`
    : process.env.PANNS_BUILD
      ? 'PANNS_BUILD names a build that is not shipped'
      : false;

/** dist/, without asking the compiler for types: path from dist/ to text. */
const compiled = new Map<string, string>();
if (!skip) {
  for (const name of readdirSync(join(root, 'lib'), { recursive: true }) as string[]) {
    if (!name.endsWith('.ts')) continue;
    const source = readFileSync(join(root, 'lib', name), 'utf8');
    const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 };
    const { outputText } = ts.transpileModule(source, { compilerOptions });
    compiled.set(name.replace(/\.ts$/, '.js'), outputText);
  }
}

const prebuilt = join('prebuilds', here, 'panns.glibc.node');

/** Makes `folder` a package as it is installed, with `binary` where `place` says. */
function install(folder: string, binary?: Buffer, place = prebuilt): void {
  cpSync(join(root, 'package.json'), join(folder, 'package.json'));
  for (const [name, text] of compiled) put(join(folder, 'dist', name), text);
  if (binary) put(join(folder, place), binary);
}

function installed(t: Test, binary?: Buffer, place?: string): string {
  const folder = t.testdir();
  install(folder, binary, place);
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

function put(path: string, content: string | Buffer): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

/** A copy of the binary with one text in place of another of the same length. */
function withText(from: string, to: string): Buffer {
  const text = readFileSync(built, 'latin1');
  if (from.length !== to.length || !text.includes(from)) throw new Error(`no ${from} to replace`);
  return Buffer.from(text.replaceAll(from, to), 'latin1');
}

/** A copy of the binary with one byte changed. */
function withByte(offset: number, value: number): Buffer {
  const bytes = readFileSync(built);
  bytes[offset] = value;
  return bytes;
}

/** Infers with a small network from the package in `folder`; prints what came out, in JSON. */
function useOf(folder: string): string {
  return `
    const { createModel } = await import(${JSON.stringify(pathToFileURL(join(folder, 'dist/index.js')))});
    async function use() {
      try {
        const model = await createModel('Cnn6', { classes: 2, sampleRate: 8000, threads: 1, seed: 7 });
        const wave = Float32Array.from({ length: 8000 }, (_, i) => Math.sin(i / 9) / 2);
        const { clipwise_output: scores } = await model.infer(wave);
        model.dispose();
        return { scores: [...scores.data] };
      } catch ({ code, message }) {
        return { code, message };
      }
    }`;
}

async function inProcess(
  folder: string,
  program: string,
  env: Record<string, string> = {},
  owner?: { uid: number; gid: number },
): Promise<Ran> {
  const args = ['--input-type=module', '-e', program];
  return run(process.execPath, args, folder, { PATH: process.env.PATH, ...env }, owner);
}

interface Outcome {
  scores?: number[];
  code?: string;
  message?: string;
}

async function outcome(t: Test, folder: string, env?: Record<string, string>): Promise<Outcome> {
  const ran = await inProcess(
    folder,
    `${useOf(folder)} console.log(JSON.stringify(await use()));`,
    env,
  );
  t.match(ran, { status: 0, signal: null }, ran.stderr);
  return JSON.parse(ran.stdout || '{}') as Outcome;
}

t.test('a package that is whole, and one without a binary', { skip }, async (t) => {
  const whole = await outcome(t, installed(t, readFileSync(built)));
  t.equal(whole.scores?.length, 2, whole.message ?? '');
  t.ok(whole.scores?.every((score) => score > 0 && score < 1));
  const none = await outcome(t, installed(t));
  t.equal(none.code, 'ERR_PANNS_NATIVE_MISSING');
  t.match(none.message, 'npx panns build');
});

for (const { name, binary, says } of [
  {
    name: 'a binary that needs a newer glibc',
    binary: () => withText('GLIBC_2.34', 'GLIBC_9.99'),
    says: [/needs GLIBC_9\.99, and this system has glibc \d/, /npx panns build/],
  },
  {
    name: "another machine's binary",
    binary: () => withByte(18, 183),
    says: [/built for arm64, and this is linux-x64/],
  },
  {
    name: 'a 32-bit binary',
    binary: () => withByte(4, 1),
    says: [/built for a 32-bit machine/],
  },
  {
    name: 'a binary for macOS',
    binary: () => Buffer.concat([Buffer.from('cffaedfe', 'hex'), Buffer.alloc(4096)]),
    says: [/a library for macOS, and this is linux-x64/],
  },
  {
    name: 'a binary for Windows',
    binary: () => Buffer.concat([Buffer.from('MZ'), Buffer.alloc(4096)]),
    says: [/a library for Windows/],
  },
  { name: 'an empty file', binary: () => Buffer.alloc(0), says: [/cut off or empty \(0 bytes\)/] },
  {
    name: 'a page of an error in place of the file',
    binary: () => Buffer.from('<!doctype html><title>404</title>'.repeat(9)),
    says: [/no native library of any platform/],
  },
  {
    name: 'a binary of older sources of the same version',
    binary: () => withText('createModel\0', 'createMode1\0'),
    says: [/older sources of this version: it lacks createModel/],
  },
]) {
  t.test(name, { skip }, async (t) => {
    const folder = installed(t, binary());
    const { code, message = '' } = await outcome(t, folder);
    t.equal(code, 'ERR_PANNS_NATIVE_LOAD');
    t.match(message, join(folder, prebuilt));
    for (const text of [...says, /install it again: delete .* and run npm install/]) {
      t.match(message, text);
    }
  });
}

t.test('a binary that was cut off, anywhere', { skip }, async (t) => {
  const random = createRandom(freshSeed(t));
  const bytes = readFileSync(built);
  const folder = installed(t, bytes);
  for (let i = 0; i < 6; i++) {
    const length = 1 + random.integer(bytes.length - 1);
    put(join(folder, prebuilt), bytes.subarray(0, length));
    const { code, message } = await outcome(t, folder);
    t.equal(code, 'ERR_PANNS_NATIVE_LOAD', `${length} of ${bytes.length} bytes`);
    t.match(message, /it is cut off/);
  }
});

t.test(
  'a build that was left over hides the prebuilt binary: an error says so',
  { skip },
  async (t) => {
    const folder = installed(t, readFileSync(built), 'build/Release/panns.node');
    put(join(folder, prebuilt), readFileSync(built));
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    put(join(folder, 'package.json'), JSON.stringify({ ...manifest, version: '98.7.6' }));
    const { code, message = '' } = await outcome(t, folder);
    t.equal(code, 'ERR_PANNS_NATIVE_LOAD');
    t.match(message, `it was built from panns ${manifest.version}, and this is 98.7.6`);
    t.match(message, `or use the prebuilt one: delete ${join(folder, 'build')}`);
  },
);

t.test('PREBUILDS_ONLY skips a build that was left over', { skip }, async (t) => {
  const folder = installed(t, Buffer.from('left over'), 'build/Release/panns.node');
  put(join(folder, prebuilt), readFileSync(built));
  t.equal((await outcome(t, folder)).code, 'ERR_PANNS_NATIVE_LOAD');
  t.equal((await outcome(t, folder, { PREBUILDS_ONLY: '1' })).scores?.length, 2);
});

t.test('a folder that nobody may write to', { skip }, async (t) => {
  // Not below the clone, which another user may not be able to reach.
  const folder = mkdtempSync(join(tmpdir(), 'panns-faults-'));
  install(folder, readFileSync(built));
  for (const name of Object.keys(manifestOf(root).dependencies ?? {})) {
    const place = join('node_modules', name);
    cpSync(join(root, place), join(folder, place), { recursive: true });
  }
  const below = readdirSync(folder, { recursive: true, withFileTypes: true });
  const inside = below.filter((entry) => entry.isDirectory());
  const folders = [folder, ...inside.map((entry) => join(entry.parentPath, entry.name))];
  for (const path of folders) chmodSync(path, 0o555);
  t.teardown(() => {
    for (const path of folders) chmodSync(path, 0o755);
    rmSync(folder, { recursive: true });
  });
  // Rights do not hold for root; 65534 is nobody.
  const owner = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined;
  const program = `${useOf(folder)} console.log(JSON.stringify(await use()));`;
  const ran = await inProcess('/', program, {}, owner);
  t.equal((JSON.parse(ran.stdout || '{}') as Outcome).scores?.length, 2, ran.stdout + ran.stderr);
  const cli = join(folder, 'dist', 'cli', 'main.js');
  const build = await run(process.execPath, [cli, 'build'], '/', { PATH: process.env.PATH }, owner);
  t.equal(build.status, 1);
  t.match(build.stderr, /ERR_PANNS_BUILD.*(cannot be written to|missing here)/s);
});

t.test('two copies of the package in one process', { skip }, async (t) => {
  const folder = t.testdir();
  const [one, two] = [join(folder, 'one'), join(folder, 'two')];
  for (const copy of [one, two]) install(copy, readFileSync(built));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const program = `
    const first = await (async () => { ${useOf(one)} return use; })();
    const second = await (async () => { ${useOf(two)} return use; })();
    const results = await Promise.all([first(), second(), first(), second()]);
    const { default: { readFileSync } } = await import('node:fs');
    const maps = readFileSync('/proc/self/maps', 'utf8');
    const files = [...new Set(maps.match(/\\/.*panns\\.glibc\\.node/g))];
    console.log(JSON.stringify({ results, files }));`;
  const ran = await inProcess(one, program);
  t.match(ran, { status: 0, signal: null }, ran.stderr);
  const { results, files } = JSON.parse(ran.stdout) as { results: Outcome[]; files: string[] };
  t.equal(files.length, 2, 'each has its own binary');
  t.equal(results[0]?.scores?.length, 2, results[0]?.message ?? '');
  for (const result of results) t.same(result, results[0], 'the same result');
});

t.test('ten worker threads that load at once', { skip }, async (t) => {
  const folder = installed(t, readFileSync(built));
  const body = `${useOf(folder)}
    const { parentPort } = await import('node:worker_threads');
    parentPort.postMessage(await use());`;
  const program = `
    const { Worker } = await import('node:worker_threads');
    const { once } = await import('node:events');
    const code = 'data:text/javascript,' + encodeURIComponent(${JSON.stringify(body)});
    const workers = Array.from({ length: 10 }, () => new Worker(new URL(code)));
    const results = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
    console.log(JSON.stringify(results));`;
  const ran = await inProcess(folder, program);
  t.match(ran, { status: 0, signal: null }, ran.stderr);
  const results = JSON.parse(ran.stdout) as Outcome[];
  t.equal(results.length, 10);
  t.equal(results[0]?.scores?.length, 2, results[0]?.message ?? '');
  for (const result of results) t.same(result, results[0]);
});
