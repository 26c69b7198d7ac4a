import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t, { type Test } from 'tap';
import ts from 'typescript';

const root = join(import.meta.dirname, '..');

/** What one call of loadNative() did: the error's fields, or what was loaded. */
interface Outcome {
  code?: string;
  message?: string;
  loaded?: unknown;
}

/** A package folder with package.json and the loader in dist/, and no binary to find by chance. */
function packageFolder(t: Test): string {
  const folder = t.testdir({ dist: { native: {} } });
  cpSync(join(root, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  for (const name of ['native', 'native/binary', 'errors']) {
    const source = readFileSync(join(root, 'lib', `${name}.ts`), 'utf8');
    const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 };
    const { outputText } = ts.transpileModule(source, { compilerOptions });
    writeFileSync(join(folder, 'dist', `${name}.js`), outputText);
  }
  return folder;
}

/** Runs `body`, with loadNative and attempt() at hand, in a process of its own. */
function inProcess(folder: string, env: Record<string, string>, body: string): Outcome[] {
  const program = `
    const { loadNative } = await import(${JSON.stringify(pathToFileURL(join(folder, 'dist/native.js')))});
    const outcomes = [];
    function attempt() {
      try { outcomes.push({ loaded: loadNative() }); }
      catch (error) { outcomes.push({ code: error.code, message: error.message }); }
    }
    ${body}
    console.log(JSON.stringify(outcomes));`;
  const { PATH = '' } = process.env;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    cwd: folder,
    env: { PATH, ...env },
    encoding: 'utf8',
  });
  if (child.status !== 0) throw new Error(child.stderr);
  return JSON.parse(child.stdout) as Outcome[];
}

function load(folder: string, env: Record<string, string> = {}): Outcome {
  return inProcess(folder, env, 'attempt();')[0] ?? {};
}

t.test('no binary: the message names the platform, what is there and the commands', async (t) => {
  const folder = packageFolder(t);
  mkdirSync(join(folder, 'prebuilds', 'sunos-sparc'), { recursive: true });
  const { code, message = '' } = load(folder);
  t.equal(code, 'ERR_PANNS_NATIVE_MISSING');
  t.match(message, `${process.platform}-${process.arch}`);
  t.match(message, `Node-API ${process.versions.napi}`);
  t.match(message, join(folder, 'build', 'Release'));
  t.match(message, 'prebuilt binaries there: sunos-sparc');
  t.match(message, 'npx panns build');
  t.notMatch(message, 'npm run setup', 'that command is for a clone');
});

t.test('no binary in a clone: one command builds it', async (t) => {
  const folder = packageFolder(t);
  mkdirSync(join(folder, 'scripts'));
  writeFileSync(join(folder, 'scripts', 'setup.mjs'), '');
  t.match(load(folder), { code: 'ERR_PANNS_NATIVE_MISSING', message: 'npm run setup' });
});

t.test('PANNS_BINDING that names no file', async (t) => {
  const folder = packageFolder(t);
  const { code, message = '' } = load(folder, { PANNS_BINDING: 'no/such/panns.node' });
  t.equal(code, 'ERR_PANNS_NATIVE_MISSING');
  t.match(message, join(folder, 'no/such/panns.node'));
});

t.test('PANNS_BINDING that names junk', async (t) => {
  const folder = packageFolder(t);
  const junk = join(folder, 'junk.node');
  writeFileSync(junk, 'not a library, but longer than any header of one'.repeat(4));
  const { code, message = '' } = load(folder, { PANNS_BINDING: junk });
  t.equal(code, 'ERR_PANNS_NATIVE_LOAD');
  t.match(message, junk);
  t.match(message, 'PANNS_BINDING chose this file');
});

t.test('a damaged binary in build/Release is an error with the way to build it', async (t) => {
  const folder = packageFolder(t);
  mkdirSync(join(folder, 'build', 'Release'), { recursive: true });
  writeFileSync(join(folder, 'build', 'Release', 'panns.node'), 'junk'.repeat(100));
  const { code, message = '' } = load(folder);
  t.equal(code, 'ERR_PANNS_NATIVE_LOAD');
  t.match(message, join(folder, 'build', 'Release', 'panns.node'));
  t.match(message, 'no native library of any platform');
  t.match(message, 'npx panns build');
});

const built = process.env.PANNS_BINDING ?? join(root, 'build', 'Release', 'panns.node');
const noBuild = existsSync(built) ? false : 'there is no build';

t.test('a binary is loaded once, and a failure is not remembered', { skip: noBuild }, async (t) => {
  const folder = packageFolder(t);
  const path = join(folder, 'binding.node');
  const body = `
    const { copyFileSync } = await import('node:fs');
    attempt();
    copyFileSync(${JSON.stringify(built)}, process.env.PANNS_BINDING);
    attempt();
    delete process.env.PANNS_BINDING;
    attempt();
    outcomes.push({ loaded: loadNative() === loadNative() });`;
  const [before, first, second, same] = inProcess(folder, { PANNS_BINDING: path }, body);
  t.match(before, { code: 'ERR_PANNS_NATIVE_MISSING' });
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  t.match(first, { loaded: { version } });
  t.same(second, first);
  t.same(same, { loaded: true });
});
