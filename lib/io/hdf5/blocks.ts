import type { Hdf5Dataset, Hdf5Layout } from './dataset.js';
import { badHdf5, fieldsOf } from './fields.js';
import type { Hdf5File } from './file.js';

/** Consecutive rows of a data set. */
export interface Hdf5Rows {
  readonly first: number;
  readonly count: number;
  /** One row behind the other. */
  readonly bytes: Uint8Array;
}

/** Of rows that are read at once: a turn of the event loop of about 1 ms for whoever makes names of them. */
const BLOCK_BYTES = 2 ** 17;

/** Nodes of a tree have 64 children unless a file asks for more. */
const NODE_BYTES = 24;

/** How many bytes a row has. */
export function rowBytes({ shape, type }: Hdf5Dataset): number {
  return shape.slice(1).reduce((product, n) => product * n, type.bytes);
}

/**
 * Reads all rows of a data set, some at a time.
 *
 * @throws PannsError `ERR_PANNS_DATA` for one that the file does not hold all of; `ERR_PANNS_IO`
 */
export async function* readRows(file: Hdf5File, dataset: Hdf5Dataset): AsyncGenerator<Hdf5Rows> {
  const { name, layout, shape } = dataset;
  const rows = shape[0] ?? 1;
  const width = rowBytes(dataset);
  if (layout === undefined || !(rows * width <= file.size)) {
    const what = `the file holds ${file.size} bytes, "${name}" is declared to have (${shape}) values of ${dataset.type.bytes} bytes`;
    throw badHdf5(file.path, layout === undefined ? `nothing was written to "${name}"` : what);
  }
  if (layout.kind === 'chunked') {
    yield* readChunks(file, dataset, layout);
    return;
  }
  const step = Math.max(1, Math.floor(BLOCK_BYTES / width));
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    const bytes =
      layout.kind === 'contiguous'
        ? await file.read(layout.address + first * width, count * width)
        : fieldsOf(layout.bytes.subarray(first * width), file.path).bytes(count * width);
    yield { first, count, bytes };
  }
}

type Chunked = Extract<Hdf5Layout, { kind: 'chunked' }>;

/** Arrays of one or two dimensions, whose chunks are all there. */
async function* readChunks(
  file: Hdf5File,
  dataset: Hdf5Dataset,
  { tree, chunk }: Chunked,
): AsyncGenerator<Hdf5Rows> {
  const { shape, name, type } = dataset;
  const [rows = 1, columns = 1] = shape;
  const [high = 1, wide = 1] = chunk;
  if (shape.length > 2 || !(high >= 1 && wide >= 1)) {
    throw badHdf5(file.path, `expected "${name}" to have 1 or 2 dimensions, got (${shape})`);
  }
  const across = Math.ceil(columns / wide);
  const size = high * wide * type.bytes;
  const places = await findChunks(file, dataset, tree, { high, wide, across, size });
  const width = columns * type.bytes;
  // Whole chunks, as many as make a block.
  const step = high * Math.max(1, Math.floor(BLOCK_BYTES / (high * width)));
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    const bytes = new Uint8Array(count * width);
    const begin = (first / high) * across;
    const end = Math.ceil((first + count) / high) * across;
    const chunks = await readPieces(file, places.subarray(begin, end), size);
    for (const [i, chunk] of chunks.entries()) {
      const top = Math.floor(i / across) * high;
      const left = (i % across) * wide;
      const length = Math.min(wide, columns - left) * type.bytes;
      for (let row = top; row < Math.min(top + high, count); row++) {
        const at = (row - top) * wide * type.bytes;
        bytes.set(chunk.subarray(at, at + length), row * width + left * type.bytes);
      }
    }
    yield { first, count, bytes };
  }
}

/** Pieces of one size; at once where they lie close together, as they do if they were written in order. */
async function readPieces(
  file: Hdf5File,
  places: Float64Array,
  size: number,
): Promise<Uint8Array[]> {
  const first = places.reduce((least, place) => Math.min(least, place), Infinity);
  const last = places.reduce((most, place) => Math.max(most, place), 0);
  if (last + size - first > 2 * size * places.length) {
    return Promise.all(Array.from(places, (place) => file.read(place, size)));
  }
  const all = await file.read(first, last + size - first);
  return Array.from(places, (place) => all.subarray(place - first, place - first + size));
}

interface Grid {
  readonly high: number;
  readonly wide: number;
  readonly across: number;
  /** Of a chunk, in bytes. */
  readonly size: number;
}

/** Where the chunks lie, in the order of the array. */
async function findChunks(
  file: Hdf5File,
  { name, shape }: Hdf5Dataset,
  tree: number,
  { high, wide, across, size }: Grid,
): Promise<Float64Array> {
  const { path } = file;
  const total = Math.ceil((shape[0] ?? 1) / high) * across;
  const incomplete = `"${name}" is declared to have (${shape}) values, and the file does not hold all of them: it is damaged, or was not written to its end`;
  // A key: the bytes of the chunk, the filters it went past, and where it lies in the array.
  const key = 8 + 8 * (shape.length + 1);
  if (!(total * (size + key + 8) <= file.size)) throw badHdf5(path, incomplete);
  const places = new Float64Array(total).fill(Number.NaN);
  let found = 0;
  const seen = new Set([tree]);
  for (const node of seen) {
    const head = fieldsOf(await file.read(node, NODE_BYTES), path);
    if (head.text(4) !== 'TREE' || head.number(1) !== 1) {
      throw badHdf5(path, `it is damaged: the tree of "${name}" is not where it should be`);
    }
    const level = head.number(1);
    const count = head.number(2);
    const entries = fieldsOf(await file.read(node + NODE_BYTES, count * (key + 8)), path);
    for (let i = 0; i < count; i++) {
      entries.skip(8);
      const row = entries.number(8);
      const column = shape.length === 2 ? entries.number(8) : 0;
      entries.skip(8);
      const child = entries.number(8);
      if (level > 0) {
        seen.add(child);
        continue;
      }
      const index = (row / high) * across + column / wide;
      // A data set that became smaller may keep chunks that are outside.
      if (row >= (shape[0] ?? 1) || column >= (shape[1] ?? 1)) continue;
      if (!Number.isInteger(index) || !Number.isNaN(places[index])) {
        throw badHdf5(path, `it is damaged: a chunk of "${name}" has no place in it`);
      }
      places[index] = child;
      found++;
    }
  }
  if (found !== total) throw badHdf5(path, incomplete);
  return places;
}
