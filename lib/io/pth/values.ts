import { PannsError } from '../../errors.js';
import type { SafetensorsDtype } from '../safetensors.js';

/** What a pickle is made of here: plain data, and descriptions of tensors. No object is ever built. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | LongText
  | Items
  | Dict
  | Global
  | Storage
  | Tensor
  | Opaque;

/** Text or bytes that are left in the file: numpy arrays, for example. */
export interface LongText {
  readonly kind: 'text';
  /** Of the source. */
  readonly at: number;
  readonly bytes: number;
}

export interface Items {
  readonly kind: 'list' | 'tuple' | 'set';
  readonly items: Value[];
}

/** Keys and values in turn, as they came: a key may stand twice, and the last one counts. */
export interface Dict {
  readonly kind: 'dict';
  readonly pairs: Value[];
}

/** A name of the allow-list. */
export interface Global {
  readonly kind: 'global';
  /** `torch._utils._rebuild_tensor_v2` */
  readonly name: string;
}

/** The memory of tensors. */
export interface Storage {
  readonly kind: 'storage';
  readonly key: string;
  /** Undefined where the tensors say their element type themselves. */
  readonly dtype: SafetensorsDtype | undefined;
  readonly byteLength: number;
}

/** A view of a storage; offset and strides count elements. */
export interface Tensor {
  readonly kind: 'tensor';
  readonly storage: Storage;
  readonly dtype: SafetensorsDtype;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
}

/** Something that is of no use here, and harmless: an array of numpy, a device. */
export interface Opaque {
  readonly kind: 'opaque';
}

/** The one opaque value. */
export const OPAQUE: Opaque = { kind: 'opaque' };

interface Kinds {
  text: LongText;
  list: Items;
  tuple: Items;
  set: Items;
  dict: Dict;
  global: Global;
  storage: Storage;
  tensor: Tensor;
  opaque: Opaque;
}

/** Whether a value is of this kind. */
export function isKind<K extends keyof Kinds>(
  value: Value | undefined,
  kind: K,
): value is Kinds[K] {
  return typeof value === 'object' && value !== null && value.kind === kind;
}

/** The error for a file that is not as PyTorch writes it; `where` is the file. */
export function badPth(where: string, what: string, actual?: unknown): PannsError {
  return new PannsError('ERR_PANNS_CHECKPOINT', `not a valid PyTorch file: ${what}`, {
    where,
    actual,
  });
}
