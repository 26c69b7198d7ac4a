import { PannsError } from '../errors.js';
import { readArchive, readLegacy } from './pth/containers.js';
import { findState, readTensor } from './pth/reader.js';
import {
  type SafetensorsDtype,
  type SafetensorsTensor,
  safetensorsIn,
  toFloat32,
} from './safetensors.js';
import { openFile, type Source, sourceOf } from './source.js';

/** safetensors, PyTorch's ZIP archive (since 1.6), or its stream (before, and still an option). */
export type WeightsFormat = 'safetensors' | 'pth' | 'pth-legacy';

/** A tensor that has not been read. */
export interface WeightsEntry {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

/** A file of weights of which the tensors' names, types and shapes have been read. */
export interface WeightsFile {
  readonly path: string;
  readonly format: WeightsFormat;
  /** The key under which the file has the state dict, `model` for example; '' for none. */
  readonly stateKey: string;
  /** What all names began with and is left away here, such as `module.`; '' for nothing. */
  readonly prefix: string;
  /** Text that stands beside the tensors. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly entries: ReadonlyMap<string, WeightsEntry>;
  /** Names of what the file also holds and is no tensor, such as `iteration` and `sampler`. */
  readonly ignored: readonly string[];
  /**
   * Reads one tensor, row-major, into memory of its own; given `memory` that holds it, an F32 tensor
   * that lies in one piece into the beginning of that, of which it is then a view.
   *
   * @throws PannsError `ERR_PANNS_OPTION` for a name that is not there, `ERR_PANNS_IO`,
   *   `ERR_PANNS_CHECKPOINT` when the file changed, or its checksum is wrong
   */
  read(name: string, memory?: Uint8Array): Promise<SafetensorsTensor>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What wrappers of PyTorch and other repositories put before every name. */
const PREFIXES = ['module.', 'backbone.', 'base.'] as const;

/** The layer that PANNs' transfer model adds beside its `base.`. */
export const TRANSFER_LAYER = 'fc_transfer.';

/** The metadata's key of this package's own description of a model. */
export const DESCRIPTION_KEY = 'panns';

const ZIP_MAGIC = Buffer.from('PK\u0003\u0004', 'latin1');
const PICKLE_MAGIC = 0x80;

/** `{`, with which the text of a safetensors header begins. */
const BRACE = 0x7b;

/**
 * Opens a file of weights, whatever it is called: safetensors, or what `torch.save` wrote, a state dict
 * by itself or under `model`, `state_dict`, `model_state_dict` or `net`.
 *
 * Nothing in a pickle is ever run: it may hold tensors and plain data, and is refused when it asks for
 * more. Tensors are read one by one when asked for. `module.`, `backbone.` and `base.` before all
 * names are left away. Bytes in memory may stand for a path.
 *
 * ```ts
 * await using file = await openWeights('Cnn14_mAP=0.431.pth');
 * console.log(file.format, file.entries.size);
 * const { shape } = await file.read('fc_audioset.weight');
 * ```
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT` for a damaged or hostile file, naming what it asked for;
 *   `ERR_PANNS_UNSUPPORTED` for element types and containers that this package does not read;
 *   `ERR_PANNS_IO`
 */
export async function openWeights(path: string | Uint8Array): Promise<WeightsFile> {
  const source = typeof path === 'string' ? await openFile(path) : sourceOf(path, 'weights');
  try {
    const head = await source.read(0, Math.min(64, source.size));
    if (ZIP_MAGIC.equals(head.subarray(0, 4))) return await pth(source, true);
    // A safetensors header of 640 bytes begins with 80 02 as well: its text follows at byte 8.
    if (head[0] === PICKLE_MAGIC && head[8] !== BRACE) return await pth(source, false);
    checkDownload(head, source.name);
    checkBeginning(head, source.name);
    return await safetensors(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function safetensors(source: Source): Promise<WeightsFile> {
  const { metadata, entries, read } = await safetensorsIn(source);
  // The names in files of this package are those of its models.
  const prefix = metadata.has(DESCRIPTION_KEY) ? '' : commonPrefix(entries);
  const rest = { format: 'safetensors', stateKey: '', metadata, ignored: [] } as const;
  return weightsFile(source, rest, prefix, entries, (name, _, memory) => read(name, memory));
}

async function pth(source: Source, zip: boolean): Promise<WeightsFile> {
  const pickled = await (zip ? readArchive(source) : readLegacy(source));
  const state = await findState(source, pickled);
  const { metadata, ignored, path: stateKey, tensors } = state;
  const prefix = metadata.has(DESCRIPTION_KEY) ? '' : commonPrefix(tensors);
  const rest = { format: pickled.format, stateKey, metadata, ignored };
  return weightsFile(source, rest, prefix, tensors, (name, tensor, memory) =>
    readTensor(source, name, tensor, pickled.storages.get(tensor.storage.key), memory),
  );
}

function weightsFile<E extends WeightsEntry>(
  source: Source,
  facts: Pick<WeightsFile, 'format' | 'stateKey' | 'metadata' | 'ignored'>,
  prefix: string,
  stored: ReadonlyMap<string, E>,
  read: (name: string, entry: E, memory?: Uint8Array) => Promise<SafetensorsTensor>,
): WeightsFile {
  const names = new Map([...stored.keys()].map((name) => [withoutPrefix(name, prefix), name]));
  const entries = new Map(
    [...names].map(([name, own]) => {
      const { dtype, shape } = stored.get(own) as E;
      return [name, { dtype, shape }];
    }),
  );
  const close = () => source.close();
  return {
    path: source.name,
    ...facts,
    prefix,
    entries,
    async read(name, memory) {
      const own = names.get(name);
      const entry = own === undefined ? undefined : stored.get(own);
      if (own !== undefined && entry !== undefined) return read(own, entry, memory);
      throw new PannsError('ERR_PANNS_OPTION', `there is no tensor named "${name}"`, {
        where: source.name,
        actual: name,
      });
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function withoutPrefix(name: string, prefix: string): string {
  if (name.startsWith(prefix)) return name.slice(prefix.length);
  // `module.` of `module.base.` stands before the transfer layer as well.
  const at = name.indexOf(TRANSFER_LAYER);
  return at < 0 ? name : name.slice(at);
}

/** What wrappers put before all names, or all but those of the transfer layer: `module.base.`. */
function commonPrefix(tensors: ReadonlyMap<string, unknown>): string {
  const names = [...tensors.keys()].filter((name) => !name.includes(TRANSFER_LAYER));
  let prefix = '';
  while (names.length > 0) {
    const next = PREFIXES.find((more) => names.every((name) => name.startsWith(prefix + more)));
    if (next === undefined) break;
    prefix += next;
  }
  return prefix;
}

/** A web page in the place of a file is a common failure: say so. */
function checkDownload(head: Uint8Array, where: string): void {
  const text = Buffer.from(head).toString('latin1').trimStart().toLowerCase();
  if (!text.startsWith('<!doctype') && !text.startsWith('<html')) return;
  const what = 'this is a web page and not a file of weights: the download went wrong; repeat it';
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where });
}

/** The text of a safetensors header stands behind its length; what has none there is of another kind. */
function checkBeginning(head: Uint8Array, where: string): void {
  if (head.length <= 8 || head[8] === BRACE) return;
  const begin = Buffer.from(head.subarray(0, 8))
    .toString('hex')
    .replace(/..(?=.)/g, '$& ');
  const what = `this is neither a safetensors file nor one that torch.save wrote: it begins with the bytes ${begin}`;
  throw new PannsError('ERR_PANNS_CHECKPOINT', what, { where, actual: begin });
}

/** Numbers that are converted without a pause: about a millisecond. */
const CONVERTED_AT_ONCE = 1 << 17;

/**
 * The values of a tensor as float32, as {@link toFloat32} has them, with pauses for the event loop.
 *
 * An F32 tensor's own data comes back, not a copy; other types are widened into `memory` if it is given.
 */
export async function asFloat32(
  tensor: SafetensorsTensor,
  memory?: Float32Array,
): Promise<Float32Array> {
  if (tensor.dtype === 'F32') return tensor.data;
  const { length } = tensor.data;
  const values = memory?.subarray(0, length) ?? new Float32Array(length);
  for (let at = 0; at < length; at += CONVERTED_AT_ONCE) {
    if (at > 0) await new Promise(setImmediate);
    const part = tensor.data.subarray(at, at + CONVERTED_AT_ONCE);
    values.set(toFloat32({ ...tensor, shape: [part.length], data: part } as SafetensorsTensor), at);
  }
  return values;
}
