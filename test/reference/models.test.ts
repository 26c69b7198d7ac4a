import { readFileSync } from 'node:fs';
import t from 'tap';
import { describeModel } from '../../lib/models/index.js';
import { loadNative } from '../../lib/native.js';
import { sharedFile } from '../helpers/shared.js';

const native = loadNative();
const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** From the paper's table and the published checkpoints. */
const known = {
  Cnn6: {
    trainable: 4_837_455,
    all: 5_920_911,
    buffers: 2053,
    tensors: 36,
    stride: 16,
    shortest: 4800,
  },
  Cnn10: {
    trainable: 5_219_279,
    all: 6_302_735,
    buffers: 3977,
    tensors: 60,
    stride: 16,
    shortest: 4800,
  },
  Cnn14: {
    trainable: 80_753_615,
    all: 81_837_071,
    buffers: 16_269,
    tensors: 84,
    stride: 32,
    shortest: 9920,
  },
};
const dtypes = { F32: 'float32', I64: 'int64' } as const;
const listing = sharedFile('reference', 'panns_state_dicts.json');

for (const [name, numbers] of Object.entries(known)) {
  const { stateDict, spec, minimumSamples } = describeModel(name);

  t.test(`${name}: the counts of the paper`, async (t) => {
    const sum = (...roles: string[]) =>
      stateDict
        .filter(({ role }) => roles.includes(role))
        .reduce((total, { shape }) => total + count(shape), 0);
    t.equal(sum('parameter'), numbers.trainable);
    t.equal(sum('parameter', 'derived'), numbers.all);
    t.equal(sum('buffer', 'counter'), numbers.buffers);
    t.equal(stateDict.length, numbers.tensors);
    t.equal(minimumSamples, numbers.shortest);
  });

  t.test(`${name}: the core has the same parameters`, async (t) => {
    const model = await native.createModel(spec, { device: 'null', threads: 1 }, 32000);
    const core = model
      .parameters()
      .map(({ name, shape, trainable }) => ({ name, shape, trainable }));
    const expected = stateDict
      .filter(({ role }) => role === 'parameter' || role === 'buffer')
      .map(({ name, shape, role }) => ({ name, shape, trainable: role === 'parameter' }));
    const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
    t.same(core.sort(byName), expected.sort(byName));
    model.dispose();
  });

  t.test(`${name}: names, shapes, types and order`, { skip: listing.skip }, async (t) => {
    const dicts = JSON.parse(readFileSync(listing.path, 'utf8')) as Record<string, unknown[]>;
    const found = stateDict.map((entry) => [entry.name, entry.shape, dtypes[entry.dtype]]);
    t.same(found, dicts[name]);
  });

  t.test(`${name}: frames left at the end, by the seconds of a clip`, async (t) => {
    const model = await native.createModel(spec, { device: 'null', threads: 1 }, 32000);
    for (const seconds of [1, 2, 5, 7, 10, 30]) {
      const text = await model.text(1, 32000 * seconds, []);
      const frames = 100 * seconds + 1;
      t.match(text, new RegExp(`^logmel .* 1x1x${frames}x64 `, 'm'), `${seconds} s: frames`);
      const left = /= reduce\(%\d+\)\s+1x\d+x(\d+)x1 /.exec(text)?.[1];
      t.equal(Number(left), Math.floor(frames / numbers.stride), `${seconds} s: segments`);
    }
    await t.rejects(model.text(1, numbers.shortest - 1, []), { code: 'ERR_PANNS_SHAPE' });
    await t.resolves(model.text(1, numbers.shortest, []));
    model.dispose();
  });
}
