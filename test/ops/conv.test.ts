import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import {
  type Attrs,
  checkOps,
  dense,
  filter,
  map,
  type OpCase,
  openLab,
  type Run,
  sizeOf,
} from '../helpers/op.js';
import type { Kind } from '../helpers/tolerance.js';

const lab = await openLab(t);

/** (N, C, T, F) and what the convolution adds to a plain 1x1 one. */
interface Row {
  readonly name: string;
  readonly x: readonly [number, number, number, number];
  readonly out: number;
  readonly kernel: readonly [number, number];
  readonly attrs?: Attrs;
  readonly kind?: Kind;
}

const rows: readonly Row[] = [
  {
    name: '3x3',
    x: [2, 16, 9, 8],
    out: 32,
    kernel: [3, 3],
    attrs: { padding: 1 },
    kind: 'winograd',
  },
  {
    name: '3x3, one input channel',
    x: [2, 1, 13, 8],
    out: 16,
    kernel: [3, 3],
    attrs: { padding: 1 },
  },
  {
    name: '3x3, odd sizes, channels between blocks of 16',
    x: [1, 19, 7, 5],
    out: 21,
    kernel: [3, 3],
    attrs: { padding: 1 },
    kind: 'winograd',
  },
  {
    name: '3x3 on a map of one frame and bin',
    x: [3, 32, 1, 1],
    out: 16,
    kernel: [3, 3],
    attrs: { padding: 1 },
    kind: 'winograd',
  },
  {
    name: '3x3 on many frames and two bins, as in the last block',
    x: [1, 48, 31, 2],
    out: 64,
    kernel: [3, 3],
    attrs: { padding: 1 },
    kind: 'winograd',
  },
  { name: '3x3 unpadded', x: [2, 8, 6, 7], out: 5, kernel: [3, 3], kind: 'winograd' },
  { name: '5x5', x: [2, 16, 9, 8], out: 24, kernel: [5, 5], attrs: { padding: 2 } },
  {
    name: '5x5, one input channel',
    x: [1, 1, 11, 6],
    out: 16,
    kernel: [5, 5],
    attrs: { padding: 2 },
  },
  { name: '1x1', x: [2, 24, 5, 3], out: 40, kernel: [1, 1] },
  { name: '1x1 strided', x: [2, 16, 7, 6], out: 16, kernel: [1, 1], attrs: { stride: 2 } },
  {
    name: '3x3 strided',
    x: [2, 16, 9, 7],
    out: 16,
    kernel: [3, 3],
    attrs: { padding: 1, stride: 2 },
  },
  {
    name: '3x3 strided in time only',
    x: [1, 4, 10, 6],
    out: 8,
    kernel: [3, 3],
    attrs: { padding: 1, stride: [3, 1] },
  },
  {
    name: '3x3 dilated',
    x: [1, 16, 9, 9],
    out: 16,
    kernel: [3, 3],
    attrs: { padding: 2, dilation: 2 },
  },
  {
    name: '3x3 of 4 groups',
    x: [2, 32, 5, 6],
    out: 64,
    kernel: [3, 3],
    attrs: { padding: 1, groups: 4 },
  },
  {
    name: '3x3 of 3 odd groups',
    x: [1, 9, 5, 6],
    out: 6,
    kernel: [3, 3],
    attrs: { padding: 1, groups: 3 },
  },
  {
    name: 'depthwise',
    x: [2, 20, 7, 6],
    out: 20,
    kernel: [3, 3],
    attrs: { padding: 1, groups: 20 },
  },
  {
    name: 'depthwise with two outputs a channel, strided',
    x: [1, 8, 7, 6],
    out: 16,
    kernel: [3, 3],
    attrs: { padding: 1, groups: 8, stride: 2 },
  },
  { name: '1-d: kernel 3', x: [2, 16, 33, 1], out: 32, kernel: [3, 1], attrs: { padding: [1, 0] } },
  {
    name: '1-d: dilated',
    x: [2, 16, 20, 1],
    out: 16,
    kernel: [3, 1],
    attrs: { padding: [2, 0], dilation: [2, 1] },
  },
  {
    name: '1-d: the first of a waveform network',
    x: [2, 1, 101, 1],
    out: 16,
    kernel: [11, 1],
    attrs: { padding: [5, 0], stride: [5, 1] },
  },
  {
    name: 'asymmetric kernel',
    x: [1, 5, 8, 9],
    out: 7,
    kernel: [2, 5],
    attrs: { padding: [0, 2] },
  },
  {
    name: 'depthwise 5x5, strided, channels between blocks of 16',
    x: [1, 40, 19, 8],
    out: 40,
    kernel: [5, 5],
    attrs: { padding: 2, groups: 40, stride: 2 },
  },
  {
    name: '1-d: kernel 3 of many channels and frames',
    x: [1, 32, 90, 1],
    out: 40,
    kernel: [3, 1],
    attrs: { padding: [1, 0] },
    kind: 'winograd',
  },
  {
    name: '1-d: dilated, of many channels and frames',
    x: [2, 40, 61, 1],
    out: 32,
    kernel: [3, 1],
    attrs: { padding: [2, 0], dilation: [2, 1] },
    kind: 'winograd',
  },
  {
    name: '1-d: the first of LeeNet',
    x: [2, 1, 100, 1],
    out: 64,
    kernel: [3, 1],
    attrs: { padding: [1, 0], stride: [3, 1] },
  },
  {
    name: '1-d: the first of DaiNet',
    x: [2, 1, 337, 1],
    out: 64,
    kernel: [80, 1],
    attrs: { stride: [4, 1] },
    kind: 'long',
  },
  // With a bias, as every odd row.
  { name: '1-d: 1x1 to classes', x: [2, 48, 7, 1], out: 527, kernel: [1, 1] },
  {
    name: '1-d: dilated, channels between blocks of 16',
    x: [1, 40, 21, 1],
    out: 72,
    kernel: [3, 1],
    attrs: { padding: [2, 0], dilation: [2, 1] },
  },
  {
    name: 'depthwise, strided',
    x: [2, 24, 9, 7],
    out: 24,
    kernel: [3, 3],
    attrs: { padding: 1, groups: 24, stride: 2 },
  },
  {
    name: 'depthwise 5x5',
    x: [1, 40, 8, 6],
    out: 40,
    kernel: [5, 5],
    attrs: { padding: 2, groups: 40 },
  },
  {
    name: 'depthwise 5x5, strided',
    x: [2, 17, 11, 8],
    out: 17,
    kernel: [5, 5],
    attrs: { padding: 2, groups: 17, stride: 2 },
  },
];

/** The forward op's inputs and attributes, scaled so that results are around one. */
function prepare({ x, out, kernel, attrs }: Row, bias: boolean) {
  const groups = Number(attrs?.groups ?? 1);
  const w = [out, x[1] / groups, ...kernel];
  const fan = sizeOf(w) / out;
  const inputs = [
    map(x, lab.normals(sizeOf(x))),
    filter(w, lab.normals(sizeOf(w), 1 / Math.sqrt(fan))),
    ...(bias ? [dense([out], lab.normals(out))] : []),
  ];
  return { inputs, attrs: { ...attrs, out_channels: out, kernel: [...kernel], bias } };
}

function backward(attrs: Attrs, [x, w]: readonly OpTensor[]) {
  const [, channels = 0, frames = 0, bins = 0] = x?.shape ?? [];
  const all = { ...attrs, in_channels: channels, in_t: frames, in_f: bins };
  return (dy: OpTensor) => [
    { op: 'conv_backward_data', attrs: all, inputs: [dy, w as OpTensor], of: [0] },
    { op: 'conv_backward_weight', attrs: all, inputs: [x as OpTensor, dy], of: [1, 2] },
  ];
}

const gradients = rows.map((row, i): OpCase => {
  // Every other one has a bias.
  const { inputs, attrs } = prepare(row, i % 2 === 1);
  return {
    name: row.name,
    op: 'conv',
    attrs,
    inputs,
    kind: row.kind ?? 'product',
    backward: backward(attrs, inputs),
  };
});

/** conv, then its epilogue as ops of their own. */
function chain(attrs: Attrs, inputs: readonly OpTensor[]) {
  const { relu, avg_pool_2x2, frozen: _, ...plain } = attrs;
  return async (run: Run): Promise<OpTensor[]> => {
    let y = await run({ op: 'conv', attrs: plain, inputs });
    if (relu) y = await run({ op: 'relu', inputs: y });
    if (avg_pool_2x2) y = await run({ op: 'pool', attrs: { kind: 'avg', kernel: 2 }, inputs: y });
    return y;
  };
}

const epilogues: readonly Attrs[] = [
  { frozen: true },
  { relu: true },
  { frozen: true, relu: true },
  { relu: true, avg_pool_2x2: true },
  { frozen: true, relu: true, avg_pool_2x2: true },
  { frozen: true, avg_pool_2x2: true },
];
// Winograd ones, a direct one, one input channel, odd sizes, strides, groups: the pool floors.
const fusable = [0, 1, 2, 6, 7, 8, 10, 13, 15, 17, 21, 22];
const fused = epilogues.flatMap((extra, i) =>
  fusable.flatMap((k): OpCase[] => {
    const row = rows[k] as Row;
    // A map with one bin has nothing to pool in frequency.
    if (extra.avg_pool_2x2 && row.x[3] === 1) return [];
    // Every row meets every epilogue once in a while: which pairs run changes with the seed.
    if (lab.random.integer(3) > 0 && i > 0) return [];
    const { inputs, attrs } = prepare(row, lab.random.integer(2) === 1);
    const all = { ...attrs, ...extra };
    return [
      {
        name: `${row.name}, ${Object.keys(extra).join(', ')}${attrs.bias ? ', bias' : ''}`,
        op: 'conv',
        attrs: all,
        inputs,
        kind: row.kind ?? 'product',
        unfused: chain(all, inputs),
      },
    ];
  }),
);

await checkOps(t, lab, [...gradients, ...fused]);

t.test('an input smaller than the kernel is refused', async (t) => {
  const { inputs, attrs } = prepare({ name: '', x: [1, 2, 2, 9], out: 3, kernel: [3, 3] }, false);
  await t.rejects(lab.run({ op: 'conv', attrs, inputs }), {
    code: 'ERR_PANNS_SHAPE',
    message: /at least 3 frames, got 2/,
  });
});

t.test('a weight of another shape is refused', async (t) => {
  const { inputs, attrs } = prepare({ name: '', x: [1, 2, 4, 4], out: 3, kernel: [3, 3] }, false);
  const run = lab.run({ op: 'conv', attrs: { ...attrs, out_channels: 4 }, inputs });
  await t.rejects(run, { code: 'ERR_PANNS_SHAPE', message: /expected a weight of 4x2x3x3/ });
});
