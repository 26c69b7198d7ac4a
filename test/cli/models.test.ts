import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runProgram } from '../../lib/cli/program.js';
import { scatterSvg } from '../../lib/cli/scatter.js';
import { modelNames, modelRows } from '../../lib/models/index.js';

const docs = join(import.meta.dirname, '..', '..', 'docs');

/** Runs `panns models ...` in this process. */
async function models(...words: string[]) {
  let out = '';
  let messages = '';
  const code = await runProgram(['models', ...words], {
    print: (text) => {
      out += `${text}\n`;
    },
    messages: { write: (text) => (messages += text) },
    signal: new AbortController().signal,
  });
  return { code, out, messages };
}

const objects = (out: string) =>
  out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** The places of the names and points of a plot, read from its text. */
function readPlot(svg: string) {
  const names = /<g class="names"[^>]*>(.*?)<\/g>/s.exec(svg)?.[1] ?? '';
  const texts = names.matchAll(/<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)</g);
  const boxes = new Map<string, Box>();
  for (const [, x, y, anchor, name = ''] of texts) {
    // DejaVu Sans at 11 px: 6.6 px a letter on the mean of these names, 8.4 above the base line.
    const width = 6.6 * name.length;
    const left = Number(x) - (anchor === 'end' ? width : anchor === 'middle' ? width / 2 : 0);
    boxes.set(name, { left, right: left + width, top: Number(y) - 8.4, bottom: Number(y) + 2 });
  }
  const circles = svg.matchAll(
    /<circle class="g(\d)" cx="([\d.]+)" cy="([\d.]+)" r="4"><title>([^:]+):/g,
  );
  const dots = [...circles].map(([, group, x, y, name = '']) => {
    return { name, group: Number(group), x: Number(x), y: Number(y) };
  });
  return { boxes, dots };
}

/** Pairs of names, and of a name and a point, of which one covers the other. */
function covered({ boxes, dots }: ReturnType<typeof readPlot>): string[] {
  const all: [string, Box][] = [...boxes];
  for (const { name, x, y } of dots) {
    all.push([`(${name})`, { left: x - 4, right: x + 4, top: y - 4, bottom: y + 4 }]);
  }
  return all.flatMap(([name, a], i) =>
    all.slice(i + 1).flatMap(([other, b]) => {
      const both = name.startsWith('(') && other.startsWith('(');
      const meet = a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
      return meet && !both ? [`${name} and ${other}`] : [];
    }),
  );
}

t.test('the table has a line a model', async (t) => {
  const { code, out } = await models();
  t.equal(code, 0);
  const [title = '', ...lines] = out.split('\n\n')[0]?.split('\n') ?? [];
  t.same(
    lines.map((line) => line.split(' ')[0]),
    modelNames,
  );
  t.same(title.split(/ {2,}/), [
    ...['model', 'parameters (M)', 'MACs (G)', 'multiply-adds (G)', 'mAP', 'rate (Hz)'],
    ...['mel bins', 'shortest (s)', 'embedding', 'head'],
  ]);
  const row = (name: string) => lines.find((line) => line.startsWith(`${name} `))?.split(/ +/);
  t.same(row('Cnn14'), [
    ...['Cnn14', '80.75', '20.042', '42.220', '0.431', '32000', '64', '0.31', '2048', 'clip'],
  ]);
  t.same(row('Wavegram_Cnn14'), [
    ...[
      'Wavegram_Cnn14',
      '80.99',
      '22.088',
      '44.234',
      '0.389',
      '32000',
      '-',
      '0.32',
      '2048',
      'clip',
    ],
  ]);
  t.same(row('Cnn14_DecisionLevelAvg'), [
    ...[
      'Cnn14_DecisionLevelAvg',
      '80.75',
      '20.200',
      '42.220',
      '-',
      '32000',
      '64',
      '0.31',
      '-',
      'avg',
    ],
  ]);
  const ends = lines.map((line) => line.search(/ \d{4,5} /));
  t.equal(new Set(ends.slice(0, 10)).size, 1, 'aligned');
  t.match(out, /of 10 s|for 10 s/i);
});

t.test('JSON has a line a model, with numbers as they are', async (t) => {
  const all = objects((await models('--json')).out);
  t.same(
    all.map(({ name }) => name),
    modelNames,
  );
  t.same(
    all.find(({ name }) => name === 'Cnn14_8k'),
    {
      name: 'Cnn14_8k',
      parameters: 80_753_615,
      buffers: 16_269,
      macs: 20_041_926_656,
      spectrogramMacs: 2 * 129 * 256 * 1001,
      // Both sums twice, norms, the biases of two layers.
      multiplyAdds: 2 * (20_041_926_656 + 66_114_048) + 32_388_224 + 2048 + 527,
      mAP: 0.416,
      sampleRate: 8000,
      melBins: 64,
      minimumSamples: 2480,
      embeddingSize: 2048,
      head: 'clip',
    },
  );
  t.match(
    all.find(({ name }) => name === 'Cnn14_no_dropout'),
    { mAP: null },
  );
  t.match(
    all.find(({ name }) => name === 'LeeNet11'),
    { melBins: null, spectrogramMacs: 0 },
  );
  t.match(
    all.find(({ name }) => name === 'Cnn14_DecisionLevelAtt'),
    { embeddingSize: null },
  );
});

t.test('the table and the plot of the documentation are what the command writes', async (t) => {
  const file = join(t.testdir(), 'models.svg');
  const { code, out, messages } = await models('--markdown', '--svg', file);
  t.equal(code, 0);
  t.match(messages, file);
  const text = readFileSync(join(docs, 'models.md'), 'utf8');
  const table = text.split('\n').filter((line) => line.startsWith('|'));
  t.equal(`${table.join('\n')}\n`, out, 'docs/models.md');
  t.equal(readFileSync(join(docs, 'models.svg'), 'utf8'), readFileSync(file, 'utf8'));
});

t.test('the plot shows every model that has a precision, where it belongs', async (t) => {
  const file = join(t.testdir(), 'plot.svg');
  const { out } = await models('--json', '--svg', file);
  const svg = readFileSync(file, 'utf8');
  const plot = readPlot(svg);
  const scored = modelRows.filter(({ published }) => published).map(({ name }) => name);
  t.same([...plot.boxes.keys()].sort(), [...scored].sort());
  t.same(covered(plot), []);
  t.notMatch(svg, /NaN|undefined|Infinity/);
  t.match(svg, 'prefers-color-scheme: dark');
  for (const title of ['multiply-adds for a clip of 10 s, in 10⁹', 'mean average precision']) {
    t.match(svg, title);
  }
  // Two ticks fix each axis; every point must lie where they say.
  const tick = (pattern: RegExp) => Number(pattern.exec(svg)?.[1]);
  const [x1, x10] = [
    tick(/x="([\d.]+)" y="[\d.]+" text-anchor="middle">1</),
    tick(/x="([\d.]+)" y="[\d.]+" text-anchor="middle">10</),
  ];
  // The labels stand 4 px below their lines.
  const [y3, y4] = [
    tick(/y="([\d.]+)" text-anchor="end">0.3</) - 4,
    tick(/y="([\d.]+)" text-anchor="end">0.4</) - 4,
  ];
  for (const { name, group, x, y } of plot.dots) {
    const { multiplyAdds, mAP } = objects(out).find((facts) => facts.name === name);
    t.ok(Math.abs(x - (x1 + Math.log10(multiplyAdds / 1e9) * (x10 - x1))) < 0.2, `${name}: x`);
    t.ok(Math.abs(y - (y3 + ((mAP - 0.3) / 0.1) * (y4 - y3))) < 0.2, `${name}: y`);
    t.equal(group, name.startsWith('mn') ? 1 : 0, `${name}: colour`);
  }
});

t.test('points that leave no room: names never cover each other', async (t) => {
  const marks = Array.from({ length: 24 }, (_, i) => ({
    name: `a rather long name ${i}`,
    x: 10 + (i % 8) / 10,
    y: 0.5 + Math.floor(i / 8) / 1000,
  }));
  const corners = [
    { name: 'low & <left>', x: 0.1, y: 0 },
    { name: 'high', x: 1000, y: 1 },
  ];
  const groups = [
    { name: 'crowd', marks },
    { name: 'corners', marks: corners },
  ];
  const svg = scatterSvg({ title: 'a', xTitle: 'b', yTitle: 'c', groups });
  const plot = readPlot(svg);
  t.equal(plot.dots.length, 26, 'each with its name when the mouse rests there');
  t.ok(plot.boxes.size < 26, 'some find no place');
  t.ok(plot.boxes.has('high'));
  t.same(covered(plot), []);
  t.match(svg, 'low &#38; &#60;left&#62;');
  t.notMatch(svg, '<left>');
});

t.test('one model in full', async (t) => {
  const { code, out } = await models('ResNet22');
  t.equal(code, 0);
  for (const line of [
    /^sampleRate +32000$/m,
    /^specAugment +\{"timeWidth":64,"freqWidth":8\}$/m,
    /^clipwise_output +\(N, 527\)$/m,
    /^parameters +63,675,087$/m,
    /^derived +3 +1,083,456$/m,
    /^all +150 +64,776,615$/m,
    /^ *\d+ +resnet\.layer2\.0\.downsample\.1 +conv 1x1 +#\d+ +\(N, 128, 250, 16\) +8,192 +32\.768$/m,
    /^ *\d+ +resnet\.layer2\.0\.add +add +#\d+ #\d+ +\(N, 128, 250, 16\)$/m,
  ]) {
    t.match(out, line);
  }
  const [att] = objects((await models('Cnn14_DecisionLevelAtt', '--json')).out);
  t.same(att.outputs, { framewise_output: [1001, 527], clipwise_output: [527] });
  t.equal(att.stateDict.length, 91);
  const sum = (key: string) =>
    att.layers.reduce((all: number, layer: never) => all + layer[key], 0);
  t.equal(sum('macs'), att.macs);
  t.equal(sum('multiplyAdds'), att.multiplyAdds);
  // bn_att is stored and has no layer.
  t.equal(sum('parameters') + 2 * 527, att.parameters);
  const [lee] = objects((await models('LeeNet11', '--json')).out);
  t.same(Object.keys(lee.options), [
    ...[
      'classes',
      'sampleRate',
      'mixup',
      'head',
      'embeddingSize',
      'classifierLayers',
      'activation',
    ],
  ]);
});

t.test('mistakes', async (t) => {
  const wrong: [string, RegExp][] = [
    ['Cnn41', /^error ERR_PANNS_OPTION: .*no model "Cnn41"; did you mean "Cnn14"\?/],
    ['--jsn', /did you mean --json/],
    ['Cnn6 Cnn10', /no place for the argument "Cnn10"/],
    ['Cnn6 --svg x.svg', /--svg is for all models/],
    ['Cnn6 --markdown', /--markdown is for all models/],
    ['--markdown --json', /--markdown and --json/],
    ['--svg', /--svg needs a value/],
  ];
  for (const [line, message] of wrong) {
    const { code, out, messages } = await models(...line.split(' '));
    t.equal(code, 2, line);
    t.equal(out, '');
    t.match(messages, message);
  }
  const { code, messages } = await models('--svg', join(t.testdir(), 'no', 'x.svg'));
  t.equal(code, 1);
  t.match(messages, /error ERR_PANNS_IO/);
  t.match((await models('--help')).out, /Usage: panns models \[<model>\] \[options\]/);
});
