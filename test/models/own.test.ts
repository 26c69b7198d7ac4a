import { join } from 'node:path';
import t from 'tap';
import { createModel, loadModel, type ModelRow, Trainer } from '../../lib/index.js';
import { convBlock } from '../../lib/models/blocks.js';
import { logmelFrontend } from '../../lib/models/frontends.js';
import { head } from '../../lib/models/heads.js';
import { RATE, SECONDS, tones } from '../trainer/synthetic.js';

/** A network that the package does not have: two branches of one front-end, gated and joined. */
const Twins: ModelRow = {
  name: 'Twins',
  defaults: {
    sampleRate: RATE,
    melBins: 16,
    embeddingSize: 64,
    specAugment: false,
    mixup: false,
    dropout: false,
  },
  build(b, waveform, config) {
    const front = logmelFrontend(b, waveform, config);
    const wide = b.scope('wide', () => {
      const conv = b.conv('conv', front, { channels: 8, kernel: 5, stride: 2, padding: 2 });
      return b.hardSwish(b.batchNorm('bn', conv, { eps: 1e-3 }));
    });
    const both = b.concat(convBlock(b, 'narrow', front, 8, 2), b.pool(wide, 'max', 1));
    const gate = b.reduceTime(b.meanOverFrequency(both), 'mean');
    const x = b.scale(both, b.sigmoid(b.linear('gate', gate, both.channels)));
    return head(b, b.dropout(x, config.dropout), front, config);
  },
};

t.test("a network of one's own is trained, saved and loaded", async (t) => {
  const { dataset, decode } = tones(12);
  using model = await createModel(Twins, { classes: dataset.classes, activation: 'softmax' });
  t.equal(model.name, 'Twins');
  t.equal(model.embeddingSize, 64);
  const trainer = new Trainer(model, {
    ...{ dataset, decode, validation: dataset, epochs: 25, batchSize: 4, clipSeconds: SECONDS },
    optimizer: { kind: 'adam', lr: 1e-2 },
    checkpoint: { folder: join(t.testdir(), 'checkpoints') },
  });
  const losses: number[] = [];
  for await (const { loss } of trainer) losses.push(loss);
  const mean = (values: number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
  const [first, last] = [mean(losses.slice(0, 6)), mean(losses.slice(-6))];
  t.ok(last < 0.7 * first, `the loss falls: ${first} to ${last}`);

  const path = join(t.testdir(), 'twins.safetensors');
  await model.save(path);
  using again = await loadModel(path, { model: Twins });
  const clip = (await decode([{ path: '1', maxSamples: 1600 }] as never))[0] as Float32Array;
  t.same(
    (await again.infer(clip)).clipwise_output.data,
    (await model.infer(clip)).clipwise_output.data,
  );
  const code = 'ERR_PANNS_CHECKPOINT';
  await t.rejects(loadModel(path), { code, message: /network "Twins"/ });
  const other: ModelRow = { ...Twins, name: 'Others' };
  await t.rejects(loadModel(path, { model: other }), { code, message: /"Others"/ });
  const changed: ModelRow = {
    ...Twins,
    build: (b, waveform, config) => Twins.build(b, waveform, { ...config, embeddingSize: 8 }),
  };
  await t.rejects(loadModel(path, { model: changed }), { code, message: /not that of Twins/ });
});

t.test('a trained checkpoint of such a network goes on', async (t) => {
  const { dataset, decode } = tones(6);
  const folder = join(t.testdir(), 'checkpoints');
  const options = { dataset, decode, batchSize: 3, clipSeconds: SECONDS };
  using model = await createModel(Twins, { classes: dataset.classes, activation: 'softmax' });
  const trainer = new Trainer(model, { ...options, epochs: 1, checkpoint: { folder } });
  for await (const _ of trainer);
  const resumed = await Trainer.resume(folder, { ...options, epochs: 2, model: Twins });
  t.teardown(() => resumed.model.dispose());
  t.equal(resumed.step, 2);
  for await (const _ of resumed);
  t.equal(resumed.step, 4);
});

t.test('errors name the layer', async (t) => {
  const where = (build: ModelRow['build']) => createModel({ ...Twins, build }, { classes: 3 });
  const code = 'ERR_PANNS_SPEC';
  await t.rejects(
    where((b, waveform, config) => {
      const front = logmelFrontend(b, waveform, config);
      const x = b.scope('stage', () => b.conv('deep', front, { channels: 4, kernel: 40 }));
      return head(b, x, front, config);
    }),
    { code, where: 'Twins/stage.deep', message: /16 frequency bins are too few/ },
  );
  await t.rejects(
    where((b, waveform, config) => {
      const front = logmelFrontend(b, waveform, config);
      const x = b.conv('odd', front, { channels: 6, kernel: 1, groups: 4 });
      return head(b, x, front, config);
    }),
    { code, where: 'Twins/odd' },
  );
  await t.rejects(
    where((b, waveform, config) => {
      const front = logmelFrontend(b, waveform, config);
      return head(b, b.add(front, b.pool(front, 'avg', [2, 1])), front, config);
    }),
    { code, message: /no length/ },
  );
  await t.rejects(
    where((b, waveform, config) => {
      const front = logmelFrontend(b, waveform, config);
      const vector = b.reduceTime(b.meanOverFrequency(front), 'mean');
      return { logits: b.linear('fc', vector, config.classes) };
    }),
    { code, message: /clipwise_output/ },
  );
});
