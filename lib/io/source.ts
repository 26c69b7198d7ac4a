import { type FileHandle, open } from 'node:fs/promises';
import { PannsError } from '../errors.js';
import { ioError } from './failure.js';

/** Bytes that are read at any place, of a file or in memory. */
export interface Source {
  /** The path, for errors. */
  readonly name: string;
  readonly size: number;
  /**
   * Bytes in memory of their own, at offset 0 of it.
   *
   * @throws PannsError `ERR_PANNS_CHECKPOINT` past the end, `ERR_PANNS_IO`
   */
  read(position: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Fills memory that is there already. @throws PannsError as `read` */
  fill(position: number, target: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** One read call asks for at most this much: Node takes no more than 2 GiB. */
const READ_BYTES = 2 ** 30;

/** Opens a file for reading. @throws PannsError `ERR_PANNS_IO` */
export async function openFile(path: string): Promise<Source> {
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    throw ioError(error, 'read', path);
  }
  try {
    const { size } = await handle.stat();
    return {
      name: path,
      size,
      async read(position, length) {
        // Before memory is asked for.
        checkRange(position, length, size, path);
        // Not Buffer.alloc: a small one would come from a shared pool, at any alignment.
        const bytes = new Uint8Array(length);
        await readExactly(handle, position, bytes, path);
        return bytes;
      },
      async fill(position, target) {
        checkRange(position, target.byteLength, size, path);
        await readExactly(handle, position, target, path);
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw ioError(error, 'read', path);
  }
}

/** Bytes in memory as a source; `name` stands for the path in errors. */
export function sourceOf(bytes: Uint8Array, name: string): Source {
  return {
    name,
    size: bytes.byteLength,
    async read(position, length) {
      checkRange(position, length, bytes.byteLength, name);
      // A copy: what is read may be changed, and starts aligned.
      return new Uint8Array(bytes.subarray(position, position + length));
    },
    async fill(position, target) {
      checkRange(position, target.byteLength, bytes.byteLength, name);
      target.set(bytes.subarray(position, position + target.byteLength));
    },
    close: async () => undefined,
  };
}

function checkRange(position: number, length: number, size: number, name: string): void {
  // Not position + length <= size: a NaN must not pass.
  if (position >= 0 && length >= 0 && position + length <= size) return;
  const what = `it ends at byte ${size}, and bytes ${position} to ${position + length} are needed (truncated?)`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: name });
}

async function readExactly(
  handle: FileHandle,
  position: number,
  bytes: Uint8Array,
  path: string,
): Promise<void> {
  const length = bytes.byteLength;
  for (let done = 0; done < length; ) {
    const part = Math.min(length - done, READ_BYTES);
    let bytesRead: number;
    try {
      ({ bytesRead } = await handle.read(bytes, done, part, position + done));
    } catch (error) {
      throw ioError(error, 'read', path);
    }
    if (bytesRead === 0) {
      const what = 'it became shorter while it was being read';
      throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where: path });
    }
    done += bytesRead;
  }
}

/** Bytes of a source at the beginning of `memory`, or in memory of their own. */
export async function readInto(
  source: Source,
  position: number,
  length: number,
  memory: Uint8Array | undefined,
): Promise<Uint8Array> {
  if (memory === undefined) return source.read(position, length);
  const bytes = memory.subarray(0, length);
  await source.fill(position, bytes);
  return bytes;
}
