import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { writeFileAtomic } from '../io/atomic.js';
import { type Digests, digestFile } from '../io/digest.js';
import { ioError, systemCode } from '../io/failure.js';
import type { PublishedFile } from '../models/pretrained.js';

/**
 * Where downloaded weights are kept: PANNS_CACHE, else `panns` in the platform's cache folder
 * (XDG_CACHE_HOME or ~/.cache; ~/Library/Caches; %LOCALAPPDATA%\panns\Cache).
 */
export function cacheFolder(
  env: Readonly<Record<string, string | undefined>> = process.env,
  platform: NodeJS.Platform = process.platform,
): string {
  if (env.PANNS_CACHE) return env.PANNS_CACHE;
  if (platform === 'darwin') return join(homedir(), 'Library', 'Caches', 'panns');
  if (platform === 'win32') {
    return join(env.LOCALAPPDATA || join(homedir(), 'AppData', 'Local'), 'panns', 'Cache');
  }
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'panns');
}

/** What was found of a published file in a folder. */
export type CacheState =
  | { readonly state: 'missing' }
  | { readonly state: 'good' }
  /** `fault` continues "it has". */
  | { readonly state: 'bad'; readonly fault: string };

/** A file that was read and found good, by what changes when it is written to. */
interface Verified extends Digests {
  readonly mtimeMs: number;
}

const recordOf = (path: string): string => `${path}.verified.json`;

/**
 * Whether the file at `path` is the published one.
 *
 * The digests of a file are remembered beside it, with its size and time of change, so that it is
 * read again only after a change, or when `afresh` asks for it. A file whose digest is not published
 * must be what it was when it came.
 *
 * @throws PannsError `ERR_PANNS_IO` when it is there and cannot be read; AbortError
 */
export async function examineFile(
  row: PublishedFile,
  path: string,
  options: { afresh?: boolean; signal?: AbortSignal | undefined } = {},
): Promise<CacheState> {
  let now: { size: number; mtimeMs: number };
  try {
    now = await stat(path);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return { state: 'missing' };
    throw ioError(error, 'read', path);
  }
  const record = await readRecord(path);
  const unchanged = record?.bytes === now.size && record.mtimeMs === now.mtimeMs;
  if (unchanged && !options.afresh) return judge(faultOf(row, record));
  if (row.bytes !== undefined && now.size !== row.bytes) return judge(faultOfSize(row, now.size));
  const digests = await digestFile(path, options.signal);
  const fault = faultOf(row, digests);
  if (fault !== undefined) return { state: 'bad', fault };
  if (unchanged && digests.sha256 !== record.sha256) {
    return { state: 'bad', fault: 'other bytes than when it was downloaded' };
  }
  await rememberFile(path, digests);
  return { state: 'good' };
}

/** What is wrong with a file of these digests, as far as can be known. */
export function faultOf(row: PublishedFile, found: Digests): string | undefined {
  const wrongSize = faultOfSize(row, found.bytes);
  if (wrongSize !== undefined) return wrongSize;
  for (const kind of ['sha256', 'md5'] as const) {
    const expected = row[kind];
    if (expected === undefined) continue;
    return found[kind] === expected ? undefined : `${kind} ${found[kind]}, expected ${expected}`;
  }
  return undefined;
}

function faultOfSize(row: PublishedFile, bytes: number): string | undefined {
  const right = row.bytes === undefined || row.bytes === bytes;
  return right ? undefined : `${bytes} bytes, expected ${row.bytes}`;
}

function judge(fault: string | undefined): CacheState {
  return fault === undefined ? { state: 'good' } : { state: 'bad', fault };
}

async function readRecord(path: string): Promise<Verified | undefined> {
  try {
    return JSON.parse(await readFile(recordOf(path), 'utf8')) as Verified;
  } catch {
    return undefined;
  }
}

/**
 * Notes beside a file what it was found to hold.
 *
 * A folder that cannot be written to costs a reading at every start, and is no failure.
 */
export async function rememberFile(path: string, digests: Digests): Promise<void> {
  try {
    const { mtimeMs } = await stat(path);
    const verified: Verified = { ...digests, mtimeMs };
    await writeFileAtomic(recordOf(path), [JSON.stringify(verified)]);
  } catch {
    return;
  }
}
