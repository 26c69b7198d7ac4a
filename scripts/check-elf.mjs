#!/usr/bin/env node
// Checks what a Linux binary asks of the system it is shipped to, and what it shows to others.
//
//   node scripts/check-elf.mjs <file or folder> ...
//
// In a folder these are the addon (*.node), the CUDA backend (panns_cuda.so) and the libraries of
// others that travel with them, of which only glibc's version is asked.
import { readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { read } from './steps.mjs';

// Ubuntu 22.04, Debian 12, RHEL 9 and Amazon Linux 2023 have it or a newer one.
const glibcFloor = '2.34';
const neededLibraries = [
  ...['libc.so.6', 'libm.so.6', 'libgcc_s.so.1'],
  ...['ld-linux-x86-64.so.2', 'ld-linux-aarch64.so.1'],
];
const addonSymbols = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];
// The CUDA backend opens NVIDIA's libraries at run time, and may name none.
const cudaSymbols = ['panns_cuda_library'];
// Memory of our own as an ArrayBuffer or Buffer: Electron refuses it since version 21.
const refusedByElectron = ['napi_create_external_arraybuffer', 'napi_create_external_buffer'];

function newer(a, b) {
  return a.localeCompare(b, 'en', { numeric: true }) > 0;
}

/** What is wrong with one binary, as `readelf -dW` and `readelf --dyn-syms -W` describe it. */
export function faults(dynamic, symbols, exportedSymbols = addonSymbols) {
  const found = [];
  for (const [, library] of dynamic.matchAll(/\(NEEDED\).*\[(.+)\]/g)) {
    if (!neededLibraries.includes(library)) found.push(`needs ${library}`);
  }
  for (const line of symbols.split('\n')) {
    // Num: Value Size Type Bind Vis Ndx Name[@version]
    const [, , , type, , , section, name = ''] = line.trim().split(/\s+/);
    if (!name || type === 'SECTION') continue;
    const [symbol, version = ''] = name.split(/@+/);
    if (refusedByElectron.includes(symbol)) found.push(`calls ${symbol}, which Electron refuses`);
    if (section !== 'UND') {
      if (section !== 'ABS' && /^\d+$/.test(section) && !exportedSymbols.includes(symbol)) {
        found.push(`exports ${symbol}`);
      }
    } else if (/^(GLIBCXX|CXXABI)_/.test(version)) {
      found.push(`takes ${symbol} from the system's libstdc++ (${version})`);
    } else if (version.startsWith('GLIBC_') && newer(version.slice(6), glibcFloor)) {
      found.push(`takes ${symbol} from ${version}; the floor is ${glibcFloor}`);
    }
  }
  for (const symbol of exportedSymbols) {
    if (!new RegExp(`\\s\\d+\\s+${symbol}(@|$)`, 'm').test(symbols)) {
      found.push(`does not export ${symbol}`);
    }
  }
  return [...new Set(found)];
}

/** What is wrong with a library of others that is shipped along. */
export function glibcFaults(symbols) {
  const versions = [...symbols.matchAll(/@GLIBC_([\d.]+)/g)].map(([, version]) => version);
  const tooNew = [...new Set(versions)].filter((version) => newer(version, glibcFloor));
  return tooNew.map((version) => `needs GLIBC_${version}; the floor is ${glibcFloor}`);
}

function check(path) {
  const dynamic = read('readelf', ['-dW', path]);
  const symbols = read('readelf', ['--dyn-syms', '-W', path]);
  if (dynamic === undefined || symbols === undefined) {
    return ['readelf (Debian: binutils) cannot read it'];
  }
  if (path.endsWith('.node')) return faults(dynamic, symbols, addonSymbols);
  if (basename(path) === 'panns_cuda.so') return faults(dynamic, symbols, cudaSymbols);
  return glibcFaults(symbols);
}

function binaries(path) {
  if (statSync(path).isFile()) return [path];
  return readdirSync(path, { recursive: true })
    .filter((name) => /\.(node|so)(\.\d+)*$/.test(name))
    .map((name) => join(path, name));
}

function main() {
  const paths = process.argv.slice(2).flatMap(binaries);
  if (!paths.some((path) => path.endsWith('.node') || process.argv.includes(path))) {
    console.log('check-elf: no .node file to check');
    return 1;
  }
  let wrong = 0;
  for (const path of paths) {
    const found = check(path);
    const size = `${(statSync(path).size / 1e6).toFixed(2)} MB`;
    console.log(`${path} (${size}): ${found.length === 0 ? 'ok' : found.join('\n  ')}`);
    wrong += found.length;
  }
  return wrong === 0 ? 0 : 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) process.exitCode = main();
