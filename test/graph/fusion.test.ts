import t, { type Test } from 'tap';
import type { NativeModel, SessionOptions, Spec } from '../../lib/addon.js';
import { buildGraph } from '../../lib/models/graph.js';
import { describeModel } from '../../lib/models/index.js';
import { loadNative } from '../../lib/native.js';
import { openDraws } from '../helpers/random.js';
import { exposing, TINY_CLASSES, TINY_SAMPLES, tiny } from '../helpers/spec.js';
import { compare, type Kind, worstErrors } from '../helpers/tolerance.js';
import { clips, targets } from '../helpers/training.js';

const native = loadNative();
const draws = openDraws(t);
const { spec, refs } = tiny();

/** Where each row finds work in the tiny network. */
const inferenceRows: Record<string, { head: string; mark: RegExp }> = {
  // `head` is the node whose output vanishes; `mark` stands in the line that took its tail in.
  'conv+relu': { head: 'conv3', mark: /^conv3 .*\+relu/m },
  'conv+avg_pool_2x2': { head: 'relu3', mark: /^conv3 .*\+avg_pool_2x2/m },
  'linear+relu': { head: 'fc1', mark: /^fc1 .*\+relu/m },
};
const trainingRows: Record<string, RegExp> = {
  'batch_norm+relu': /^block\.bn1 .* = batch_norm\(.*\+relu/m,
  'batch_norm+avg_pool_2x2': /^block\.bn1 .* = batch_norm\(.*\+avg_pool_2x2/m,
  'batch_norm+dropout': /^block\.bn1 .* = batch_norm\(.*\+dropout/m,
};

async function makeModel(of: Spec): Promise<NativeModel> {
  const model = await native.createModel(of, { device: 'cpu', threads: 0 }, TINY_SAMPLES);
  t.teardown(() => model.dispose());
  await model.initialise(1n);
  return model;
}

const values = new Map<string, Float32Array>();
const model = await makeModel(spec);
for (const { name, shape } of model.parameters()) {
  const count = shape.reduce((a, b) => a * b, 1);
  let value = draws.normals(count, shape.length > 1 ? 0.3 : 0.2);
  if (/bn\d\.weight|running_var/.test(name)) value = draws.uniforms(count, 0.5, 2);
  if (name === 'bn0.running_mean') value = draws.normals(count, 3, -20);
  if (name === 'bn0.running_var') value = draws.uniforms(count, 10, 60);
  values.set(name, value);
}
const load = async (into: NativeModel) => {
  for (const [name, value] of values) await into.set(name, value);
};
await load(model);

function close(t: Test, got: Results, want: Results, kind: Kind, what: string): void {
  t.same([...got.keys()], [...want.keys()], what);
  for (const [name, value] of want) {
    const found = compare(got.get(name) ?? [], value, kind);
    t.ok(found.ok, `${what}, ${name}: ${found.message}`);
  }
}
type Results = Map<string, ArrayLike<number>>;

/** Taken where a device offers it, which the CPU does not; the null device offers everything. */
const offeredRows: Record<string, RegExp> = {
  'conv+statistics': /^block\.conv2 .* = conv\(.*\+statistics/m,
  'conv+batch_norm': /^block\.bn1 .* = batch_norm\(.* of conv/m,
  'batch_norm+spec_augment': /^bn0 .* = batch_norm\(.*\+spec_augment/m,
  'batch_norm+mixup': /^bn0 .* = batch_norm\(.*mixup_lambda\).*\+mixup/m,
};

t.test('every row of the table is tested here', async (t) => {
  const known = [inferenceRows, trainingRows, offeredRows].flatMap((rows) => Object.keys(rows));
  t.same(native.fusions().sort(), known.sort());
});

const batch = 3;
const waveform = clips(draws, 2 * batch, TINY_SAMPLES);

/** Inference with some nodes' own results asked for, so that nothing swallows them. */
async function inferExposing(names: readonly string[]): Promise<Record<string, Float32Array>> {
  const other = await makeModel(exposing(spec, refs, names));
  await load(other);
  const wanted = ['clipwise_output', 'logits', ...names];
  return other.infer(waveform.subarray(0, batch * TINY_SAMPLES), batch, TINY_SAMPLES, wanted);
}

for (const [row, { head, mark }] of Object.entries(inferenceRows)) {
  t.test(`inference: ${row}`, async (t) => {
    t.match(await model.text(batch, TINY_SAMPLES, []), mark, 'the row is taken');
    t.notMatch(await model.text(batch, TINY_SAMPLES, [row]), mark, 'and not when it is off');
    t.notMatch(await model.text(batch, TINY_SAMPLES, ['fuse']), mark, 'nor without the pass');
    const fused = await inferExposing([]);
    const { [head]: inside, ...plain } = await inferExposing([head]);
    t.ok(
      inside?.some((v) => v !== 0),
      'the head has a result of its own',
    );
    const results = (r: object): Results => new Map(Object.entries(r));
    close(t, results(fused), results(plain), 'product', row);
  });
}

t.test('inference: fold_batch_norm', async (t) => {
  const folded = await model.text(batch, TINY_SAMPLES, []);
  t.match(folded, /^block\.bn1 .* = fold_batch_norm\(.*\[once\]/m);
  t.notMatch(folded, /^block\.bn\d .* = batch_norm\(/m);
  const off = await model.text(batch, TINY_SAMPLES, ['fold_batch_norm']);
  t.notMatch(off, /fold_batch_norm/);
  t.match(off, /^block\.bn1 .* = batch_norm\(/m);
  const fused = await inferExposing([]);
  const { conv1, conv2, ...plain } = await inferExposing(['conv1', 'conv2']);
  t.ok(conv1?.length && conv2?.length);
  const results = (r: object): Results => new Map(Object.entries(r));
  close(t, results(fused), results(plain), 'product', 'folded and not');
});

t.test('inference: folded weights follow the parameters', async (t) => {
  const clip = waveform.subarray(0, TINY_SAMPLES);
  const infer = async () => (await model.infer(clip, 1, TINY_SAMPLES, ['logits'])).logits;
  const before = await infer();
  await model.set('block.bn1.weight', draws.uniforms(16, 2, 3));
  const after = await infer();
  await model.set('block.bn1.weight', values.get('block.bn1.weight') as Float32Array);
  t.notSame(after, before);
  t.same(await infer(), before, 'and back again');
});

const options: SessionOptions = {
  batch,
  samples: TINY_SAMPLES,
  mixup: true,
  loss: 'bce',
  optimizer: { kind: 'sgd', attrs: {} },
  frozen: [],
  passesOff: [],
};
const lambda = Float32Array.of(0.3, 0.7, 0.9, 0.1, 0.5, 0.5);

/**
 * Batches to train on. Another order of sums takes a value over a kink of ReLU in one of some thousand
 * runs, and the gradients then differ by what depends on it: not for three batches in turn.
 */
const trainings = [
  waveform,
  clips(draws, 2 * batch, TINY_SAMPLES),
  clips(draws, 2 * batch, TINY_SAMPLES),
].map((waveform) => ({ waveform, target: targets(draws, 2 * batch, TINY_CLASSES, 'bce') }));

type Trained = { results: Results; text: string };

/** The loss and every gradient of one step, with dropout, SpecAugment and mixup on. */
async function train(
  passesOff: string[],
  { waveform, target }: (typeof trainings)[number],
): Promise<Trained> {
  await load(model); // the running statistics move with every step
  const session = await native.createSession(model, spec, { ...options, passesOff });
  const state = { seed: 99n, step: 3, lr: 0.1, maxNorm: 0, update: false };
  const { loss } = await session.step(waveform, target, lambda, state);
  const results: Results = new Map([['loss', [loss]]]);
  for (const { name, trainable } of model.parameters()) {
    results.set(name, trainable ? await session.gradient(name) : await model.get(name));
  }
  const text = session.text();
  session.dispose();
  return { results, text };
}

const whole = new Map<number, Trained>();

/** A step with every pass, of the batch of that number. */
async function wholeOf(which: number): Promise<Trained> {
  const found = whole.get(which) ?? (await train([], at(which)));
  whole.set(which, found);
  return found;
}

const at = (which: number) => trainings[which] as (typeof trainings)[number];

/** Asserts that a step without some passes gives the same; returns the listing of its program. */
async function sameTraining(t: Test, passesOff: string[], what: string): Promise<string> {
  for (const which of trainings.keys()) {
    const { results: want } = await wholeOf(which);
    const { results, text } = await train(passesOff, at(which));
    const apart = [...want].map(([name, value]) =>
      compare(results.get(name) ?? [], value, 'reordered'),
    );
    const last = which === trainings.length - 1;
    if (apart.some(({ ok }) => !ok) && !last) {
      t.comment(apart.find(({ ok }) => !ok)?.message);
      continue;
    }
    close(t, results, want, 'reordered', what);
    return text;
  }
  return '';
}

const trained = await wholeOf(0);

for (const [row, mark] of Object.entries(trainingRows)) {
  t.test(`training: ${row}`, async (t) => {
    t.match(trained.text, mark, 'the row is taken');
    const text = await sameTraining(t, [row], row);
    t.notMatch(text, mark, 'and not when it is off');
  });
}

for (const [row, mark] of Object.entries(offeredRows)) {
  t.test(`training where it is offered: ${row}`, async (t) => {
    t.notMatch(trained.text, mark, 'not on the CPU');
    const taken = native.nullStep(spec, options).text;
    t.match(taken, mark);
    for (const off of [row, 'fuse']) {
      t.notMatch(native.nullStep(spec, { ...options, passesOff: [off] }).text, mark, `${off} off`);
    }
  });
}

t.test('a norm takes the sums of the convolution before it, and no other does', async (t) => {
  const passesOff = ['conv+batch_norm'];
  const lines = native.nullStep(spec, { ...options, passesOff }).text.split('\n');
  const giving = lines.filter((line) => line.includes('+statistics'));
  const taking = lines.filter((line) => line.includes('from sums'));
  t.ok(giving.length >= 2);
  t.equal(taking.length, giving.length);
  for (const line of giving) {
    const made = /(%\d+), (%\d+), (%\d+) = conv\(/.exec(line)?.slice(1) ?? [];
    const reader = new RegExp(`= batch_norm\\(${made[0]}, .*, ${made[1]}, ${made[2]}\\)`);
    t.equal(taking.filter((norm) => reader.test(norm)).length, 1, line);
  }
  t.notOk(
    lines.some((line) => /backward/.test(line) && /statistics|from sums/.test(line)),
    'backward is as ever',
  );
  // Norms over frequency, of running statistics, and of convolutions that do not train.
  const frozen = ['bn0', 'block.'];
  const still = native.nullStep(spec, { ...options, frozen, frozenNorms: 'eval' });
  t.notMatch(still.text, /statistics|from sums/);
});

t.test('a norm takes the convolution of one channel before it, and no other', async (t) => {
  const { text } = native.nullStep(spec, options);
  const forward = /^block\.bn1 +(%\d+), %\d+, (%\d+), (%\d+) = batch_norm\((%\d+), ([^)]*)\)/m.exec(
    text,
  );
  const [, y, invstd, moments, x, rest] = forward ?? [];
  t.equal(rest, 'weight, bias, running_mean, running_var, weight');
  t.match(text, new RegExp(`^bn0 +${x}, .*\\+mixup`, 'm'), 'it reads what the convolution read');
  t.match(text, new RegExp(`= conv\\(${y}, weight\\)`), 'and its result goes on');
  const back = new RegExp(
    `^block\\.bn1 +%\\d+, %\\d+, %\\d+, %\\d+ = batch_norm_backward\\(` +
      `${x}, weight, bias, %\\d+, ${invstd}, %\\d+, weight, ${moments}\\)`,
    'm',
  );
  t.match(text, back, 'with a gradient of the weight too');
  t.notMatch(text, /^block\.conv1 /m, 'nothing is left of the convolution');

  type Attrs = Spec['nodes'][number]['attrs'];
  const changed = (attrs: Attrs): Spec => {
    const other = structuredClone(spec);
    const node = other.nodes[Number(refs.conv1?.slice(1))];
    if (node !== undefined) node.attrs = { ...node.attrs, ...attrs };
    return other;
  };
  const taken = (of: Spec, more: object = {}) =>
    / of conv/.test(native.nullStep(of, { ...options, ...more }).text);
  t.ok(taken(changed({ kernel: 5, padding: 2 })));
  for (const attrs of [
    { bias: true },
    { stride: 2 },
    { padding: 0 },
    { kernel: 4, padding: 2 },
    { padding: 2, dilation: 2 },
  ]) {
    t.notOk(taken(changed(attrs)), JSON.stringify(attrs));
  }
  // In strides only where nothing before it trains: a gradient of x is not made.
  const wave = (before: boolean): Spec =>
    buildGraph('Wave', (b, waveform) => {
      let x = b.unsqueeze(waveform);
      if (before) x = b.conv1d('before', x, { channels: 1, kernel: 3, padding: 1 });
      x = b.conv1d('conv', x, { channels: 8, kernel: 11, stride: 5, padding: 5 });
      const pooled = b.reduceTime(b.meanOverFrequency(b.relu(b.batchNorm('bn', x))), 'mean');
      return { clipwise_output: b.sigmoid(b.linear('fc', pooled, TINY_CLASSES)) };
    }).spec;
  const strided = native.nullStep(wave(false), { ...options, mixup: false }).text;
  t.match(strided, /^bn .* 3x8x\d+x1 +channel batch of conv stride=5x1 \+relu/m);
  t.match(strided, /^bn .* = batch_norm_backward\(/m);
  t.notMatch(strided, /^conv /m);
  t.notOk(taken(wave(true), { mixup: false }), 'what comes before it trains');
  t.ok(taken(wave(true), { mixup: false, frozen: ['before'] }), 'and does not');
  const read = structuredClone(spec);
  const relu = read.nodes[Number(refs.relu1?.slice(1))];
  if (relu !== undefined) Object.assign(relu, { op: 'add', inputs: [refs.bn1, refs.conv1] });
  t.notOk(taken(read), 'its result is read by another');
  t.notOk(taken(spec, { frozen: ['bn0', 'block.'] }), 'nothing of it trains');
  t.notOk(taken(spec, { frozen: ['block.bn1'], frozenNorms: 'eval' }), 'running statistics');
});

t.test('the first convolutions that networks have', async (t) => {
  const norms = (name: string) => {
    const { text } = native.nullStep(describeModel(name).spec, { ...options, samples: 320_000 });
    return [...text.matchAll(/^(\S+) .* = batch_norm\(.* of conv/gm)].map(([, path]) => path);
  };
  t.same(norms('Cnn14'), ['conv_block1.bn1']);
  t.same(norms('Wavegram_Cnn14'), ['pre_bn0']);
  t.same(norms('Wavegram_Logmel_Cnn14'), ['pre_bn0', 'conv_block1.bn1']);
  t.same(norms('Res1dNet31'), ['bn0']);
  t.same(norms('LeeNet11'), ['conv_block1.bn1']);
  t.same(norms('DaiNet19'), [], 'an even kernel');
});

t.test('a norm over frequency takes stripes and mixup, and no other does', async (t) => {
  const listing = (of: Spec, passesOff: string[] = [], more: object = {}) =>
    native.nullStep(of, { ...options, ...more, passesOff }).text;
  const text = listing(spec);
  const [, y, rest] = /^bn0 +(%\d+), %\d+, %\d+ = batch_norm\(%\d+, ([^)]*)\)/m.exec(text) ?? [];
  t.equal(rest, 'weight, bias, running_mean, running_var, mixup_lambda');
  t.match(text, new RegExp(`^block\\.bn1 .* = batch_norm\\(${y}, `, 'm'), 'its result goes on');
  const back = /^bn0 .* = batch_norm_backward\(.*, mixup_lambda\).* \+spec_augment\(.*\) \+mixup$/m;
  t.match(text, back);
  t.notMatch(text, /= (spec_augment|mixup_backward)\(/, 'nothing is left of them');
  t.equal(text.match(/= mixup\(/g)?.length, 1, 'but the mixed target');

  const apart = listing(spec, ['batch_norm+spec_augment']);
  t.notMatch(apart, /\+mixup/, 'mixup comes after the stripes, so not without them');
  t.match(apart, /^spec_augment .* = spec_augment\(/m);
  t.match(listing(spec, [], { mixup: false }), /^bn0 .*\+spec_augment\([^+]*$/m);
  const still = listing(spec, [], { frozen: ['bn0'], frozenNorms: 'eval' });
  t.match(still, /^bn0 .* = batch_norm\(.* running \+spec_augment\(.*\) \+mixup/m);
  const channels = structuredClone(spec);
  const bn0 = channels.nodes.find(({ path }) => path === 'bn0');
  if (bn0 !== undefined) bn0.attrs = { ...bn0.attrs, axis: 'channel' };
  t.notMatch(listing(channels), /\+(spec_augment|mixup)/, 'nor a norm over channels');
});

t.test('training: every pass off by name', async (t) => {
  for (const pass of ['prune', 'plan']) {
    const { results } = await train([pass], at(0));
    // Neither what is dropped nor where things lie may change a bit.
    close(t, results, trained.results, 'exact', `without ${pass}`);
  }
  await sameTraining(t, ['fuse'], 'without fuse');
  const all = ['fuse', 'prune', 'plan', 'fold_batch_norm'];
  const text = await sameTraining(t, all, 'without any');
  t.notMatch(text, /\+(relu|avg_pool_2x2|dropout)/);
});

t.test('inference: every pass off by name', async (t) => {
  // A branch that leads nowhere.
  const dead = structuredClone(spec);
  const { op, path, inputs, attrs } = dead.nodes[Number(refs.fc2?.slice(1))] ?? dead.nodes[0] ?? {};
  t.equal(path, 'fc2');
  dead.nodes.push({ op, path: 'dead', inputs, attrs } as Spec['nodes'][number]);
  const other = await makeModel(dead);
  t.notMatch(await other.text(1, TINY_SAMPLES, []), /^dead /m);
  t.match(await other.text(1, TINY_SAMPLES, ['prune']), /^dead .* = linear\(/m);
  const sizes = async (off: string[]) => {
    const found = /arena (\S+) MiB \((\S+) MiB without reuse\)/.exec(
      await model.text(8, TINY_SAMPLES, off),
    );
    return [Number(found?.[1]), Number(found?.[2])] as const;
  };
  const [arena, sum] = await sizes([]);
  t.ok(arena < sum, `${arena} MiB of ${sum}`);
  const [all, same] = await sizes(['plan']);
  t.equal(all, same);
});

t.test('the largest errors', async (t) => {
  for (const line of worstErrors()) t.comment(line);
});
