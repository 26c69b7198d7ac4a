import t from 'tap';
import { FeatureExtractor } from '../../lib/features/extractor.js';
import { openDraws } from '../helpers/random.js';

const draws = openDraws(t);

/** |DFT|^2 of one centred, reflected, Hann-windowed frame, by its definition. */
function powerOf(x: Float32Array, frame: number, window: number, hop: number): number[] {
  const at = (i: number) =>
    x[i < 0 ? -i : i >= x.length ? 2 * (x.length - 1) - i : i] ?? Number.NaN;
  return Array.from({ length: window / 2 + 1 }, (_, k) => {
    let re = 0;
    let im = 0;
    for (let n = 0; n < window; n++) {
      const weighted =
        (0.5 - 0.5 * Math.cos((2 * Math.PI * n) / window)) * at(frame * hop + n - window / 2);
      re += weighted * Math.cos((2 * Math.PI * k * n) / window);
      im -= weighted * Math.sin((2 * Math.PI * k * n) / window);
    }
    return re * re + im * im;
  });
}

t.test('spectrograms follow the definition', async (t) => {
  using extractor = new FeatureExtractor({
    sampleRate: 8000,
    windowSize: 128,
    hopSize: 50,
    melBins: 20,
  });
  const x = draws.uniforms(2 * 611, -1, 1);
  const { data, shape } = await extractor.spectrogram(x, { batch: 2 });
  t.same(shape, [2, 13, 65]);
  let worst = 0;
  for (let row = 0; row < 2; row++) {
    const clip = x.subarray(row * 611, (row + 1) * 611);
    for (const frame of [0, 1, 6, 12]) {
      for (const [k, power] of powerOf(clip, frame, 128, 50).entries()) {
        worst = Math.max(
          worst,
          Math.abs(power - (data[(row * 13 + frame) * 65 + k] ?? Number.NaN)),
        );
      }
    }
  }
  // Powers reach some hundreds; float32 keeps 24 bits.
  t.ok(worst < 1e-3, `largest difference ${worst}`);
});

t.test('a tone is loudest in the mel bin that it lies in', async (t) => {
  using extractor = new FeatureExtractor({ sampleRate: 16000 });
  const tone = Float32Array.from({ length: 16000 }, (_, n) =>
    Math.sin((2 * Math.PI * 440 * n) / 16000),
  );
  const { data, shape } = await extractor.logmel(tone);
  t.same(shape, [101, 64]);
  const middle = [...data.subarray(50 * 64, 51 * 64)];
  const loudest = middle.indexOf(Math.max(...middle));
  t.ok(loudest >= 5 && loudest <= 11, `bin ${loudest}`);
  t.ok((middle[loudest] ?? 0) - (middle[40] ?? 0) > 60);
  const silence = await extractor.logmel(new Float32Array(16000));
  t.ok(silence.data.every((value) => value === -100));
});

t.test('samples of 16 bits stand for x / 32767', async (t) => {
  using extractor = new FeatureExtractor();
  const codes = Int16Array.from({ length: 2 * 4000 }, () => draws.random.uint32() >>> 16);
  codes.set([-32768, 32767]);
  const floats = Float32Array.from(codes, (x) => x / 32767);
  for (const batch of [1, 2]) {
    t.same(await extractor.logmel(codes, { batch }), await extractor.logmel(floats, { batch }));
    t.same(
      await extractor.spectrogram(codes, { batch }),
      await extractor.spectrogram(floats, { batch }),
    );
  }
});

t.test('wrong use is refused', async (t) => {
  t.throws(() => new FeatureExtractor({ fmax: 20000 }), { code: 'ERR_PANNS_OPTION' });
  const misspelt = { hop: 320 } as ConstructorParameters<typeof FeatureExtractor>[0];
  t.throws(() => new FeatureExtractor(misspelt), { message: /did you mean "hopSize"/ });
  const extractor = new FeatureExtractor();
  await t.rejects(extractor.logmel(new Float32Array(512)), { code: 'ERR_PANNS_SHAPE' });
  await t.rejects(extractor.logmel(new Float32Array(3001), { batch: 2 }), {
    code: 'ERR_PANNS_SHAPE',
  });
  extractor.dispose();
  extractor.dispose();
  await t.rejects(extractor.logmel(new Float32Array(32000)), { code: 'ERR_PANNS_DISPOSED' });
});
