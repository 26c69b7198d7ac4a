import type { CancelFlag, RowRequest as NativeRow } from '../addon.js';
import { decodeWithFfmpeg } from '../audio/ffmpeg.js';
import { fillInt16 } from '../audio/int16.js';
import { needsFfmpeg } from '../audio/load.js';
import { fromNative, kindOf, PannsError } from '../errors.js';
import { allocateInt16, callNative } from '../native/call.js';
import { loadNative } from '../native.js';
import { type Clip, dataError } from './dataset.js';

/** What the loader asks of a decoder: mono float32 in [-1, 1] at `sampleRate`. */
export interface DecodeRequest {
  readonly path: string;
  readonly sampleRate: number;
  /** In seconds; default the beginning. */
  readonly start?: number;
  /** In seconds; default to the end. */
  readonly duration?: number;
  /** More samples than this are not used, so a decoder may stop there. */
  readonly maxSamples: number;
}

/** Decodes all requests, at once if it can: one result each, in order; an Error for a bad file. */
export type Decode = (
  requests: readonly DecodeRequest[],
) => Promise<readonly (Float32Array | Error)[]>;

/** A clip to bring into a row of a batch: of a file, or samples in memory. */
export type RowRequest = {
  /** As long as a clip of the batch, in memory of {@link allocateInt16}. */
  readonly row: Int16Array;
} & (FileClip | { readonly samples: Int16Array });

interface FileClip {
  readonly clip: DecodeRequest;
  /** Where its samples lie in the file as they are, in bytes; else they are to be decoded. */
  readonly offset?: number;
  /** Whether it will hardly come again, and need not be kept. */
  readonly passing?: boolean;
}

/** The samples of a row that are its clip's, or why it cannot be read. */
export type RowResult = number | Error;

/**
 * Brings clips into the rows of a batch, in the 16-bit form of PANNs' packed files, with zeros behind.
 *
 * {@link rememberClips} makes one that several trainings can share.
 */
export interface ClipReader {
  /**
   * What a row holds is undefined where its clip cannot be read, and for all rows once cancelled.
   * @internal
   */
  read(requests: readonly RowRequest[], cancel?: CancelFlag): Promise<readonly RowResult[]>;
}

/**
 * The request for a clip of a data set, cut to `samples` from its beginning on, or from the sample
 * `part` on where it is longer and another time takes another part.
 */
export function clipRequest(
  { path, start, duration, packed }: Clip,
  row: Int16Array,
  { sampleRate, samples }: { readonly sampleRate: number; readonly samples: number },
  part?: number,
): RowRequest {
  const base = { path, sampleRate, maxSamples: samples };
  if (packed !== undefined) {
    const first = part ?? 0;
    const maxSamples = Math.min(samples, packed.samples - first);
    return { row, clip: { ...base, maxSamples }, offset: packed.offset + 2 * first };
  }
  if (part !== undefined) {
    const range = { start: (start ?? 0) + part / sampleRate, duration: samples / sampleRate };
    return { row, clip: { ...base, ...range }, passing: true };
  }
  const range = {
    ...(start === undefined ? {} : { start }),
    ...(duration === undefined ? {} : { duration }),
  };
  return { row, clip: { ...base, ...range } };
}

/** Checks that packed clips have the rate they are asked for. @throws PannsError `ERR_PANNS_DATA` */
export function checkPackedRate(clips: readonly Clip[], sampleRate: number): void {
  for (const { id, path, packed } of clips) {
    if (packed === undefined || packed.sampleRate === sampleRate) continue;
    const what = `${id} is packed at ${packed.sampleRate} Hz, and ${sampleRate} Hz are asked for: pack the data set again at that rate (panns pack --sample-rate ${sampleRate})`;
    throw dataError(path, what, { expected: sampleRate, actual: packed.sampleRate });
  }
}

/** What a length in seconds may be rounded up by, as the command line does. */
const ROUNDING_SECONDS = 0.01;

/**
 * Checks that clips were not cut when they were packed, where longer ones are asked for: there would be
 * zeros where they had sound. @throws PannsError `ERR_PANNS_DATA`
 */
export function checkPackedLength(clips: readonly Clip[], seconds: number): void {
  for (const { id, path, packed } of clips) {
    if (packed === undefined || packed.samples < packed.room) continue;
    const { room, sampleRate } = packed;
    const most = room / sampleRate;
    if (seconds <= most + ROUNDING_SECONDS) continue;
    const what = `${id} may have been cut when it was packed, to ${most} s, and ${seconds} s are asked for: ask for ${most} s, or pack the data set again (panns pack --seconds ${seconds})`;
    throw dataError(path, what, { expected: `at most ${most} s`, actual: seconds });
  }
}

/** The reader of a choice: of a decoder's clips, or by default of audio files. */
export function readerOf(choice: Decode | ClipReader | undefined): ClipReader {
  return typeof choice === 'object' ? choice : createReader(choice);
}

/** Files are read on threads of the addon, as packed clips are; a decoder of one's own on its own terms. */
function createReader(decode: Decode | undefined): ClipReader {
  const isForeign = (request: RowRequest): boolean =>
    decode !== undefined && 'clip' in request && request.offset === undefined;
  return {
    async read(requests, cancel) {
      const [foreign, own] = [requests.filter(isForeign), requests.filter((r) => !isForeign(r))];
      const decoded = foreign.length === 0 ? [] : await readDecoded(foreign, decode as Decode);
      const read = own.length === 0 ? [] : await readNative(own, cancel);
      let [i, k] = [0, 0];
      return requests.map((request) => {
        const result = isForeign(request) ? decoded[i++] : read[k++];
        return result ?? new PannsError('ERR_PANNS_INTERNAL', 'a clip got no result');
      });
    },
  };
}

/** The samples that a clip has at most. */
function mostSamples({ sampleRate, duration, maxSamples }: DecodeRequest, row: Int16Array): number {
  const asked = duration === undefined ? maxSamples : Math.round(duration * sampleRate);
  return Math.min(row.length, maxSamples, Math.max(1, asked));
}

function toNative(request: RowRequest): NativeRow {
  const { row } = request;
  if ('samples' in request) return { row, most: request.samples.length, samples: request.samples };
  const { clip, offset } = request;
  const { path, start = 0, duration = -1 } = clip;
  const most = mostSamples(clip, row);
  return offset === undefined ? { row, most, path, start, duration } : { row, most, path, offset };
}

async function readNative(
  requests: readonly RowRequest[],
  cancel: CancelFlag | undefined,
): Promise<RowResult[]> {
  const file = requests.find((request) => 'clip' in request);
  const sampleRate = file && 'clip' in file ? file.clip.sampleRate : 0;
  const results = await callNative('loader', () =>
    loadNative().fillRows(requests.map(toNative), { sampleRate, threads: 0 }, cancel),
  );
  return Promise.all(
    results.map((result, i) => {
      if (typeof result === 'number') return result;
      const request = requests[i] as RowRequest;
      if (!('clip' in request)) return new Error(result.message);
      const error = fromNative(result, request.clip.path);
      return needsFfmpeg(error) ? readForeign(request.clip, request.row) : error;
    }),
  );
}

/** A format that libsndfile does not read, through the ffmpeg program. */
async function readForeign(clip: DecodeRequest, row: Int16Array): Promise<RowResult> {
  const { path, start, sampleRate } = clip;
  const duration = mostSamples(clip, row) / sampleRate;
  try {
    const { samples } = await decodeWithFfmpeg(path, { start, duration, sampleRate });
    return await fill(samples, clip, row);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

async function readDecoded(
  requests: readonly RowRequest[],
  decode: Decode,
): Promise<(RowResult | undefined)[]> {
  const asked = requests.flatMap((request) => ('clip' in request ? [request.clip] : []));
  const results = await decode(asked);
  if (results.length !== asked.length) {
    const what = `decode gave ${results.length} results for ${asked.length} requests`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'loader' });
  }
  const rows: (RowResult | undefined)[] = [];
  for (const [i, result] of results.entries()) {
    const { row } = requests[i] as RowRequest;
    if (!(result instanceof Float32Array || result instanceof Error)) {
      const what = `expected decode to give Float32Arrays, or an Error for a bad file, got ${kindOf(result)}`;
      throw new PannsError('ERR_PANNS_OPTION', what, { where: 'loader' });
    }
    rows.push(
      result instanceof Error ? result : await fill(result, asked[i] as DecodeRequest, row),
    );
  }
  return rows;
}

async function fill(
  samples: Float32Array,
  clip: DecodeRequest,
  row: Int16Array,
): Promise<RowResult> {
  if (samples.length === 0) return new Error('it holds no samples');
  const own = samples.subarray(0, mostSamples(clip, row));
  const bad = await fillInt16(own, row);
  return bad < 0 ? own.length : new Error(`sample ${bad} is ${own[bad]}`);
}

/** A {@link ClipReader} that keeps clips in memory. */
export interface RowCache extends ClipReader {
  /** Of the clips in memory. */
  readonly bytes: number;
}

/**
 * A reader that keeps what it has decoded in memory, 2 bytes a sample, up to `maxBytes`: for clips
 * that come again and again.
 *
 * Clips are told apart by path, start, duration, rate and length: use it while files stay as they are.
 * `decode` reads them, default audio files.
 */
export function rememberClips(maxBytes: number, decode?: Decode): ClipReader {
  return createRowCache(readerOf(decode), maxBytes);
}

/** {@link rememberClips} over any reader. */
export function createRowCache(reader: ClipReader, maxBytes: number): RowCache {
  const kept = new Map<string, Int16Array>();
  let bytes = 0;
  return {
    get bytes() {
      return bytes;
    },
    async read(requests, cancel) {
      const keys = requests.map((request) => {
        if (!('clip' in request) || request.passing) return undefined;
        // What lies packed in a file is in the system's own cache.
        return request.offset === undefined ? keyOf(request.clip) : undefined;
      });
      const results = await reader.read(
        requests.map((request, i) => {
          const samples = kept.get(keys[i] ?? '');
          return samples === undefined ? request : { row: request.row, samples };
        }),
        cancel,
      );
      const fresh = new Map<string, Int16Array>();
      const copies: RowRequest[] = [];
      for (const [i, result] of results.entries()) {
        const key = keys[i];
        const row = requests[i]?.row;
        if (key === undefined || kept.has(key) || fresh.has(key)) continue;
        if (row === undefined || typeof result !== 'number') continue;
        if (bytes + 2 * result > maxBytes) continue;
        const copy = allocateInt16(result);
        bytes += copy.byteLength;
        fresh.set(key, copy);
        copies.push({ row: copy, samples: row.subarray(0, result) });
      }
      if (copies.length > 0) await reader.read(copies);
      for (const [key, copy] of fresh) {
        // Someone else may have been faster.
        if (kept.has(key)) bytes -= copy.byteLength;
        else kept.set(key, copy);
      }
      return results;
    },
  };
}

const keyOf = ({ path, start, duration, sampleRate, maxSamples }: DecodeRequest): string =>
  JSON.stringify([path, start, duration, sampleRate, maxSamples]);
