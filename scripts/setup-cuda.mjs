#!/usr/bin/env node
// Builds the CUDA backend: finds or fetches nvcc, cuDNN and NVRTC, builds panns_cuda.so beside the
// addon, and says what CUDA this machine has. No GPU is needed to build. Repeating it is cheap.
//
//   npm run setup:cuda [-- --arch=90a] [-- --out=build]
//
// A toolkit of CUDA 13 on the machine (CUDA_PATH, CUDA_HOME, nvcc on the PATH, /usr/local/cuda) is
// taken; what is missing comes from PyPI at the versions of cuda-requirements.txt, under NVIDIA's
// terms, into .cuda/. PANNS_CUDA_PACKAGES names a folder `.../site-packages/nvidia` to use instead.
import { existsSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { jobs, packageProgram, read, root, StepFailed, show, step } from './steps.mjs';

const oldestCuda = 13;
const requirements = join(root, 'scripts', 'cuda-requirements.txt');

/** The `release` of the toolkit in a folder, or undefined when it lacks something or is too old. */
function toolkitVersion(folder) {
  const nvcc = join(folder, 'bin', 'nvcc');
  const library = ['lib64', 'lib'].some((name) =>
    existsSync(join(folder, name, 'libcudart_static.a')),
  );
  if (!library || !existsSync(join(folder, 'include', 'cuda_runtime.h'))) return undefined;
  const release = /release (\d+\.\d+)/.exec(read(nvcc, ['--version']) ?? '')?.[1];
  return release !== undefined && Number.parseFloat(release) >= oldestCuda ? release : undefined;
}

/** A toolkit that is on the machine already. */
function ownToolkit() {
  const { CUDA_PATH, CUDA_HOME, PATH = '' } = process.env;
  const onPath = PATH.split(delimiter)
    .map((folder) => join(folder, 'nvcc'))
    .filter((program) => existsSync(program))
    .map((program) => dirname(dirname(realpathSync(program))));
  return [CUDA_PATH, CUDA_HOME, ...onPath, '/usr/local/cuda']
    .filter((folder) => folder !== undefined && folder !== '')
    .find((folder) => toolkitVersion(folder) !== undefined);
}

/** The lines of the requirements after `# run` and, where asked for, after `# build`. */
function wanted({ build }) {
  const [, ...parts] = readFileSync(requirements, 'utf8').split(/^# (?=run$|build)/m);
  const lines = parts
    .filter((part) => build || part.startsWith('run'))
    .flatMap((part) => part.split('\n').slice(1));
  return lines.filter((line) => line !== '' && !line.startsWith('#'));
}

/** The folder `nvidia` of an environment of Python's that holds the packages; made where needed. */
function packages(names) {
  const { PANNS_CUDA_PACKAGES } = process.env;
  if (PANNS_CUDA_PACKAGES) return resolve(PANNS_CUDA_PACKAGES);
  const venv = join(root, '.cuda');
  const python = join(venv, 'bin', 'python');
  const stamp = join(venv, 'installed.txt');
  const list = `${names.join('\n')}\n`;
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== list) {
    if (!existsSync(python)) step('python3 -m venv .cuda', 'python3', ['-m', 'venv', venv]);
    const install = ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-deps', ...names];
    step('pip install (cuDNN and what else is missing)', python, install);
    writeFileSync(stamp, list);
  }
  const [version = 'python3'] = readdirSync(join(venv, 'lib'));
  return join(venv, 'lib', version, 'site-packages', 'nvidia');
}

/** The toolkit and the folder of NVIDIA's packages; fetches what is missing. */
export function cudaTools() {
  const own = ownToolkit();
  const nvidia = packages(wanted({ build: own === undefined }));
  const toolkit = own ?? join(nvidia, 'cu13');
  const version = toolkitVersion(toolkit);
  if (version === undefined) {
    console.log(
      `no CUDA ${oldestCuda} toolkit: ${toolkit} lacks nvcc, headers or libcudart_static.a`,
    );
    throw new StepFailed('toolkit');
  }
  const headers = join(nvidia, 'cudnn', 'include');
  console.log(`CUDA ${version} (${toolkit}), cuDNN (${dirname(headers)})`);
  return { toolkit, nvidia, headers };
}

/**
 * Builds panns_cuda.so in a build folder, for the chips of `architectures`, for example `90a`; with
 * `emulator` also the one that test/cuda runs on emulated devices.
 */
export function buildCuda(
  { toolkit, nvidia, headers },
  { folder, architectures = 'all', emulator = false },
) {
  const [program, cmake] = packageProgram('cmake-js/bin/cmake-js');
  const where = ['-O', folder, '-l', 'warn'];
  // All of them each time: CMake remembers what the last call asked for.
  const options = [
    '--CDPANNS_CUDA=ON',
    `--CDPANNS_CUDA_ROOT=${toolkit}`,
    `--CDPANNS_CUDNN_INCLUDE=${headers}`,
    `--CDPANNS_CUDA_ARCHITECTURES=${architectures}`,
    `--CDPANNS_CUDA_EMULATOR=${emulator ? 'ON' : 'OFF'}`,
  ];
  step('configure', program, [cmake, 'configure', ...where, ...options]);
  step(`build panns_cuda.so (${architectures})`, program, [
    ...[cmake, 'build', '-p', String(jobs), ...where],
  ]);
  // Where the library looks for cuDNN and NVRTC when the environment says nothing (dyload.h).
  const beside = join(folder, 'Release');
  const libraries = readdirSync(nvidia)
    .map((name) => join(nvidia, name, 'lib'))
    .filter((name) => existsSync(name));
  writeFileSync(join(beside, 'panns_cuda.libs'), `${libraries.join('\n')}\n`);
  const check = join(root, 'scripts', 'check-elf.mjs');
  if (show(process.execPath, [check, join(beside, 'panns_cuda.so')]) !== 0) {
    throw new StepFailed('check-elf');
  }
  return join(beside, 'panns.node');
}

function main() {
  const option = (name, otherwise) =>
    process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise;
  const folder = resolve(root, option('out', 'build'));
  const addon = JSON.stringify(
    buildCuda(cudaTools(), { folder, architectures: option('arch', 'all') }),
  );
  const ask = `const a = require(${addon}); a.cudaStatus().then((s) => { console.log(s); a.stop(); });`;
  show(process.execPath, ['-e', ask]);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    main();
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    process.exitCode = 1;
  }
}
