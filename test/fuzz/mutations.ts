import type { Random } from '../../lib/data/random.js';

/** One file, mutated; `others` give bytes to splice in. */
export type Mutation = (bytes: Buffer, random: Random, others: readonly Buffer[]) => Buffer;

/** Opcodes of all protocols, allowed or not. */
const OPCODES = Buffer.from(
  '(.012FGIJKLMNPQRSTUVXabcdeghijlopqrstu)]}\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98BC',
  'latin1',
);

/** Numbers at which sizes and places go wrong. */
const EDGES = [0, 1, 2, 7, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];

const at = (bytes: Buffer, random: Random) => random.integer(Math.max(1, bytes.length));

export const mutations: readonly Mutation[] = [
  function flip(bytes, random) {
    const place = at(bytes, random);
    bytes[place] = (bytes[place] ?? 0) ^ (1 << random.integer(8));
    return bytes;
  },
  function replace(bytes, random) {
    bytes[at(bytes, random)] = random.integer(256);
    return bytes;
  },
  function opcode(bytes, random) {
    bytes[at(bytes, random)] = OPCODES[random.integer(OPCODES.length)] ?? 0;
    return bytes;
  },
  function insertOpcodes(bytes, random) {
    const place = at(bytes, random);
    const some = Array.from({ length: 1 + random.integer(4) }, () => {
      return OPCODES[random.integer(OPCODES.length)] ?? 0;
    });
    return Buffer.concat([bytes.subarray(0, place), Buffer.from(some), bytes.subarray(place)]);
  },
  function edge(bytes, random) {
    const width = [1, 2, 4, 8][random.integer(4)] ?? 1;
    const value = Buffer.alloc(8);
    value.writeUInt32LE(EDGES[random.integer(EDGES.length)] ?? 0);
    if (random.integer(4) === 0) value.writeUInt32LE(0xffffffff, 4);
    value.copy(bytes, at(bytes, random), 0, width);
    return bytes;
  },
  function cut(bytes, random) {
    return bytes.subarray(0, at(bytes, random));
  },
  function remove(bytes, random) {
    const place = at(bytes, random);
    return Buffer.concat([
      bytes.subarray(0, place),
      bytes.subarray(place + 1 + random.integer(16)),
    ]);
  },
  function repeat(bytes, random) {
    const place = at(bytes, random);
    const part = bytes.subarray(place, place + 1 + random.integer(64));
    return Buffer.concat([bytes.subarray(0, place), part, bytes.subarray(place)]);
  },
  function swap(bytes, random) {
    const length = 1 + random.integer(16);
    const [a, b] = [at(bytes, random), at(bytes, random)];
    const part = Buffer.from(bytes.subarray(a, a + length));
    bytes.copyWithin(a, b, b + length);
    part.copy(bytes, b);
    return bytes;
  },
  function splice(bytes, random, others) {
    const other = others[random.integer(others.length)] as Buffer;
    const from = at(other, random);
    const part = other.subarray(from, from + 1 + random.integer(200));
    const place = at(bytes, random);
    return Buffer.concat([
      bytes.subarray(0, place),
      part,
      bytes.subarray(place + random.integer(200)),
    ]);
  },
];
