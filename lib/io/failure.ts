import { PannsError } from '../errors.js';

/** What a person can do about a failed file operation, by the system's error code. */
const REMEDIES: ReadonlyMap<string, string> = new Map([
  ['ENOSPC', 'the disk is full: free some space or choose a folder on another disk'],
  ['EDQUOT', 'the disk quota is used up: free some space or choose a folder on another disk'],
  [
    'EFBIG',
    'the file is larger than the file system or the process limit allows: choose another disk',
  ],
  ['EACCES', 'access is denied: check the permissions of the file and its folder'],
  [
    'EPERM',
    'the operation is not permitted: check the owner and the permissions of the file and its folder',
  ],
  ['EROFS', 'the file system is read-only: choose another folder'],
  [
    'ENOENT',
    'a file or folder on this path does not exist: check the spelling, or create the folder first',
  ],
  ['EEXIST', 'there is a file of this name: choose another'],
  ['ENOTDIR', 'a part of this path is a file and not a folder: check the spelling'],
  ['EISDIR', 'this path is a folder: name a file in it'],
  ['EMFILE', 'too many files are open: raise the limit (ulimit -n)'],
  ['ENFILE', 'too many files are open on this machine: close some programs'],
  ['ENAMETOOLONG', 'the name is too long for this file system: choose a shorter one'],
  ['EIO', 'the disk reported an error: check its health and try another one'],
]);

/**
 * Turns a failed file operation into a PannsError that names the path, what failed and what to do.
 *
 * `action` continues "cannot ...", for example `'write'`. A PannsError comes back as it is; else the
 * result has code `ERR_PANNS_IO`, the path as `where` and the system's error as its `cause`.
 */
export function ioError(cause: unknown, action: string, path: string): PannsError {
  if (cause instanceof PannsError) return cause;
  const code = systemCode(cause);
  const text = cause instanceof Error ? cause.message : String(cause);
  const remedy = code === undefined ? undefined : REMEDIES.get(code);
  const why = remedy === undefined ? text : `${remedy} (${code})`;
  return new PannsError('ERR_PANNS_IO', `cannot ${action}: ${why}`, { cause, where: path });
}

/** The system's code of an error (`'ENOENT'`), or undefined for any other thrown value. */
export function systemCode(cause: unknown): string | undefined {
  if (typeof cause !== 'object' || cause === null || !('code' in cause)) return undefined;
  return typeof cause.code === 'string' ? cause.code : undefined;
}
