import { PannsError } from '../../errors.js';
import { ELEMENT_BYTES, type SafetensorsDtype, shapeBytes } from '../safetensors.js';
import type { Allowed } from './pickle.js';
import {
  badPth,
  type Items,
  isKind,
  OPAQUE,
  type Storage,
  type Tensor,
  type Value,
} from './values.js';

/** The classes of storages, in `torch` and `torch.cuda`, and what they hold. */
const STORAGES: ReadonlyMap<string, SafetensorsDtype> = new Map([
  ['DoubleStorage', 'F64'],
  ['FloatStorage', 'F32'],
  ['HalfStorage', 'F16'],
  ['BFloat16Storage', 'BF16'],
  ['LongStorage', 'I64'],
  ['IntStorage', 'I32'],
  ['ShortStorage', 'I16'],
  ['CharStorage', 'I8'],
  ['ByteStorage', 'U8'],
  ['BoolStorage', 'BOOL'],
]);

/** PyTorch's element types. */
const DTYPES: ReadonlyMap<string, SafetensorsDtype> = new Map([
  ['torch.float64', 'F64'],
  ['torch.float32', 'F32'],
  ['torch.float16', 'F16'],
  ['torch.bfloat16', 'BF16'],
  ['torch.int64', 'I64'],
  ['torch.int32', 'I32'],
  ['torch.int16', 'I16'],
  ['torch.int8', 'I8'],
  ['torch.uint8', 'U8'],
  ['torch.bool', 'BOOL'],
]);

/** The storage that does not say what it holds; its size is in bytes. */
const UNTYPED: readonly string[] = ['torch.storage.UntypedStorage', 'torch.UntypedStorage'];

/** Classes that only stand as arguments. */
const CLASSES: readonly string[] = [
  ...['torch.Tensor', 'torch.nn.parameter.Parameter', 'numpy.ndarray', 'numpy.dtype'],
  // What numpy's types of elements are called by numpy 2.
  ...['Int64DType', 'Int32DType', 'Float32DType', 'Float64DType'].map((n) => `numpy.dtypes.${n}`),
];

/** What makes values that are of no use here, such as the arrays of PANNs' sampler. */
const USELESS: readonly string[] = [
  '_codecs.encode',
  'numpy.dtype',
  ...['numpy.core', 'numpy._core'].flatMap((core) => {
    return [
      `${core}.multiarray._reconstruct`,
      `${core}.multiarray.scalar`,
      `${core}.numeric._frombuffer`,
    ];
  }),
  ...['torch.device', 'torch.Size'],
  ...['__builtin__.set', 'builtins.set', '__builtin__.bytearray', 'builtins.bytearray'],
];

type Reduction = (args: readonly Value[], where: string) => Value;

const REDUCTIONS: ReadonlyMap<string, Reduction> = new Map<string, Reduction>([
  ['collections.OrderedDict', orderedDict],
  ['torch._utils._rebuild_tensor', rebuildTensor],
  ['torch._utils._rebuild_tensor_v2', rebuildTensor],
  ['torch._utils._rebuild_tensor_v3', rebuildTyped],
  ['torch._utils._rebuild_parameter', ([tensor], where) => asTensor(tensor, where)],
  ['torch._utils._rebuild_parameter_with_state', ([tensor], where) => asTensor(tensor, where)],
  ['torch._tensor._rebuild_from_type_v2', rebuildFromType],
  ...USELESS.map((name) => [name, () => OPAQUE] as const),
]);

const KNOWN: ReadonlySet<string> = new Set([
  ...REDUCTIONS.keys(),
  ...CLASSES,
  ...UNTYPED,
  ...DTYPES.keys(),
  ...[...STORAGES.keys()].flatMap((name) => [`torch.${name}`, `torch.cuda.${name}`]),
]);

/**
 * What files of weights may name, with its meaning as data.
 *
 * `storages` collects the storages that the pickle mentions, by key.
 */
export function allowedIn(where: string, storages: Map<string, Storage>): Allowed {
  return {
    global(module, name) {
      const full = `${module}.${name}`;
      if (KNOWN.has(full)) return { kind: 'global', name: full };
      throw unknownGlobal(full, where);
    },
    reduce(callee, args) {
      const reduction = isKind(callee, 'global') ? REDUCTIONS.get(callee.name) : undefined;
      if (reduction === undefined || !isKind(args, 'tuple')) {
        throw badPth(where, `it calls ${nameOf(callee)}`, nameOf(callee));
      }
      return reduction(args.items, where);
    },
    build(object, state) {
      // An OrderedDict's _metadata, attributes of a parameter, an array's content: none is of use.
      const harmless = ['dict', 'tensor', 'opaque'] as const;
      if (harmless.some((kind) => isKind(object, kind))) return;
      throw badPth(where, `it sets the state of ${nameOf(object)} (${nameOf(state)})`);
    },
    persistent: (id) => mention(storageOf(id, where), storages, where),
  };
}

function unknownGlobal(name: string, where: string): PannsError {
  if (/^torch\.(cuda\.)?\w*(Storage|float\w+|u?int\w+|complex\w+)$/.test(name)) {
    const what = `it holds tensors of ${name}, which are not supported (known: ${[...DTYPES.keys()].join(', ')})`;
    return new PannsError('ERR_PANNS_UNSUPPORTED', what, { where, actual: name });
  }
  const what = `it asks for the Python object ${name}, which weights do not need; nothing was run. If you trust the file, load it in PyTorch and save model.state_dict() alone`;
  return badPth(where, what, name);
}

function nameOf(value: Value): string {
  if (isKind(value, 'global')) return value.name;
  return typeof value === 'object' && value !== null ? `a ${value.kind}` : `a ${typeof value}`;
}

/** `('storage', class, key, location, count)`, in old files with a sixth for views. */
function storageOf(id: Value, where: string): Storage {
  const [tag, type, key, , count, view = null] = isKind(id, 'tuple') ? id.items : [];
  if (tag === 'module') {
    const what =
      'it holds a whole Python module; save model.state_dict() in PyTorch, which is data alone';
    throw new PannsError('ERR_PANNS_UNSUPPORTED', what, { where });
  }
  const name = isKind(type, 'global') ? type.name : '';
  const dtype = STORAGES.get(name.replace(/^torch\.(cuda\.)?/, ''));
  const known = dtype !== undefined || UNTYPED.includes(name);
  if (tag !== 'storage' || !known || typeof key !== 'string' || view !== null) {
    throw badPth(where, 'a persistent id is none of a storage');
  }
  const byteLength = isCount(count)
    ? shapeBytes([count], ELEMENT_BYTES.get(dtype ?? 'U8') ?? 1)
    : undefined;
  if (byteLength === undefined) throw badPth(where, `storage "${key}" has no valid size`);
  return { kind: 'storage', key, dtype, byteLength };
}

function mention(storage: Storage, storages: Map<string, Storage>, where: string): Storage {
  const known = storages.get(storage.key);
  if (known === undefined) {
    storages.set(storage.key, storage);
    return storage;
  }
  if (known.dtype === storage.dtype && known.byteLength === storage.byteLength) return known;
  throw badPth(where, `storage "${storage.key}" is described in two ways`);
}

function orderedDict([items]: readonly Value[], where: string): Value {
  if (items === undefined) return { kind: 'dict', pairs: [] };
  const list = isKind(items, 'list') || isKind(items, 'tuple') ? items.items : undefined;
  const pairs = list?.map((pair) => (isItems(pair) && pair.items.length === 2 ? pair.items : null));
  if (pairs === undefined || pairs.includes(null)) {
    throw badPth(where, 'an OrderedDict is not made of pairs');
  }
  return { kind: 'dict', pairs: (pairs as Value[][]).flat() };
}

function isItems(value: Value): value is Items {
  return isKind(value, 'list') || isKind(value, 'tuple');
}

/** (storage, offset, shape, stride, ...) */
function rebuildTensor([storage, ...rest]: readonly Value[], where: string): Tensor {
  if (!isKind(storage, 'storage') || storage.dtype === undefined) {
    throw badPth(where, 'a tensor has no typed storage');
  }
  return tensorOf(storage, storage.dtype, rest, where);
}

/** (storage, offset, shape, stride, requires gradient, hooks, element type, ...) */
function rebuildTyped(args: readonly Value[], where: string): Tensor {
  const [storage, ...rest] = args;
  const type = args[6];
  const dtype = isKind(type, 'global') ? DTYPES.get(type.name) : undefined;
  if (!isKind(storage, 'storage') || dtype === undefined) {
    throw badPth(where, 'a tensor has no storage or no element type');
  }
  return tensorOf(storage, dtype, rest, where);
}

/** (function, class, arguments, state): a tensor with attributes of its own. */
function rebuildFromType([callee, , args]: readonly Value[], where: string): Tensor {
  const name = isKind(callee, 'global') ? callee.name : '';
  const reduction = REDUCTIONS.get(name);
  if (!name.startsWith('torch._utils._rebuild') || !reduction || !isKind(args, 'tuple')) {
    throw badPth(where, `a tensor is rebuilt by ${name || 'nothing'}`);
  }
  return asTensor(reduction(args.items, where), where);
}

function asTensor(value: Value | undefined, where: string): Tensor {
  if (isKind(value, 'tensor')) return value;
  throw badPth(where, 'a parameter holds no tensor');
}

function tensorOf(
  storage: Storage,
  dtype: SafetensorsDtype,
  [offset, size, steps]: readonly Value[],
  where: string,
): Tensor {
  const shape = isKind(size, 'tuple') ? size.items : undefined;
  const stride = isKind(steps, 'tuple') ? steps.items : undefined;
  const valid = isCount(offset) && shape?.every(isCount) && stride?.every(isCount);
  if (!valid || shape.length !== stride.length) {
    throw badPth(
      where,
      `a tensor of storage "${storage.key}" has no valid offset, shape or strides`,
    );
  }
  const width = ELEMENT_BYTES.get(dtype) ?? 1;
  const empty = shape.includes(0);
  // The last element that the view reaches.
  const last = shape.reduce((sum, n, axis) => sum + (n - 1) * (stride[axis] ?? 0), offset);
  if (
    shapeBytes(shape, width) === undefined ||
    (!empty && (last + 1) * width > storage.byteLength)
  ) {
    const what = `a tensor of shape [${shape}], strides [${stride}] and offset ${offset} reaches past storage "${storage.key}" of ${storage.byteLength} bytes`;
    throw badPth(where, what);
  }
  return { kind: 'tensor', storage, dtype, offset, shape, stride };
}

function isCount(value: Value | undefined): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
