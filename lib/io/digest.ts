import { createHash, type Hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { throwIfAborted } from '../errors.js';
import { ioError } from './failure.js';

/** Hashed at once: about 0.5 ms of SHA-256 or MD5 without hardware help, so the event loop breathes. */
const CHUNK_BYTES = 256 * 1024;

/** Digests of a file's bytes, in lower-case hexadecimal. */
export interface Digests {
  readonly bytes: number;
  readonly md5: string;
  readonly sha256: string;
}

/**
 * Reads a file once, piece by piece, for its size and digests.
 *
 * @throws PannsError `ERR_PANNS_IO`; AbortError
 */
export async function digestFile(path: string, signal?: AbortSignal): Promise<Digests> {
  const hashes: Record<'md5' | 'sha256', Hash> = {
    md5: createHash('md5'),
    sha256: createHash('sha256'),
  };
  let bytes = 0;
  try {
    await using file = await open(path, 'r');
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    for (;;) {
      throwIfAborted(signal);
      const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES);
      if (bytesRead === 0) break;
      bytes += bytesRead;
      for (const hash of Object.values(hashes)) hash.update(buffer.subarray(0, bytesRead));
    }
  } catch (error) {
    throwIfAborted(signal);
    throw ioError(error, 'read', path);
  }
  return { bytes, md5: hashes.md5.digest('hex'), sha256: hashes.sha256.digest('hex') };
}
