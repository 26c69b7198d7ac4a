import t, { type Test } from 'tap';
import type { SessionOptions } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { TINY_SAMPLES, tiny } from '../helpers/spec.js';

const native = loadNative();
const { spec } = tiny();
const options: SessionOptions = {
  batch: 2,
  samples: TINY_SAMPLES,
  mixup: true,
  loss: 'bce',
  optimizer: { kind: 'adam', attrs: { amsgrad: true } },
  frozen: [],
  passesOff: [],
};

/** One line of a dump that makes values. */
interface Line {
  readonly path: string;
  readonly out: readonly string[];
  readonly op: string;
  readonly inputs: readonly string[];
  readonly once: boolean;
  /** Offset and bytes, in the order of the outputs that lie in the arena. */
  readonly places: readonly (readonly [number, number])[];
}

const LINE = /^(\S+)\s+((?:%\d+(?:, )?)+) = (\w+)\(([^)]*)\)\s+\d+(?:x\d+)*\s.*$/;

function parse(text: string): { lines: Line[]; outputs: string[]; arena: number; sum: number } {
  const lines: Line[] = [];
  const outputs: string[] = [];
  // The forward and backward program comes first; the optimizer's follows its totals.
  const program = text.slice(0, text.indexOf('\n', text.indexOf('nodes ')));
  for (const row of program.split('\n')) {
    const output = /^output\s+\w+ = (%\d+) /.exec(row)?.[1];
    if (output !== undefined) outputs.push(output);
    const found = LINE.exec(row);
    if (found === null) continue;
    const [, path = '', out = '', op = '', inputs = ''] = found;
    lines.push({
      path,
      out: out.split(', '),
      op,
      inputs: inputs.split(', '),
      once: row.includes(' [once]'),
      places: [...row.matchAll(/@(\d+)\+(\d+)/g)].map(([, at, bytes]) => [
        Number(at),
        Number(bytes),
      ]),
    });
  }
  const totals = /nodes (\d+), .* arena (\S+) MiB \((\S+) MiB without reuse\)/.exec(program);
  t.equal(Number(totals?.[1]), lines.length, 'a line for each node');
  return { lines, outputs, arena: Number(totals?.[2]), sum: Number(totals?.[3]) };
}

/** The first and last line at which each value of the arena is needed, and its place. */
function lives({ lines, outputs }: ReturnType<typeof parse>) {
  const read = new Map<string, number>();
  lines.forEach(({ inputs }, i) => {
    for (const name of inputs) read.set(name, i);
  });
  for (const name of outputs) read.set(name, lines.length);
  const values: { name: string; first: number; last: number; at: number; end: number }[] = [];
  lines.forEach(({ path, out, places, once }, i) => {
    // What nobody reads is a gradient, and lies with the parameters' other gradients.
    const kept = out.filter((name) => read.has(name));
    t.equal(places.length, kept.length, `${path}: a place for ${kept.join(', ') || 'nothing'}`);
    kept.forEach((name, k) => {
      const [at = 0, bytes = 0] = places[k] ?? [];
      const last = once ? lines.length : (read.get(name) ?? i);
      values.push({ name, first: once ? -1 : i, last, at, end: at + bytes });
    });
  });
  return values;
}

function checkPlan(t: Test, text: string): void {
  const program = parse(text);
  const values = lives(program);
  let clashes = 0;
  values.forEach((a, i) => {
    for (const b of values.slice(0, i)) {
      const alive = a.first <= b.last && b.first <= a.last;
      if (!alive || a.at >= b.end || b.at >= a.end) continue;
      clashes++;
      t.fail(`${a.name} and ${b.name} are alive at once and share memory`);
    }
  });
  t.equal(clashes, 0, `no two of ${values.length} live values overlap`);
  const end = Math.max(...values.map((v) => v.end));
  t.ok(end / 2 ** 20 <= program.arena + 0.005, 'all lie in the arena');
}

t.test('training: values that live at once lie apart, others share', async (t) => {
  for (const off of [[], ['fuse'], ['prune'], ['fuse', 'prune']]) {
    const { text } = native.nullStep(spec, { ...options, passesOff: off });
    checkPlan(t, text);
    const { arena, sum } = parse(text);
    t.ok(arena < 0.75 * sum, `${arena} MiB of ${sum} without reuse`);
  }
});

t.test('training: without the plan every value has a place of its own', async (t) => {
  const { text, bytes } = native.nullStep(spec, { ...options, passesOff: ['plan'] });
  const { arena, sum } = parse(text);
  t.equal(arena, sum);
  const values = lives(parse(text));
  for (const [i, a] of values.entries()) {
    const shared = values.slice(0, i).find((b) => a.at < b.end && b.at < a.end);
    t.equal(shared, undefined, `${a.name} shares nothing`);
  }
  t.ok(bytes > native.nullStep(spec, options).bytes);
});

t.test('inference: the same, with constants that live through every run', async (t) => {
  const model = await native.createModel(spec, { device: 'cpu', threads: 1 }, TINY_SAMPLES);
  for (const off of [[], ['fuse'], ['fold_batch_norm'], ['fuse', 'fold_batch_norm']]) {
    checkPlan(t, await model.text(3, TINY_SAMPLES, off));
  }
  model.dispose();
});

t.test('a captured step: the first run and each replay do the same work once', async (t) => {
  // A kernel of the null backend adds one to what it writes. Without sharing, the loss therefore
  // counts the runs of its node: memory starts as zeros, as on every backend.
  for (const off of [['plan'], ['plan', 'fuse'], ['plan', 'prune']]) {
    const { runs } = native.nullStep(spec, { ...options, passesOff: off });
    t.same(runs, [1, 2, 3], `without ${off.join(' and ')}`);
  }
});

t.test('the dump reads like a forward pass', async (t) => {
  const { text } = native.nullStep(spec, { ...options, passesOff: ['fuse'] });
  const { lines } = parse(text);
  const forward = lines.filter(({ op }) => !/backward/.test(op)).map(({ path, op }) => [path, op]);
  t.same(forward.slice(0, 10), [
    ['logmel', 'logmel'],
    ['bn0', 'batch_norm'],
    ['spec_augment', 'spec_augment'],
    ['mixup', 'mixup'],
    ['block.conv1', 'conv'],
    ['block.bn1', 'batch_norm'],
    ['relu', 'relu'],
    ['pool', 'pool'],
    ['dropout', 'dropout'],
    ['block.conv2', 'conv'],
  ]);
  t.match(text, /^block\.conv1 .* = conv\(%\d+, weight\) .*2x16x51x16 .*3x3 pad=1x1/m);
  t.match(text, /^loss .* = bce\(%\d+, %\d+\)/m);
  t.match(text, /^optimizer\s+adam\(parameters, gradients, exp_avg, exp_avg_sq, max_exp_avg_sq\)/m);
  t.match(text, /^nodes \d+, \d+\.\d+ GFLOP, arena .* MiB \(.* without reuse\), scratch .* MiB$/m);
  const backward = lines.filter(({ op }) => /backward/.test(op));
  t.equal(backward[0]?.op, 'bce_backward');
  t.equal(backward.at(-1)?.path, 'bn0', 'backward ends where forward began');
});
