import { type Cursor, openCursor } from './cursor.js';
import { badPth, type Items, isKind, type Value } from './values.js';

/** What a pickle may ask for, and gets as plain data; each throws what it refuses. */
export interface Allowed {
  global(module: string, name: string): Value;
  reduce(callee: Value, args: Value): Value;
  build(object: Value, state: Value): void;
  persistent(id: Value): Value;
}

/**
 * Far above what files of weights take (a state dict of 300 tensors: 15,000), and low enough that a
 * file of nothing but opcodes cannot fill the memory.
 */
const MOST_OPCODES = 1 << 22;

/** Longer text is left in the file: names are shorter, and arrays are of no use here. */
const SHORT_BYTES = 4096;

/** Of the two lines of GLOBAL. */
const NAME_BYTES = 512;

/** Of a whole number; the largest that torch writes is its magic number of 10 bytes. */
const INTEGER_BYTES = 255;

/** The longest operand that is read at once: an opcode and 8 bytes. */
const OPERAND_BYTES = 9;

interface Machine {
  readonly cursor: Cursor;
  readonly allowed: Allowed;
  readonly stack: Value[];
  /** The heights of the stack at which MARK stood. */
  readonly marks: number[];
  readonly memo: Map<number, Value>;
}

/** Returns a promise only where it waits for bytes. */
type Operation = (m: Machine) => void | Promise<void>;

/**
 * Reads the pickle (protocols 2 to 5) at the cursor, and leaves the cursor behind it.
 *
 * An interpreter of data only: it has the opcodes that PyTorch writes and no other, names are looked
 * up in `allowed`, and nothing is imported or called. Time and memory are bounded by the file's size.
 *
 * @throws PannsError `ERR_PANNS_CHECKPOINT`, `ERR_PANNS_IO`, and what `allowed` throws
 */
export async function unpickle(cursor: Cursor, allowed: Allowed): Promise<Value> {
  const m: Machine = { cursor, allowed, stack: [], marks: [], memo: new Map() };
  for (let count = 0; count < MOST_OPCODES; count++) {
    if (!cursor.holds(OPERAND_BYTES)) await cursor.fill();
    const place = cursor.position();
    const opcode = cursor.u8();
    if ((count === 0) !== (opcode === PROTO)) {
      throw fault(m, `there is no pickle of protocol 2 to 5 at byte ${place}`);
    }
    if (opcode === STOP) {
      if (m.marks.length > 0 || m.stack.length !== 1) {
        throw fault(m, `the pickle ends at byte ${place} with ${m.stack.length} values`);
      }
      return pop(m);
    }
    const operation = operations[opcode];
    if (operation === undefined) {
      const name = REFUSED.get(opcode) ?? `0x${opcode.toString(16).padStart(2, '0')}`;
      throw fault(m, `opcode ${name} at byte ${place} is none that PyTorch writes`, name);
    }
    const wait = operation(m);
    if (wait !== undefined) await wait;
  }
  throw fault(m, `the pickle has more than ${MOST_OPCODES} opcodes`);
}

/** Reads the pickle that fills the bytes `start` to `end` of a source. */
export async function unpickleRange(
  source: Cursor['source'],
  start: number,
  end: number,
  allowed: Allowed,
): Promise<Value> {
  const cursor = openCursor(source, start, end);
  const value = await unpickle(cursor, allowed);
  if (cursor.rest() === 0) return value;
  throw badPth(source.name, `${cursor.rest()} bytes follow the end of the pickle`);
}

const PROTO = 0x80;
const STOP = 0x2e;
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function fault(m: Machine, what: string, actual?: unknown) {
  return badPth(m.cursor.source.name, what, actual);
}

function pop(m: Machine): Value {
  if (m.stack.length <= (m.marks.at(-1) ?? 0)) {
    throw fault(m, `a value is missing at byte ${m.cursor.position()}`);
  }
  return m.stack.pop() as Value;
}

function top(m: Machine): Value {
  const value = pop(m);
  m.stack.push(value);
  return value;
}

/** Takes what stands above the last MARK. */
function popMark(m: Machine): Value[] {
  const mark = m.marks.pop();
  if (mark === undefined) throw fault(m, `a MARK is missing at byte ${m.cursor.position()}`);
  return m.stack.splice(mark);
}

function topItems(m: Machine, kind: 'list' | 'set'): Items {
  const target = top(m);
  if (isKind(target, kind)) return target;
  throw fault(m, `there is no ${kind} to add to at byte ${m.cursor.position()}`);
}

/** Not push(...added), which a long list would overflow the call stack with. */
function append(to: Value[], added: readonly Value[]): void {
  for (const value of added) to.push(value);
}

function setItems(m: Machine, pairs: readonly Value[]): void {
  const target = top(m);
  if (!isKind(target, 'dict') || pairs.length % 2 !== 0) {
    throw fault(m, `there is no dict, or half a pair, at byte ${m.cursor.position()}`);
  }
  append(target.pairs, pairs);
}

function recall(m: Machine, index: number): void {
  const value = m.memo.get(index);
  if (value === undefined) throw fault(m, `there is nothing in memo ${index}`, index);
  m.stack.push(value);
}

const push = (value: (m: Machine) => Value): Operation => {
  return (m) => void m.stack.push(value(m));
};

const tupleOf = (count: number): Operation => {
  return (m) => {
    const items = Array.from({ length: count }, () => pop(m)).reverse();
    m.stack.push({ kind: 'tuple', items });
  };
};

/** Short text becomes a string, long text a note of its place. */
function text(length: (cursor: Cursor) => number, encoding: 'utf8' | 'latin1'): Operation {
  return (m) => {
    const { cursor } = m;
    const bytes = length(cursor);
    if (!(bytes <= SHORT_BYTES)) {
      const at = cursor.position();
      cursor.skip(bytes);
      m.stack.push({ kind: 'text', at, bytes });
      return undefined;
    }
    const take = () => void m.stack.push(decode(m, cursor.take(bytes), encoding));
    return cursor.holds(bytes) ? take() : cursor.fill().then(take);
  };
}

function decode(m: Machine, bytes: Uint8Array, encoding: 'utf8' | 'latin1'): string {
  if (encoding === 'latin1') return Buffer.from(bytes).toString('latin1');
  try {
    return decoder.decode(bytes);
  } catch {
    throw fault(m, `the text before byte ${m.cursor.position()} is not UTF-8`);
  }
}

/** A whole number in two's complement, low byte first; exact: a bigint where a number is not. */
function integer(m: Machine, length: number): void | Promise<void> {
  const { cursor } = m;
  if (length > INTEGER_BYTES) {
    throw fault(m, `a number of ${length} bytes stands at byte ${cursor.position()}`);
  }
  const take = (): void => {
    const bytes = cursor.take(length);
    const hex = Buffer.from(bytes).reverse().toString('hex');
    const value = BigInt.asIntN(8 * length, BigInt(`0x0${hex}`));
    const exact = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
    m.stack.push(exact ? Number(value) : value);
  };
  return cursor.holds(length) ? take() : cursor.fill().then(take);
}

/** Two lines: a module, and a name in it. */
function globalLines(m: Machine): void | Promise<void> {
  const { cursor } = m;
  const take = (): void => {
    const line = (): string => {
      let read = '';
      for (let left = NAME_BYTES; left > 0; left--) {
        const byte = cursor.u8();
        if (byte === 0x0a) return read;
        read += String.fromCharCode(byte);
      }
      throw fault(m, `the name before byte ${cursor.position()} is too long`);
    };
    m.stack.push(m.allowed.global(line(), line()));
  };
  return cursor.holds(2 * NAME_BYTES) ? take() : cursor.fill().then(take);
}

/** By opcode; the comments are the names of Python's pickletools. */
const operations: readonly (Operation | undefined)[] = fromEntries([
  [PROTO, (m) => checkProtocol(m)],
  [0x95, (m) => void m.cursor.u64()], // FRAME: a hint for reading ahead
  [0x28, (m) => void m.marks.push(m.stack.length)], // MARK
  [0x30, (m) => void pop(m)], // POP
  [0x31, (m) => void popMark(m)], // POP_MARK
  [0x4e, push(() => null)], // NONE
  [0x88, push(() => true)], // NEWTRUE
  [0x89, push(() => false)], // NEWFALSE
  [0x4a, push((m) => m.cursor.i32())], // BININT
  [0x4b, push((m) => m.cursor.u8())], // BININT1
  [0x4d, push((m) => m.cursor.u16())], // BININT2
  [0x8a, (m) => integer(m, m.cursor.u8())], // LONG1
  [0x8b, (m) => integer(m, m.cursor.u32())], // LONG4
  [0x47, push((m) => m.cursor.f64())], // BINFLOAT
  [0x58, text((c) => c.u32(), 'utf8')], // BINUNICODE
  [0x8c, text((c) => c.u8(), 'utf8')], // SHORT_BINUNICODE
  [0x8d, text((c) => c.u64(), 'utf8')], // BINUNICODE8
  [0x54, text((c) => c.u32(), 'latin1')], // BINSTRING, of Python 2
  [0x55, text((c) => c.u8(), 'latin1')], // SHORT_BINSTRING
  [0x42, text((c) => c.u32(), 'latin1')], // BINBYTES
  [0x43, text((c) => c.u8(), 'latin1')], // SHORT_BINBYTES
  [0x8e, text((c) => c.u64(), 'latin1')], // BINBYTES8
  [0x96, text((c) => c.u64(), 'latin1')], // BYTEARRAY8
  [0x5d, push(() => ({ kind: 'list', items: [] }))], // EMPTY_LIST
  [0x61, (m) => appendItems(m, 'list', [pop(m)])], // APPEND
  [0x65, (m) => appendItems(m, 'list', popMark(m))], // APPENDS
  [0x8f, push(() => ({ kind: 'set', items: [] }))], // EMPTY_SET
  [0x90, (m) => appendItems(m, 'set', popMark(m))], // ADDITEMS
  [0x91, push((m) => ({ kind: 'set', items: popMark(m) }))], // FROZENSET
  [0x29, tupleOf(0)], // EMPTY_TUPLE
  [0x85, tupleOf(1)], // TUPLE1
  [0x86, tupleOf(2)], // TUPLE2
  [0x87, tupleOf(3)], // TUPLE3
  [0x74, push((m) => ({ kind: 'tuple', items: popMark(m) }))], // TUPLE
  [0x7d, push(() => ({ kind: 'dict', pairs: [] }))], // EMPTY_DICT
  [0x73, (m) => setItems(m, [pop(m), pop(m)].reverse())], // SETITEM
  [0x75, (m) => setItems(m, popMark(m))], // SETITEMS
  [0x63, globalLines], // GLOBAL
  [0x93, stackGlobal], // STACK_GLOBAL
  [0x52, reduce], // REDUCE
  [0x62, build], // BUILD
  [0x51, push((m) => m.allowed.persistent(pop(m)))], // BINPERSID
  [0x68, (m) => recall(m, m.cursor.u8())], // BINGET
  [0x6a, (m) => recall(m, m.cursor.u32())], // LONG_BINGET
  [0x71, (m) => void m.memo.set(m.cursor.u8(), top(m))], // BINPUT
  [0x72, (m) => void m.memo.set(m.cursor.u32(), top(m))], // LONG_BINPUT
  [0x94, (m) => void m.memo.set(m.memo.size, top(m))], // MEMOIZE
]);

/** Opcodes that PyTorch does not write, by which Python builds objects or reaches out. */
const REFUSED: ReadonlyMap<number, string> = new Map([
  [0x69, 'INST'],
  [0x6f, 'OBJ'],
  [0x81, 'NEWOBJ'],
  [0x92, 'NEWOBJ_EX'],
  [0x50, 'PERSID'],
  [0x82, 'EXT1'],
  [0x83, 'EXT2'],
  [0x84, 'EXT4'],
  [0x97, 'NEXT_BUFFER'],
  [0x98, 'READONLY_BUFFER'],
]);

function fromEntries(entries: readonly (readonly [number, Operation])[]) {
  const known = new Map(entries);
  return Array.from({ length: 256 }, (_, opcode) => known.get(opcode));
}

function checkProtocol(m: Machine): void {
  const protocol = m.cursor.u8();
  if (protocol < 2 || protocol > 5) {
    throw fault(m, `the pickle has protocol ${protocol}, and PyTorch writes 2 to 5`, protocol);
  }
}

function appendItems(m: Machine, kind: 'list' | 'set', added: readonly Value[]): void {
  append(topItems(m, kind).items, added);
}

function stackGlobal(m: Machine): void {
  const name = pop(m);
  const module = pop(m);
  if (typeof name !== 'string' || typeof module !== 'string') {
    throw fault(m, `a name at byte ${m.cursor.position()} is no text`);
  }
  m.stack.push(m.allowed.global(module, name));
}

function reduce(m: Machine): void {
  const args = pop(m);
  m.stack.push(m.allowed.reduce(pop(m), args));
}

function build(m: Machine): void {
  const state = pop(m);
  m.allowed.build(top(m), state);
}
