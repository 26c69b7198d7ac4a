import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import {
  type Attrs,
  checkOps,
  dense,
  filter,
  first,
  map,
  type OpCase,
  openLab,
  type Run,
  sameTensors,
  sizeOf,
} from '../helpers/op.js';
import { compare } from '../helpers/tolerance.js';

const lab = await openLab(t);
const state = { seed: BigInt(lab.random.uint32()) << 20n, step: lab.random.integer(1000) };
const MASK = 7;

/**
 * x with an offset and a scale of its own for each feature, and the four vectors of a norm. A running
 * mean lies on the side of its offset: a single one that cancels against it would be rounding alone.
 */
function prepare(shape: readonly number[], axis: 'channel' | 'freq'): OpTensor[] {
  const [, channels = 0, frames = 0, bins = 0] = shape;
  const features = axis === 'freq' ? bins : channels;
  const x = lab.normals(sizeOf(shape));
  const sign = Array.from({ length: features }, () => (lab.random.integer(2) === 0 ? -1 : 1));
  const signed = (values: Float32Array) => values.map((value, k) => value * (sign[k] as number));
  const offset = signed(lab.uniforms(features, 0.5, 5));
  const scale = lab.uniforms(features, 0.5, 4);
  for (let i = 0; i < x.length; i++) {
    const k = axis === 'freq' ? i % bins : Math.floor(i / (frames * bins)) % channels;
    x[i] = (x[i] as number) * (scale[k] as number) + (offset[k] as number);
  }
  const gamma = lab.uniforms(features, 0.5, 1.5);
  return [
    map(shape, x),
    dense(
      [features],
      gamma.map((value) => (lab.random.integer(2) === 0 ? -value : value)),
    ),
    dense([features], lab.normals(features)),
    dense([features], signed(lab.uniforms(features, 0.2, 2))),
    dense([features], lab.uniforms(features, 0.1, 5)),
  ];
}

/** Backward reads the statistics of the batch, or with running ones those. */
function backward(attrs: Attrs, inputs: readonly OpTensor[]) {
  return (dy: OpTensor, [, mean = inputs[3], invstd = inputs[4]]: readonly OpTensor[]) => [
    {
      op: 'batch_norm_backward',
      attrs,
      inputs: [...inputs.slice(0, 3), mean as OpTensor, invstd as OpTensor, dy],
      state,
      of: [0, 1, 2],
    },
  ];
}

const POOL: Attrs = { kind: 'avg', kernel: 2 };

/** The same by ops of their own: y, the statistics, then the three gradients. */
function chain(
  { relu, avg_pool_2x2, dropout, mask, ...plain }: Attrs,
  inputs: readonly OpTensor[],
) {
  return async (run: Run, dy: OpTensor): Promise<OpTensor[]> => {
    const normed = await run({ op: 'batch_norm', attrs: plain, inputs });
    const [x0, ...statistics] = normed as [OpTensor, ...OpTensor[]];
    const [mean = inputs[3], invstd = inputs[4]] = statistics;
    const drop = { op: 'dropout', attrs: { p: Number(dropout), mask: Number(mask) }, state };
    let [y, g] = [x0, dy];
    if (relu) y = await first(run({ op: 'relu', inputs: [y] }));
    const activated = y;
    if (avg_pool_2x2) y = await first(run({ op: 'pool', attrs: POOL, inputs: [y] }));
    if (dropout) {
      y = await first(run({ ...drop, inputs: [y] }));
      g = await first(run({ ...drop, inputs: [g] }));
    }
    if (avg_pool_2x2) {
      g = await first(run({ op: 'pool_backward', attrs: POOL, inputs: [activated, g] }));
    }
    if (relu) g = await first(run({ op: 'relu_backward', inputs: [activated, g] }));
    const back = [...inputs.slice(0, 3), mean as OpTensor, invstd as OpTensor, g];
    const gradients = await run({ op: 'batch_norm_backward', attrs: plain, inputs: back });
    return [y, ...statistics, ...gradients];
  };
}

const channelShapes = [
  [2, 16, 5, 8],
  [3, 20, 7, 5],
  [4, 64, 3, 2],
  // Of fewer values some have next to no variance, which divides what rounding leaves.
  [12, 3, 1, 1],
];
const epilogues: readonly Attrs[] = [
  { relu: true },
  { avg_pool_2x2: true },
  { relu: true, avg_pool_2x2: true },
  { dropout: 0.3, mask: MASK },
  { relu: true, dropout: 0.2, mask: MASK },
  { relu: true, avg_pool_2x2: true, dropout: 0.2, mask: MASK },
];

const trained = (shape: readonly number[], axis: 'channel' | 'freq', extra: Attrs = {}): OpCase => {
  const attrs = { axis, training: true, ...extra };
  const inputs = prepare(shape, axis);
  const fused = extra.relu === true || extra.avg_pool_2x2 === true || extra.dropout !== undefined;
  return {
    name: `training, ${axis} of ${shape.join('x')} ${Object.keys(extra).join(' ')}`,
    op: 'batch_norm',
    attrs,
    inputs,
    state,
    kind: 'norm',
    backward: backward(attrs, inputs),
    ...(fused && { unfused: chain(attrs, inputs) }),
    ...(extra.dropout !== undefined && { oracle: false as const }),
  };
};

const evaluated = (
  shape: readonly number[],
  axis: 'channel' | 'freq',
  extra: Attrs = {},
): OpCase => {
  const attrs = { axis, ...extra };
  const inputs = prepare(shape, axis);
  const fused = extra.relu === true || extra.avg_pool_2x2 === true || extra.dropout !== undefined;
  return {
    name: `running statistics, ${axis} of ${shape.join('x')} ${Object.keys(extra).join(' ')}`,
    op: 'batch_norm',
    attrs,
    inputs,
    state,
    kind: 'norm',
    backward: backward(attrs, inputs),
    ...(fused && { unfused: chain(attrs, inputs) }),
    ...(extra.dropout !== undefined && { oracle: false as const }),
  };
};

await checkOps(t, lab, [
  ...channelShapes.flatMap((shape) => [trained(shape, 'channel'), evaluated(shape, 'channel')]),
  trained([2, 1, 9, 64], 'freq'),
  trained([3, 1, 6, 13], 'freq'),
  evaluated([2, 1, 9, 64], 'freq'),
  evaluated([1, 1, 1, 5], 'freq'),
  trained([2, 16, 5, 6], 'channel', { eps: 1e-3, momentum: 0.4 }),
  trained([2, 40, 6, 3], 'channel', { eps: 1e-3, momentum: 0.01, zero_gamma: true }),
  evaluated([2, 40, 6, 3], 'channel', { eps: 1e-3 }),
  trained([2, 17, 41, 1], 'channel'),
  trained([3, 1, 9, 8], 'channel'),
  ...epilogues.flatMap((extra) => [
    trained([2, 20, 7, 5], 'channel', extra),
    trained([2, 64, 4, 6], 'channel', extra),
  ]),
  ...epilogues.map((extra) => evaluated([2, 20, 7, 5], 'channel', extra)),
  {
    name: 'a filter of 20 x 3 x 3 x 3',
    op: 'fold_batch_norm',
    inputs: [
      filter([20, 3, 3, 3], lab.normals(540)),
      ...prepare([1, 20, 1, 1], 'channel').slice(1),
    ],
    kind: 'few',
  },
]);

t.test('large offsets do not cancel', async (t) => {
  // One pass over sums of squares would lose everything here: mean 1000, deviation 0.01.
  const inputs = prepare([2, 16, 40, 8], 'channel');
  const x = lab.normals(2 * 16 * 40 * 8, 0.01, 1000);
  inputs[0] = map([2, 16, 40, 8], x);
  const [, mean, invstd] = await lab.run({ op: 'batch_norm', attrs: { training: true }, inputs });
  for (let c = 0; c < 16; c++) {
    const values: number[] = [];
    for (let i = 0; i < x.length; i++) {
      if (Math.floor(i / 320) % 16 === c) values.push(x[i] as number);
    }
    const center = values.reduce((a, b) => a + b, 0) / values.length;
    const variance = values.reduce((a, b) => a + (b - center) ** 2, 0) / values.length;
    t.ok(compare([mean?.data[c] ?? 0], [center], 'norm').ok, `mean of channel ${c}`);
    const found = (invstd?.data[c] ?? 0) * Math.sqrt(variance + 1e-5);
    t.ok(Math.abs(found - 1) < 1e-4, `invstd of channel ${c}: ${found}`);
  }
});

t.test('a channel that does not vary', async (t) => {
  const inputs = prepare([2, 4, 3, 3], 'channel');
  inputs[0] = map([2, 4, 3, 3], new Float32Array(72).fill(5));
  const beta = inputs[2] as OpTensor;
  const [y] = await lab.run({ op: 'batch_norm', attrs: { training: true }, inputs });
  const want = Float32Array.from(
    { length: 72 },
    (_, i) => beta.data[Math.floor(i / 9) % 4] as number,
  );
  sameTensors(t, [y as OpTensor], [{ shape: [2, 4, 3, 3], data: want }], 'norm', 'beta alone');
});

t.test('one value a channel has no variance: refused', async (t) => {
  const run = lab.run({
    op: 'batch_norm',
    attrs: { training: true },
    inputs: prepare([1, 4, 1, 1], 'channel'),
  });
  await t.rejects(run, { code: 'ERR_PANNS_SHAPE', message: /more than one value per channel/ });
});
