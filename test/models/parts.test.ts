import t from 'tap';
import { describeModel, modelNames } from '../../lib/models/index.js';
import { classifierParameters, cutBeforeTraining, parametersUpTo } from '../../lib/models/parts.js';
import type { ModelRow } from '../../lib/models/row.js';
import type { Builder, Tensor } from '../../lib/models/tensor.js';
import { type Freeze, frozenParameters } from '../../lib/train/freeze.js';

const linear = (module: string) => [`${module}.weight`, `${module}.bias`];

/** Which layers make scores of what the others know, as their authors name them. */
function classifierOf(name: string): string[] {
  if (name.startsWith('mn')) return [...linear('classifier.2'), ...linear('classifier.5')];
  if (name.endsWith('Att')) return [...linear('att_block.att'), ...linear('att_block.cla')];
  return linear('fc_audioset');
}

t.test('the classifier of every model follows from its graph', async (t) => {
  for (const name of modelNames) {
    t.same(classifierParameters(describeModel(name)), classifierOf(name), name);
  }
  for (const name of ['Cnn6', 'MobileNetV2', 'ResNet22', 'LeeNet11', 'Wavegram_Cnn14']) {
    const deep = describeModel(name, { classes: 7, classifierLayers: [32, 16] });
    const expected = [...linear('fc_hidden1'), ...linear('fc_hidden2'), ...linear('fc_audioset')];
    t.same(classifierParameters(deep), expected, `${name} with more layers`);
    const shape = (entry: string) => deep.stateDict.find((own) => own.name === entry)?.shape;
    t.same(shape('fc_hidden1.weight'), [32, deep.embeddingSize]);
    t.same(shape('fc_hidden2.weight'), [16, 32]);
    t.same(shape('fc_audioset.weight'), [7, 16]);
  }
  const mobile = describeModel('mn04', { classifierLayers: [8] });
  t.same(classifierParameters(mobile), [
    ...linear('classifier.2'),
    ...linear('fc_hidden1'),
    ...linear('classifier.5'),
  ]);
});

t.test('a network without an embedding, and one that is nothing else', async (t) => {
  const row = (withEmbedding: boolean): ModelRow => ({
    name: 'Own',
    build(b: Builder, waveform: Tensor<'waveform'>, config) {
      const front = b.conv1d('stem', b.unsqueeze(waveform), { channels: 4, kernel: 9, stride: 4 });
      const pooled = b.reduceTime(b.meanOverFrequency(front), 'mean');
      const logits = b.linear('out', b.relu(b.linear('inner', pooled, 8)), config.classes);
      const scores = b.sigmoid(logits);
      return { clipwise_output: scores, ...(withEmbedding && { embedding: scores }) };
    },
  });
  for (const withEmbedding of [false, true]) {
    t.same(classifierParameters(describeModel(row(withEmbedding))), linear('out'));
  }
});

t.test('freezing up to a layer follows the order of computation', async (t) => {
  const cnn = describeModel('Cnn6');
  const upTo = parametersUpTo(cnn, 'conv_block2');
  t.same(upTo, [
    ...linear('bn0'),
    ...[1, 2].flatMap((i) => [`conv_block${i}.conv1.weight`, ...linear(`conv_block${i}.bn1`)]),
  ]);
  t.equal(parametersUpTo(cnn, 'bn0').length, 2);
  t.notOk(parametersUpTo(cnn, 'conv_block1').some((name) => name.startsWith('conv_block10')));
  t.throws(() => parametersUpTo(cnn, 'conv_blok2'), {
    code: 'ERR_PANNS_OPTION',
    message: /did you mean "conv_block2"/,
  });
});

t.test('what a choice freezes', async (t) => {
  const cnn = describeModel('Cnn6');
  const all = cnn.stateDict.filter(({ role }) => role === 'parameter').length;
  t.same(frozenParameters('none', cnn), []);
  t.equal(frozenParameters('base', cnn).length, all - 2);
  t.same(frozenParameters(['bn0', 'fc1.w'], cnn), [...linear('bn0'), 'fc1.weight']);
  const wrong: unknown[] = [
    'all',
    { to: 'bn0' },
    { upTo: 3 },
    ['nothing'],
    { upTo: 'fc_audioset' },
    [''],
  ];
  for (const freeze of wrong) {
    const refused = { code: 'ERR_PANNS_OPTION' };
    t.throws(() => frozenParameters(freeze as Freeze, cnn), refused, JSON.stringify(freeze));
  }
});

t.test('where a network can be cut', async (t) => {
  const cut = (name: string, freeze: Freeze, options = {}) => {
    const description = describeModel(name, options);
    const found = cutBeforeTraining(description, new Set(frozenParameters(freeze, description)));
    return { ...found, op: description.spec.nodes[found.node]?.op };
  };
  for (const name of modelNames) {
    const { head } = describeModel(name).config;
    if (head !== 'clip') {
      // Its classifier reads every segment.
      t.throws(() => cut(name, 'base'), { code: 'ERR_PANNS_OPTION' }, name);
      continue;
    }
    t.equal(cut(name, 'base').columns, describeModel(name).embeddingSize, name);
  }
  t.match(cut('Cnn6', 'base'), { op: 'relu' });
  t.match(cut('mn04', { upTo: 'classifier.2' }), { op: 'hard_swish', columns: 512 });
  // The layer before fc1 reads the pooled map through a dropout, which belongs to the head then.
  t.match(cut('Cnn6', { upTo: 'conv_block4' }), { op: 'reduce', columns: 512 });
  const refused = { code: 'ERR_PANNS_OPTION', message: /freeze: "base"/ };
  t.throws(() => cut('Cnn6', 'none'), refused);
  t.throws(() => cut('Cnn6', { upTo: 'conv_block2' }), refused);
});
