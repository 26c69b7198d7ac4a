import t from 'tap';
import { fewShot, kFold } from '../../lib/data/split.js';
import { type Model, modelInternals } from '../../lib/inference/model.js';
import { convBlock5x5 } from '../../lib/models/blocks.js';
import { logmelFrontend } from '../../lib/models/frontends.js';
import { clipHead } from '../../lib/models/heads.js';
import type { ModelRow } from '../../lib/models/row.js';
import { crossValidate } from '../../lib/train/cross_validate.js';
import { evaluate } from '../../lib/train/evaluate.js';
import { Trainer, type TrainerOptions } from '../../lib/train/trainer.js';
import { compare } from '../helpers/tolerance.js';
import { SECONDS, tinyModel, tones } from './synthetic.js';

const { dataset, decode } = tones(24);
const RECIPE = {
  ...{ dataset, decode, clipSeconds: SECONDS, batchSize: 4, steps: 7, seed: 5 },
} as const satisfies TrainerOptions;

async function losses(trainer: Trainer, until = Number.POSITIVE_INFINITY): Promise<number[]> {
  const found: number[] = [];
  for await (const { index, loss } of trainer) {
    found.push(loss);
    if (index === until) break;
  }
  return found;
}

async function bits(model: Model): Promise<Map<string, string>> {
  const state = [...(await model.stateDict())].map(([name, { data }]) => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return [name, bytes.toString('base64')] as const;
  });
  return new Map(state);
}

const isStatistic = (name: string) => /\.(running_(mean|var)|num_batches_tracked)$/.test(name);

t.test(
  'the frozen base stays bit for bit, its norms too unless they are told to follow',
  async (t) => {
    for (const frozenNorms of ['eval', 'train'] as const) {
      using model = await tinyModel();
      const before = await bits(model);
      await losses(new Trainer(model, { ...RECIPE, freeze: 'base', frozenNorms }));
      for (const [name, value] of await bits(model)) {
        const moves =
          name.startsWith('fc_audioset.') || (frozenNorms === 'train' && isStatistic(name));
        t.equal(value !== before.get(name), moves, `${frozenNorms}: ${name}`);
      }
    }
  },
);

t.test('up to a layer: what comes after trains, with its norms', async (t) => {
  using model = await tinyModel();
  const before = await bits(model);
  await losses(new Trainer(model, { ...RECIPE, mixup: true, freeze: { upTo: 'conv_block2' } }));
  for (const [name, value] of await bits(model)) {
    // The front-end's tensors are made anew and equal.
    const frozen = /^(bn0|conv_block[12]|spectrogram_extractor|logmel_extractor)\b/.test(name);
    t.equal(value === before.get(name), frozen, name);
  }
});

t.test('rates by the beginnings of names: a hundredth moves a hundredth', async (t) => {
  const moved = async (lrScale: Record<string, number>) => {
    using model = await tinyModel({ specAugment: false });
    const before = await model.getParameter('conv_block1.conv1.weight');
    const optimizer = { kind: 'sgd', lr: 1e-3, momentum: 0 } as const;
    await losses(new Trainer(model, { ...RECIPE, steps: 1, optimizer, lrScale }));
    const after = await model.getParameter('conv_block1.conv1.weight');
    return after.map((value, i) => value - (before[i] ?? Number.NaN));
  };
  const full = await moved({});
  const scaled = await moved({ conv: 5, conv_block1: 100 });
  const largest = Math.max(...full.map(Math.abs));
  t.ok(largest > 1e-6, `it moves by ${largest}`);
  const hundred = full.map((value) => 100 * value);
  // A move is the difference of two weights, each rounded.
  const worst = Math.max(...scaled.map((value, i) => Math.abs(value - (hundred[i] ?? 0))));
  t.ok(worst < 100 * 2 ** -24, `off by ${worst}`);
});

t.test('rates by depth: each layer further from the scores moves less', async (t) => {
  const names = ['fc_audioset', 'fc1', 'conv_block4.bn1', 'conv_block1.conv1', 'bn0'] as const;
  const moved = async (options: object) => {
    using model = await tinyModel({ specAugment: false });
    const read = () => Promise.all(names.map((name) => model.getParameter(`${name}.weight`)));
    const before = await read();
    const optimizer = { kind: 'sgd', lr: 1, momentum: 0 } as const;
    await losses(new Trainer(model, { ...RECIPE, steps: 1, optimizer, ...options }));
    const after = await read();
    return after.map((values, n) => values.map((value, i) => value - (before[n]?.[i] ?? NaN)));
  };
  const full = await moved({});
  const decayed = await moved({ layerDecay: 0.5, lrScale: { conv_block1: 4 } });
  // bn0, four blocks, fc1 and fc_audioset; the first block's factor of 4 comes on top.
  for (const [n, factor] of [1, 1 / 2, 1 / 4, 4 / 32, 1 / 64].entries()) {
    const [whole, part] = [full[n] ?? [], decayed[n] ?? []];
    const most = (values: Iterable<number>) => [...values].reduce((a, b) => Math.max(a, b), 0);
    const largest = most(whole.map(Math.abs));
    t.ok(largest > 1e-4, `${names[n]} moves by ${largest}`);
    const off = most(part.map((move, i) => Math.abs(move - factor * (whole[i] ?? NaN))));
    // A move is the difference of two weights of up to 2, each rounded.
    t.ok(off <= 4 * 2 ** -23, `${names[n]}: off by ${off}`);
  }
  using model = await tinyModel();
  for (const layerDecay of [0, 1.5, NaN, '1']) {
    const options = { ...RECIPE, layerDecay } as TrainerOptions;
    t.throws(() => new Trainer(model, options), { message: /layerDecay.*at most 1/ });
  }
});

t.test('a weight that is set between steps counts, frozen or not', async (t) => {
  const next = async (change: boolean) => {
    using model = await tinyModel();
    const trainer = new Trainer(model, { ...RECIPE, freeze: 'base' });
    const found = await losses(trainer, 2);
    const name = 'conv_block1.conv1.weight';
    const values = await model.getParameter(name);
    if (change)
      await model.setParameter(
        name,
        values.map((value) => -value),
      );
    return [...found, ...(await losses(trainer, 3))];
  };
  const [plain, changed] = [await next(false), await next(true)];
  t.same(changed.slice(0, 2), plain.slice(0, 2));
  t.not(changed[2], plain[2]);
});

/** One block and a head; the only dropouts are those of `classifierLayers`. */
const plain: ModelRow = {
  name: 'Plain',
  build(b, waveform, config) {
    const x = convBlock5x5(b, 'block', logmelFrontend(b, waveform, config), 16, 2);
    return clipHead(b, x, config, 0);
  },
};

t.test(
  'cached features: the same training, also of deeper heads, and the same scores',
  async (t) => {
    // SpecAugment and the dropout of the frozen part would differ; that of the head must not.
    const still = { specAugment: false, dropout: false } as const;
    const trainings = [
      { row: plain, freeze: 'base', options: still },
      { row: plain, freeze: 'base', options: { ...still, classifierLayers: [16, 8] } },
      { row: 'Cnn6', freeze: { upTo: 'conv_block4' }, options: still },
    ] as const;
    for (const { row, freeze, options } of trainings) {
      const run = async (cacheFeatures: boolean) => {
        using model = await tinyModel(options, row);
        const recipe = { ...RECIPE, freeze, cacheFeatures, clipGradNorm: 1, validation: dataset };
        using trainer = new Trainer(model, recipe);
        const found = await losses(trainer);
        const evaluation = await trainer.evaluate();
        const whole = await evaluate(model, dataset, { decode, clipSeconds: SECONDS });
        t.ok(compare(evaluation.scores, whole.scores, 'output').ok, 'as scored from the sound');
        t.equal(evaluation.accuracy, whole.accuracy);
        const weights = await model.getParameter('fc_audioset.weight');
        return { found, weights, scores: whole.scores };
      };
      const [direct, cached] = [await run(false), await run(true)];
      const label = JSON.stringify({ freeze, ...options });
      for (const key of ['found', 'weights', 'scores'] as const) {
        const check = compare(cached[key], direct[key], 'losses');
        t.ok(check.ok, `${label} ${key}: ${check.message}`);
      }
    }
  },
);

t.test('a cached training is stopped and goes on, bit for bit', async (t) => {
  const folder = t.testdir();
  const recipe = {
    ...RECIPE,
    freeze: 'base',
    cacheFeatures: true,
    validation: dataset,
    schedule: { kind: 'cosine' },
  } as const;
  using whole = await tinyModel();
  const expected = await losses(new Trainer(whole, recipe));
  using half = await tinyModel();
  const first = new Trainer(half, { ...recipe, checkpoint: { folder, every: 3 } });
  const before = await losses(first, 4);
  first.dispose();
  const second = await Trainer.resume(folder, { dataset, decode, validation: dataset, threads: 1 });
  t.equal(second.step, 3);
  t.same([...before.slice(0, 3), ...(await losses(second))], expected);
  t.same([...(await bits(second.model))], [...(await bits(whole))]);
  t.same(second.recipe.freeze, 'base');
  second.model.dispose();
});

t.test(
  'features are computed once, with progress, and an abort leaves no half of them',
  async (t) => {
    using model = await tinyModel();
    const controller = new AbortController();
    let decoded = 0;
    const counting: typeof decode = (requests) => {
      decoded += requests.length;
      return decode(requests);
    };
    const trainer = new Trainer(model, {
      ...{ ...RECIPE, decode: counting, freeze: 'base', cacheFeatures: true, epochs: 3 },
      ...{ steps: undefined, validation: dataset, signal: controller.signal },
    });
    const seen: number[] = [];
    trainer.on('features', (done, total) => {
      t.equal(total, 24);
      seen.push(done);
    });
    await losses(trainer, 1);
    t.equal(seen.at(-1), 24);
    await losses(trainer);
    t.equal(trainer.step, 18);
    // The validation set is the same object: nothing is computed again.
    t.equal(decoded, 24);
    controller.abort();
    const aborted = new Trainer(model, {
      ...{ ...RECIPE, freeze: 'base', cacheFeatures: true, signal: controller.signal },
    });
    await t.rejects(losses(aborted), { code: 'ABORT_ERR' });
  },
);

t.test(
  'trainings share features bit for bit, as far as their frozen parts are equal',
  async (t) => {
    const folds = kFold(dataset, { k: 3, seed: 2 });
    const run = async (seedOf: (fold: number) => number, alone: boolean) => {
      const heard: string[] = [];
      const counting: typeof decode = (requests) => {
        heard.push(...requests.map(({ path }) => path));
        return decode(requests);
      };
      const recipe = { clipSeconds: SECONDS, batchSize: 4, steps: 5, seed: 5 };
      const results: Float32Array[] = [];
      let fold = 0;
      const options = { ...recipe, freeze: 'base', cacheFeatures: true, decode: counting } as const;
      const model = () => tinyModel({ seed: seedOf(fold++), classifierLayers: [8] });
      const onFold = ({ evaluation }: { evaluation: { scores: Float32Array } }) =>
        results.push(evaluation.scores);
      if (!alone) await crossValidate({ ...options, folds, model, onFold });
      else
        for (const one of folds) await crossValidate({ ...options, folds: [one], model, onFold });
      return { heard: heard.length, results };
    };
    const shared = await run(() => 3, false);
    t.equal(shared.heard, 24, 'each clip once');
    const apart = await run(() => 3, true);
    t.equal(apart.heard, 72);
    t.same(shared.results, apart.results);
    const others = await run((fold) => fold, false);
    t.equal(others.heard, 72, 'other bases make other features');
  },
);

t.test('a head on features takes less work by far', async (t) => {
  using model = await tinyModel();
  const { addon, native, description } = modelInternals(model);
  const session = (other: object) =>
    addon.createSession(native, description.spec, {
      ...{ batch: 4, samples: 1600, mixup: false, loss: 'cross_entropy', passesOff: [] },
      ...{ optimizer: { kind: 'sgd', attrs: {} }, frozen: [], ...other },
    });
  const base = model.parameters().flatMap(({ name }) => (name.startsWith('fc_a') ? [] : [name]));
  const all = await session({});
  const head = await session({ frozen: base, frozenNorms: 'eval' });
  t.match(all.text(), /conv_backward/);
  t.notMatch(head.text(), /conv_backward|batch_norm_backward/);
  t.match(head.text(), /fold_batch_norm/);
  t.notMatch(head.text(), / batch_norm .*conv_block/, 'every norm lies in its convolution');
  t.ok(head.cost().flops < 0.4 * all.cost().flops, 'a third of the work, and the update is small');
  for (const one of [all, head]) one.dispose();
});

t.test('what cannot be cached is refused, and says why', async (t) => {
  using model = await tinyModel();
  const refuse = (options: object, message: RegExp) => {
    const all = { ...RECIPE, freeze: 'base', cacheFeatures: true, ...options } as TrainerOptions;
    t.throws(() => new Trainer(model, all), { code: 'ERR_PANNS_OPTION', message });
  };
  refuse({ mixup: true }, /mixup.*cacheFeatures/);
  refuse({ frozenNorms: 'train' }, /frozenNorms.*"eval"/);
  refuse({ freeze: { upTo: 'conv_block2' } }, /freeze: "base"/);
  refuse({ freeze: 'none' }, /freeze: "base"/);
  refuse({ dataset: undefined, loader: () => ({}) }, /dataset/);
  refuse({ cacheFeatures: 'yes' }, /true or false/);
  refuse({ cacheFeatures: false, lrScale: { conv: 0 } }, /above 0/);
  refuse({ cacheFeatures: false, lrScale: { nothing: 1 } }, /such as/);
  refuse({ cacheFeatures: false, frozenNorms: 'off' }, /"eval" or "train"/);
  refuse({ cacheFeatures: false, freeze: { upTo: 'conv_block9' } }, /conv_block/);
});

t.test('cross-validation: fresh models, every clip tested once, mean and spread', async (t) => {
  const folds = kFold(dataset, { k: 3, seed: 1 });
  const seen: string[] = [];
  const {
    folds: results,
    accuracy,
    mAP,
  } = await crossValidate({
    ...{ folds, decode, clipSeconds: SECONDS, batchSize: 4, steps: 6 },
    optimizer: { kind: 'adam', lr: 3e-3 },
    model: () => tinyModel(),
    onFold: ({ name }) => seen.push(name),
  });
  t.same(seen, ['1', '2', '3']);
  t.equal(
    results.reduce((sum, { evaluation }) => sum + evaluation.clips, 0),
    24,
  );
  const values = results.map(({ evaluation }) => evaluation.accuracy ?? Number.NaN);
  const mean = (values[0] ?? 0) / 3 + (values[1] ?? 0) / 3 + (values[2] ?? 0) / 3;
  t.ok(Math.abs((accuracy?.mean ?? 0) - mean) < 1e-12);
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 2;
  t.ok(Math.abs((accuracy?.sd ?? 0) - Math.sqrt(variance)) < 1e-12);
  t.equal(mAP.n, 3);
  await t.rejects(crossValidate({ folds: [], model: () => tinyModel() }), {
    code: 'ERR_PANNS_OPTION',
  });
});

t.test('several labels a clip: cross-validation and shots with bce', async (t) => {
  const clips = dataset.clips.map((clip, i) => {
    return { ...clip, labels: i % 3 === 0 ? [0] : [1, 2].slice(0, 1 + (i % 2)) };
  });
  const several = { ...dataset, clips };
  const few = fewShot(several, { perClass: 4, seed: 3 });
  const { accuracy, mAP } = await crossValidate({
    folds: kFold(few, { k: 2, seed: 2 }),
    ...{ decode, clipSeconds: SECONDS, batchSize: 2, steps: 2 },
    model: () => tinyModel({ activation: 'sigmoid' }),
  });
  t.equal(accuracy, undefined);
  t.equal(mAP.n, 2);
});
