import { readFile } from 'node:fs/promises';
import { ioError, systemCode } from './failure.js';

/** The text of a file, or undefined where there is no such file. @throws PannsError `ERR_PANNS_IO` */
export async function readTextIfAny(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw ioError(error, 'read', path);
  }
}
