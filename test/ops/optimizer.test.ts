import t from 'tap';
import type { OpTensor } from '../../lib/addon.js';
import { type Attrs, dense, openLab, type Run, sameTensors } from '../helpers/op.js';
import { worstErrors } from '../helpers/tolerance.js';

const lab = await openLab(t);

const rows: readonly { kind: 'adam' | 'sgd'; attrs: Attrs; lr: number }[] = [
  { kind: 'adam', attrs: {}, lr: 1e-3 },
  { kind: 'adam', attrs: { beta1: 0.8, beta2: 0.95, eps: 1e-3 }, lr: 0.1 },
  { kind: 'adam', attrs: { amsgrad: true }, lr: 1e-2 },
  { kind: 'adam', attrs: { weight_decay: 0.1 }, lr: 1e-2 },
  { kind: 'adam', attrs: { weight_decay: 0.1, decoupled: true }, lr: 1e-2 },
  { kind: 'adam', attrs: { amsgrad: true, weight_decay: 0.03, decoupled: true }, lr: 1e-2 },
  { kind: 'sgd', attrs: {}, lr: 0.1 },
  { kind: 'sgd', attrs: { momentum: 0.9 }, lr: 0.1 },
  { kind: 'sgd', attrs: { momentum: 0.9, nesterov: true }, lr: 0.1 },
  { kind: 'sgd', attrs: { momentum: 0.9, nesterov: true, weight_decay: 0.05 }, lr: 0.1 },
  { kind: 'sgd', attrs: { weight_decay: 0.05 }, lr: 0.1 },
];
const STEPS = 7;

function slotCount({ kind, attrs }: (typeof rows)[number]): number {
  if (kind === 'adam') return attrs.amsgrad ? 3 : 2;
  return attrs.momentum ? 1 : 0;
}

/** The parameters after each step, then the state. */
async function optimize(
  run: Run,
  row: (typeof rows)[number],
  start: Float32Array,
  gradients: readonly Float32Array[],
): Promise<OpTensor[]> {
  const shape = [start.length];
  let parameter = dense(shape, start);
  let slots = Array.from({ length: slotCount(row) }, () =>
    dense(shape, new Float32Array(start.length)),
  );
  const after: OpTensor[] = [];
  for (const [step, gradient] of gradients.entries()) {
    const { kind, attrs, lr } = row;
    const inputs = [parameter, dense(shape, gradient), ...slots];
    const [next, same, ...state] = await run({ op: kind, attrs, inputs, state: { step, lr } });
    parameter = next as OpTensor;
    slots = state;
    after.push(parameter);
    if (step === 0) t.same(same?.data, gradient, `${kind}: the gradient is left alone`);
  }
  return [...after, ...slots];
}

for (const row of rows) {
  await t.test(`${row.kind} ${JSON.stringify(row.attrs)}`, async (t) => {
    // No multiple of a vector's length.
    const start = lab.normals(1003);
    // Gradients shrink: amsgrad's maximum then differs from the running square.
    const gradients = Array.from({ length: STEPS }, (_, i) => lab.normals(1003, 2 ** -i));
    const found = await optimize(lab.run, row, start, gradients);
    for (const [tier, run] of lab.tiers) {
      sameTensors(t, await optimize(run, row, start, gradients), found, 'optimizer', tier);
    }
    if (lab.single === undefined) t.pass('one thread', { skip: lab.noSingle });
    else
      t.same(await optimize(lab.single, row, start, gradients), found, 'one thread, bit for bit');
    if (lab.oracle.skip) {
      t.pass('against PyTorch', { skip: lab.oracle.skip });
      return;
    }
    const request = { ...row, attrs: row.attrs };
    const truth = await lab.oracle.call('optimize', request, [start, ...gradients]);
    const want = truth.arrays.map((data) => ({ shape: [1003], data }));
    sameTensors(t, found, want, 'optimizer', 'parameter or state');
  });
}

for (const row of rows.filter(({ attrs }) => attrs.amsgrad || attrs.momentum)) {
  t.test(`${row.kind} ${JSON.stringify(row.attrs)} behind a gate`, async (t) => {
    const count = 1003;
    const inputs = Array.from({ length: 2 + slotCount(row) }, () =>
      dense([count], lab.uniforms(count, 0.1, 1)),
    );
    const state = { step: 2, lr: row.lr };
    const optimize = async (...gate: number[]) => {
      const values = gate.map((value) => dense([1], Float32Array.of(value)));
      const call = { op: row.kind, attrs: row.attrs, inputs: [...inputs, ...values], state };
      return (await lab.run(call)).slice(0, inputs.length);
    };
    const want = await optimize();
    t.notSame(want[0], inputs[0]);
    t.same(await optimize(lab.normals(1)[0] as number), want, 'open: as without');
    t.same(await optimize(3e38), want, 'open to all that is finite');
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      t.same(await optimize(value), inputs, `${value}: nothing moves`);
    }
  });
}

t.test('grad_norm: the norm over all arrays, and the factor that clips', async (t) => {
  const arrays = [lab.normals(1000, 0.1), lab.normals(37), lab.normals(1, 5)];
  const inputs = arrays.map((data) => dense([data.length], data));
  const norm = Math.sqrt(arrays.flatMap((a) => [...a]).reduce((sum, v) => sum + v * v, 0));
  for (const maxNorm of [norm / 3, norm * 3]) {
    const outputs = await lab.run({ op: 'grad_norm', inputs, state: { maxNorm } });
    const [found = 0, scale = 0] = outputs.at(-1)?.data ?? [];
    t.same(outputs.slice(0, -1), inputs, 'the gradients are left alone');
    t.ok(Math.abs(found / norm - 1) < 1e-6, `norm ${found}, expected ${norm}`);
    t.ok(Math.abs(scale / Math.min(1, maxNorm / (norm + 1e-6)) - 1) < 1e-6, `scale ${scale}`);
    if (lab.oracle.skip) continue;
    const truth = await lab.oracle.call('clip', { max_norm: maxNorm }, arrays);
    t.ok(Math.abs(found / Number(truth.header.norm) - 1) < 1e-6, 'as clip_grad_norm_');
    t.ok(Math.abs(scale / Number(truth.header.scale) - 1) < 1e-6, 'as clip_grad_norm_ scales');
  }
});

t.test('grad_norm: without clipping nothing is scaled', async (t) => {
  const inputs = [dense([50], lab.normals(50))];
  const outputs = await lab.run({ op: 'grad_norm', inputs, state: { maxNorm: 0 } });
  t.same([...(outputs.at(-1)?.data ?? [])], [0, 1]);
});

for (const line of worstErrors()) t.comment(line);
