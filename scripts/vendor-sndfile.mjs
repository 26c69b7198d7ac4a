#!/usr/bin/env node
// Copies the system's libsndfile with everything it needs beside glibc into a folder, so that a
// package can be used where the library is not installed:
//
//   node scripts/vendor-sndfile.mjs prebuilds/linux-x64
//
// Each library goes there under its SONAME, sndfile.libs lists them in the order in which
// native/audio/sndfile.cpp opens them, and NOTICE/ holds the licence texts of their Debian
// packages. libsndfile and libmpg123 are LGPL-2.1, libmp3lame is LGPL-2, the others BSD-like: as
// separate files, opened at run time, they can be exchanged for others of the same SONAME.
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

const LIBRARY = 'libsndfile.so.1';
const MANIFEST = 'sndfile.libs';

/** Parts of glibc and of the compiler's runtime: every system that runs Node.js has its own. */
const SYSTEM =
  /^(ld-linux.*|libc|libm|libdl|librt|libpthread|libresolv|libgcc_s|linux-vdso)\.so\.\d+$/;

const folder = process.argv[2];
if (!folder || process.argv.length > 3) fail('usage: node scripts/vendor-sndfile.mjs <folder>');
if (process.platform !== 'linux') fail(`expected Linux, this is ${process.platform}`);

const paths = locate();
const order = dependenciesFirst(LIBRARY, paths);
removePrevious();
mkdirSync(join(folder, 'NOTICE'), { recursive: true });
for (const name of order) copyFileSync(paths.get(name), join(folder, name));
writeFileSync(join(folder, MANIFEST), `${order.join('\n')}\n`);
for (const name of order) console.log(`${name}  ${notice(name)}`);
console.log(`${order.length} libraries and their licences in ${folder}`);

/** SONAME to real path of the library and all that it needs, as the loader finds them. */
function locate() {
  const line = run('ldconfig', ['-p'])
    .split('\n')
    .find((l) => l.trim().startsWith(`${LIBRARY} `) && fits(l));
  if (!line) fail(`${LIBRARY} is not installed: apt-get install libsndfile1`);
  const library = line.split('=> ')[1].trim();
  const found = new Map([[LIBRARY, realpathSync(library)]]);
  for (const row of run('ldd', [library]).split('\n')) {
    const [, name, path] = /^\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$/.exec(row) ?? [];
    if (!name || SYSTEM.test(name)) continue;
    if (path === 'not found') fail(`${LIBRARY} needs ${name}, which is not installed`);
    found.set(name, realpathSync(path));
  }
  return found;
}

/** Whether a line of `ldconfig -p` names a library of this process's architecture. */
function fits(line) {
  const tag = { x64: 'x86-64', arm64: 'AArch64' }[process.arch];
  return tag === undefined || line.includes(tag);
}

/** The names in an order in which each comes after all that it needs. */
function dependenciesFirst(root, known) {
  const done = [];
  const visit = (name) => {
    if (done.includes(name)) return;
    for (const next of needed(known.get(name))) {
      if (SYSTEM.test(next)) continue;
      if (!known.has(next)) fail(`${name} needs ${next}, which ldd did not name`);
      visit(next);
    }
    done.push(name);
  };
  visit(root);
  return done;
}

/** The NEEDED entries of a library. */
function needed(path) {
  const text = run('readelf', ['-dW', path]);
  return [...text.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map((match) => match[1]);
}

/** Copies the licence text of the Debian package that a library is from; returns its name. */
function notice(name) {
  const owner = [paths.get(name), paths.get(name).replace(/^\/usr/, '')]
    .map((path) => tryRun('dpkg', ['-S', path]))
    .find((text) => text !== undefined);
  if (owner === undefined)
    fail(`no Debian package owns ${paths.get(name)}: its licence is not known`);
  const pkg = owner.split(':')[0];
  const text = join('/usr/share/doc', pkg, 'copyright');
  if (!existsSync(text)) fail(`${text} is missing: reinstall ${pkg} with its documentation`);
  copyFileSync(text, join(folder, 'NOTICE', `${pkg}.txt`));
  commonLicences(readFileSync(text, 'utf8'));
  const version = run('dpkg-query', ['-W', '-f', `\${source:Package} \${Version}`, pkg]);
  writeFileSync(
    join(folder, 'NOTICE', `${pkg}.source.txt`),
    `${name} is an unchanged copy from the Debian package ${pkg}, source ${version}.\n` +
      `Its source text: https://tracker.debian.org/pkg/${version.split(' ')[0]}\n`,
  );
  return `${pkg} (${version})`;
}

/** Copies the full texts that a Debian licence file only refers to. */
function commonLicences(text) {
  for (const [path, name] of text.matchAll(/\/usr\/share\/common-licenses\/([\w.-]*\w)/g)) {
    if (existsSync(path)) copyFileSync(path, join(folder, 'NOTICE', name));
    else fail(`${path} is missing: reinstall the package base-files`);
  }
}

/** Takes away the libraries of an earlier run, so that none stays that is no longer needed. */
function removePrevious() {
  const manifest = join(folder, MANIFEST);
  if (!existsSync(manifest)) return;
  for (const name of readFileSync(manifest, 'utf8').split('\n')) {
    if (/^lib[\w+-]+\.so\.\d+$/.test(name)) rmSync(join(folder, name), { force: true });
  }
  rmSync(manifest);
  rmSync(join(folder, 'NOTICE'), { recursive: true, force: true });
}

function run(program, args) {
  try {
    return execFileSync(program, args, { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  } catch (error) {
    return fail(`${program} ${args.join(' ')}: ${error.message}`);
  }
}

function tryRun(program, args) {
  try {
    return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return undefined;
  }
}

function fail(message) {
  console.error(`vendor-sndfile: ${message}`);
  process.exit(1);
}
