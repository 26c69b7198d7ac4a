import type { CancelFlag } from '../addon.js';
import { AbortError } from '../errors.js';
import { type Clip, dataError, firstTen, type SkippedClip } from './dataset.js';
import { createRandom } from './random.js';
import {
  type ClipReader,
  clipRequest,
  createRowCache,
  type Decode,
  type RowRequest,
  readerOf,
} from './reader.js';
import type { Sampler } from './sampler.js';

/** Which clips, and how they are read: as in the loader's options, every choice made. */
export interface ClipSourceSettings {
  readonly clips: readonly Clip[];
  readonly samplesPerClip: number;
  readonly sampleRate: number;
  readonly lengths: readonly number[];
  readonly seed: number;
  readonly sampler: Sampler;
  readonly decode?: Decode | ClipReader | undefined;
  readonly cache: 'memory-int16' | 'none';
  readonly cacheBytes: number;
  readonly onBadClip: 'throw' | 'skip';
}

/** Brings the clips of batches into their rows. */
export interface ClipSource {
  /**
   * Fills the rows of a buffer with the sampler's next clips that can be read, in their parts of an
   * epoch; returns which they are.
   */
  draw(buffer: Int16Array, rows: number, epoch: number): Promise<number[]>;
  readonly skipped: readonly SkippedClip[];
  readonly cachedBytes: number;
}

/** The clips of a sampler. What is under way when `cancel` is set fails. */
export function createClipSource(settings: ClipSourceSettings, cancel: CancelFlag): ClipSource {
  const { clips, sampler, samplesPerClip } = settings;
  const reader = readerOf(settings.decode);
  const cache = createRowCache(reader, settings.cache === 'none' ? 0 : settings.cacheBytes);
  const bad = new Map<number, SkippedClip>();

  /** Reads clips, each into its row; those that cannot be read are in `bad` afterwards. */
  const fill = async (wanted: ReadonlyMap<number, Int16Array>, epoch: number): Promise<void> => {
    const places = [...wanted.keys()];
    const requests = [...wanted].map(([index, row]) => requestOf(settings, index, epoch, row));
    const results = requests.length === 0 ? [] : await cache.read(requests, cancel);
    // What was stopped half-way says nothing of its clip.
    if (Atomics.load(cancel, 0) !== 0) throw new AbortError();
    const failures: SkippedClip[] = [];
    let cause: Error | undefined;
    for (const [i, result] of results.entries()) {
      if (typeof result === 'number') continue;
      const index = places[i] as number;
      const failure = describe(clips, index, result);
      cause ??= result;
      failures.push(failure);
      bad.set(index, failure);
    }
    if (failures.length > 0 && settings.onBadClip === 'throw') {
      const named = firstTen(failures.map(({ id, reason }) => `${id} (${reason})`));
      const what = `${failures.length} clips cannot be decoded: ${named}`;
      throw dataError('loader', what, { cause, actual: failures });
    }
  };

  const copy = async (requests: readonly RowRequest[]): Promise<void> => {
    const results = requests.length === 0 ? [] : await reader.read(requests);
    const failure = results.find((result) => result instanceof Error);
    if (failure !== undefined) throw failure;
  };

  return {
    async draw(buffer, rows, epoch) {
      const rowAt = (row: number) =>
        buffer.subarray(row * samplesPerClip, (row + 1) * samplesPerClip);
      const indices: number[] = [];
      const rowOf = new Map<number, Int16Array>();
      // Every clip has been drawn many times over by then: none of those drawn can be decoded.
      let attempts = 10 * clips.length + 1000;
      while (indices.length < rows) {
        const drawn = sampler.take(rows - indices.length);
        if (drawn.length === 0) break;
        const wanted = new Map<number, Int16Array>();
        for (const [i, index] of drawn.entries()) {
          if (bad.has(index) || rowOf.has(index) || wanted.has(index)) continue;
          wanted.set(index, rowAt(indices.length + i));
        }
        await fill(wanted, epoch);
        const good = drawn.filter((index) => !bad.has(index));
        const copies: RowRequest[] = [];
        for (const index of good) {
          const row = rowAt(indices.length);
          indices.push(index);
          const samples = rowOf.get(index);
          if (samples !== undefined) {
            // A clip that comes twice is read once.
            copies.push({ row, samples });
            continue;
          }
          rowOf.set(index, row);
          const read = wanted.get(index) as Int16Array;
          if (read.byteOffset === row.byteOffset) continue;
          // Rows move up behind a bad clip, one after another: each takes the place of one that has.
          await copy([{ row, samples: read }]);
        }
        await copy(copies);
        attempts -= drawn.length;
        if (good.length === 0 && attempts < 0) {
          const named = firstTen([...bad.values()].map(({ id }) => id));
          throw dataError('loader', `no clip that is drawn can be decoded: ${named}`);
        }
      }
      return indices;
    },
    get skipped() {
      return [...bad.values()];
    },
    get cachedBytes() {
      return cache.bytes;
    },
  };
}

/** Samples that a clip has more than are used; 0 where that is not known. */
function slackOf(
  { clips, lengths, sampleRate, samplesPerClip }: ClipSourceSettings,
  index: number,
): number {
  const length = lengths[index] ?? Number.NaN;
  if (Number.isNaN(length)) return 0;
  const samples = clips[index]?.packed?.samples ?? Math.floor(length * sampleRate);
  return Math.max(0, samples - samplesPerClip);
}

/** A stream of random numbers beside those of mixup. */
const PARTS = 1_000_003;

function requestOf(
  settings: ClipSourceSettings,
  index: number,
  epoch: number,
  row: Int16Array,
): RowRequest {
  const { clips, sampleRate, samplesPerClip, seed } = settings;
  const shape = { sampleRate, samples: samplesPerClip };
  const slack = slackOf(settings, index);
  const part = slack > 0 ? createRandom(seed, PARTS, index, epoch).integer(slack + 1) : undefined;
  return clipRequest(clips[index] as Clip, row, shape, part);
}

function describe(clips: readonly Clip[], index: number, error: Error): SkippedClip {
  const { id, path } = clips[index] as Clip;
  return { id, path, reason: error.message };
}
