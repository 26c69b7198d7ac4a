import { existsSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..');

/** A file beside the project: PANNS_SHARED names the folder, else ../shared. */
export function sharedFile(...path: string[]): { path: string; skip: string | false } {
  const file = join(process.env.PANNS_SHARED ?? join(root, '..', 'shared'), ...path);
  return {
    path: file,
    skip: existsSync(file) ? false : `no ${file}; PANNS_SHARED may name its folder`,
  };
}
