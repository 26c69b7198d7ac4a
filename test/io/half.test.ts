import t from 'tap';
import { halfToNumber, halved, toHalf } from '../../lib/io/half.js';
import { encodeNpy } from '../../lib/io/npy.js';
import { toFloat32 } from '../../lib/io/safetensors.js';
import { openDraws } from '../helpers/random.js';

/** All numbers from 0 up that 16 bits hold, in their order, which is that of the bits. */
const ALL = Array.from({ length: 0x7c00 }, (_, bits) => halfToNumber(bits));

/** By trying: the nearest of all, of two the one with an even last bit. */
function nearest(value: number): number {
  const size = Math.abs(value);
  let [low, high] = [0, ALL.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((ALL[middle] ?? NaN) <= size) low = middle;
    else high = middle;
  }
  const [down, up] = [size - (ALL[low] ?? NaN), (ALL[high] ?? NaN) - size];
  const bits = down < up || (down === up && low % 2 === 0) ? low : high;
  return value < 0 || Object.is(value, -0) ? bits | 0x8000 : bits;
}

t.test('numbers of 16 bits come back as they are', async (t) => {
  const values = Float32Array.from(ALL);
  t.same([...(await toHalf(values, 'x'))], [...values.keys()]);
  const negative = values.map((value) => -value);
  t.same(
    [...(await toHalf(negative, 'x'))],
    [...values.keys()].map((bits) => bits | 0x8000),
  );
  t.equal(halfToNumber(0x3555), 0.333251953125, 'the third of the standard’s tables');
  t.equal(ALL.at(-1), 65504);
});

t.test('others are rounded to the nearest, ties to even', async (t) => {
  const { random } = openDraws(t);
  const drawn = Array.from({ length: 100_000 }, () => {
    const scale = 2 ** (random.integer(42) - 26);
    return Math.fround(random.normal() * scale);
  });
  // Halfway between neighbours, and next to it; up to where numbers round to infinity.
  const ties = Array.from({ length: 2000 }, () => {
    const bits = random.integer(ALL.length - 1);
    return ((ALL[bits] ?? NaN) + (ALL[bits + 1] ?? NaN)) / 2;
  });
  const beside = ties.flatMap((tie) => [tie, Math.fround(tie * (1 + 2 ** -23)), -tie]);
  const values = Float32Array.from(
    [...drawn, ...beside, 0, -0, 65519.99, 2 ** -26].filter((x) => Math.abs(x) < 65520),
  );
  const halves = await toHalf(values, 'x');
  const wrong = values.findIndex((value, i) => halves[i] !== nearest(value));
  t.equal(wrong, -1, `${values[wrong]} became ${halves[wrong]}`);
  for (const value of [65520, -70000, NaN, Infinity]) {
    const refused = toHalf(Float32Array.of(1, value), 'layer.weight');
    await t.rejects(refused, { code: 'ERR_PANNS_NAN', message: /layer\.weight.*65504.*value 1/ });
  }
});

t.test('matrices are halved, vectors and counts are not', async (t) => {
  const data = Float32Array.of(0.1, -2, 3, 4);
  const matrix = await halved({ dtype: 'F32', shape: [2, 2], data }, 'a');
  t.match(matrix, { dtype: 'F16', shape: [2, 2] });
  t.same([...toFloat32(matrix)], [0.0999755859375, -2, 3, 4]);
  const vector = { dtype: 'F32', shape: [4], data } as const;
  t.equal(await halved(vector, 'b'), vector);
  const [head] = encodeNpy([2, 2], matrix.data as Uint16Array);
  t.match(String(head), /'descr': '<f2'.*'shape': \(2, 2\)/);
});
