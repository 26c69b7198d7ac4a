import t from 'tap';
import { type Attrs, checkOps, dense, type OpCase, openLab } from '../helpers/op.js';

const lab = await openLab(t);

const published: Attrs = {
  sample_rate: 32000,
  window_size: 1024,
  hop_size: 320,
  mel_bins: 64,
  fmin: 50,
  fmax: 14000,
};
const at16k: Attrs = {
  ...published,
  sample_rate: 16000,
  window_size: 512,
  hop_size: 160,
  fmax: 8000,
};
const at8k: Attrs = { ...published, sample_rate: 8000, window_size: 256, hop_size: 80, fmax: 4000 };

const logmel = (
  name: string,
  attrs: Attrs,
  clips: number,
  samples: number,
  level = 0.1,
): OpCase => ({
  name,
  op: 'logmel',
  attrs,
  inputs: [dense([clips, samples], lab.normals(clips * samples, level))],
  kind: 'logmel',
});

await checkOps(t, lab, [
  logmel('32 kHz', published, 2, 8000),
  logmel('32 kHz, the shortest clip', published, 1, 513),
  logmel('32 kHz, a length between two hops', published, 3, 4321),
  logmel('32 kHz, faint', published, 1, 3200, 1e-5),
  logmel('16 kHz', at16k, 2, 4000),
  logmel('8 kHz', at8k, 2, 2001),
  logmel('128 bins', { ...published, mel_bins: 128 }, 1, 4000),
  logmel('a hop of 500', { ...published, hop_size: 500 }, 1, 5000),
  logmel('a window that is no power of two', { ...published, window_size: 960 }, 1, 4000),
]);

t.test('silence is -100 dB in every bin', async (t) => {
  const inputs = [dense([1, 3200], new Float32Array(3200))];
  const [y] = await lab.run({ op: 'logmel', attrs: published, inputs });
  t.same(y?.shape, [1, 1, 11, 64]);
  t.ok(y?.data.every((v) => v === -100));
});

t.test('half a window cannot be reflected: refused', async (t) => {
  const run = lab.run({
    op: 'logmel',
    attrs: published,
    inputs: [dense([1, 512], lab.normals(512))],
  });
  await t.rejects(run, { code: 'ERR_PANNS_SHAPE', message: /more than 512 samples.*got 512/ });
});
