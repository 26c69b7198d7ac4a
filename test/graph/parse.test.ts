import t from 'tap';
import type { Spec, SpecNode } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { TINY_SAMPLES, tiny } from '../helpers/spec.js';

const native = loadNative();
const { spec, refs } = tiny();

async function make(changed: Spec, samples = TINY_SAMPLES): Promise<void> {
  const model = await native.createModel(changed, { device: 'cpu', threads: 1 }, samples);
  model.dispose();
}

/** The spec with one node changed. */
function having(name: string, change: (node: SpecNode) => void): Spec {
  const copy = structuredClone(spec);
  const node = copy.nodes[Number(refs[name]?.slice(1))];
  if (node === undefined) throw new Error(`no node ${name}`);
  change(node);
  return copy;
}

interface Fault {
  readonly node: string;
  readonly change: (node: SpecNode) => void;
  readonly code: 'ERR_PANNS_SPEC' | 'ERR_PANNS_SHAPE';
  readonly where: string;
  readonly message: RegExp;
}

const attr = (name: string, value: unknown) => (node: SpecNode) => {
  node.attrs[name] = value as number;
};
const conv = { node: 'conv1', where: 'Tiny/block.conv1' } as const;

const faults: Record<string, Fault> = {
  'an unknown op': {
    ...conv,
    change: (n) => {
      n.op = 'konv';
    },
    code: 'ERR_PANNS_SPEC',
    message: /unknown op 'konv'; expected one of .*\bconv\b/,
  },
  'an op that only a pass may make': {
    ...conv,
    change: (n) => {
      n.op = 'conv_backward_data';
    },
    code: 'ERR_PANNS_SPEC',
    message: /unknown op/,
  },
  'a misspelt attribute': {
    ...conv,
    change: attr('strid', 2),
    code: 'ERR_PANNS_SPEC',
    message: /unknown attribute 'strid'.*stride/,
  },
  'a misspelt attribute of a node without a path': {
    node: 'dropout1',
    change: attr('prob', 0.5),
    code: 'ERR_PANNS_SPEC',
    where: 'Tiny/dropout',
    message: /unknown attribute 'prob'/,
  },
  'an attribute that a pass sets': {
    ...conv,
    change: attr('relu', true),
    code: 'ERR_PANNS_SPEC',
    message: /unknown attribute 'relu'/,
  },
  'an attribute of the wrong type': {
    ...conv,
    change: attr('bias', 3),
    code: 'ERR_PANNS_SPEC',
    message: /expected bias to be true or false, got 3/,
  },
  'an attribute that is null': {
    ...conv,
    change: attr('bias', null),
    code: 'ERR_PANNS_SPEC',
    message: /expected bias to be/,
  },
  'a fraction where a whole number belongs': {
    ...conv,
    change: attr('kernel', 2.5),
    code: 'ERR_PANNS_SPEC',
    message: /expected kernel/,
  },
  'a pair of three': {
    ...conv,
    change: attr('stride', [1, 1, 1]),
    code: 'ERR_PANNS_SPEC',
    message: /expected stride/,
  },
  'a choice that is none': {
    node: 'pool1',
    change: attr('kind', 'mean'),
    code: 'ERR_PANNS_SPEC',
    where: 'Tiny/pool',
    message: /expected kind to be one of 'avg', 'max', 'avg\+max', got 'mean'/,
  },
  'no number of channels': {
    ...conv,
    change: (n) => {
      delete n.attrs.out_channels;
    },
    code: 'ERR_PANNS_SPEC',
    message: /expected out_channels/,
  },
  'two inputs where one belongs': {
    ...conv,
    change: (n) => {
      n.inputs.push('waveform');
    },
    code: 'ERR_PANNS_SPEC',
    message: /expected 1 input.*got 2/,
  },
  'one input where two belong': {
    node: 'mixup',
    change: (n) => {
      n.inputs.pop();
    },
    code: 'ERR_PANNS_SPEC',
    where: 'Tiny/mixup',
    message: /expected 2 inputs, got 1/,
  },
  'a later node as input': {
    ...conv,
    change: (n) => {
      n.inputs[0] = '#9';
    },
    code: 'ERR_PANNS_SPEC',
    message: /expected an earlier node as input.*#9/,
  },
  'no number after the mark': {
    ...conv,
    change: (n) => {
      n.inputs[0] = '#abc';
    },
    code: 'ERR_PANNS_SPEC',
    message: /#abc/,
  },
  'a number with something behind it': {
    ...conv,
    change: (n) => {
      n.inputs[0] = '#3x';
    },
    code: 'ERR_PANNS_SPEC',
    message: /#3x/,
  },
  'an unknown input': {
    ...conv,
    change: (n) => {
      n.inputs[0] = 'wave';
    },
    code: 'ERR_PANNS_SPEC',
    message: /unknown input 'wave'/,
  },
  'a path used twice': {
    node: 'conv2',
    change: (n) => {
      n.path = 'block.conv1';
    },
    code: 'ERR_PANNS_SPEC',
    where: 'Tiny/block.conv1',
    message: /a name of its own/,
  },
  'parameters without a path': {
    ...conv,
    change: (n) => {
      n.path = '';
    },
    where: 'Tiny/conv',
    code: 'ERR_PANNS_SPEC',
    message: /a name of its own/,
  },
  'groups that do not divide the channels': {
    node: 'conv2',
    change: attr('groups', 3),
    where: 'Tiny/block.conv2',
    code: 'ERR_PANNS_SHAPE',
    message: /3 groups divide, got 16 in and 16 out/,
  },
  'a kernel larger than its input': {
    ...conv,
    change: attr('kernel', 99),
    code: 'ERR_PANNS_SHAPE',
    message: /at least 97 frames, got 51 \(x is 1x1x51x16\)/,
  },
  'a linear layer on a map': {
    node: 'fc1',
    change: (n) => {
      n.inputs[0] = refs.pool2 as string;
    },
    where: 'Tiny/fc1',
    code: 'ERR_PANNS_SHAPE',
    message: /expected a dense tensor of 2 dimensions.*feature map/,
  },
  'a convolution on a vector': {
    node: 'conv1',
    change: (n) => {
      n.inputs[0] = 'waveform';
    },
    where: 'Tiny/block.conv1',
    code: 'ERR_PANNS_SHAPE',
    message: /expected a feature map/,
  },
  'a norm over frequency behind the first convolution': {
    node: 'bn1',
    change: attr('axis', 'freq'),
    where: 'Tiny/block.bn1',
    code: 'ERR_PANNS_SHAPE',
    message: /expected one channel/,
  },
  'terms of different shapes': {
    node: 'relu2',
    change: (n) => {
      Object.assign(n, { op: 'add', inputs: [refs.bn2, refs.bn1] });
    },
    where: 'Tiny/add',
    code: 'ERR_PANNS_SHAPE',
    message: /two tensors of one shape/,
  },
};

for (const [name, { node, change, code, where, message }] of Object.entries(faults)) {
  t.test(name, async (t) => {
    const error = { code, where, message };
    await t.rejects(async () => make(having(node, change)), error);
  });
}

t.test('a clip too short names the node that has no frame left', async (t) => {
  await t.rejects(make(spec, 100), { code: 'ERR_PANNS_SHAPE', where: 'Tiny/logmel' });
  await t.rejects(make(spec, 200), { code: 'ERR_PANNS_SHAPE', where: 'Tiny/pool' });
});

t.test('an output that names no node', async (t) => {
  await t.rejects(make({ ...spec, outputs: { x: 99 } }), {
    code: 'ERR_PANNS_SPEC',
    where: 'Tiny',
    message: /output 'x' names node 99/,
  });
});

t.test('every message begins with the place', async (t) => {
  const broken = having('conv1', attr('strid', 2));
  const error = await make(broken).then(
    () => undefined,
    (e: Error & { where: string }) => e,
  );
  t.ok(error?.message.startsWith(`${error.where}: `));
});

t.test('the spec itself is well formed', async (t) => {
  await t.resolves(make(spec));
});
