// HDF5 files that are made to harm: packs of our own, of which a few bytes were changed.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { fromHdf5 } from '../../lib/data/hdf5.js';
import { writePack } from '../helpers/hdf5.js';
import { openDraws } from '../helpers/random.js';

const { random } = openDraws(t);
const classes = ['a', 'b'];

/** A pack of a few clips. */
function pack(): Buffer {
  const clips = Array.from({ length: 1 + random.integer(9) }, (_, i) => {
    return { name: `${i}.wav`, labels: [i % 2], samples: new Float32Array(8).fill(i) };
  });
  return writePack(clips, 8000, 2);
}

/** Where the body of a message begins, the `nth` of its kind and length. */
function bodyOf(bytes: Buffer, kind: number, length: number, nth = 0): number {
  const head = Buffer.from([kind, 0, length, 0, 0, 0, 0, 0]);
  let at = bytes.indexOf(head);
  for (; nth > 0; nth--) at = bytes.indexOf(head, at + 1);
  return at + head.length;
}

async function refused(t: Test, bytes: Buffer, message: RegExp, code = 'ERR_PANNS_DATA') {
  const path = join(t.testdir({}), 'pack.h5');
  writeFileSync(path, bytes);
  await t.rejects(fromHdf5(path, { classes }), { code, message });
}

t.test('the pack itself is read', async (t) => {
  const path = join(t.testdir({}), 'pack.h5');
  writeFileSync(path, pack());
  t.ok((await fromHdf5(path, { classes })).clips.length > 0);
});

t.test('texts of no bytes in more chunks than there is memory', async (t) => {
  const bytes = pack();
  const [shape, type, layout] = [bodyOf(bytes, 1, 16), bodyOf(bytes, 3, 8), bodyOf(bytes, 8, 24)];
  bytes.writeBigInt64LE(2n ** 40n, shape + 8);
  bytes.writeUInt32LE(0, type + 4);
  bytes.set([3, 2, 2], layout);
  bytes.writeBigInt64LE(0n, layout + 3);
  bytes.writeUInt32LE(1, layout + 11);
  bytes.writeUInt32LE(0, layout + 15);
  await refused(t, bytes, /audio_name/);
});

t.test('a type within a type, thousands deep', async (t) => {
  const bytes = pack();
  const type = bodyOf(bytes, 3, 16);
  bytes.writeUInt16LE(0x10, type - 8);
  const deep = Buffer.alloc(65_520);
  for (let at = 0; at < deep.length; at += 8) deep.set([0x18, 0, 0, 0, 1], at);
  const head = Buffer.alloc(8);
  head.writeUInt16LE(3, 0);
  head.writeUInt16LE(deep.length, 2);
  bytes.writeBigInt64LE(BigInt(bytes.length), type);
  bytes.writeBigInt64LE(BigInt(8 + deep.length), type + 8);
  await refused(t, Buffer.concat([bytes, head, deep]), /target/);
});

t.test('a header that goes on where it began', async (t) => {
  const bytes = pack();
  const type = bodyOf(bytes, 3, 16);
  bytes.writeUInt16LE(0x10, type - 8);
  bytes.writeBigInt64LE(BigInt(type - 8), type);
  bytes.writeBigInt64LE(24n, type + 8);
  await refused(t, bytes, /an object header without end/);
});

t.test('a group whose tree bites its tail', async (t) => {
  for (const children of [1, 2, 60_000]) {
    const bytes = pack();
    const tree = Buffer.alloc(24 + 16 * children);
    tree.write('TREE\0\x01', 'latin1');
    tree.writeUInt16LE(children, 6);
    const root = bodyOf(bytes, 0x11, 16);
    bytes.writeBigInt64LE(BigInt(bytes.length), root);
    for (let i = 0; i < children; i++) tree.writeBigInt64LE(BigInt(bytes.length), 32 + 16 * i);
    await refused(t, Buffer.concat([bytes, tree]), /so large a group/, 'ERR_PANNS_UNSUPPORTED');
  }
});

t.test('a group whose names have no end', async (t) => {
  const bytes = pack();
  const [heap, tree] = [bytes.indexOf('HEAP'), bytes.indexOf('TREE')];
  const names = 2 ** 19;
  bytes.writeBigInt64LE(BigInt(names), heap + 8);
  bytes.writeBigInt64LE(BigInt(bytes.length), heap + 24);
  bytes.writeBigInt64LE(BigInt(bytes.length + names), tree + 32);
  const leaf = Buffer.alloc(8 + 40 * 10_000);
  leaf.write('SNOD');
  leaf.writeUInt16LE(10_000, 6);
  await refused(t, Buffer.concat([bytes, Buffer.alloc(names, 'x'), leaf]), /the file has x{255}$/);
});
