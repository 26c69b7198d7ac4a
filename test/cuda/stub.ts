import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Test } from 'tap';

const source = join(import.meta.dirname, 'stub_libcuda.c');

/** Why no driver's stand-in can be built, or false. */
export const noCompiler =
  spawnSync('cc', ['--version']).status === 0 ? false : 'no C compiler for a stand-in driver';

/** Builds stub_libcuda.c; returns the folder to put into LD_LIBRARY_PATH. */
export function buildStub(t: Test): string {
  const folder = t.testdir();
  const file = join(folder, 'libcuda.so.1');
  const args = ['-shared', '-fPIC', '-O1', '-Wl,-soname,libcuda.so.1', '-o', file, source, '-ldl'];
  const { status, stderr } = spawnSync('cc', args, { encoding: 'utf8' });
  t.equal(status, 0, `the stand-in driver compiles: ${stderr}`);
  return folder;
}
