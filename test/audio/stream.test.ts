import t from 'tap';
import { resample } from '../../lib/audio/decode.js';
import { createStreamResampler } from '../../lib/audio/stream.js';
import { openDraws } from '../helpers/random.js';

const draws = openDraws(t);

for (const [from, to] of [
  [16000, 32000],
  [48000, 32000],
  [44100, 32000],
  [8000, 32000],
  [22050, 16000],
  [32000, 32000],
] as const) {
  t.test(`pieces of ${from} Hz become the whole at ${to} Hz, bit for bit`, async (t) => {
    const count = from + draws.random.integer(from);
    const whole = draws.uniforms(count, -1, 1);
    const stream = createStreamResampler(from, to);
    const made: number[] = [];
    let fed = 0;
    let late = 0;
    while (fed < count) {
      const length = draws.random.integer(from / 5);
      const piece = whole.slice(fed, fed + length);
      made.push(...(await stream.push(piece)));
      piece.fill(Number.NaN);
      fed = Math.min(count, fed + length);
      late = Math.max(late, fed / from - made.length / to);
    }
    made.push(...(await stream.end()));
    t.same(Float32Array.from(made), await resample(whole, from, to));
    t.ok(late < 0.1, `${late} s are held back`);
  });
}

t.test('streams that end at once, and rates too far apart', async (t) => {
  const stream = createStreamResampler(16000, 32000);
  t.equal((await stream.end()).length, 0);
  const brief = createStreamResampler(16000, 32000);
  t.equal((await brief.push(new Float32Array(3))).length, 0);
  t.equal((await brief.end()).length, 6);
  t.throws(() => createStreamResampler(768000, 1), { code: 'ERR_PANNS_UNSUPPORTED' });
});
