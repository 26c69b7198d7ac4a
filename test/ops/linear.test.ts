import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { checkOps, dense, type OpCase, openLab } from '../helpers/op.js';

const lab = await openLab(t);

const linear = (n: number, inputs: number, outputs: number, bias: boolean): OpCase => {
  const x = dense([n, inputs], lab.normals(n * inputs));
  const w = dense([outputs, inputs], lab.normals(outputs * inputs, 1 / Math.sqrt(inputs)));
  const attrs = { out_features: outputs, bias };
  return {
    name: `${n}x${inputs} to ${outputs}${bias ? ', bias' : ''}`,
    op: 'linear',
    attrs,
    inputs: [x, w, ...(bias ? [dense([outputs], lab.normals(outputs))] : [])],
    kind: 'product',
    backward: (dy: OpTensor) => [
      { op: 'linear_backward_data', attrs, inputs: [dy, w], of: [0] },
      { op: 'linear_backward_weight', attrs, inputs: [x, dy], of: [1, 2] },
    ],
  };
};

const fused = (n: number, inputs: number, outputs: number): OpCase => {
  const { backward: _, ...plain } = linear(n, inputs, outputs, true);
  return {
    ...plain,
    name: `${plain.name}, relu`,
    attrs: { ...plain.attrs, relu: true },
    unfused: async (run) => {
      const y = await run({ op: 'linear', attrs: { ...plain.attrs }, inputs: plain.inputs });
      return run({ op: 'relu', inputs: y });
    },
  };
};

// Results of twenty values and more: the norm of a few may be near zero by chance, and their error,
// that of rounded weights in halves, is not.
await checkOps(t, lab, [
  linear(1, 64, 40, true),
  linear(4, 512, 33, true),
  linear(7, 5, 3, false),
  linear(21, 130, 1, true),
  linear(21, 1, 17, false),
  linear(33, 48, 50, true),
  fused(1, 64, 50),
  fused(5, 130, 37),
]);

t.test('a weight of another shape is refused', async (t) => {
  const inputs = [dense([2, 4], lab.normals(8)), dense([3, 5], lab.normals(15))];
  const run = lab.run({ op: 'linear', attrs: { out_features: 3, bias: false }, inputs });
  await t.rejects(run, { code: 'ERR_PANNS_SHAPE', message: /expected a weight of 3x4/ });
});
