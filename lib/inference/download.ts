import { open } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkOptions, nearest, optionCheck, PannsError, throwIfAborted } from '../errors.js';
import { renameDurably } from '../io/atomic.js';
import { type Digests, digestFile } from '../io/digest.js';
import { makeFolder } from '../io/folder.js';
import { withFileLock } from '../io/lock.js';
import { discardPart, transfer } from '../io/transfer.js';
import { type PublishedFile, publishedFiles, publishedUrl } from '../models/pretrained.js';
import { type CacheState, cacheFolder, examineFile, faultOf, rememberFile } from './cache.js';

/** How far a download is. */
export interface DownloadProgress {
  /** As it was asked for. */
  readonly name: string;
  readonly file: string;
  /** Bytes on the disk, those of an earlier attempt included. */
  readonly received: number;
  /** Bytes in all, once known. */
  readonly total: number | undefined;
  /** An attempt failed, and another one follows: why, and in about how many seconds. */
  readonly waiting?: { readonly reason: string; readonly seconds: number };
}

/** Options of {@link downloadWeights}. */
export interface DownloadOptions {
  /** Where files are kept. Default: PANNS_CACHE, else `panns` in the platform's cache folder. */
  folder?: string;
  /**
   * Where files come from instead of their publisher, each under its own name: the base of an http
   * or https address, or a folder. Default: PANNS_MIRROR, else the publisher.
   */
  mirror?: string;
  /** Whether to do without the network. Default: PANNS_OFFLINE is set, and neither 0 nor false. */
  offline?: boolean;
  /** The longest time without progress before the connection is tried anew, in ms. Default 30000. */
  timeout?: number;
  onProgress?: (progress: DownloadProgress) => void;
  /** Stops the download; what has come is kept, and gone on with next time. */
  signal?: AbortSignal;
}

const check = optionCheck('downloadWeights');

const OPTIONS = ['folder', 'mirror', 'offline', 'timeout', 'onProgress', 'signal'] as const;

const TIMEOUT_MS = 30_000;

/** The first pause between two attempts, in ms. */
const PAUSE_MS = 500;

/** A whole file of the right length and the wrong digest is fetched once more, not for ever. */
const ROUNDS = 2;

/** How the files of torch.save begin: a zip file, or a pickle of protocol 2 (before 2020). */
const BEGINNINGS = [Buffer.from('PK\x03\x04', 'latin1'), Buffer.from([0x80, 0x02])];

/**
 * The path of published weights on this machine, downloaded when they are not here yet.
 *
 * `name` is that of a {@link publishedFiles} row: a model's, or a variant's. The file is complete and
 * has its published digest (where none is known: its size, and the look of a PyTorch file). A
 * download that breaks off goes on where it was, also in a later process; processes that want the
 * same file wait for the one that fetches it.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for a wrong name or option; `ERR_PANNS_OFFLINE`;
 *   `ERR_PANNS_DOWNLOAD` when the network or the server is at fault; `ERR_PANNS_IO` when the disk
 *   is; AbortError
 */
export async function downloadWeights(
  name: string,
  options: DownloadOptions = {},
): Promise<string> {
  return fetchPublished(publishedFile(name), options);
}

/**
 * The row of a name.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for an unknown one, naming the nearest
 */
export function publishedFile(name: string): PublishedFile {
  const row = publishedFiles.find((row) => row.name === name);
  if (row !== undefined) return row;
  const names = publishedFiles.map((row) => row.name);
  const guess = nearest(String(name), names);
  const what = `there are no published weights "${name}"; did you mean "${guess}"? (${names.join(', ')})`;
  throw new PannsError('ERR_PANNS_OPTION', what, {
    where: 'downloadWeights',
    expected: names,
    actual: name,
  });
}

/** {@link downloadWeights} of a row; `pause` is that before the second attempt, in ms. */
export async function fetchPublished(
  row: PublishedFile,
  options: DownloadOptions = {},
  pause = PAUSE_MS,
): Promise<string> {
  checkOptions(options, OPTIONS, 'downloadWeights');
  const { signal, onProgress, timeout = TIMEOUT_MS } = options;
  const limited = typeof timeout === 'number' && timeout > 0 && timeout < 2 ** 31;
  check('timeout', timeout, limited, 'a time in ms > 0');
  throwIfAborted(signal);
  const folder = resolve(textOption('folder', options.folder) ?? cacheFolder());
  const from = sourceOf(row, textOption('mirror', options.mirror) ?? process.env.PANNS_MIRROR);
  const path = join(folder, row.file);
  const found = await examineFile(row, path, { signal });
  if (found.state === 'good') return path;
  const offline = options.offline ?? isSet(process.env.PANNS_OFFLINE);
  if (offline && typeof from !== 'string') throw offlineError(row, path, found);
  await makeFolder(folder);
  const part = `${path}.part`;
  const job = {
    ...{ from, part, bytes: row.bytes, verified: isVerifiable(row), timeout, pause },
    onBytes: (received: number, total: number | undefined) =>
      onProgress?.({ name: row.name, file: row.file, received, total }),
    onPause: (reason: string, received: number, pause: number) =>
      onProgress?.({
        ...{ name: row.name, file: row.file, received, total: row.bytes },
        waiting: { reason, seconds: pause / 1000 },
      }),
  };
  return withFileLock(`${path}.lock`, { signal }, async (held) => {
    // Another process may have fetched it while this one waited.
    if ((await examineFile(row, path, { signal: held })).state === 'good') return path;
    for (let round = 1; ; round++) {
      try {
        await transfer(job, held);
      } catch (error) {
        throw advised(error, row, path);
      }
      // Read back from the disk, as it will be read later.
      const digests = await digestFile(part, held);
      const fault = await faultOfPart(row, part, digests);
      if (fault === undefined) {
        throwIfAborted(held);
        await renameDurably(part, path);
        await rememberFile(path, digests);
        return path;
      }
      await discardPart(part);
      if (round === ROUNDS) {
        const what = `what came from ${shown(from)} is not the published file: it has ${fault}`;
        throw advised(new PannsError('ERR_PANNS_DOWNLOAD', what), row, path);
      }
    }
  });
}

function isVerifiable({ md5, sha256 }: PublishedFile): boolean {
  return md5 !== undefined || sha256 !== undefined;
}

/** What is wrong with what came; continues "it has". */
async function faultOfPart(
  row: PublishedFile,
  part: string,
  digests: Digests,
): Promise<string | undefined> {
  const fault = faultOf(row, digests);
  if (fault !== undefined || isVerifiable(row)) return fault;
  await using file = await open(part, 'r');
  const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
  const known = BEGINNINGS.some((bytes) => buffer.subarray(0, bytes.length).equals(bytes));
  return known ? undefined : `no beginning of a PyTorch file (${buffer.toString('hex')})`;
}

/** Where a row's file comes from: an address, or the path of a file. */
function sourceOf(row: PublishedFile, mirror: string | undefined): URL | string {
  if (!mirror) return new URL(publishedUrl(row));
  const scheme = /^([a-z][a-z0-9+.-]+):\/\//i.exec(mirror)?.[1]?.toLowerCase();
  if (scheme === undefined) return join(mirror, row.file);
  if (scheme === 'file') return join(fileURLToPath(mirror), row.file);
  const known = (scheme === 'http' || scheme === 'https') && URL.canParse(mirror);
  check('mirror', mirror, known, 'an http or https address, or a folder');
  const url = new URL(mirror);
  const plain = url.username === '' && url.password === '';
  check('mirror', url.host, plain, 'an address without user name and password');
  url.pathname = `${url.pathname.replace(/\/$/, '')}/${encodeURIComponent(row.file)}`;
  return url;
}

const shown = (from: URL | string): string =>
  typeof from === 'string' ? from : `${from.origin}${from.pathname}`;

function offlineError(row: PublishedFile, path: string, found: CacheState): PannsError {
  const there =
    found.state === 'bad' ? `the file there has ${found.fault}` : 'there is no such file';
  const what =
    `the weights of ${row.name} are not at ${path} (${there}) and downloading is switched off: ` +
    `unset PANNS_OFFLINE and the option offline, or ${byHand(row, path)}`;
  return new PannsError('ERR_PANNS_OFFLINE', what, { where: row.name });
}

/** A failed download, and what else can be done. */
function advised(error: unknown, row: PublishedFile, path: string): unknown {
  if (!(error instanceof PannsError) || error.code !== 'ERR_PANNS_DOWNLOAD') return error;
  const what = `${error.message}; try again, name a mirror (PANNS_MIRROR), or ${byHand(row, path)}`;
  return new PannsError(error.code, what, { where: row.name, cause: error.cause });
}

function byHand(row: PublishedFile, path: string): string {
  return `fetch ${publishedUrl(row)} by hand and put it at ${path}`;
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && !['', '0', 'false'].includes(value.toLowerCase());
}

function textOption(name: string, value: string | undefined): string | undefined {
  const valid = value === undefined || (typeof value === 'string' && value !== '');
  check(name, value, valid, 'a text that is not empty');
  return value;
}
