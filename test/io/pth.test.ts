import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writePth } from '../../lib/io/pth/writer.js';
import { readSafetensors, type SafetensorsTensor } from '../../lib/io/safetensors.js';
import { writeSafetensors } from '../../lib/io/safetensors_writer.js';
import { asFloat32, openWeights } from '../../lib/io/weights.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';

/** Name, element type, shape, SHA-256 of the row-major bytes. */
type Row = [name: string, dtype: string, shape: number[], digest: string];

const oracle = await openOracle(t);
const { skip } = oracle;
const draws = openDraws(t);

function rowOf(name: string, { dtype, shape, data }: SafetensorsTensor): Row {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return [name, dtype, [...shape], createHash('sha256').update(bytes).digest('hex')];
}

async function readAll(source: string | Uint8Array): Promise<Map<string, SafetensorsTensor>> {
  const file = await openWeights(source);
  try {
    const tensors = new Map<string, SafetensorsTensor>();
    for (const name of file.entries.keys()) tensors.set(name, await file.read(name));
    return tensors;
  } finally {
    await file.close();
  }
}

const rowsOf = (tensors: ReadonlyMap<string, SafetensorsTensor>): Row[] =>
  [...tensors].map(([name, tensor]) => rowOf(name, tensor));

t.test('every file of PyTorch is read bit for bit, and written again', { skip }, async (t) => {
  const folder = t.testdir();
  const seed = draws.random.integer(2 ** 31);
  const { header } = await oracle.call('pth_write', { folder, seed });
  const files = header.files as Record<string, Row[]>;
  t.ok(Object.keys(files).length >= 25);
  for (const [name, expected] of Object.entries(files)) {
    const path = join(folder, name);
    const prefix = /-((module\.|backbone\.)(base\.)?)pth$/.exec(name)?.[1] ?? '';
    const file = await openWeights(path);
    t.equal(file.format, /^(zip)/.test(name) ? 'pth' : 'pth-legacy', name);
    t.equal(file.prefix, prefix);
    if (name.endsWith('sampler.pth')) {
      t.same([...file.metadata], [['note', 'a text']]);
      t.same(file.ignored, ['iteration', 'sampler']);
    }
    if (name.endsWith('lightning.pth')) t.equal(file.stateKey, 'state_dict');
    await file.close();
    const tensors = await readAll(path);
    t.same(rowsOf(tensors), expected, `${name} from its path`);
    t.same(rowsOf(await readAll(readFileSync(path))), expected, `${name} from memory`);
    if (!/types|shared|sampler/.test(name)) continue;

    const [a, b, c] = ['a.safetensors', 'b.pth', 'c.safetensors'].map((n) => join(folder, n));
    await writeSafetensors(a ?? '', tensors);
    await writePth(b ?? '', await readAll(a ?? ''));
    await writeSafetensors(c ?? '', await readAll(b ?? ''));
    const again = await readSafetensors(c ?? '');
    t.same(
      rowsOf(again.tensors).sort(),
      [...expected].sort(),
      `${name} to safetensors, .pth and back`,
    );
    t.same(readFileSync(c ?? ''), readFileSync(a ?? ''), 'equal content gives equal bytes');
    for (const mmap of [false, true]) {
      const read = await oracle.call('pth_read', { path: b, key: 'model', mmap });
      t.same(
        (read.header.tensors as Row[]).sort(),
        [...expected].sort(),
        `PyTorch reads ours of ${name}`,
      );
    }
  }
});

t.test('the order, the text beside it and a bare state dict are written', { skip }, async (t) => {
  const path = join(t.testdir(), 'x.pth');
  const state = new Map<string, SafetensorsTensor>([
    ['z.weight', { dtype: 'F32', shape: [2, 300], data: draws.normals(600) }],
    ['é😀', { dtype: 'I64', shape: [], data: BigInt64Array.of(-(2n ** 62n)) }],
    ['a', { dtype: 'U8', shape: [0, 4], data: new Uint8Array(0) }],
  ]);
  const rows = rowsOf(state);
  const metadata: [string, string][] = [
    ['note', 'x'.repeat(70_000)],
    ['ü', ''],
  ];
  await writePth(path, state, { metadata });
  const { header } = await oracle.call('pth_read', { path, key: 'model' });
  t.same(header.tensors, rows, 'in this order');
  t.same(header.beside, Object.fromEntries(metadata));
  const file = await openWeights(path);
  t.same([...file.metadata], metadata, 'long text too');
  await file.close();
  await writePth(path, state, { stateKey: '' });
  t.same((await oracle.call('pth_read', { path })).header.tensors, rows);
  t.same(rowsOf(await readAll(path)), rows);
});

t.test('what cannot be written is refused, and leaves no file', async (t) => {
  const path = join(t.testdir(), 'x.pth');
  const one: SafetensorsTensor = { dtype: 'F32', shape: [1], data: Float32Array.of(1) };
  const short = { ...one, shape: [2] } as SafetensorsTensor;
  await t.rejects(writePth(path, [['a', short]]), { code: 'ERR_PANNS_SHAPE' });
  const twice = [
    ['a', one],
    ['a', one],
  ] as const;
  await t.rejects(writePth(path, twice), { code: 'ERR_PANNS_OPTION', message: /twice/ });
  await t.rejects(writePth(path, [['\ud800', one]]), { code: 'ERR_PANNS_OPTION' });
  await t.rejects(openWeights(path), { code: 'ERR_PANNS_IO' });
});

t.test('16 bits widen to float32 in parts as at once', async (t) => {
  const length = 300_000;
  const bits = Uint16Array.from({ length }, () => draws.random.integer(2 ** 16));
  const values = await asFloat32({ dtype: 'BF16', shape: [length], data: bits });
  let wrong = 0;
  const view = new DataView(new ArrayBuffer(4));
  for (const [i, half] of bits.entries()) {
    view.setUint32(0, half << 16);
    if (!Object.is(view.getFloat32(0), values[i])) wrong++;
  }
  t.equal(wrong, 0);
});

t.test('a damaged tensor is found by its checksum', async (t) => {
  const path = join(t.testdir(), 'x.pth');
  const data = draws.normals(5000);
  await writePth(path, [['weight', { dtype: 'F32', shape: [50, 100], data }]]);
  const bytes = readFileSync(path);
  const place = bytes.indexOf(Buffer.from(data.buffer, 400, 40));
  bytes[place + 3] = (bytes[place + 3] ?? 0) ^ 1;
  writeFileSync(path, bytes);
  const file = await openWeights(path);
  await t.rejects(file.read('weight'), { code: 'ERR_PANNS_CHECKPOINT', message: /checksum/ });
  await t.rejects(file.read('wieght'), { code: 'ERR_PANNS_OPTION' });
  await file.close();
});
