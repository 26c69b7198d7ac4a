import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { CudaProblem, CudaStatus } from '../../lib/addon.js';
import { cudaBuild, noCudaBuild, notedFolders } from './build.js';
import { buildStub, noCompiler } from './stub.js';

const ask = fileURLToPath(new URL('./ask_status.ts', import.meta.url));

interface Answer {
  status: CudaStatus;
  auto: { code?: string; message?: string };
  cuda: { code?: string; message?: string };
  warnings: string[];
}

/** What a process of its own finds, and what becomes of a model there. */
function answer(env: Record<string, string | undefined>): Answer {
  const { stdout, stderr, status } = spawnSync(process.execPath, [...process.execArgv, ask], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new Error(`${stderr}\n${stdout}`);
  return JSON.parse(stdout) as Answer;
}

/** The same of the addon alone, which is soon there. */
function statusOf(env: Record<string, string | undefined>): CudaStatus {
  const addon = JSON.stringify(cudaBuild.addon);
  const program = `const a = require(${addon});
    a.cudaStatus().then((s) => { console.log(JSON.stringify(s)); a.stop(); });`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', program], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new Error(`${stderr}\n${stdout}`);
  return JSON.parse(stdout) as CudaStatus;
}

function tells(t: Test, status: CudaStatus, problem: CudaProblem, reason: RegExp, mend: RegExp) {
  t.equal(status.available, false);
  t.equal(status.problem, problem);
  t.match(status.reason, reason);
  t.match(status.mend, mend);
}

/**
 * The reason is told by the status and by `device: 'cuda'`; `'auto'` goes on with the CPU and says
 * so, once for two models.
 */
function unavailable(
  t: Test,
  { status, auto, cuda, warnings }: Answer,
  problem: CudaProblem,
  reason: RegExp,
  mend: RegExp,
): void {
  tells(t, status, problem, reason, mend);
  t.equal(cuda.code, 'ERR_PANNS_CUDA_UNAVAILABLE');
  t.match(cuda.message, reason);
  t.match(cuda.message, mend);
  t.same(auto, {});
  t.equal(warnings.length, 1, 'one warning');
  t.match(warnings[0], /^PANNS_CUDA_NOT_USED device "auto" is the CPU here: /);
  t.match(warnings[0], reason);
}

/** The mend of a backend helps whoever installed the package, and whoever cloned it. */
const backendMend = /install the package again.*npm run setup:cuda/;

t.test('without the backend', async (t) => {
  const none = answer({ PANNS_CUDA_LIBRARY: join(t.testdirName, 'none.so') });
  unavailable(t, none, 'backend-missing', /no CUDA backend.*none\.so/, backendMend);
  t.same(none.status.devices, []);
});

t.test('a backend that is none', async (t) => {
  const folder = t.testdir({ 'text.so': 'not a library, though as long as the header of one is' });
  const text = statusOf({ PANNS_CUDA_LIBRARY: join(folder, 'text.so') });
  tells(t, text, 'backend-damaged', /does not load: .*text\.so: it /, backendMend);
});

t.test('a backend of another build', { skip: noCompiler }, async (t) => {
  const folder = t.testdir({
    'nothing.c': 'int other(void) { return 1; }',
    'other.c': `
      static const char* const library = "panns 0.0.1, compiler 1, 2 ops, sizes 3";
      const char* const* panns_cuda_library(void) { return &library; }`,
  });
  const build = (name: string) => {
    const file = join(folder, `${name}.so`);
    spawnSync('cc', ['-shared', '-fPIC', '-o', file, join(folder, `${name}.c`)]);
    return statusOf({ PANNS_CUDA_LIBRARY: file });
  };
  const entry = /another build: expected panns .*, got a library without its entry/;
  tells(t, build('nothing'), 'backend-foreign', entry, backendMend);
  const fingerprint = /expected panns \d.*, got panns 0\.0\.1, compiler 1, 2 ops, sizes 3/;
  tells(t, build('other'), 'backend-foreign', fingerprint, backendMend);
});

t.test('a backend that was cut off', { skip: noCudaBuild }, async (t) => {
  const whole = readFileSync(cudaBuild.library);
  const folder = t.testdir();
  for (const length of [10, 64, whole.length >> 1, whole.length - 1]) {
    const PANNS_CUDA_LIBRARY = join(folder, `${length}.so`);
    writeFileSync(PANNS_CUDA_LIBRARY, whole.subarray(0, length));
    const cut = statusOf({ PANNS_CUDA_LIBRARY });
    const words = length < 64 ? /shorter than the header/ : /cut off: \d+ of at least \d+ bytes/;
    tells(t, cut, 'backend-damaged', words, backendMend);
  }
});

const hasDriver = ['/usr/lib/x86_64-linux-gnu/libcuda.so.1', '/usr/lib64/libcuda.so.1'].some(
  existsSync,
);

t.test('no driver', { skip: noCudaBuild || (hasDriver && 'this machine has one') }, async (t) => {
  const none = answer({});
  unavailable(t, none, 'driver-missing', /no NVIDIA driver/, /driver 580/);
  t.match(none.status, { driver: '', runtime: /^13\./, devices: [] });
  t.match(none.status.libraries[1], {
    name: 'NVIDIA driver',
    path: '',
    reason: /libcuda\.so\.1: /,
  });
});

t.test('drivers that do not serve', { skip: noCudaBuild || noCompiler }, async (t) => {
  const LD_LIBRARY_PATH = buildStub(t);
  const old = answer({ LD_LIBRARY_PATH, PANNS_STUB_DRIVER: '12020' });
  unavailable(t, old, 'driver-old', /CUDA up to 12\.2.*built with CUDA 13/, /driver to 580/);
  const older = statusOf({ LD_LIBRARY_PATH, PANNS_STUB_DRIVER: '11000' });
  tells(t, older, 'driver-old', /CUDA up to 11\.0.*built with CUDA 13/, /driver to 580/);
  t.equal(older.driver, '11.0');

  const empty = statusOf({ LD_LIBRARY_PATH });
  tells(t, empty, 'device-missing', /sees no GPU/, /nvidia-smi/);
  t.equal(empty.driver, '13.0');
  const [, driver] = empty.libraries;
  t.match(driver, { version: '13.0', path: join(LD_LIBRARY_PATH, 'libcuda.so.1'), reason: '' });

  const failing = (code: string) => statusOf({ LD_LIBRARY_PATH, PANNS_STUB_INIT: code });
  const stub = /libcuda\.so\.1 is the toolkit's stand-in.*cudaErrorStubLibrary/;
  tells(t, failing('34'), 'driver-stub', stub, /stubs.*LD_LIBRARY_PATH/);
  const mismatch = /does not fit the driver in the system's kernel.*SystemDriverMismatch/;
  tells(t, failing('803'), 'driver-mismatch', mismatch, /restart.*cuda-compat/);
  tells(t, failing('999'), 'driver-failed', /does not start: .*cudaErrorUnknown/, /nvidia-smi/);
});

/** An environment in which no library of NVIDIA's is found but for what is given. */
function bare(folders: readonly string[]): Record<string, string | undefined> {
  return {
    ...{ VIRTUAL_ENV: undefined, CONDA_PREFIX: undefined, PATH: '/nowhere' },
    ...{ CUDA_PATH: undefined, CUDA_HOME: undefined },
    PANNS_CUDA_LIB_DIRS: folders.join(':'),
  };
}

/** The backend without the list of folders that the build left beside it. */
function loneBackend(folder: string): { PANNS_CUDA_LIBRARY: string } {
  const file = join(folder, 'panns_cuda.so');
  copyFileSync(cudaBuild.library, file);
  return { PANNS_CUDA_LIBRARY: file };
}

t.test('every place where a library was looked for', { skip: noCudaBuild }, async (t) => {
  const folder = t.testdir({ 'libcudnn.so.9': 'not a library, though as long as a header is' });
  const { libraries } = statusOf({ PANNS_CUDA_LIB_DIRS: `${folder}:${folder}/none` });
  const [backend, , cudnn] = libraries;
  t.match(backend, { name: 'panns_cuda.so', reason: '' });
  t.equal(cudnn?.name, 'cuDNN');
  // Found elsewhere, or told with the place that did not serve.
  if (cudnn?.reason !== '') t.match(cudnn?.reason, `${folder}/libcudnn.so.9: `);
  else t.match(cudnn?.version, /^9\.\d+\.\d+$/);
});

t.test('Python’s packages are found', { skip: noCudaBuild || noCompiler }, async (t) => {
  const folder = t.testdir({});
  const packages = (name: string) =>
    join(folder, name, 'lib', 'python3.11', 'site-packages', 'nvidia', 'cudnn', 'lib');
  for (const name of ['active', 'conda', 'path']) {
    mkdirSync(packages(name), { recursive: true });
    mkdirSync(join(folder, name, 'bin'));
    symlinkSync('/bin/true', join(folder, name, 'bin', 'python3'));
    compile(fakeCudnn(91_000), join(packages(name), 'libcudnn.so.9'));
    compile('int graph;', join(packages(name), 'libcudnn_graph.so.9'));
  }
  const backend = loneBackend(folder);
  const found = (env: Record<string, string>) =>
    statusOf({ ...bare([]), ...backend, ...env }).libraries[2];
  const all = {
    VIRTUAL_ENV: join(folder, 'active'),
    CONDA_PREFIX: join(folder, 'conda'),
    PATH: `/nowhere:${join(folder, 'path', 'bin')}`,
  };
  const at = (name: string) => join(packages(name), 'libcudnn.so.9');
  t.match(found(all), { version: '9.10.0', path: at('active'), reason: '' });
  t.match(found({ ...all, VIRTUAL_ENV: '' }), { path: at('conda') });
  t.match(found({ PATH: all.PATH }), { path: at('path') });
  // The system's own may be a link to an environment's.
  mkdirSync(join(folder, 'system', 'bin'), { recursive: true });
  symlinkSync('../../path/bin/python3', join(folder, 'system', 'bin', 'python3'));
  t.match(found({ PATH: join(folder, 'system', 'bin') }), { path: at('path') });
});

/** A library that answers as cuDNN does to who asks for its version, and has all names. */
function fakeCudnn(version: number): string {
  const names = [
    ...['GetErrorString', 'GetLastErrorString', 'Create', 'Destroy', 'SetStream'],
    ...['CreateDescriptor', 'DestroyDescriptor', 'Finalize'].map((name) => `Backend${name}`),
    ...['SetAttribute', 'GetAttribute', 'Execute'].map((name) => `Backend${name}`),
  ];
  return [
    `unsigned long cudnnGetVersion(void) { return ${version}; }`,
    'unsigned long cudnnGetCudartVersion(void) { return 12090; }',
    ...names.map((name) => `int cudnn${name}(void) { return 1; }`),
  ].join('\n');
}

function compile(source: string, library: string): void {
  const args = ['-shared', '-fPIC', '-o', library, '-x', 'c', '-'];
  const { status, stderr } = spawnSync('cc', args, { input: source, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

t.test('a cuDNN that does not serve', { skip: noCudaBuild || noCompiler }, async (t) => {
  const folder = t.testdir({ alone: {}, old: {}, twelve: {} });
  const backend = loneBackend(folder);
  const ask = (name: string) => statusOf({ ...bare([join(folder, name)]), ...backend }).libraries;

  // A door without the house behind it: calling it would end the process.
  compile(fakeCudnn(91_000), join(folder, 'alone', 'libcudnn.so.9'));
  const alone = ask('alone')[2];
  if (alone?.reason === '') t.comment('the rest of cuDNN is where the system looks');
  else t.match(alone?.reason, /alone\/libcudnn\.so\.9 is not complete: .*libcudnn_graph\.so\.9/);

  compile(fakeCudnn(90_100), join(folder, 'old', 'libcudnn.so.9'));
  compile('int graph;', join(folder, 'old', 'libcudnn_graph.so.9'));
  t.match(ask('old')[2], { version: '', reason: /is cuDNN 9\.1\.0; expected 9\.8\.0 or newer/ });

  // cuDNN of CUDA 12 asks for CUDA 12's compiler: no other serves.
  compile(fakeCudnn(91_000), join(folder, 'twelve', 'libcudnn.so.9'));
  compile('int graph;', join(folder, 'twelve', 'libcudnn_graph.so.9'));
  compile('int nvrtc;', join(folder, 'twelve', 'libnvrtc.so.13'));
  const [, , cudnn, nvrtc] = ask('twelve');
  t.match(cudnn, { version: '9.10.0', reason: '' });
  t.notMatch(nvrtc?.path, /libnvrtc\.so\.13/);
});

t.test('the libraries of this build', { skip: noCudaBuild }, async (t) => {
  if (notedFolders.length === 0) return t.comment('the build noted no folders');
  const [, , cudnn, nvrtc] = statusOf({}).libraries;
  t.match(cudnn, { version: /^9\.\d+\.\d+$/, path: /libcudnn\.so\.9$/, reason: '' });
  t.match(nvrtc, { version: /^1[23]\.\d+$/, path: /libnvrtc\.so\.1[23]$/, reason: '' });
});
