#!/usr/bin/env node
// Makes a fresh clone ready: system packages, npm packages, the native addon, dist/. With --tests
// also the native test programs and the Python that the oracle tests ask. Repeating it is cheap.
//
//   npm run setup [-- --tests]
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { jobs, npm, packageProgram, read, root, StepFailed, step } from './steps.mjs';

/** What is needed from the system, by Debian's names: `required`, or `without` it something less. */
const systemPackages = [
  { name: 'g++', required: true, found: () => works(process.env.CXX ?? 'c++') },
  { name: 'cmake', required: true, found: () => works('cmake') },
  { name: 'ninja-build', required: true, found: () => works('ninja') || works('make') },
  {
    name: 'libsndfile1',
    found: () => process.platform !== 'linux' || hasLibrary('libsndfile.so.1'),
    without: 'fewer audio formats can be read',
  },
  {
    name: 'python3-venv',
    tests: true,
    found: () => Boolean(process.env.PANNS_PYTHON) || canMakeVenv(),
    without: 'the oracle tests that ask Python are skipped',
  },
  {
    name: 'openmpi-bin',
    tests: true,
    found: () => (read('mpirun', ['--version']) ?? '').includes('Open MPI'),
    without: 'training over several processes is tested with MPICH alone',
  },
];

function works(program) {
  return read(program, ['--version']) !== undefined;
}

function canMakeVenv() {
  return read('python3', ['-c', 'import venv, ensurepip']) !== undefined;
}

function hasLibrary(soname) {
  // Debian keeps ldconfig out of an ordinary user's PATH.
  const listed = read('/sbin/ldconfig', ['-p']) ?? read('ldconfig', ['-p']) ?? '';
  return listed.includes(soname);
}

function installSystemPackages({ tests }) {
  const missing = systemPackages.filter((one) => (tests || !one.tests) && !one.found());
  if (missing.length === 0) return;
  const list = missing.map(({ name }) => name).join(' ');
  const args = ['install', '-y', '--no-install-recommends', ...missing.map(({ name }) => name)];
  if (process.getuid?.() === 0 && works('apt-get')) {
    const env = { DEBIAN_FRONTEND: 'noninteractive' };
    try {
      step('apt-get update', 'apt-get', ['update'], { env });
      step(`apt-get install ${list}`, 'apt-get', args, { env });
      return;
    } catch (error) {
      if (!(error instanceof StepFailed)) throw error;
    }
  }
  console.log(`Missing system packages (Debian's names): ${list}`);
  for (const { name, without } of missing)
    if (without) console.log(`  without ${name}: ${without}`);
  console.log(`  sudo apt-get ${args.join(' ')}`);
  if (missing.some((one) => one.required)) throw new StepFailed('system packages');
}

function installNpmPackages() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  const lock = join(root, 'package-lock.json');
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return;
  const [program, ...args] = npm();
  step('npm ci', program, [...args, 'ci', '--include=dev', '--no-audit', '--no-fund']);
}

/**
 * A Python with torch, numpy, librosa and soundfile: PANNS_PYTHON, or the one in .venv, which is
 * made here. Undefined when it cannot be had; the oracle tests then skip by name.
 */
function oraclePython() {
  if (process.env.PANNS_PYTHON) return process.env.PANNS_PYTHON;
  const requirements = join(root, 'test', 'oracle', 'requirements.txt');
  const python = join(root, '.venv', 'bin', 'python');
  const stamp = join(root, '.venv', 'installed.txt');
  const wanted = readFileSync(requirements, 'utf8');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return python;
  try {
    step('python3 -m venv .venv', 'python3', ['-m', 'venv', '.venv']);
    // Python compiles what it imports; pip would compile all of torch, a minute's work.
    const quick = ['--disable-pip-version-check', '--no-compile'];
    const install = ['-m', 'pip', 'install', ...quick, '-r', requirements];
    step('pip install -r test/oracle/requirements.txt', python, install);
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    console.log('No Python with torch: the tests that ask it are skipped.');
    console.log('Set PANNS_PYTHON to a Python that has test/oracle/requirements.txt to run them.');
    return undefined;
  }
  writeFileSync(stamp, wanted);
  return python;
}

function buildNative({ tests, folder, options }) {
  const [program, cmake] = packageProgram('cmake-js/bin/cmake-js');
  const where = ['-O', join(root, folder), '-l', 'warn'];
  const all = tests ? ['--CDPANNS_TESTS=ON', ...options] : options;
  // `cmake-js build` ignores options for a folder that is configured already.
  if (all.length > 0) step('configure', program, [cmake, 'configure', ...where, ...all]);
  step(`build ${folder}`, program, [cmake, 'build', '-p', String(jobs), ...where]);
}

/**
 * Does all of it; `folder` and `options` choose another native build. Returns the Python of the
 * oracle tests, when there are to be tests and there is one.
 */
export function setup({ tests = false, folder = 'build', options = [] } = {}) {
  installSystemPackages({ tests });
  installNpmPackages();
  const python = tests ? oraclePython() : undefined;
  buildNative({ tests, folder, options });
  const [program, tsc] = packageProgram('typescript/bin/tsc');
  step('tsc', program, [tsc, '-p', '.']);
  return python;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    setup({ tests: process.argv.includes('--tests') });
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    process.exitCode = 1;
  }
}
