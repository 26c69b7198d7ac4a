import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { createRandom, type Random } from '../../lib/data/random.js';
import { PannsError } from '../../lib/errors.js';
import { findDuplicateKey } from '../../lib/io/json.js';
import {
  openSafetensors,
  parseSafetensors,
  readSafetensors,
  toFloat32,
} from '../../lib/io/safetensors.js';
import {
  encodeSafetensors,
  type WritableTensor,
  writeSafetensors,
} from '../../lib/io/safetensors_writer.js';
import { freshSeed } from '../data/fresh_seed.js';

/** A file from a header's text and its data, by the format's description alone. */
function file(header: string | Uint8Array, data: Uint8Array | number[] = []): Uint8Array {
  const text = typeof header === 'string' ? Buffer.from(header) : header;
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.from(data)]);
}

function entry(dtype: string, shape: unknown, begin: unknown, end: unknown): object {
  return { dtype, shape, data_offsets: [begin, end] };
}

function joined(chunks: readonly (string | ArrayBufferView)[]): Buffer {
  return Buffer.concat(
    chunks.map((chunk) =>
      typeof chunk === 'string'
        ? Buffer.from(chunk)
        : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength),
    ),
  );
}

t.test('every element type is read from hand-made bytes', async (t) => {
  const cases: [string, number[], number[]][] = [
    ['F64', [0, 0, 0, 0, 0, 0, 0xf8, 0xbf], [-1.5]],
    ['F32', [0, 0, 0x20, 0xc1], [-10]],
    ['F16', [0x00, 0x3c, 0x01, 0x00, 0x00, 0xfc, 0xff, 0x7b], [1, 2 ** -24, -Infinity, 65504]],
    ['F16', [0x00, 0x7e, 0xff, 0x03, 0x00, 0x04], [NaN, 1023 * 2 ** -24, 2 ** -14]],
    ['BF16', [0x80, 0x3f, 0x49, 0xc0, 0x80, 0xff], [1, -3.140625, -Infinity]],
    ['I64', [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [-2]],
    ['I32', [0xff, 0xff, 0xff, 0x7f], [2147483648]],
    ['I16', [0x00, 0x80, 0xff, 0x7f], [-32768, 32767]],
    ['U8', [0, 200, 255], [0, 200, 255]],
    ['BOOL', [1, 0], [1, 0]],
  ];
  for (const [dtype, bytes, values] of cases) {
    const header = JSON.stringify({ x: entry(dtype, [values.length], 0, bytes.length) });
    const { tensors } = parseSafetensors(file(header, bytes));
    const tensor = tensors.get('x');
    t.equal(tensor?.dtype, dtype);
    t.same(tensor?.shape, [values.length]);
    t.same(tensor && [...toFloat32(tensor)], values, dtype);
  }
  const i64 = JSON.stringify({ x: entry('I64', [], 0, 8) });
  const big = parseSafetensors(file(i64, [255, 255, 255, 255, 255, 255, 255, 127]));
  t.equal(big.tensors.get('x')?.data[0], 2n ** 63n - 1n);
});

t.test('tensors are views where the alignment allows it, and copies elsewhere', async (t) => {
  const header = JSON.stringify({ a: entry('F32', [2], 0, 8), b: entry('U8', [1], 8, 9) });
  const whole = file(
    header.padEnd(Math.ceil(header.length / 8) * 8),
    [0, 0, 128, 63, 0, 0, 0, 64, 7],
  );
  for (let shift = 0; shift < 8; shift++) {
    const buffer = new ArrayBuffer(whole.length + 8);
    const bytes = new Uint8Array(buffer, shift, whole.length);
    bytes.set(whole);
    const { tensors } = parseSafetensors(bytes);
    t.equal(tensors.get('a')?.data.buffer === buffer, shift % 4 === 0);
    t.equal(tensors.get('b')?.data.buffer, buffer);
    t.same([...(tensors.get('a')?.data ?? [])], [1, 2]);
    t.same([...(tensors.get('b')?.data ?? [])], [7]);
  }
});

t.test('the written bytes are the ones the format prescribes', async (t) => {
  const chunks = encodeSafetensors(
    [
      ['b', { dtype: 'F32', shape: [1, 2], data: new Float32Array([1, -2]) }],
      ['n', { dtype: 'I64', shape: [], data: new BigInt64Array([3n]) }],
      ['a', { dtype: 'F32', shape: [0, 4], data: new Float32Array(0) }],
    ],
    [['format', 'a "quoted"\n']],
  );
  const header =
    '{"__metadata__":{"format":"a \\"quoted\\"\\n"},' +
    '"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},' +
    '"a":{"dtype":"F32","shape":[0,4],"data_offsets":[8,8]},' +
    '"b":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}}';
  const padded = header.padEnd(Math.ceil(header.length / 8) * 8);
  const data = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0];
  t.same(joined(chunks), file(padded, data));
  t.equal(joined(encodeSafetensors([])).toString(), `${'\u0008'}\0\0\0\0\0\0\0{}      `);
});

t.test('what is written is read back: random tensors, hard names, path and memory', async (t) => {
  const random = createRandom(freshSeed(t));
  const names = [
    '__proto__',
    'constructor',
    '1',
    '0',
    'é\u0000"\\',
    '😀',
    '',
    'conv_block1.conv1.weight',
  ];
  const tensors = new Map<string, WritableTensor>();
  for (const name of names) {
    const shape = Array.from({ length: random.integer(4) }, () => random.integer(5));
    const length = shape.reduce((product, size) => product * size, 1);
    tensors.set(
      name,
      random.integer(2)
        ? { dtype: 'F32', shape, data: new Float32Array(length).map(() => random.normal()) }
        : {
            dtype: 'I64',
            shape,
            data: new BigInt64Array(length).map(() => BigInt(random.integer(99))),
          },
    );
  }
  const metadata: [string, string][] = [
    ['__proto__', 'plain'],
    ['epoch', '3'],
    ['toString', ''],
  ];
  const path = join(t.testdir(), 'x.safetensors');
  await writeSafetensors(path, tensors, metadata);
  const bytes = await readFile(path);
  for (const source of [path, new Uint8Array(bytes)]) {
    const read = await readSafetensors(source);
    t.same([...read.metadata].sort(), [...metadata].sort());
    t.same([...read.tensors.keys()].sort(), [...names].sort());
    for (const [name, tensor] of tensors) t.strictSame(read.tensors.get(name), tensor, name);
  }
  t.notOk('polluted' in {}, 'no prototype was touched');
  t.equal(Object.getPrototypeOf({}), Object.prototype);
});

t.test('what cannot be written is refused before the file is touched', async (t) => {
  const path = join(t.testdir({ old: 'old' }), 'old');
  const good: WritableTensor = { dtype: 'F32', shape: [2], data: new Float32Array(2) };
  const cases: [string, [string, WritableTensor][], [string, string][]][] = [
    ['ERR_PANNS_SHAPE', [['a', { ...good, shape: [3] }]], []],
    ['ERR_PANNS_SHAPE', [['a', { ...good, shape: [-1, -2] }]], []],
    ['ERR_PANNS_SHAPE', [['a', { ...good, shape: [2, 1.5] }]], []],
    ['ERR_PANNS_SHAPE', [['a', { ...good, dtype: 'I64' } as unknown as WritableTensor]], []],
    ['ERR_PANNS_OPTION', [['__metadata__', good]], []],
    [
      'ERR_PANNS_OPTION',
      [
        ['a', good],
        ['a', good],
      ],
      [],
    ],
    ['ERR_PANNS_OPTION', [['\ud800', good]], []],
    ['ERR_PANNS_OPTION', [], [['k', 'a\udc00']]],
    ['ERR_PANNS_OPTION', [], [['k', 5 as unknown as string]]],
    [
      'ERR_PANNS_OPTION',
      [],
      [
        ['k', 'a'],
        ['k', 'b'],
      ],
    ],
  ];
  for (const [code, tensors, metadata] of cases) {
    await t.rejects(writeSafetensors(path, tensors, metadata), { code });
  }
  t.equal(await readFile(path, 'utf8'), 'old');
});

t.test('hostile files are refused with a reason', async (t) => {
  const good = entry('F32', [1], 0, 4);
  const json = (value: unknown) => JSON.stringify(value);
  const deep = `{"a":${'['.repeat(200_000)}${']'.repeat(200_000)}}`;
  const length = (value: bigint) => {
    const bytes = Buffer.alloc(16, '{');
    bytes.writeBigUInt64LE(value);
    return bytes;
  };
  const cases: [RegExp, Uint8Array][] = [
    [/has 0 bytes/, new Uint8Array(0)],
    [/has 7 bytes/, new Uint8Array(7)],
    [/does not begin with/, file('')],
    [/claims a header of 9 bytes and has 16/, length(9n)],
    [/claims a header of 100000001 bytes/, length(100_000_001n)],
    [/claims a header of 18446744073709551615/, length(2n ** 64n - 1n)],
    [/not JSON/, file('{')],
    [/not JSON/, file('{"a":1} x')],
    [/not JSON/, file(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d))],
    [/does not begin with/, file('\ufeff{}')],
    [/does not begin with/, file(' {}')],
    [/does not begin with/, file('[]')],
    [/does not begin with/, file('null')],
    [/"a" is not described by an object/, file('{"a":null}')],
    [/"a" is not described by an object/, file(deep)],
    [/metadata is not an object/, file('{"__metadata__":[]}')],
    [/metadata "k" is not a string/, file('{"__metadata__":{"k":1}}')],
    [/the name "a" twice/, file(`{"a":${json(good)},"\\u0061":${json(good)}}`, [0, 0, 0, 0])],
    [
      /the name "dtype" twice/,
      file('{"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', [0, 0, 0, 0]),
    ],
    [/the name "__metadata__" twice/, file('{"__metadata__":{},"__metadata__":{}}')],
    [/element type "F31"/, file(json({ a: entry('F31', [1], 0, 4) }), [0, 0, 0, 0])],
    [/element type undefined/, file('{"a":{"shape":[1],"data_offsets":[0,4]}}', [0, 0, 0, 0])],
    [/element type "constructor"/, file(json({ a: entry('constructor', [], 0, 4) }), [0, 0, 0, 0])],
    [
      /not a list of whole numbers/,
      file(json({ a: entry('F32', [1.5], 0, 6) }), [0, 0, 0, 0, 0, 0]),
    ],
    [/not a list of whole numbers/, file(json({ a: entry('F32', [-1], 0, 4) }), [0, 0, 0, 0])],
    [/not a list of whole numbers/, file(json({ a: entry('F32', ['1'], 0, 4) }), [0, 0, 0, 0])],
    [
      /not a list of whole numbers/,
      file(json({ a: entry('F32', { length: 1 }, 0, 4) }), [0, 0, 0, 0]),
    ],
    [
      /not a list of whole numbers/,
      file('{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    ],
    [
      /takes too many bytes/,
      file(json({ a: entry('F32', [2 ** 27, 2 ** 27], 0, 4) }), [0, 0, 0, 0]),
    ],
    [/takes too many bytes/, file(json({ a: entry('F32', [2 ** 32, 2 ** 32, 0], 0, 0) }))],
    [
      /takes 8 bytes, its data_offsets hold 4/,
      file(json({ a: entry('F32', [2], 0, 4) }), [0, 0, 0, 0]),
    ],
    [/not two whole numbers/, file(json({ a: { ...good, data_offsets: [0] } }), [0, 0, 0, 0])],
    [
      /not two whole numbers/,
      file(json({ a: { ...good, data_offsets: [0, 4, 4] } }), [0, 0, 0, 0]),
    ],
    [/not two whole numbers/, file(json({ a: entry('F32', [1], -4, 0) }), [0, 0, 0, 0])],
    [/ends \(0\) before it begins \(4\)/, file(json({ a: entry('F32', [1], 4, 0) }), [0, 0, 0, 0])],
    [/truncated\?/, file(json({ a: good }), [0, 0, 0])],
    [/truncated\?/, file(json({ a: entry('U8', [2 ** 52], 0, 2 ** 52) }), [0])],
    [/1 bytes follow the last tensor/, file(json({ a: good }), [0, 0, 0, 0, 0])],
    [/1 bytes follow the last tensor/, file('{}', [0])],
    [/"b" overlaps/, file(json({ a: good, b: good }), [0, 0, 0, 0])],
    [/"b" overlaps/, file(json({ a: good, b: entry('F32', [1], 2, 6) }), [0, 0, 0, 0, 0, 0])],
    [/"b" leaves a hole/, file(json({ a: good, b: entry('U8', [1], 5, 6) }), [0, 0, 0, 0, 0, 0])],
    [/"a" leaves a hole/, file(json({ a: entry('U8', [1], 1, 2) }), [0, 0])],
  ];
  const path = join(t.testdir(), 'hostile.safetensors');
  for (const [message, bytes] of cases) {
    const expected = { code: 'ERR_PANNS_CHECKPOINT', message };
    t.throws(() => parseSafetensors(bytes, 'x'), expected, String(message));
    await writeFile(path, bytes);
    await t.rejects(readSafetensors(path), { ...expected, where: path });
  }
});

/** Damages a valid file at random places, most often in its header. */
function damage(whole: Uint8Array, headerEnd: number, random: Random): Buffer {
  const bytes = Buffer.from(whole);
  for (let n = 1 + random.integer(3); n > 0; n--) {
    const end = random.integer(4) ? headerEnd : bytes.length;
    const at = random.integer(end);
    const kind = random.integer(4);
    if (kind === 0) bytes[at] = random.integer(256);
    else if (kind === 1) bytes[at] = (bytes[at] ?? 0) ^ (1 << random.integer(8));
    else if (kind === 2) bytes[at] = '0123456789,:"[]{}-.eE'.charCodeAt(random.integer(21));
    else bytes.copyWithin(at, random.integer(end), Math.min(end, at + 20));
  }
  const cut = random.integer(5) === 0 ? random.integer(bytes.length) : bytes.length;
  return bytes.subarray(0, cut);
}

t.test('damaged files are either refused by our error or hold together', async (t) => {
  const random = createRandom(freshSeed(t));
  const whole = joined(
    encodeSafetensors(
      [
        ['conv.weight', { dtype: 'F32', shape: [2, 3], data: new Float32Array(6).fill(1) }],
        ['bn.bias', { dtype: 'F32', shape: [3], data: new Float32Array(3).fill(2) }],
        ['bn.num_batches_tracked', { dtype: 'I64', shape: [], data: new BigInt64Array(1) }],
      ],
      [['model', 'Cnn6']],
    ),
  );
  const headerEnd = 8 + Number(whole.readBigUInt64LE());
  let refused = 0;
  let accepted = 0;
  for (let i = 0; i < 20_000; i++) {
    const bytes = damage(whole, headerEnd, random);
    try {
      const { tensors } = parseSafetensors(bytes);
      accepted++;
      let total = 8 + Number(bytes.readBigUInt64LE());
      for (const { shape, data } of tensors.values()) {
        if (shape.reduce((a, b) => a * b, 1) !== data.length) t.fail(`shape [${shape}]`);
        total += data.byteLength;
      }
      if (total !== bytes.length) t.fail(`${total} of ${bytes.length} bytes`);
    } catch (error) {
      refused++;
      const known = error instanceof PannsError && error.code === 'ERR_PANNS_CHECKPOINT';
      if (!known) t.fail(`file ${bytes.toString('base64')}`, { error });
    }
  }
  t.ok(refused > 10_000 && accepted > 100, `${refused} refused, ${accepted} accepted`);
});

t.test('one tensor of a file of 6 GB is read without the rest', async (t) => {
  const path = join(t.testdir(), 'big.safetensors');
  const bytes = 6e9;
  const header = JSON.stringify({
    big: entry('F32', [bytes / 4], 0, bytes),
    small: entry('F32', [2], bytes, bytes + 8),
  });
  await writeFile(path, file(header));
  const start = 8 + header.length;
  await truncate(path, start + bytes);
  const end = await open(path, 'a');
  await end.write(new Float32Array([5, 6]));
  await end.close();
  const opened = await openSafetensors(path);
  t.same(opened.entries.get('big'), {
    dtype: 'F32',
    shape: [bytes / 4],
    byteOffset: start,
    byteLength: bytes,
  });
  t.same([...(await opened.read('small')).data], [5, 6]);
  await t.rejects(opened.read('toString'), { code: 'ERR_PANNS_OPTION' });
  await truncate(path, start + 100);
  await t.rejects(opened.read('small'), { code: 'ERR_PANNS_CHECKPOINT', message: /shorter/ });
  await opened.close();
});

t.test('a file that is not there is an IO error with its path', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'none');
  await t.rejects(readSafetensors(path), { code: 'ERR_PANNS_IO', where: path, message: /ENOENT/ });
  await t.rejects(readSafetensors(folder), { code: 'ERR_PANNS_IO', message: /cannot read/ });
});

t.test('findDuplicateKey finds a name that stands twice in one object, at any depth', async (t) => {
  t.equal(findDuplicateKey('{"a":1,"b":{"a":[{"a":1},{"a":2}]},"c":"a","d":["a","a"]}'), undefined);
  t.equal(findDuplicateKey('{ "a" : 1 , "\\u0061"\n:2}'), 'a');
  t.equal(findDuplicateKey('{"x":[[{"k\\"":1,"k\\"":2}]]}'), 'k"');
  t.equal(
    findDuplicateKey('{"__proto__":1,"a":"{\\"b\\":1,\\"b\\":2}","__proto__":2}'),
    '__proto__',
  );
  t.equal(findDuplicateKey('"a"'), undefined);
});
