import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { notedFolders } from './build.js';

const root = join(import.meta.dirname, '..', '..');
const { PANNS_NCCL_INCLUDE, CUDA_HOME, CUDA_PATH, PANNS_CUDA_PACKAGES } = process.env;

/** `.../nvidia` of Python's packages, by the folders that the CUDA build noted. */
const packages = [PANNS_CUDA_PACKAGES, ...notedFolders.map((folder) => join(folder, '..', '..'))];

/** The first folder that has a header. */
const folderOf = (header: string, folders: readonly (string | undefined)[]) =>
  folders.find((folder) => folder !== undefined && existsSync(join(folder, header)));

const nccl = folderOf('nccl.h', [
  PANNS_NCCL_INCLUDE,
  ...packages.map((folder) => folder && join(folder, 'nccl', 'include')),
  '/usr/include',
]);
const toolkits = [CUDA_HOME, CUDA_PATH, '/usr/local/cuda', '/usr/local/cuda-13.0'];
const cuda = folderOf('cuda_runtime_api.h', [
  ...toolkits.map((folder) => folder && join(folder, 'include')),
  ...packages.map((folder) => folder && join(folder, 'cu13', 'include')),
]);
const skip =
  nccl === undefined
    ? 'no nccl.h: PANNS_NCCL_INCLUDE may name its folder (pip install --no-deps nvidia-nccl-cu13)'
    : cuda === undefined && 'no CUDA headers: CUDA_HOME may name a toolkit';

t.test("our declarations are those of NCCL's header", { skip }, async (t) => {
  const source = join(import.meta.dirname, 'nccl_abi.cpp');
  const compile = (...flags: string[]) =>
    spawnSync(
      process.env.CXX ?? 'c++',
      ['-std=c++20', '-fsyntax-only', ...flags, '-I', join(root, 'native')].concat(
        [nccl, cuda].flatMap((folder) => ['-isystem', folder as string]),
        source,
      ),
      { encoding: 'utf8' },
    );
  const { status, stderr } = compile();
  t.equal(status, 0, stderr);
  const wrong = compile('-DncclAvg=ncclMin');
  t.match(wrong.stderr, /static assertion failed/, 'another value would be found');
});
