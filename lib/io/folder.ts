import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ioError, systemCode } from './failure.js';

/**
 * Makes a folder, and those above it, where there is none yet.
 *
 * Not by the option `recursive` of Node.js, which tries for ever, beyond the reach of signals, where the
 * folder above exists and the system finds nothing to make one in (`/proc/run`).
 *
 * @throws PannsError `ERR_PANNS_IO`
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await make(path);
  } catch (error) {
    throw ioError(error, 'create the folder', path);
  }
}

async function make(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory()) return;
    const above = dirname(path);
    if (systemCode(error) !== 'ENOENT' || above === path) throw error;
    await make(above);
    // Another process may have been faster.
    await mkdir(path).catch(async (again) => {
      if (!(await stat(path).catch(() => undefined))?.isDirectory()) throw again;
    });
  }
}
