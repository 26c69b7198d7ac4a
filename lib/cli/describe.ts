import { stat } from 'node:fs/promises';
import { type StoredModel, storedModel, storedModelIfAny } from '../inference/stored.js';
import { openWeights, type WeightsFile } from '../io/weights.js';
import { modelRows } from '../models/index.js';
import { formatBytes, formatTable, printable } from './format.js';
import { defineVerb, EXIT } from './verb.js';

const command = {
  name: 'panns describe',
  summary: 'Show what a file of weights holds',
  positionals: [{ name: 'file', help: 'a .safetensors file, or what torch.save wrote' }],
  options: {
    model: { type: 'string', value: 'name', help: 'what the file holds, where it does not say it' },
    json: { type: 'boolean', help: 'print JSON' },
  },
} as const;

const FORMATS = {
  safetensors: 'safetensors',
  pth: 'PyTorch, ZIP archive',
  'pth-legacy': 'PyTorch, as before 1.6',
} as const;

/** `panns describe`: format, model, options and tensors of a file, without running anything in it. */
export const describe = defineVerb(command, async ({ model, json }, [path = ''], { print }) => {
  const file = await openWeights(path);
  try {
    const found = await (model === undefined ? storedModelIfAny(file) : storedModel(file, model));
    const { size } = await stat(path);
    if (json) print(JSON.stringify(facts(file, size, found)));
    else for (const line of page(file, size, found)) print(line);
    return EXIT.ok;
  } finally {
    await file.close();
  }
});

function facts(file: WeightsFile, bytes: number, found: StoredModel | undefined) {
  const { format, stateKey, prefix, ignored } = file;
  const { description, alternatives, source } = found ?? {};
  return {
    ...{ file: file.path, bytes, format, stateKey, prefix, ignored },
    model: description?.name ?? null,
    recognisedBy: source ?? null,
    alternatives: alternatives ?? [],
    config: description?.config ?? null,
    labels: description?.labels ?? null,
    tensors: rows(file, found).map(([name, dtype, shape, role]) => ({ name, dtype, shape, role })),
  };
}

type Row = readonly [name: string, dtype: string, shape: readonly number[], role: string];

/** The role is that in the model; '' without one. */
function rows(file: WeightsFile, found: StoredModel | undefined): Row[] {
  const roles = new Map(found?.description.stateDict.map(({ name, role }) => [name, role]));
  return [...(found?.file ?? file).entries].map(([name, { dtype, shape }]) => {
    return [name, dtype, shape, roles.get(name) ?? ''] as const;
  });
}

function page(file: WeightsFile, bytes: number, found: StoredModel | undefined): string[] {
  const tensors = rows(file, found);
  const numbers = tensors.reduce((sum, [, , shape]) => sum + shape.reduce((n, m) => n * m, 1), 0);
  const kinds = new Set(tensors.map(([, dtype]) => dtype));
  const lines: [string, string][] = [
    ['format', FORMATS[file.format]],
    ['size', formatBytes(bytes)],
    ['model', found === undefined ? 'none that is known here' : modelLine(found)],
  ];
  if (found !== undefined) lines.push(['options', optionsLine(found)]);
  if (file.stateKey !== '') lines.push(['state dict', `under "${file.stateKey}"`]);
  if (file.prefix !== '') lines.push(['prefix', `"${file.prefix}" before the names, left away`]);
  if (file.ignored.length > 0) lines.push(['ignored', file.ignored.slice(0, 10).join(', ')]);
  lines.push(['tensors', `${tensors.length}, ${numbers} numbers (${[...kinds].join(', ')})`]);
  const table = formatTable(
    [{ title: 'tensor' }, { title: 'type' }, { title: 'shape' }, { title: 'role' }],
    tensors.map(([name, dtype, shape, role]) => [name, dtype, `[${shape.join(', ')}]`, role]),
  );
  return [...lines.map(([name, text]) => `${name.padEnd(12)}${printable(text)}`), '', table];
}

function modelLine({ description, source, alternatives }: StoredModel): string {
  const { name } = description;
  if (source === 'description') return `${name}, as the file says`;
  if (alternatives.length === 0) return `${name}, by its tensors`;
  return `${name}, by its tensors and the file's name; the same tensors: ${alternatives.join(', ')}`;
}

function optionsLine({ description }: StoredModel): string {
  const { name, config, labels, embeddingSize } = description;
  const { classes, sampleRate, melBins, head, activation } = config;
  const { without = [] } = modelRows.find((row) => row.name === name) ?? {};
  const parts = [
    `${classes} classes (${labels === undefined ? 'no names' : `"${labels[0]}" ...`})`,
    `${sampleRate} Hz`,
    ...(without.includes('melBins') ? [] : [`${melBins} mel bins`]),
    ...(embeddingSize === 0 ? [] : [`embedding ${embeddingSize}`]),
    `head ${head}`,
    activation,
  ];
  return parts.join(', ');
}
