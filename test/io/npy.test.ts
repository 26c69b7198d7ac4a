import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { encodeNpy, writeNpy } from '../../lib/io/npy.js';
import { openOracle } from '../helpers/oracle.js';
import { openDraws } from '../helpers/random.js';

const draws = openDraws(t);

const oracle = await openOracle(t);

t.test('numpy reads it', { skip: oracle.skip }, async (t) => {
  for (const shape of [[3, 5], [7], [2, 3, 4], [0, 4], [1], [1234, 1]]) {
    const count = shape.reduce((a, b) => a * b, 1);
    const data = draws.normals(count);
    const path = join(t.testdir(), 'array.npy');
    await writeNpy(path, shape, data);
    const { header, arrays } = await oracle.call('npy', { path }, []);
    t.same(header.shape, shape);
    t.equal(header.dtype, '<f4');
    t.same(arrays[0], data);
  }
});

t.test('the header is aligned, as the format asks for', async (t) => {
  const [head] = encodeNpy([11, 13], new Float32Array(143));
  const bytes = head as Buffer;
  t.equal(bytes.length % 64, 0);
  t.equal(bytes.readUInt16LE(8), bytes.length - 10);
  t.equal(bytes.at(-1), 0x0a);
});

t.test('a shape that does not fit is refused, and no file is left', async (t) => {
  const path = join(t.testdir(), 'array.npy');
  for (const shape of [[2, 2], [-1], [1.5, 2], []]) {
    const wrong = writeNpy(path, shape, new Float32Array(3));
    await t.rejects(wrong, { code: 'ERR_PANNS_SHAPE' }, JSON.stringify(shape));
  }
  t.notOk(existsSync(path));
});
