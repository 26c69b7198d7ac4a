import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import type { NativeAddon } from './addon.js';
import { PannsError } from './errors.js';

const require = createRequire(import.meta.url);

let loaded: NativeAddon | undefined;

/**
 * The native addon, loaded on the first call and kept; importing this module loads nothing.
 *
 * `PANNS_BINDING`, the path of a `.node` file, is used alone when it is set. Otherwise the search
 * goes from build/Release over build/Debug to prebuilds/<platform>-<arch> in the package's folder.
 *
 * Throws ERR_PANNS_NATIVE_MISSING when there is no binary, and ERR_PANNS_NATIVE_LOAD when there is
 * one that does not load; the message names every attempt and what to do.
 */
export function loadNative(): NativeAddon {
  if (loaded === undefined) {
    const addon = load(locate());
    // process.exit() runs no cleanup hook on the main thread: without this the engine would still
    // be computing while the process is taken down.
    process.once('exit', () => addon.stop());
    loaded = addon;
  }
  return loaded;
}

/** The folder that holds package.json, wherever this module was compiled to. */
export function packageRoot(): string {
  try {
    return dirname(require.resolve('panns/package.json'));
  } catch (cause) {
    const message =
      'the folder of the package "panns" was not found; when a bundler is in use, mark "panns" ' +
      'as external, or set PANNS_BINDING to the path of panns.node';
    throw new PannsError('ERR_PANNS_NATIVE_MISSING', message, { cause });
  }
}

/** The path of the binary to load. */
function locate(): string {
  const chosen = process.env.PANNS_BINDING;
  if (chosen) {
    const path = resolve(chosen);
    if (existsSync(path)) return path;
    const message = `PANNS_BINDING names ${path}, which does not exist; correct or unset it`;
    throw new PannsError('ERR_PANNS_NATIVE_MISSING', message, {
      expected: 'the path of a panns.node file',
      actual: chosen,
    });
  }
  const root = packageRoot();
  const finder = require('node-gyp-build') as { resolve(root: string): string };
  try {
    return finder.resolve(root);
  } catch (cause) {
    throw new PannsError('ERR_PANNS_NATIVE_MISSING', missingText(root), { cause });
  }
}

function load(path: string): NativeAddon {
  try {
    return require(path) as NativeAddon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PannsError('ERR_PANNS_NATIVE_LOAD', loadText(reason), { cause, where: path });
  }
}

function missingText(root: string): string {
  const prebuilds = join(root, 'prebuilds');
  const shipped = existsSync(prebuilds)
    ? readdirSync(prebuilds, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => entry.name)
    : [];
  return [
    `no native binary for ${process.platform}-${process.arch} (${libc()}, Node.js ` +
      `${process.versions.node}, Node-API ${process.versions.napi})`,
    `  looked in ${join(root, 'build', 'Release')}, ${join(root, 'build', 'Debug')}, ${prebuilds}`,
    `  prebuilt binaries there: ${shipped.join(', ') || 'none'}`,
    ...buildText(root),
    '  or set PANNS_BINDING to the path of a panns.node file',
  ].join('\n');
}

function loadText(reason: string): string {
  const needed = /version `(GLIBC\w*_[\d.]+)' not found/.exec(reason)?.[1];
  const other = /wrong ELF class|invalid ELF header|file too short|not a mach-o/i.test(reason);
  const hint = needed
    ? [`  the binary needs ${needed}, and this system has ${libc()}`]
    : other
      ? [
          `  the file is damaged or belongs to another platform than ${process.platform}-${process.arch}`,
        ]
      : [];
  const fix = process.env.PANNS_BINDING
    ? ['  PANNS_BINDING chose this file: correct or unset it']
    : buildText(packageRoot());
  return [`the native binary did not load: ${reason}`, ...hint, ...fix].join('\n');
}

/** The commands that build the binary; they need g++ 11 or newer and CMake 3.22 or newer. */
function buildText(root: string): string[] {
  // Only a clone has scripts/, and with it the one command that does everything.
  if (existsSync(join(root, 'scripts', 'setup.mjs'))) return ['  build it: npm run setup'];
  return [
    '  build it with g++ and CMake:',
    '    npm install --save-dev cmake-js@8.0.0 node-addon-api@8.9.2',
    `    npx cmake-js build -d ${root}`,
  ];
}

function libc(): string {
  const report = process.report?.getReport() as
    | { header?: { glibcVersionRuntime?: string } }
    | undefined;
  const glibc = report?.header?.glibcVersionRuntime;
  return glibc ? `glibc ${glibc}` : 'no glibc';
}
