import t from 'tap';
import { cutWindows } from '../../lib/inference/windows.js';
import { openDraws } from '../helpers/random.js';

const draws = openDraws(t);

const noise = (length: number) => draws.uniforms(length);

async function cut(x: Float32Array, window: number, hop: number, atOnce: number, negligible = 0) {
  const found: [number, number[]][] = [];
  const read = async (start: number, count: number) => x.subarray(start, start + count);
  for await (const { samples, length, starts } of cutWindows(
    read,
    window,
    hop,
    atOnce,
    negligible,
  )) {
    if (starts.length > atOnce) t.fail(`${starts.length} windows at once`);
    for (const [row, start] of starts.entries()) {
      found.push([start, [...samples.subarray(row * length, (row + 1) * length)]]);
    }
  }
  return found;
}

/** All windows by their definition, with the whole audio at hand. */
function naive(x: Float32Array, window: number, hop: number): [number, number[]][] {
  if (x.length === 0) return [];
  if (x.length < window) return [[0, [...x]]];
  const starts: number[] = [];
  for (let start = 0; start + window <= x.length; start += hop) starts.push(start);
  if ((starts.at(-1) ?? 0) + window < x.length) starts.push(x.length - window);
  return starts.map((start) => [start, [...x.subarray(start, start + window)]]);
}

t.test('windows are those of the definition, however they are read', async (t) => {
  const draw = (most: number) => draws.random.integer(most);
  for (let i = 0; i < 400; i++) {
    const window = 1 + draw(12);
    const hop = 1 + draw(window);
    const x = noise(draw(70));
    const atOnce = 1 + draw(4);
    const found = await cut(x, window, hop, atOnce);
    const expected = naive(x, window, hop);
    const named = `${x.length} samples, window ${window}, hop ${hop}, ${atOnce} at once`;
    if (JSON.stringify(found) !== JSON.stringify(expected)) t.same(found, expected, named);
  }
});

t.test('a negligible rest gets no window', async (t) => {
  const starts = async (length: number) => {
    return (await cut(noise(length), 10, 10, 2, 3)).map(([start]) => start);
  };
  t.same(await starts(23), [0, 10]);
  t.same(await starts(24), [0, 10, 14]);
  t.same(await starts(3), [0], 'short audio comes whole');
});

t.test('memory does not grow with the audio', async (t) => {
  let most = 0;
  const read = async (start: number, count: number) => {
    most = Math.max(most, count);
    return new Float32Array(Math.max(0, Math.min(count, 1_000_000 - start)));
  };
  let windows = 0;
  for await (const { starts } of cutWindows(read, 1000, 500, 4, 0)) windows += starts.length;
  t.equal(windows, 1999);
  t.ok(most <= 2500, `reads of ${most} samples`);
});
