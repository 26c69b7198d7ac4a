import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const root = join(import.meta.dirname, '..', '..');
const { PANNS_BINDING, PANNS_BUILD = 'build' } = process.env;

/** Where the addon was built: beside it lies the CUDA backend, if there is one. */
const release = PANNS_BINDING ? dirname(PANNS_BINDING) : join(root, PANNS_BUILD, 'Release');

/** What the CUDA build leaves. */
export const cudaBuild = {
  addon: PANNS_BINDING ?? join(release, 'panns.node'),
  library: join(release, 'panns_cuda.so'),
  /** ptxas' report for each source of kernels. */
  reports: join(release, '..', 'native', 'backends', 'cuda'),
  plans: join(release, '..', 'native', 'backends', 'cuda', 'cudnn_plans'),
  cache: join(release, '..', 'native', 'backends', 'cuda', 'plan_cache'),
};

/** Why the tests of the CUDA build are skipped, or false. */
export const noCudaBuild = existsSync(cudaBuild.library)
  ? false
  : 'no CUDA build: npm run setup:cuda makes one';

const manifest = join(release, 'panns_cuda.libs');

/** Folders of NVIDIA's libraries that the build noted. */
export const notedFolders: readonly string[] = existsSync(manifest)
  ? readFileSync(manifest, 'utf8').split('\n').filter(Boolean)
  : [];

/** The environment in which a program of the build finds what the library beside it would find. */
export function libraryEnv(stub: string): Record<string, string | undefined> {
  const { PANNS_CUDA_LIB_DIRS = notedFolders.join(':') } = process.env;
  return { ...process.env, PANNS_CUDA_LIB_DIRS, LD_LIBRARY_PATH: stub };
}
