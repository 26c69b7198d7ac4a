import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { CudaStatus } from '../../lib/addon.js';
import { noCudaBuild } from './build.js';
import { buildStub, noCompiler } from './stub.js';

const ask = fileURLToPath(new URL('./ask_status.ts', import.meta.url));

interface Answer {
  status: CudaStatus;
  auto: { code?: string; message?: string };
  cuda: { code?: string; message?: string };
}

function answer(env: Record<string, string | undefined>): Answer {
  const { stdout, stderr, status } = spawnSync(process.execPath, [...process.execArgv, ask], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new Error(`${stderr}\n${stdout}`);
  return JSON.parse(stdout) as Answer;
}

/** The reason is told by the status and by `device: 'cuda'`; `'auto'` goes on with the CPU. */
function unavailable(t: Test, { status, auto, cuda }: Answer, reason: RegExp, mend: RegExp): void {
  t.equal(status.available, false);
  t.match(status.reason, reason);
  t.match(status.mend, mend);
  t.equal(cuda.code, 'ERR_PANNS_CUDA_UNAVAILABLE');
  t.match(cuda.message, reason);
  t.match(cuda.message, mend);
  t.same(auto, {});
}

t.test('without the backend', async (t) => {
  const none = answer({ PANNS_CUDA_LIBRARY: join(t.testdirName, 'none.so') });
  unavailable(t, none, /no CUDA backend.*none\.so/, /npm run setup:cuda/);
  t.same(none.status.devices, []);
});

t.test('a backend that is none', async (t) => {
  const folder = t.testdir({ 'text.so': 'not a library' });
  const text = answer({ PANNS_CUDA_LIBRARY: join(folder, 'text.so') });
  unavailable(t, text, /does not load: .*text\.so/, /npm run setup:cuda/);
});

t.test('a backend of another build', { skip: noCompiler }, async (t) => {
  const folder = t.testdir({ 'other.c': 'int other(void) { return 1; }' });
  const file = join(folder, 'other.so');
  spawnSync('cc', ['-shared', '-fPIC', '-o', file, join(folder, 'other.c')]);
  const other = answer({ PANNS_CUDA_LIBRARY: file });
  unavailable(t, other, /another build: expected panns .*, got a library without/, /setup:cuda/);
});

const hasDriver = ['/usr/lib/x86_64-linux-gnu/libcuda.so.1', '/usr/lib64/libcuda.so.1'].some(
  existsSync,
);

t.test('no driver', { skip: noCudaBuild || (hasDriver && 'this machine has one') }, async (t) => {
  const none = answer({});
  unavailable(t, none, /no NVIDIA driver/, /driver 580/);
  t.match(none.status, { driver: '', runtime: /^13\./, devices: [] });
});

t.test('drivers that do not serve', { skip: noCudaBuild || noCompiler }, async (t) => {
  const LD_LIBRARY_PATH = buildStub(t);
  const old = answer({ LD_LIBRARY_PATH, PANNS_STUB_DRIVER: '12020' });
  unavailable(t, old, /CUDA up to 12\.2.*built with CUDA 13/, /update the driver/);
  t.equal(old.status.driver, '12.2');
  const empty = answer({ LD_LIBRARY_PATH });
  unavailable(t, empty, /sees no GPU/, /nvidia-smi/);
  t.equal(empty.status.driver, '13.0');
  const broken = answer({ LD_LIBRARY_PATH, PANNS_STUB_INIT: '999' });
  unavailable(t, broken, /does not start: .*cudaErrorUnknown/, /nvidia-smi/);
});

t.test('every place where a library was looked for', { skip: noCudaBuild }, async (t) => {
  const folder = t.testdir({ 'libcudnn.so.9': 'not a library' });
  const { status } = answer({ PANNS_CUDA_LIB_DIR: `${folder}:${folder}/none` });
  const [backend, cudnn, nvrtc] = status.libraries;
  t.match(backend, { name: 'panns_cuda.so', reason: '' });
  t.equal(cudnn?.name, 'cuDNN');
  t.equal(nvrtc?.name, 'NVRTC');
  // Found elsewhere, or told with the place that did not serve.
  if (cudnn?.reason !== '') t.match(cudnn?.reason, `${folder}/libcudnn.so.9: `);
  else t.match(cudnn?.version, /^9\.\d+\.\d+$/);
});
