import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, dense, first, map, openLab, sizeOf } from '../helpers/op.js';
import { randomWord } from '../helpers/philox.js';

const lab = await openLab(t);
const seed = (BigInt(lab.random.uint32()) << 32n) | BigInt(lab.random.uint32());
const step = lab.random.uint32();
const mask = lab.random.integer(1000);
const state = { seed, step };

const drop = (x: OpTensor, p: number, other = {}, at = mask) =>
  first(
    lab.run({ op: 'dropout', attrs: { p, mask: at }, inputs: [x], state: { ...state, ...other } }),
  );

const shape = [2, 20, 3, 5];
const x = map(shape, lab.normals(sizeOf(shape)));

await checkOps(
  t,
  lab,
  [0, 0.2, 0.5, 0.9].flatMap((p) =>
    [x, map([2, 17, 37, 3], lab.normals(3774)), dense([4, 37], lab.normals(148))].map((input) => ({
      name: `p ${p} of a ${input.form} ${input.shape.join('x')}`,
      op: 'dropout',
      attrs: { p, mask },
      inputs: [input],
      state,
      kind: 'exact' as const,
      oracle: false as const,
      // Backward is the same op on dy: tiers and threads must agree on it as well.
      backward: (dy: OpTensor) => [
        { op: 'dropout', attrs: { p, mask }, inputs: [dy], state, of: [0] },
      ],
    })),
  ),
);

/** Standard deviations of a binomial count: 2.6e-12 of all runs fail by chance. */
const SIGMAS = 7;

/** Whether the element of that Philox number stays. */
const stays = (element: number, p: number) =>
  randomWord(seed, step, mask, element) >= Math.floor(p * 2 ** 32 + 0.5);

t.test('the mask is that of Philox, element by element', async (t) => {
  const p = Math.fround(0.2);
  const scale = Math.fround(1 / Math.fround(1 - p));
  // Channels that fill whole random calls, that do not, and a single one.
  for (const dims of [shape, [2, 17, 19, 3], [1, 6, 5, 2], [2, 1, 37, 5]]) {
    const [clips = 0, channels = 0, frames = 0, bins = 0] = dims;
    const input = dims === shape ? x : map(dims, lab.normals(sizeOf(dims)));
    const want: number[] = [];
    for (let n = 0; n < clips; n++) {
      for (let c = 0; c < channels; c++) {
        for (let i = 0; i < frames * bins; i++) {
          // NHWC, whatever the layout in memory.
          const keep = stays((n * frames * bins + i) * channels + c, p);
          want.push(keep ? Math.fround((input.data[want.length] as number) * scale) : 0);
        }
      }
    }
    t.same([...(await drop(input, p)).data], want, dims.join('x'));
  }
  const flat = dense([3, 50], lab.normals(150));
  const kept = [...flat.data].map((v, i) => (stays(i, p) ? Math.fround(v * scale) : 0));
  t.same([...(await drop(flat, p)).data], kept, 'dense: the flat index');
});

t.test('the backward mask is the forward one', async (t) => {
  const y = await drop(x, 0.5);
  const dy = await drop(map(shape, lab.normals(x.data.length)), 0.5);
  t.ok(y.data.every((v, i) => (v === 0) === (dy.data[i] === 0)));
});

t.test('rate and scale', async (t) => {
  const count = 80_000;
  const ones = dense([1, count], new Float32Array(count).fill(1));
  for (const p of [0.1, 0.2, 0.5, 0.75]) {
    const { data } = await drop(ones, p);
    const kept = data.filter((v) => v !== 0);
    const scale = Math.fround(1 / Math.fround(1 - Math.fround(p)));
    t.ok(
      kept.every((v) => v === scale),
      `every kept one is ${scale}`,
    );
    const allowed = SIGMAS * Math.sqrt(count * p * (1 - p));
    const gap = kept.length - count * (1 - p);
    t.ok(Math.abs(gap) < allowed, `p ${p}: ${kept.length} of ${count} stay, off by ${gap}`);
  }
});

t.test('seed, step and mask choose the mask, and nothing else does', async (t) => {
  const count = 8192;
  const ones = dense([1, count], new Float32Array(count).fill(1));
  const base = await drop(ones, 0.5);
  t.same(await drop(ones, 0.5), base, 'again the same');
  const others = {
    seed: await drop(ones, 0.5, { seed: seed ^ 1n }),
    'upper half of the seed': await drop(ones, 0.5, { seed: seed ^ (1n << 40n) }),
    step: await drop(ones, 0.5, { step: (step + 1) >>> 0 }),
    mask: await drop(ones, 0.5, {}, mask + 1),
  };
  for (const [what, other] of Object.entries(others)) {
    const equal = other.data.filter((v, i) => v === base.data[i]).length;
    // Independent masks agree in half of the elements.
    const gap = Math.abs(equal - count / 2);
    t.ok(gap < SIGMAS * Math.sqrt(count / 4), `another ${what}: ${equal} of ${count} agree`);
  }
});

t.test('a probability out of range is refused', async (t) => {
  for (const p of [-0.1, 1, Number.NaN]) {
    await t.rejects(drop(x, p), { code: 'ERR_PANNS_SPEC' }, String(p));
  }
});
