import { createReadStream } from 'node:fs';
import { type FileHandle, open, readFile, rm, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PannsError, throwIfAborted } from '../errors.js';
import { writeAll, writeFileAtomic } from './atomic.js';
import { ioError, systemCode } from './failure.js';
import { AttemptFailed, dismiss, networkFailure, openUrl } from './http.js';

/** So many attempts in a row may bring nothing new. */
const ATTEMPTS = 5;

/** An attempt that brought so many bytes more than any before it was worth it. */
const WORTH_BYTES = 1024 * 1024;

/** The longest pause between attempts, in ms; a server that asks for more is not waited for. */
const MOST_PAUSE_MS = 60_000;

/** Slower than this, in bytes a second, a connection counts as stalled: 4 MB would take an hour. */
const LEAST_RATE = 1000;

/** What is not known to be smaller ends here: well above the largest published file (mn40, Cnn14_16k). */
const MOST_BYTES = 1_000_000_000;

/** One file to fetch, and how. */
export interface Transfer {
  /** An http or https address, or the path of a file to copy. */
  readonly from: URL | string;
  /** Where the bytes gather. What is there from an earlier attempt is gone on with. */
  readonly part: string;
  /** The exact size, where it is known. */
  readonly bytes?: number | undefined;
  /** Whether the caller knows a digest: then pieces may be joined that nobody vouches for. */
  readonly verified: boolean;
  /** The longest time without progress, in ms. */
  readonly timeout: number;
  /** The first pause between two attempts, in ms; each further one is twice as long. */
  readonly pause: number;
  /** Bytes so far, and in all where that is known. */
  readonly onBytes: (received: number, total: number | undefined) => void;
  /** An attempt failed: why, how many bytes there are, and how long is waited before the next, in ms. */
  readonly onPause: (reason: string, received: number, pause: number) => void;
}

/** What is known of the bytes in the part file, kept beside it for a later process. */
interface Origin {
  readonly url: string;
  readonly etag?: string;
  readonly modified?: string;
  readonly total?: number;
}

/**
 * Fetches a file into `part`, in as many attempts as help; a failed one keeps what it got.
 *
 * @throws PannsError `ERR_PANNS_DOWNLOAD` when the network or the server is at fault, `ERR_PANNS_IO`
 *   when the disk is; AbortError
 */
export async function transfer(job: Transfer, signal: AbortSignal): Promise<void> {
  if (typeof job.from === 'string') return copy(job, job.from, signal);
  // After a crash of the machine a file may hold zeros, which only a digest would show.
  if (!job.verified) await discardPart(job.part);
  let best = (await stat(job.part).catch(() => undefined))?.size ?? 0;
  for (let failures = 0; ; ) {
    try {
      await attempt(job, job.from, signal);
      await rm(originOf(job.part), { force: true });
      return;
    } catch (error) {
      throwIfAborted(signal);
      if (!(error instanceof AttemptFailed)) throw await tidied(error, job.part);
      const size = (await stat(job.part).catch(() => undefined))?.size ?? 0;
      failures = size >= best + WORTH_BYTES ? 1 : failures + 1;
      best = Math.max(best, size);
      const pause = error.waitMs ?? Math.min(MOST_PAUSE_MS, job.pause * 2 ** (failures - 1));
      if (!error.again || failures >= ATTEMPTS || pause > MOST_PAUSE_MS) {
        throw downloadError(job.from, error, failures, pause);
      }
      job.onPause(error.message, size, pause);
      // A little spread, so that those whom one outage sent away do not all come back at once.
      await sleep(pause * (1 + Math.random() / 4), undefined, { signal }).catch(() => undefined);
      throwIfAborted(signal);
    }
  }
}

/** Removes what a failed transfer may have left. */
export async function discardPart(part: string): Promise<void> {
  await rm(part, { force: true });
  await rm(originOf(part), { force: true });
}

function downloadError(
  from: URL,
  error: AttemptFailed,
  attempts: number,
  pause: number,
): PannsError {
  const many = attempts > 1 ? `, after ${attempts} attempts` : '';
  const asked = pause > MOST_PAUSE_MS ? ` and asks to wait ${Math.ceil(pause / 1000)} s` : '';
  const what = `cannot download ${from.origin}${from.pathname}: ${error.message}${asked}${many}`;
  return new PannsError('ERR_PANNS_DOWNLOAD', what, { cause: error });
}

const originOf = (part: string): string => `${part}.json`;

/** A full disk is not left full: nothing can be gone on with there. */
async function tidied(error: unknown, part: string): Promise<unknown> {
  const cause = error instanceof PannsError ? error.cause : error;
  if (['ENOSPC', 'EDQUOT', 'EFBIG'].includes(systemCode(cause) ?? '')) await discardPart(part);
  return error;
}

/** One request, from where the part file ends. */
async function attempt(job: Transfer, url: URL, signal: AbortSignal): Promise<void> {
  const { part, timeout } = job;
  const origin = await resumable(job, url);
  const offset = origin === undefined ? 0 : (await stat(part)).size;
  if (offset > 0 && offset === (job.bytes ?? origin?.total)) return;
  const watch = watchProgress(timeout, signal);
  try {
    const response = await openUrl(url, rangeHeaders(offset, origin), watch.signal);
    try {
      const start = await acceptAnswer(response, job, offset, origin);
      const total = totalOf(response, start);
      checkTotal(job, total);
      if (start === 0) {
        await discardPart(part);
        await writeFileAtomic(originOf(part), [describe(url, response, total)]);
      }
      await receive(job, response, start, total, watch);
    } finally {
      await dismiss(response);
    }
  } catch (error) {
    // A silent connection ends in an AbortError: the reason says why.
    watch.signal.throwIfAborted();
    throw error;
  } finally {
    watch.stop();
  }
}

/** Aborts when fewer bytes than {@link LEAST_RATE} asks for came in a span of `timeout` ms. */
function watchProgress(timeout: number, signal: AbortSignal) {
  const stalled = new AbortController();
  const least = (LEAST_RATE * timeout) / 1000;
  // What opens the span counts as much as the bytes of the span: an answer alone is progress.
  let got = 0;
  const check = (): void => {
    if (got >= least) {
      got = 0;
      return;
    }
    const what = `${got} bytes came in ${timeout / 1000} s`;
    stalled.abort(new AttemptFailed(`the connection stalls: ${what}`, { again: true }));
  };
  let timer = setInterval(check, timeout);
  return {
    signal: AbortSignal.any([stalled.signal, signal]),
    /** A new span begins: the server has answered. */
    answered(): void {
      got = 0;
      clearInterval(timer);
      timer = setInterval(check, timeout);
    },
    received(bytes: number): void {
      got += bytes;
    },
    stop: () => clearInterval(timer),
  };
}

/** What the part file holds, if a request can go on from it; else the file is removed. */
async function resumable(job: Transfer, url: URL): Promise<Origin | undefined> {
  const size = (await stat(job.part).catch(() => undefined))?.size ?? 0;
  const origin = await readOrigin(job.part);
  const most = job.bytes ?? origin?.total ?? MOST_BYTES;
  const vouched = job.verified || validatorOf(origin) !== undefined;
  if (size > 0 && size <= most && origin?.url === url.href && vouched) return origin;
  await discardPart(job.part);
  return undefined;
}

async function readOrigin(part: string): Promise<Origin | undefined> {
  try {
    const origin = JSON.parse(await readFile(originOf(part), 'utf8'));
    // A file that something else has written is no reason to fail: the download begins anew.
    const texts = [origin.etag ?? '', origin.modified ?? ''];
    return texts.every((text) => typeof text === 'string') ? (origin as Origin) : undefined;
  } catch {
    return undefined;
  }
}

/** What makes a server send a range of the same file only; a weak ETag promises too little. */
function validatorOf(origin: Origin | undefined): string | undefined {
  return origin?.etag?.startsWith('"') ? origin.etag : origin?.modified;
}

function rangeHeaders(offset: number, origin: Origin | undefined): Record<string, string> {
  if (offset === 0) return {};
  const validator = validatorOf(origin);
  const condition = validator === undefined ? {} : { 'if-range': validator };
  return { range: `bytes=${offset}-`, ...condition };
}

/** Where the body begins: at `offset` for the range that was asked for, at 0 for the whole file. */
async function acceptAnswer(
  response: Response,
  job: Transfer,
  offset: number,
  origin: Origin | undefined,
): Promise<number> {
  const { status, headers } = response;
  if (status === 200) return 0;
  const range = contentRange(headers);
  const etag = headers.get('etag') ?? origin?.etag;
  const fits = status === 206 && range?.start === offset && range.end + 1 === range.total;
  const same = etag === origin?.etag && (origin?.total ?? range?.total) === range?.total;
  if (fits && same) return offset;
  await discardPart(job.part);
  const what = fits ? 'the file has changed since' : `the answer ${status} is not the range`;
  throw new AttemptFailed(`${what} from byte ${offset} on`, { again: true });
}

interface ContentRange {
  readonly start: number;
  readonly end: number;
  readonly total: number;
}

function contentRange(headers: Headers): ContentRange | undefined {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '');
  if (match === null) return undefined;
  const [start = 0, end = 0, total = 0] = match.slice(1).map(Number);
  return { start, end, total };
}

function totalOf({ headers, status }: Response, start: number): number | undefined {
  if (status === 206) return contentRange(headers)?.total;
  const length = headers.get('content-length');
  return length === null ? undefined : start + Number(length);
}

function checkTotal({ bytes }: Transfer, total: number | undefined): void {
  if (total === undefined) return;
  if (bytes !== undefined && total !== bytes) {
    const what = `the server announces ${total} bytes, the file has ${bytes}`;
    throw new AttemptFailed(what, { again: true });
  }
  if (total > MOST_BYTES) throw tooLong(total, MOST_BYTES);
}

function tooLong(came: number, most: number): AttemptFailed {
  return new AttemptFailed(`${came} bytes and more come, ${most} are the most`, { again: false });
}

function describe(url: URL, { headers }: Response, total: number | undefined): string {
  const etag = headers.get('etag') ?? undefined;
  const modified = headers.get('last-modified') ?? undefined;
  return JSON.stringify({ url: url.href, etag, modified, total } satisfies {
    [K in keyof Origin]: Origin[K] | undefined;
  });
}

async function receive(
  job: Transfer,
  response: Response,
  start: number,
  total: number | undefined,
  watch: ReturnType<typeof watchProgress>,
): Promise<void> {
  const { part } = job;
  const wanted = job.bytes ?? total;
  const most = wanted ?? MOST_BYTES;
  await checkSpace(part, (wanted ?? 0) - start);
  const sink = await openPart(part, start);
  let size = start;
  try {
    watch.answered();
    job.onBytes(size, wanted);
    for await (const chunk of body(response, watch.signal)) {
      if (size + chunk.byteLength > most) {
        await discardPart(part);
        throw tooLong(size + chunk.byteLength, most);
      }
      await writeAll(sink, chunk, part, size);
      size += chunk.byteLength;
      watch.received(chunk.byteLength);
      job.onBytes(size, wanted);
    }
  } finally {
    await sink.close();
  }
  if (wanted !== undefined && size < wanted) {
    throw new AttemptFailed(`the body ends after ${size} of ${wanted} bytes`, { again: true });
  }
}

async function* body(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  const chunks = response.body[Symbol.asyncIterator]();
  for (;;) {
    let next: IteratorResult<Uint8Array>;
    try {
      next = await chunks.next();
    } catch (error) {
      signal.throwIfAborted();
      throw networkFailure(error, 'the connection broke off');
    }
    if (next.done) return;
    yield next.value;
  }
}

/** A copy from a folder that serves as mirror. */
async function copy(job: Transfer, from: string, signal: AbortSignal): Promise<void> {
  await discardPart(job.part);
  let size = 0;
  try {
    const total = (await stat(from)).size;
    if (total > (job.bytes ?? MOST_BYTES) || total < (job.bytes ?? 0)) {
      const what = `${from} has ${total} bytes, expected ${job.bytes ?? `at most ${MOST_BYTES}`}`;
      throw new PannsError('ERR_PANNS_DOWNLOAD', what);
    }
    await checkSpace(job.part, total);
    const sink = await openPart(job.part, 0);
    try {
      for await (const chunk of createReadStream(from, { signal, end: total })) {
        await writeAll(sink, chunk as Buffer, job.part, size);
        size += (chunk as Buffer).byteLength;
        job.onBytes(size, total);
      }
    } finally {
      await sink.close();
    }
  } catch (error) {
    await discardPart(job.part);
    throwIfAborted(signal);
    throw ioError(error, 'copy', from);
  }
}

async function openPart(part: string, start: number): Promise<FileHandle> {
  try {
    return await open(part, start === 0 ? 'w' : 'r+');
  } catch (error) {
    throw ioError(error, 'write', part);
  }
}

/** Says at once that a file will not fit, not after most of it has come. */
async function checkSpace(part: string, wanted: number): Promise<void> {
  const { bavail, blocks, bsize } = await statfs(dirname(part)).catch(() => ({
    ...{ bavail: 0, blocks: 0, bsize: 0 },
  }));
  const free = bavail * bsize;
  // Some network file systems know no sizes and say 0.
  if (blocks === 0 || free >= wanted) return;
  const cause = Object.assign(new Error(`${wanted} bytes wanted, ${free} free`), {
    code: 'ENOSPC',
  });
  throw ioError(cause, `write ${wanted} bytes, ${free} are free`, part);
}
