import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { globalNamed, integer, MARK, text, tuple } from '../../lib/io/pth/opcodes.js';
import { writePth } from '../../lib/io/pth/writer.js';
import { openWeights } from '../../lib/io/weights.js';
import { legacyFile, pickle, storage, tensor } from '../fuzz/pickles.js';
import { zipOf } from '../fuzz/zips.js';

const DAMAGED = 'ERR_PANNS_CHECKPOINT';
const UNSUPPORTED = 'ERR_PANNS_UNSUPPORTED';
const one = integer(1);
const memory = Buffer.from(Float32Array.of(1, 2, 3, 4).buffer);
const negative = Buffer.from('J\xff\xff\xff\xff', 'latin1');
const huge = Buffer.from('\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00', 'latin1');
const run = tuple([text('touch /tmp/owned')]);

/** A state dict {a: value}. */
const holding = (...value: (Buffer | string)[]) => pickle('}', text('a'), ...value, 's');
const view = (offset: Buffer, shape: Buffer[], stride: Buffer[], count = integer(4)) =>
  holding(tensor(storage('0', count), offset, shape, stride));

/** What a pickle holds that asks for more than weights, and what the error says. */
const PICKLES: readonly (readonly [string, Buffer, RegExp, string?])[] = [
  ['a command', holding(globalNamed('os', 'system'), run, 'R'), /os\.system/],
  ['posix', holding(globalNamed('posix', 'system'), run, 'R'), /posix\.system/],
  ['eval', holding(globalNamed('builtins', 'eval'), run, 'R'), /builtins\.eval/],
  ['eval of Python 2', holding(globalNamed('__builtin__', 'eval'), run, 'R'), /__builtin__\.eval/],
  ['getattr', holding(globalNamed('builtins', 'getattr'), run, 'R'), /builtins\.getattr/],
  ['copyreg', holding(globalNamed('copyreg', '_reconstructor'), run, 'R'), /copyreg/],
  ['torch.hub', holding(globalNamed('torch.hub', 'load'), run, 'R'), /torch\.hub\.load/],
  ['torch.load', holding(globalNamed('torch.serialization', 'load'), run, 'R'), /serialization/],
  ['numpy.load', holding(globalNamed('numpy', 'load'), run, 'R'), /numpy\.load/],
  ['a dotted name', holding(globalNamed('torch', '_utils.os.system'), run, 'R'), /os\.system/],
  [
    'a path around',
    holding(globalNamed('collections', 'OrderedDict.__init__'), '0', one),
    /__init__/,
  ],
  ['STACK_GLOBAL', holding(text('subprocess'), text('Popen'), '\x93'), /subprocess\.Popen/],
  ['STACK_GLOBAL of numbers', holding(one, one, '\x93'), /no text/],
  ['a call of a call', holding('ccollections\nOrderedDict\n)R)R'), /calls a dict/],
  ['a call of text', holding(text('os.system'), run, 'R'), /calls a string/],
  ['a call of a class', holding(globalNamed('torch', 'FloatStorage'), run, 'R'), /FloatStorage/],
  ['a call without a tuple', holding('ccollections\nOrderedDict\nNR'), /calls/],
  ['BUILD on a class', holding('ccollections\nOrderedDict\n', '}', 'b'), /state of/],
  ['BUILD on text', holding(text('x'), '}', text('__setstate__'), one, 's', 'b'), /state of/],
  ['INST', holding(MARK, text('x'), 'ios\nsystem\n'), /INST/],
  ['OBJ', holding(MARK, 'ccollections\nOrderedDict\n', 'o'), /OBJ/],
  ['NEWOBJ', holding('ccollections\nOrderedDict\n', ')\x81'), /NEWOBJ/],
  ['NEWOBJ_EX', holding('ccollections\nOrderedDict\n', ')}\x92'), /NEWOBJ_EX/],
  ['EXT1', holding('\x82\x01'), /EXT1/],
  ['PERSID', holding('P0\n'), /PERSID/],
  ['READONLY_BUFFER', holding('\x98'), /READONLY_BUFFER/],
  ['an opcode of protocol 0', holding('I1\n'), /0x49/],
  ['a whole module', holding(tuple([text('module'), text('x')]), 'Q'), /state_dict/, UNSUPPORTED],
  ['a persistent id of text', holding(text('0'), 'Q'), /persistent id/],
  ['BINGET of nothing', holding('h\x05'), /memo 5/],
  ['LONG_BINGET of nothing', holding('j\xff\xff\xff\xff'), /memo 4294967295/],
  ['a value that is missing', pickle('ss'), /missing/],
  ['POP beyond a MARK', pickle('}', MARK, '0'), /missing/],
  ['TUPLE without MARK', pickle('t'), /MARK is missing/],
  ['half a pair', pickle('}', MARK, text('a'), 'u'), /half a pair/],
  ['items of a number', pickle(one, MARK, text('a'), one, 'u'), /no dict/],
  ['APPEND to a dict', pickle('}', one, 'a'), /no list/],
  ['two values', pickle('}', '}'), /2 values/],
  ['no value', pickle(), /0 values/],
  ['text that is no UTF-8', holding('X\x02\0\0\0\xff\xfe'), /UTF-8/],
  ['text beyond the end', holding('X\xff\xff\xff\xff'), /truncated/],
  ['text of 2^64 bytes', holding('\x8d\xff\xff\xff\xff\xff\xff\xff\xff'), /truncated/],
  ['a number of 2^31 bytes', holding('\x8b\xff\xff\xff\x7f'), /number of 2147483647 bytes/],
  ['a name without an end', holding(`c${'x'.repeat(2000)}`), /too long/],
  ['protocol 9', Buffer.from('\x80\x09}.', 'latin1'), /protocol 9/],
  ['a dict of numbers', pickle('}', text('a'), one, 's'), /no tensors|list of storages/],
  ['a list', pickle(']'), /no dict|list of storages/],
  ['a negative size', view(integer(0), [negative], [one]), /no valid offset/],
  ['a negative stride', view(integer(0), [one], [negative]), /no valid offset/],
  ['a negative offset', view(negative, [one], [one]), /no valid offset/],
  ['an offset beyond', view(integer(4), [one], [one]), /reaches past/],
  ['a shape beyond', view(integer(0), [integer(5)], [one]), /reaches past/],
  ['a stride beyond', view(integer(0), [integer(2)], [integer(4)]), /reaches past/],
  ['a stride of 2^53', view(integer(0), [integer(2)], [integer(2 ** 53 - 1)]), /reaches past/],
  ['a shape of 2^72', view(integer(0), [huge], [one]), /no valid offset/],
  [
    'a product of 2^93',
    view(integer(0), Array(3).fill(integer(2 ** 31)), Array(3).fill(integer(0))),
    /reaches past/,
  ],
  ['2^33 times one number', view(integer(0), [integer(2 ** 33)], [integer(0)]), /the most/],
  ['strides for other axes', view(integer(0), [one, one], [one]), /no valid offset/],
  ['a storage of 2^72', view(integer(0), [one], [one], huge), /no valid size/],
  ['a negative storage', view(integer(0), [one], [one], negative), /no valid size/],
  ['a storage of another size', view(integer(0), [one], [one], integer(3)), /elements|bytes/],
  [
    'one storage with two types',
    pickle(
      ...['}', text('a'), tensor(storage('0', integer(4)), integer(0), [one], [one]), 's'],
      ...[text('b'), tensor(storage('0', integer(4), 'IntStorage'), integer(0), [one], [one]), 's'],
    ),
    /two ways/,
  ],
  [
    'complex numbers',
    holding(globalNamed('torch', 'ComplexFloatStorage')),
    /not supported/,
    UNSUPPORTED,
  ],
  ['8-bit floats', holding(globalNamed('torch', 'float8_e4m3fn')), /not supported/, UNSUPPORTED],
];

for (const [form, wrap] of [
  [
    'zip',
    (data: Buffer) =>
      zipOf([
        ['x/data.pkl', data],
        ['x/data/0', memory],
      ]),
  ],
  ['legacy', (data: Buffer) => legacyFile(data, [['0', 4, memory]])],
] as const) {
  t.test(`hostile pickles are refused: ${form}`, async (t) => {
    for (const [name, data, message, code = DAMAGED] of PICKLES) {
      await t.rejects(openWeights(wrap(data)), { code, message }, name);
    }
    const good = await openWeights(wrap(view(integer(1), [one], [one])));
    t.same([...(await good.read('a')).data], [2], 'and what is like them in all else is read');
  });
}

t.test('bombs end soon, and in little memory', async (t) => {
  const count = 600_000;
  const repeated = (part: string) => Buffer.from(part.repeat(count), 'latin1');
  const memo = Buffer.alloc(7 * count);
  for (let i = 0; i < count; i++) {
    memo.write('Nr', 7 * i);
    memo.writeUInt32LE((i * 2654435761) >>> 0, 7 * i + 2);
    memo.write('0', 7 * i + 6);
  }
  const bombs: [string, Buffer][] = [
    ['more opcodes than are allowed', pickle(Buffer.alloc(2 ** 22, 'N0'))],
    ['dicts', pickle(repeated('}'))],
    ['marks', pickle(repeated('('))],
    ['a long list', pickle('](', repeated('N'), 'e')],
    ['lists within lists', pickle(repeated(']'), repeated('a'))],
    ['references that double', pickle(']', repeated('q\0h\0a'))],
    ['a full memo', pickle(memo)],
    ['tuples of tuples', pickle('N', repeated('\x85'))],
  ];
  for (const [name, data] of bombs) {
    const start = process.cpuUsage();
    const before = process.memoryUsage().rss;
    await t.rejects(openWeights(zipOf([['x/data.pkl', data]])), { code: DAMAGED }, name);
    const { user, system } = process.cpuUsage(start);
    const seconds = (user + system) / 1e6;
    const grown = (process.memoryUsage().rss - before) / 2 ** 20;
    t.comment(`${name}: ${seconds.toFixed(1)} s, ${grown.toFixed(0)} MiB`);
    t.ok(seconds < 20 && grown < 1024, name);
  }
});

t.test('damaged archives are refused', async (t) => {
  const data = view(integer(0), [integer(4)], [one]);
  const good = zipOf([
    ['x/data.pkl', data],
    ['x/data/0', memory],
  ]);
  const changed = (at: number, ...bytes: number[]) => {
    const copy = Buffer.from(good);
    copy.set(bytes, at);
    return copy;
  };
  const central = good.indexOf('PK\x01\x02', 0, 'latin1');
  const second = good.indexOf('PK\x01\x02', central + 4, 'latin1');
  const end = good.length - 22;
  const cases: [string, Buffer, RegExp, string?][] = [
    ['compressed', changed(second + 10, 8), /compressed/, UNSUPPORTED],
    ['encrypted', changed(second + 8, 1), /encrypted/, UNSUPPORTED],
    ['sizes that differ', changed(second + 20, 99), /does not lie/],
    [
      'a size beyond the file',
      changed(second + 20, 255, 255, 255, 0, 255, 255, 255, 0),
      /does not lie/,
    ],
    ['a place beyond the file', changed(second + 42, 255, 255, 255, 127), /does not lie/],
    ['ZIP64 without its field', changed(second + 42, 255, 255, 255, 255), /does not lie/],
    ['a place within a record', changed(second + 42, 3), /not where/],
    ['another local name', changed(good.indexOf('x/data/0') + 2, 88), /not where/],
    ['more records than there are', changed(end + 10, 200), /damaged at record/],
    ['fewer records', changed(end + 10, 1), /more than its records/],
    ['a directory elsewhere', changed(end + 16, 1), /does not lie before/],
    ['no end', good.subarray(0, -4), /end of the ZIP/],
    ['a wrong checksum', changed(central + 16, 1, 2, 3, 4), /checksum/],
    [
      'one name twice',
      zipOf([
        ['x/data.pkl', data],
        ['x/data.pkl', data],
      ]),
      /twice/,
    ],
    ['no pickle', zipOf([['x/data/0', memory]]), /data\.pkl/],
    [
      'two pickles',
      zipOf([
        ['x/data.pkl', data],
        ['y/data.pkl', data],
      ]),
      /found 2/,
    ],
    ['no storage', zipOf([['x/data.pkl', data]]), /"x\/data\/0" is missing/],
    [
      'a small storage',
      zipOf([
        ['x/data.pkl', data],
        ['x/data/0', memory.subarray(4)],
      ]),
      /12 bytes/,
    ],
    [
      'a big-endian machine',
      zipOf([
        ['x/data.pkl', data],
        ['x/byteorder', Buffer.from('big')],
        ['x/data/0', memory],
      ]),
      /big-endian/,
      UNSUPPORTED,
    ],
    [
      'a TorchScript program',
      zipOf([
        ['x/data.pkl', data],
        ['x/constants.pkl', data],
      ]),
      /TorchScript/,
      UNSUPPORTED,
    ],
  ];
  for (const [name, bytes, message, code = DAMAGED] of cases) {
    await t.rejects(openWeights(bytes), { code, message }, name);
  }
  for (const options of [{}, { zip64: true }, { sums: false }]) {
    const records = [
      ['x/data.pkl', data],
      ['x/data/0', memory],
    ] as const;
    const file = await openWeights(zipOf(records, options));
    t.same([...(await file.read('a')).data], [1, 2, 3, 4]);
  }
});

t.test('a file cut anywhere is refused', async (t) => {
  const path = join(t.testdir(), 'x.pth');
  await writePth(path, [
    ['weight', { dtype: 'F32', shape: [4], data: Float32Array.of(1, 2, 3, 4) }],
  ]);
  const legacy = legacyFile(view(integer(0), [integer(4)], [one]), [['0', 4, memory]]);
  for (const bytes of [readFileSync(path), legacy]) {
    let wrong = 0;
    for (let length = 0; length < bytes.length; length++) {
      const code = await openWeights(bytes.subarray(0, length)).then(
        () => 'read',
        (error: { code?: unknown }) => error.code,
      );
      if (code !== DAMAGED) wrong++;
    }
    t.equal(wrong, 0, `${bytes.length} lengths`);
  }
});

t.test('what is no file of weights is named', async (t) => {
  const page = Buffer.from('<!DOCTYPE html><html><head><title>404</title></head></html>');
  await t.rejects(openWeights(page), { code: DAMAGED, message: /web page/ });
  const jpeg = Buffer.from('ffd8ffe000104a46494600010101', 'hex');
  await t.rejects(openWeights(jpeg), {
    code: DAMAGED,
    message:
      /neither a safetensors file nor one that torch.save wrote: .* ff d8 ff e0 00 10 4a 46$/,
  });
  await t.rejects(openWeights(Buffer.alloc(0)), { code: DAMAGED });
  await t.rejects(openWeights(Buffer.from('hello')), { code: DAMAGED });
  // Its header has 640 bytes, and begins as a pickle does.
  const header = Buffer.from('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.padEnd(640));
  const file = await openWeights(
    Buffer.concat([Buffer.from([0x80, 2, 0, 0, 0, 0, 0, 0]), header, one.subarray(1)]),
  );
  t.equal(file.format, 'safetensors');
});
