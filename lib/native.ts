import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import type { NativeAddon } from './addon.js';
import { PannsError } from './errors.js';
import { binaryFault } from './native/binary.js';

const require = createRequire(import.meta.url);

/**
 * All that lib/addon.ts promises. What an addon of older sources lacks fails when it is called, and
 * says so.
 */
const exported: Readonly<Record<keyof NativeAddon, 'string' | 'function'>> = {
  version: 'string',
  cpu: 'function',
  cudaStatus: 'function',
  audioLibrary: 'function',
  setAudioLibraryFolder: 'function',
  createModel: 'function',
  createSession: 'function',
  createFeatures: 'function',
  openMpi: 'function',
  ncclId: 'function',
  openNccl: 'function',
  frontendTensors: 'function',
  probe: 'function',
  decode: 'function',
  fillRows: 'function',
  resample: 'function',
  resamplerInfo: 'function',
  stop: 'function',
  runOp: 'function',
  nullStep: 'function',
  fusions: 'function',
};

let loaded: NativeAddon | undefined;

/**
 * The native addon, loaded on the first call and kept; importing this module loads nothing.
 *
 * `PANNS_BINDING`, the path of a `.node` file, is used alone when it is set. Otherwise the search
 * goes from build/Release over build/Debug to prebuilds/<platform>-<arch> in the package's folder.
 *
 * Throws ERR_PANNS_NATIVE_MISSING when there is no binary, and ERR_PANNS_NATIVE_LOAD when there is
 * one that does not load or belongs to another version; the message says why and what mends it.
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
  const fault = binaryFault(path);
  if (fault !== undefined) throw loadError(path, fault);
  let addon: Partial<NativeAddon>;
  try {
    addon = require(path) as Partial<NativeAddon>;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw loadError(path, [reason, ...systemHints(reason)].join('\n  '), cause);
  }
  const version = ownVersion();
  if (version !== undefined && addon.version !== version) {
    const other = addon.version ?? 'of an unknown version';
    throw loadError(path, `it was built from panns ${other}, and this is ${version}`);
  }
  for (const [name, type] of Object.entries(exported)) {
    if (typeof addon[name as keyof NativeAddon] === type) continue;
    const text = `it was built from older sources of this version: it lacks ${name}`;
    Object.assign(addon, { [name]: () => fail(loadError(path, text)) });
  }
  return addon as NativeAddon;
}

function fail(error: PannsError): never {
  throw error;
}

/** The package's version; undefined in a bundle, which may have no package.json beside it. */
function ownVersion(): string | undefined {
  let root: string;
  try {
    root = packageRoot();
  } catch {
    return undefined;
  }
  return (require(join(root, 'package.json')) as { version: string }).version;
}

function missingText(root: string): string {
  return [
    `no native binary for ${process.platform}-${process.arch} (${libc()}, Node.js ` +
      `${process.versions.node}, Node-API ${process.versions.napi})`,
    `  looked in ${join(root, 'build', 'Release')}, ${join(root, 'build', 'Debug')}, ${join(root, 'prebuilds')}`,
    `  prebuilt binaries there: ${shippedFor(root).join(', ') || 'none'}`,
    buildText(root),
    '  or set PANNS_BINDING to the path of a panns.node file',
  ].join('\n');
}

/** The platforms that have a folder in prebuilds/. */
function shippedFor(root: string): string[] {
  const prebuilds = join(root, 'prebuilds');
  if (!existsSync(prebuilds)) return [];
  return readdirSync(prebuilds, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
}

function loadError(path: string, reason: string, cause?: unknown): PannsError {
  const text = [`the native binary did not load: ${reason}`, ...cures(path)].join('\n');
  return new PannsError('ERR_PANNS_NATIVE_LOAD', text, { cause, where: path });
}

/** What the loader's words mean on this system, and what to do there. */
function systemHints(reason: string): string[] {
  const version = /version `(GLIBC\w*_[\d.]+)' not found/.exec(reason)?.[1];
  if (version) return [`the binary needs ${version}, and this system has ${libc()}`];
  if (/libc\.musl/.test(reason)) {
    return [`the binary is built for musl (Alpine Linux), and this system has ${libc()}`];
  }
  const library = /^(\S+): cannot open shared object file/.exec(reason)?.[1];
  if (library) return [`the binary needs ${library}: install it`];
  if (/failed to map segment/.test(reason)) {
    return ['its file system allows no programs (noexec): install the package elsewhere'];
  }
  return [];
}

/** What mends a binary that is there and cannot be used: it depends on where it is from. */
function cures(path: string): string[] {
  if (process.env.PANNS_BINDING) return ['  PANNS_BINDING chose this file: correct or unset it'];
  const root = packageRoot();
  if (!path.startsWith(join(root, 'prebuilds'))) {
    const tuple = `${process.platform}-${process.arch}`;
    const shipped = shippedFor(root).includes(tuple);
    const build = join(root, 'build');
    return [buildText(root), ...(shipped ? [`  or use the prebuilt one: delete ${build}`] : [])];
  }
  return [`  install it again: delete ${root} and run npm install`, `${buildText(root, 'or ')}`];
}

/** The one command that builds the binary; it names what is missing for that. */
function buildText(root: string, before = ''): string {
  const clone = existsSync(join(root, 'scripts', 'setup.mjs'));
  return `  ${before}build it from the sources here: ${clone ? 'npm run setup' : 'npx panns build'}`;
}

function libc(): string {
  const report = process.report?.getReport() as
    | { header?: { glibcVersionRuntime?: string } }
    | undefined;
  const glibc = report?.header?.glibcVersionRuntime;
  return glibc ? `glibc ${glibc}` : 'no glibc';
}
