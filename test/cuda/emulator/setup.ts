import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const root = join(import.meta.dirname, '..', '..', '..');
const { PANNS_BINDING, PANNS_BUILD = 'build' } = process.env;
const build = PANNS_BINDING ? dirname(dirname(PANNS_BINDING)) : join(root, PANNS_BUILD);
const folder = join(build, 'test', 'cuda', 'emulator');
const library = join(folder, 'panns_cuda.so');

/** Why what runs on emulated devices is skipped, or false. */
export const noEmulator = existsSync(library)
  ? false
  : 'no emulated CUDA: a build with PANNS_CUDA_EMULATOR makes one';

/** The environment in which `device: 'cuda'` is an emulated one; plans are kept in `cache`. */
export function emulatorEnv(cache: string): Record<string, string> {
  return { PANNS_CUDA_LIBRARY: library, PANNS_CUDA_LIB_DIRS: folder, PANNS_CACHE: cache };
}

/** Gives this process emulated devices: before the first call that asks for a GPU. */
export function emulateHere(): void {
  const cache = mkdtempSync(join(tmpdir(), 'panns-emulator-'));
  Object.assign(process.env, emulatorEnv(cache));
}
