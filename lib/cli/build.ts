import { execFile, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { PannsError, throwIfAborted } from '../errors.js';
import { makeFolder } from '../io/folder.js';
import { packageRoot } from '../native.js';
import { type Context, defineVerb, EXIT } from './verb.js';

/** Packages that a build needs; a consumer of the prebuilt addon does not have them. */
const BUILD_PACKAGES = ['cmake-js', 'node-addon-api'] as const;

/** Programs that a build needs: each row is served by any of its names. */
const BUILD_PROGRAMS: readonly { programs: readonly string[]; debian: string; fedora: string }[] = [
  { programs: [process.env.CXX ?? 'c++'], debian: 'g++', fedora: 'gcc-c++' },
  { programs: ['cmake'], debian: 'cmake', fedora: 'cmake' },
  { programs: ['ninja', 'make'], debian: 'ninja-build', fedora: 'ninja-build' },
];

/** Lines of a failed program that are shown: compilers say what is wrong last. */
const LAST_LINES = 30;

/** `panns build`: the native binary, where no prebuilt one serves. */
export const build = defineVerb(
  {
    name: 'panns build',
    summary: 'Build the native binary from the sources in the package',
    options: {
      jobs: {
        type: 'integer',
        min: 1,
        max: 1024,
        default: availableParallelism(),
        short: 'j',
        help: 'compilers at once; each takes up to 1 GB',
      },
    },
  },
  async ({ jobs }, _, context) => {
    const root = packageRoot();
    await checkPrograms();
    await checkFolder(root);
    const modules = await buildPackages(root, context);
    const cmake = createRequire(join(modules, 'package.json')).resolve('cmake-js/package.json');
    const script = join(dirname(cmake), 'bin', 'cmake-js');
    context.print(`building in ${join(root, 'build')}: some minutes`);
    await runStep(
      'cmake-js',
      process.execPath,
      [script, 'build', '-d', root, '-O', join(root, 'build'), '-p', String(jobs)],
      // cmake-js looks for node-addon-api from the package's folder.
      {
        NODE_PATH: [join(modules, 'node_modules'), process.env.NODE_PATH]
          .filter(Boolean)
          .join(delimiter),
      },
      context,
    );
    context.print(`built ${await tryBinary(join(root, 'build', 'Release', 'panns.node'))}`);
    return EXIT.ok;
  },
);

async function checkPrograms(): Promise<void> {
  const missing: (typeof BUILD_PROGRAMS)[number][] = [];
  for (const row of BUILD_PROGRAMS) {
    const found = await Promise.all(row.programs.map(works));
    if (!found.includes(true)) missing.push(row);
  }
  if (missing.length === 0) return;
  const names = missing.map(({ programs }) => programs.join(' or ')).join(', ');
  const list = (key: 'debian' | 'fedora') => missing.map((row) => row[key]).join(' ');
  throw new PannsError(
    'ERR_PANNS_BUILD',
    [
      `a build needs g++ 11 and CMake 3.22 or newer; missing here: ${names}`,
      `  Debian, Ubuntu: sudo apt-get install ${list('debian')}`,
      `  Fedora, RHEL:   sudo dnf install ${list('fedora')}`,
    ].join('\n'),
  );
}

async function works(program: string): Promise<boolean> {
  try {
    await promisify(execFile)(program, ['--version']);
    return true;
  } catch {
    return false;
  }
}

async function checkFolder(root: string): Promise<void> {
  try {
    await access(root, constants.W_OK);
  } catch (cause) {
    const text =
      'the build writes into this folder, which cannot be written to; run it as its owner';
    throw new PannsError('ERR_PANNS_BUILD', text, { where: root, cause });
  }
}

/**
 * A folder whose node_modules hold what the build needs: where Node.js finds the right versions from
 * the package, else build/tools in it, into which npm installs them.
 */
async function buildPackages(root: string, context: Context): Promise<string> {
  const require = createRequire(join(root, 'package.json'));
  const { devDependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    devDependencies: Readonly<Record<string, string>>;
  };
  const installed = (name: string): string | undefined => {
    try {
      return (require(`${name}/package.json`) as { version: string }).version;
    } catch {
      // The usual case: for a consumer of panns these are nobody's dependencies.
      return undefined;
    }
  };
  if (BUILD_PACKAGES.every((name) => installed(name) === devDependencies[name])) return root;
  const tools = join(root, 'build', 'tools');
  await makeFolder(tools);
  const wanted = BUILD_PACKAGES.map((name) => `${name}@${devDependencies[name]}`);
  context.print(`installing ${wanted.join(', ')} into ${tools}`);
  const { npm_execpath: npm } = process.env;
  const [program, ...first] = npm?.endsWith('.js') ? [process.execPath, npm] : ['npm'];
  const flags = ['--no-audit', '--no-fund', '--ignore-scripts', '--prefix', tools];
  await runStep('npm', program, [...first, 'install', ...flags, ...wanted], {}, context);
  return tools;
}

/** Runs a program whose output shows only when it fails. */
async function runStep(
  name: string,
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  { signal }: Context,
): Promise<void> {
  let output = '';
  const status = await new Promise<number | string>((resolve) => {
    const child = spawn(program, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      signal,
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code, by) => resolve(code ?? by ?? 'no exit code'));
  });
  throwIfAborted(signal);
  if (status === 0) return;
  const last = output.trimEnd().split('\n').slice(-LAST_LINES).join('\n');
  throw new PannsError('ERR_PANNS_BUILD', `${name} failed (${status}):\n${last}`, {
    actual: [program, ...args].join(' '),
  });
}

/** Loads what was built in a process of its own; returns its path and version. */
async function tryBinary(path: string): Promise<string> {
  const program = `console.log(require(${JSON.stringify(path)}).version)`;
  try {
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', program]);
    return `${path} (${stdout.trim()})`;
  } catch (cause) {
    throw new PannsError('ERR_PANNS_BUILD', 'it was built, and does not load', {
      where: path,
      cause,
    });
  }
}
