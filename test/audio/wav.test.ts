import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { encodeWav16, writeWav16 } from '../../lib/audio/wav.js';
import { createRandom } from '../../lib/data/random.js';
import { freshSeed } from '../data/fresh_seed.js';

t.test('the header is byte for byte the one of a mono 16-bit file', async (t) => {
  const bytes = Buffer.from(encodeWav16(Float32Array.of(0, 0.5, -1), 32000));
  t.equal(
    bytes.toString('hex'),
    ['52494646', '2a000000', '57415645', '666d7420', '10000000', '0100', '0100', '007d0000']
      .concat(['00fa0000', '0200', '1000', '64617461', '06000000', '0000', '0040', '0080'])
      .join(''),
  );
});

t.test('samples are rounded to the nearest step and clipped', async (t) => {
  const random = createRandom(freshSeed(t));
  const samples = new Float32Array(5000).map(() => random.between(-1.2, 1.2));
  samples.set([1, -1, 2, -2, 1 / 65536, 0.4 / 32768]);
  const path = join(t.testdir(), 'x.wav');
  await writeWav16(path, samples, 44100);
  const file = await readFile(path);
  t.equal(file.length, 44 + 2 * samples.length);
  samples.forEach((sample, i) => {
    const value = file.readInt16LE(44 + 2 * i) / 32768;
    const clipped = Math.max(-1, Math.min(32767 / 32768, sample));
    if (Math.abs(value - clipped) > 0.5 / 32768) t.fail(`${sample} became ${value}`);
  });
});

t.test('what is not sound is refused', async (t) => {
  for (const rate of [0, -1, 44100.5, NaN, 2 ** 32]) {
    t.throws(() => encodeWav16(new Float32Array(1), rate), { code: 'ERR_PANNS_OPTION' });
  }
  for (const bad of [NaN, Infinity]) {
    const samples = Float32Array.of(0, bad);
    t.throws(() => encodeWav16(samples, 8000), {
      code: 'ERR_PANNS_AUDIO_NAN',
      message: /sample 1/,
    });
  }
});
