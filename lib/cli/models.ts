import type { SpecNode } from '../addon.js';
import { nearest } from '../errors.js';
import { writeFileAtomic } from '../io/atomic.js';
import { layerCosts, type ModelCost, modelCost } from '../models/cost.js';
import { describeModel, modelNames, modelRows } from '../models/index.js';
import { mobilenetsV3 } from '../models/mobilenet_v3.js';
import { modelOptionNames } from '../models/options.js';
import type { ModelDescription, ModelRow } from '../models/row.js';
import type { StateEntry, Tensor, TensorKind } from '../models/tensor.js';
import { type Column, formatNumber, formatTable } from './format.js';
import { scatterSvg } from './scatter.js';
import { defineVerb, EXIT, UsageError } from './verb.js';

/** The clip that costs are given for, in seconds: that of the paper's tables. */
const SECONDS = 10;

const command = {
  name: 'panns models',
  summary: 'Compare the models, or show one',
  positionals: [{ name: 'model', help: 'show this one in full', optional: true }],
  options: {
    markdown: { type: 'boolean', help: 'print the table as Markdown' },
    svg: {
      type: 'string',
      value: 'file',
      help: 'also plot mean average precision against multiply-adds',
    },
    json: { type: 'boolean', help: 'print JSON, one model a line' },
  },
} as const;

/** `panns models`: what each model costs and scores. */
export const models = defineVerb(
  command,
  async ({ markdown, svg, json }, [name], { print, messages }) => {
    if (markdown && json) throw new UsageError(command, '--markdown and --json are two forms');
    if (name !== undefined) {
      if (markdown || svg !== undefined) {
        const option = markdown ? '--markdown' : '--svg';
        throw new UsageError(command, `${option} is for all models, not for "${name}" alone`);
      }
      const row = modelRows.find((row) => row.name === name);
      if (row === undefined) {
        const guess = nearest(name, modelNames);
        const what = `there is no model "${name}"; did you mean "${guess}"? ("panns models" lists them)`;
        throw new UsageError(command, what);
      }
      print(json ? JSON.stringify(inFull(row)) : page(row));
      return EXIT.ok;
    }
    const all = modelRows.map(factsOf);
    if (json) for (const facts of all) print(JSON.stringify(facts));
    else if (markdown) print(markdownTable(COLUMNS, all.map(cells)));
    else print(`${formatTable(COLUMNS, all.map(cells))}\n\n${NOTE}`);
    if (svg !== undefined) {
      await writeFileAtomic(svg, [plot(all)]);
      messages.write(`the plot is in ${svg}\n`);
    }
    return EXIT.ok;
  },
);

/** A model in one line; null where it has no such thing. */
interface ModelFacts extends ModelCost {
  readonly name: string;
  readonly mAP: number | null;
  readonly sampleRate: number;
  readonly melBins: number | null;
  readonly minimumSamples: number;
  readonly embeddingSize: number | null;
  readonly head: string;
}

function factsOf(row: ModelRow): ModelFacts {
  const model = describeModel(row);
  const { name, config, embeddingSize, minimumSamples, spec } = model;
  const hasMel = spec.nodes.some(({ op }) => op === 'logmel');
  return {
    name,
    ...modelCost(model, samplesOf(model)),
    mAP: row.published?.mAP ?? null,
    sampleRate: config.sampleRate,
    melBins: hasMel ? config.melBins : null,
    minimumSamples,
    embeddingSize: embeddingSize || null,
    head: config.head,
  };
}

function samplesOf({ config, lengthFor }: ModelDescription): number {
  return lengthFor(SECONDS * config.sampleRate);
}

const COLUMNS: readonly Column[] = [
  { title: 'model' },
  ...[
    ...['parameters (M)', 'MACs (G)', 'multiply-adds (G)', 'mAP', 'rate (Hz)', 'mel bins'],
    ...['shortest (s)', 'embedding'],
  ].map((title) => ({ title, align: 'right' }) as const),
  { title: 'head' },
];

const NOTE = `MACs: multiply-accumulates of convolutions and linear layers. multiply-adds: as the paper counts,
spectrogram and norms included. Both for ${SECONDS} s. mAP: as published, on AudioSet.`;

function cells(facts: ModelFacts): string[] {
  const { name, mAP, sampleRate, melBins, embeddingSize, head } = facts;
  return [
    name,
    (facts.parameters / 1e6).toFixed(2),
    giga(facts.macs),
    giga(facts.multiplyAdds),
    mAP?.toFixed(3) ?? '-',
    `${sampleRate}`,
    `${melBins ?? '-'}`,
    formatNumber(facts.minimumSamples / sampleRate),
    `${embeddingSize ?? '-'}`,
    head,
  ];
}

function giga(count: number): string {
  return (count / 1e9).toFixed(3);
}

function markdownTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const rule = columns.map(({ align }) => (align === 'right' ? '---:' : '---'));
  const lines = [columns.map(({ title }) => title), rule, ...rows];
  return lines.map((line) => `| ${line.join(' | ')} |`).join('\n');
}

/** What the paper's figure of its systems shows. */
function plot(all: readonly ModelFacts[]): string {
  const later = new Set(mobilenetsV3.map(({ name }) => name));
  const marks = (isLater: boolean) =>
    all.flatMap(({ name, mAP, multiplyAdds }) => {
      const belongs = mAP !== null && later.has(name) === isLater;
      return belongs ? [{ name, x: multiplyAdds / 1e9, y: mAP }] : [];
    });
  return scatterSvg({
    title: 'Audio tagging on AudioSet: precision against cost',
    xTitle: `multiply-adds for a clip of ${SECONDS} s, in 10⁹, as the PANNs paper counts`,
    yTitle: 'mean average precision (0..1)',
    groups: [
      { name: 'PANNs (Kong et al. 2020)', marks: marks(false) },
      { name: 'EfficientAT (Schmid et al. 2023)', marks: marks(true) },
    ],
  });
}

function inFull(row: ModelRow) {
  const model = describeModel(row);
  const samples = samplesOf(model);
  const costs = layerCosts(model, samples);
  const { spec, values, outputs, stateDict } = model;
  const own = modelOptionNames.filter((name) => !row.without?.includes(name));
  return {
    ...factsOf(row),
    options: Object.fromEntries(own.map((name) => [name, model.config[name]])),
    outputs: Object.fromEntries(
      Object.keys(outputs).map((name) => [
        name,
        shapeOf(values[spec.outputs[name] ?? -1], samples),
      ]),
    ),
    stateDict,
    layers: spec.nodes.map((node, i) => ({
      ...node,
      shape: shapeOf(values[i], samples),
      ...costs[i],
    })),
  };
}

/** Without the batch. */
function shapeOf(value: Tensor<TensorKind> | undefined, samples: number): number[] {
  if (value === undefined) return [];
  const { kind, channels, bins, framesOf } = value;
  switch (kind) {
    case 'waveform':
      return [framesOf(samples)];
    case 'map':
      return [channels, framesOf(samples), bins];
    case 'vector':
      return [channels];
    case 'frames':
      return [framesOf(samples), channels];
  }
}

function page(row: ModelRow): string {
  const { options, outputs, stateDict, layers, ...facts } = inFull(row);
  const batched = (shape: readonly number[]) => `(N, ${shape.join(', ')})`;
  const right = (title: string) => ({ title, align: 'right' }) as const;
  const sections = [
    row.name,
    formatTable(
      [{ title: 'option' }, { title: 'default' }],
      Object.entries(options).map(([name, value]) => {
        return [name, typeof value === 'object' ? JSON.stringify(value) : String(value)];
      }),
    ),
    formatTable(
      [{ title: 'output' }, { title: `of ${SECONDS} s` }],
      Object.entries(outputs).map(([name, shape]) => [name, batched(shape)]),
    ),
    formatTable([{ title: 'cost' }, right(`of ${SECONDS} s`)], costRows(facts)),
    formatTable([{ title: 'state dict' }, right('tensors'), right('values')], stateRows(stateDict)),
    formatTable(
      [
        ...[right('#'), { title: 'layer' }, { title: 'op' }, { title: 'of' }, { title: 'makes' }],
        ...[right('parameters'), right('MACs (M)')],
      ],
      layers.map(({ path, op, inputs, attrs, shape, parameters = 0, macs = 0 }, i) => [
        ...[i, path, `${op}${kernelOf(attrs)}`, inputs.join(' '), batched(shape)],
        ...[parameters === 0 ? '' : whole(parameters), macs === 0 ? '' : (macs / 1e6).toFixed(3)],
      ]),
    ),
  ];
  return sections.join('\n\n');
}

function costRows(facts: ModelFacts): [string, string][] {
  const { minimumSamples, sampleRate } = facts;
  return [
    ['parameters', whole(facts.parameters)],
    ['values in buffers', whole(facts.buffers)],
    ['MACs', whole(facts.macs)],
    ['MACs of the spectrogram as convolutions', whole(facts.spectrogramMacs)],
    ['multiply-adds as the paper counts', whole(facts.multiplyAdds)],
    ['samples at least', `${whole(minimumSamples)} of ${whole(sampleRate)} a second`],
    ['mAP as published', facts.mAP?.toFixed(3) ?? '-'],
  ];
}

/** Tensors and values by what they are for. */
function stateRows(stateDict: readonly StateEntry[]): string[][] {
  const groups = new Map<string, { tensors: number; values: number }>();
  for (const { role, shape } of stateDict) {
    const group = groups.get(role) ?? { tensors: 0, values: 0 };
    group.tensors++;
    group.values += shape.reduce((size, n) => size * n, 1);
    groups.set(role, group);
  }
  const rows = [...groups].map(([role, group]) => ({ role, ...group }));
  const sum = (key: 'tensors' | 'values') => rows.reduce((total, row) => total + row[key], 0);
  return [...rows, { role: 'all', tensors: sum('tensors'), values: sum('values') }].map(
    ({ role, tensors, values }) => [role, whole(tensors), whole(values)],
  );
}

/** ` 3x3` of a convolution or pool: time, then frequency. */
function kernelOf({ kernel }: SpecNode['attrs']): string {
  return Array.isArray(kernel) ? ` ${kernel.join('x')}` : '';
}

/** With commas between thousands. */
function whole(count: number): string {
  return count.toLocaleString('en-US');
}
