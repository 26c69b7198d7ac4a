import t from 'tap';
import type { Spec } from '../../lib/addon.js';
import { createRandom, type Random } from '../../lib/data/random.js';
import { isErrorCode } from '../../lib/errors.js';
import { loadNative } from '../../lib/native.js';
import { freshSeed } from '../data/fresh_seed.js';
import { reports, runChild, SECOND, smallModel, wideModel } from './small_model.js';

t.jobs = 1;

const { spec } = smallModel(8);
const { spec: wide } = wideModel(8);
const MiB = 2 ** 20;
/** What one child may take from the system, in KiB: some ten times what node itself needs. */
const MEMORY_LIMIT = 3_000_000;

/** Values that take the place of any other; NaN and Infinity travel through JSON by these names. */
const WILD: readonly unknown[] = [
  ...[
    0,
    -1,
    1,
    2,
    3,
    0.5,
    7,
    64,
    65535,
    65536,
    2 ** 20,
    2 ** 20 + 1,
    2 ** 24,
    2 ** 31,
    2 ** 32,
    2 ** 40,
  ],
  ...[2 ** 53, 1e300, -1e300, 1e-300, '\0nan', '\0infinity', true, false, null, '', 'avg', 'max'],
  ...[
    'waveform',
    'mixup_lambda',
    '#0',
    '#1',
    '#4',
    '#-1',
    '#999',
    '#',
    '#x',
    '__proto__',
    'a'.repeat(5000),
  ],
  ...[[], [1], [3, 3], [0, 0], [65536, 65536], [1, 2, 3], ['3', 3], {}, { kernel: 3 }],
];

const OPS = [
  'conv',
  'pool',
  'linear',
  'reduce',
  'batch_norm',
  'relu',
  'logmel',
  'softmax',
  'add',
  'mixup',
  'concat',
  'scale',
  'fold',
  'unsqueeze',
  'attention_pool',
  'upsample',
  'sigmoid',
  'hard_swish',
];
const MORE = [
  'adam',
  'conv_backward_weight',
  'grad_norm',
  'cross_entropy',
  'nothing',
  '',
  'toString',
];
const ATTRIBUTES = [
  'kernel',
  'stride',
  'padding',
  'dilation',
  'groups',
  'bias',
  'eps',
  'p',
  'axis',
  'kind',
  'bins',
  'ratio',
  'init',
  'window_length',
  'preemphasis',
  'mel_scale',
];

function pick<T>(random: Random, list: readonly T[]): T {
  return list[Math.floor(random.uniform() * list.length)] as T;
}

/** A JSON value, and how to replace it where it stands. */
interface Place {
  readonly owner: Record<string, unknown>;
  readonly key: string;
}

function places(value: unknown, found: Place[] = []): Place[] {
  if (typeof value !== 'object' || value === null) return found;
  const owner = value as Record<string, unknown>;
  for (const key of Object.keys(owner)) {
    found.push({ owner, key });
    places(owner[key], found);
  }
  return found;
}

/** One to three changes of a good spec, as JSON. */
function mutate(random: Random, good: Spec): string {
  const wild = structuredClone(good);
  for (let i = Math.floor(random.uniform() * 3); i >= 0; i--) {
    // An earlier change may have put anything in its place.
    const nodes = Array.isArray(wild.nodes) ? wild.nodes : [];
    const at = Math.floor(random.uniform() * nodes.length);
    const node = nodes[at];
    const changes: (() => void)[] = [
      () => {
        const { owner, key } = pick(random, places(wild));
        owner[key] = pick(random, WILD);
      },
      () => {
        const { owner, key } = pick(random, places(wild));
        delete owner[key];
      },
      () => {
        if (node?.attrs) node.attrs[pick(random, ATTRIBUTES)] = pick(random, WILD) as number;
      },
      () => {
        if (node) node.op = pick(random, [...OPS, ...MORE]);
      },
      () => {
        if (node) node.inputs = [`#${Math.floor(random.uniform() * (nodes.length + 2))}`];
      },
      () => {
        nodes.splice(at, 1);
      },
      () => {
        if (node) nodes.splice(at, 0, structuredClone(node));
      },
      () => {
        if (typeof wild.outputs === 'object' && wild.outputs) wild.outputs.wild = at;
      },
    ];
    try {
      pick(random, changes)();
    } catch {
      // An earlier change took away what this one is about.
    }
  }
  return JSON.stringify(wild);
}

t.test('four hundred wild specs: a model or an error with a code, never a crash', async (t) => {
  const random = createRandom(freshSeed(t));
  const specs = Array.from({ length: 400 }, (_, i) => mutate(random, i % 2 === 0 ? spec : wide));
  const counts = { made: 0, refused: 0, crashed: 0 };
  const codes = new Map<string, number>();
  let peak = 0;
  // The rest goes to a new process after a crash, so that each is found.
  for (let first = 0; first < specs.length && counts.crashed < 5; ) {
    const part = specs.slice(first);
    const result = await runChild(
      { job: 'specs', specs: part, samples: SECOND },
      { shell: `ulimit -c 0; ulimit -d ${MEMORY_LIMIT}`, limit: 100_000 },
    );
    const lines = reports(result);
    for (const line of lines.filter((fields) => 'rss' in fields)) {
      peak = Math.max(peak, line.rss as number);
      const { code, message } = line as { code?: string | null; message?: string };
      if (line.inferred === true) counts.made++;
      else {
        counts.refused++;
        codes.set(String(code), (codes.get(String(code)) ?? 0) + 1);
        if (!isErrorCode(code))
          t.fail(`no code: ${message}: ${part[line.index as number]?.slice(0, 2000)}`);
        else if (code === 'ERR_PANNS_INTERNAL')
          t.fail(`${message}: ${part[line.index as number]?.slice(0, 2000)}`);
      }
    }
    if (result.code === 0) break;
    const last = (lines.at(-1)?.index ?? 0) as number;
    counts.crashed++;
    t.fail(
      `${result.signal ?? result.code} ${result.stderr.slice(0, 300)} from ${part[last]?.slice(0, 3000)}`,
    );
    first += last + 1;
  }
  t.comment(`${JSON.stringify(counts)}, codes ${JSON.stringify(Object.fromEntries(codes))}`);
  t.comment(`largest RSS ${(peak / MiB).toFixed(0)} MiB`);
  t.ok(counts.made > 10 && counts.refused > 50, 'both kinds came up');
  t.equal(counts.crashed, 0);
});

const addon = loadNative();
const make = async (wild: unknown) => {
  return addon.createModel(wild as Spec, { device: 'cpu', threads: 1 }, SECOND);
};

t.test('references that are no nodes, or come later', async (t) => {
  for (const ref of [
    '#99',
    '#-1',
    '#5',
    '#',
    '#zero',
    '#1x',
    '# 1',
    '#4294967296',
    '#1.5',
    '#0x1',
    'wave',
    '',
  ]) {
    const wild = structuredClone(spec);
    const node = wild.nodes[4];
    if (node) node.inputs = [ref];
    await t.rejects(make(wild), { code: 'ERR_PANNS_SPEC' }, JSON.stringify(ref));
  }
  for (const output of [-1, 99, 2 ** 32, 2 ** 32 + 2, -(2 ** 32)]) {
    const wild = { ...structuredClone(spec), outputs: { logits: output } };
    await t.rejects(make(wild), { code: 'ERR_PANNS_SPEC' }, `output ${output}`);
  }
});

t.test('what is no spec at all', async (t) => {
  const cyclic: Record<string, unknown> = { name: 'Cyclic', outputs: {} };
  cyclic.nodes = [cyclic];
  const throwing = {
    get name() {
      throw new RangeError('from a getter');
    },
  };
  const values = [
    undefined,
    null,
    1,
    'Cnn6',
    [],
    {},
    cyclic,
    { name: 'x' },
    { name: 'x', nodes: [] },
  ];
  for (const value of values) {
    await t.rejects(async () => make(value), { code: /^ERR_PANNS_(SPEC|OPTION)$/ }, String(value));
  }
  await t.rejects(async () => make(throwing), { message: 'from a getter' });
  for (const threads of [-1, 0.5, Number.NaN, 1e9, '2', undefined]) {
    const device = { device: 'cpu', threads } as { device: 'cpu'; threads: number };
    const call = async () => addon.createModel(spec, device, SECOND);
    await t.rejects(call, { code: 'ERR_PANNS_OPTION' }, `threads ${threads}`);
  }
});

t.test('a long chain compiles in bounded time', async (t) => {
  const length = 3000;
  const [front] = spec.nodes;
  const nodes = front ? [front] : [];
  for (let i = 0; i < length; i++)
    nodes.push({ op: 'relu', path: '', inputs: [`#${i}`], attrs: {} });
  nodes.push({
    op: 'reduce',
    path: '',
    inputs: [`#${length}`],
    attrs: { axis: 'freq', kind: 'mean' },
  });
  nodes.push({
    op: 'reduce',
    path: '',
    inputs: [`#${length + 1}`],
    attrs: { axis: 'time', kind: 'max' },
  });
  const begin = performance.now();
  const model = await make({ name: 'Long', nodes, outputs: { out: length + 2 } });
  await model.infer(new Float32Array(SECOND), 1, SECOND, ['out']);
  t.ok(performance.now() - begin < 5000, `${length} nodes`);
});

t.test('the specs that are changed are good ones', async (t) => {
  for (const good of [spec, wide]) {
    const model = await make(good);
    t.teardown(() => model.dispose());
    const names = Object.keys(good.outputs);
    const out = await model.infer(new Float32Array(SECOND).fill(0.1), 1, SECOND, names);
    t.same(Object.keys(out).sort(), names.sort());
  }
});
