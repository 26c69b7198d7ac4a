import { randomBytes } from 'node:crypto';
import { type FileHandle, open, realpath, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ioError, systemCode } from './failure.js';

/** One piece of a file: text (written as UTF-8) or the bytes behind a typed array, not copied. */
export type Chunk = string | ArrayBufferView;

/** A file that is written to; of node:fs, whose types whoever uses the package need not have. */
interface Writable {
  write(
    bytes: Uint8Array,
    offset: number,
    length: number,
    position: number | null,
  ): Promise<{ bytesWritten: number }>;
}

/** One write call moves at most this much: it returns often, and stays under every 2 GiB limit. */
const WRITE_BYTES = 16 * 1024 * 1024;

/** What platforms without folder fsync answer; the rename stands anyway. */
const NO_FOLDER_SYNC: ReadonlySet<string | undefined> = new Set([
  'EINVAL',
  'ENOTSUP',
  'EISDIR',
  'EPERM',
  'EACCES',
  'EBADF',
]);

/**
 * Writes a file so that a reader, also after a crash, sees either all of the old content or all of
 * the new.
 *
 * The chunks go one after another to a new file beside `path`, which is synced to the disk and
 * renamed over `path`; then the folder is synced. When anything before the rename fails, also the
 * iterable itself, the new file is removed and the old one is untouched. A symbolic link at `path`
 * stays one and its target is replaced; an old file's permission bits are kept.
 *
 * @throws PannsError `ERR_PANNS_IO` naming the path, what failed and what to do; an error thrown by
 *   `chunks` passes through as it is.
 */
export async function writeFileAtomic(
  path: string,
  chunks: Iterable<Chunk> | AsyncIterable<Chunk>,
): Promise<void> {
  const target = await followLink(path);
  const folder = dirname(target);
  const temporary = join(
    folder,
    `.${basename(target).slice(0, 200)}.${randomBytes(6).toString('hex')}.tmp`,
  );
  const mode = await modeOf(target);
  let file: FileHandle;
  try {
    file = await open(temporary, 'wx', mode ?? 0o666);
  } catch (error) {
    throw ioError(error, 'write', path);
  }
  try {
    try {
      // open() masks the mode with the umask, an existing file keeps exactly the bits it had.
      if (mode !== undefined) await attempt(file.chmod(mode), path);
      for await (const chunk of chunks) await writeAll(file, asBytes(chunk), path);
      await attempt(file.sync(), path);
    } finally {
      await attempt(file.close(), path);
    }
    await attempt(rename(temporary, target), path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
  await syncFolder(folder, path);
}

/**
 * Gives a finished file its name: the bytes of `from` reach the disk, then it is renamed over `to`,
 * which lies in the same folder.
 *
 * @throws PannsError `ERR_PANNS_IO` naming `to`; `from` stays as it was.
 */
export async function renameDurably(from: string, to: string): Promise<void> {
  const file = await attempt(open(from, 'r+'), to);
  try {
    await attempt(file.sync(), to);
  } finally {
    await attempt(file.close(), to);
  }
  await attempt(rename(from, to), to);
  await syncFolder(dirname(to), to);
}

/**
 * Gives a folder whose files have reached the disk its name, at which there is nothing or an empty
 * folder.
 *
 * @throws PannsError `ERR_PANNS_IO` naming `to`; `from` stays as it was.
 */
export async function publishFolder(from: string, to: string): Promise<void> {
  await syncFolder(from, to);
  await attempt(rename(from, to), to);
  await syncFolder(dirname(to), to);
}

async function attempt<T>(operation: Promise<T>, path: string): Promise<T> {
  try {
    return await operation;
  } catch (error) {
    throw ioError(error, 'write', path);
  }
}

/**
 * Writes all of the bytes, where the last write ended or from `position` on.
 *
 * @throws PannsError `ERR_PANNS_IO` naming `path`
 */
export async function writeAll(
  file: Writable,
  bytes: Uint8Array,
  path: string,
  position?: number,
): Promise<void> {
  for (let offset = 0; offset < bytes.byteLength; ) {
    const length = Math.min(WRITE_BYTES, bytes.byteLength - offset);
    const at = position === undefined ? null : position + offset;
    const { bytesWritten } = await attempt(file.write(bytes, offset, length, at), path);
    offset += bytesWritten;
  }
}

function asBytes(chunk: Chunk): Uint8Array {
  if (typeof chunk === 'string') return Buffer.from(chunk, 'utf8');
  return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

async function followLink(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return path;
    throw ioError(error, 'write', path);
  }
}

async function modeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mode & 0o7777;
  } catch {
    return undefined;
  }
}

async function syncFolder(folder: string, path: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, 'r');
    await handle.sync();
  } catch (error) {
    if (!NO_FOLDER_SYNC.has(systemCode(error))) throw ioError(error, 'sync the folder of', path);
  } finally {
    await handle?.close();
  }
}
