import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import t from 'tap';
import { writeWav16 } from '../../lib/audio/wav.js';
import { gatherColumns } from '../../lib/cli/picture.js';
import { encodePng } from '../../lib/cli/png.js';
import { runProgram } from '../../lib/cli/program.js';
import { createModel } from '../../lib/inference/model.js';
import { openDraws } from '../helpers/random.js';

const RATE = 8000;

async function panns(...argv: string[]) {
  let out = '';
  let messages = '';
  const code = await runProgram(argv, {
    print: (text) => {
      out += `${text}\n`;
    },
    messages: { write: (text) => (messages += text) },
    signal: new AbortController().signal,
  });
  return { code, out, messages };
}

t.test('detect, write, draw and measure', async (t) => {
  const folder = t.testdir();
  const at = (name: string) => join(folder, name);
  const { random } = openDraws(t);
  {
    const classes = ['bark', 'rain, heavy'];
    using model = await createModel('Cnn6', {
      ...{ classes, head: 'max', sampleRate: RATE, melBins: 16, threads: 1, seed: 5 },
    });
    await model.save(at('model.safetensors'));
  }
  for (const name of ['a.wav', 'b.wav']) {
    const noise = Float32Array.from({ length: 2.5 * RATE }, () => random.between(-0.5, 0.5));
    await writeWav16(at(name), noise, RATE);
  }
  const model = ['--model', at('model.safetensors')];
  // Everything reaches a threshold of 0, and lasts all the time.
  const all = [...model, '--threshold', '0', '--window', '1', '--overlap', '0.25'];
  const table = await panns('detect', at('a.wav'), ...all);
  t.equal(table.code, 0, table.messages);
  t.match(
    table.out,
    /a\.wav \(2\.5 s\)\n {2}onset {2}offset {2}score {2}label\n {3}0\.00 {4}2\.50/,
  );
  const none = await panns('detect', at('a.wav'), ...model, '--threshold', '1.1');
  t.match(none.out, /no class reaches/);

  const lines = await panns('detect', at('a.wav'), at('b.wav'), at('c.wav'), ...all, '--json');
  t.equal(lines.code, 1, 'one is missing');
  const results = lines.out
    .trim()
    .split('\n')
    .map((text) => JSON.parse(text));
  t.match(results[0], { file: at('a.wav'), seconds: 2.5, hopSeconds: 0.01 });
  t.match(results[1].events, [{ onset: 0, offset: 2.5, label: 'bark' }, { label: 'rain, heavy' }]);
  t.match(results[2], { error: { code: 'ERR_PANNS_AUDIO_NOT_FOUND' } });

  writeFileSync(at('cut.wav'), readFileSync(at('a.wav')).subarray(0, 30_000));
  const note = `note: ${at('cut.wav')} is cut off: the results are of what is there\n`;
  for (const verb of [
    ['detect', ...all],
    ['tag', ...model],
  ]) {
    const [name = '', ...rest] = verb;
    const said = await panns(name, at('cut.wav'), ...rest);
    t.match(said, { code: 0, messages: note });
    const whole = await panns(name, at('a.wav'), ...rest);
    t.match(whole, { code: 0, messages: '' });
    const line = await panns(name, at('cut.wav'), ...rest, '--json');
    t.match(line, { code: 0, messages: '' });
    t.match(JSON.parse(line.out), { truncated: true });
    t.equal((await panns(name, at('cut.wav'), ...rest, '--nan-to-zero')).out, said.out);
  }

  const chosen = ['--labels', 'rain, heavy', '--out', at('events.csv'), '--picture', at('a.svg')];
  const written = await panns('detect', at('a.wav'), ...all, ...chosen);
  t.equal(written.code, 0, written.messages);
  const csv = readFileSync(at('events.csv'), 'utf8');
  t.match(csv, /^filename,onset,offset,event_label,score\n.*a\.wav,0,2\.5,"rain, heavy",0\.\d+\n$/);
  const svg = readFileSync(at('a.svg'), 'utf8');
  t.equal(svg.match(/class="event"/g)?.length, 1);
  t.equal(svg.match(/<image/g)?.length, 2);
  t.match(svg, />rain, heavy</);
  // The pictures' own letters may spell anything.
  t.notMatch(svg.replaceAll(/base64,[^"]*/g, ''), /NaN|undefined/);
  const track = await panns('detect', at('a.wav'), ...all, '--format', 'audacity');
  t.equal(track.out, '0.000000\t2.500000\tbark\n0.000000\t2.500000\train, heavy\n');

  writeFileSync(at('limits.json'), '{"bark": 1.1}');
  const limited = await panns(
    'detect',
    at('a.wav'),
    ...all,
    '--thresholds',
    at('limits.json'),
    '--format',
    'audacity',
  );
  t.equal(limited.out, '0.000000\t2.500000\train, heavy\n');
  writeFileSync(at('limits.json'), '{"brak": 1.1}');
  const misspelt = await panns('detect', at('a.wav'), ...all, '--thresholds', at('limits.json'));
  t.match(misspelt, { code: 1, messages: /did you mean "bark"/ });
  const two = await panns('detect', at('a.wav'), at('b.wav'), ...model, '--picture', at('x.svg'));
  t.match(two, { code: 2, messages: /--picture takes one file, got 2/ });

  const rows = ['a.wav,0,2.5,bark', 'a.wav,0,2.5,"rain, heavy"', 'b.wav,0,2.5,bark'];
  writeFileSync(at('strong.csv'), `filename,onset,offset,event_label\n${rows.join('\n')}\n`);
  const measured = await panns('eval', '--events', at('strong.csv'), ...all, '--json');
  t.equal(measured.code, 0, measured.messages);
  // Three of four that are found are there.
  t.match(JSON.parse(measured.out), {
    ...{ files: 2, seconds: 5 },
    segments: { overall: { hits: 9, reference: 9, estimated: 12, recall: 1, precision: 0.75 } },
    events: { overall: { hits: 3, reference: 3, estimated: 4 } },
    psds1: { perClass: [{ label: 'bark', value: 1 }, { label: 'rain, heavy' }] },
  });
  const report = await panns('eval', '--events', at('strong.csv'), ...all);
  t.match(report.out, /bark +2 +2 +100\.0 % +100\.0 %/);
  t.match(report.out, /segments: F1 85\.7 %/);

  const listen = [...model, '--window', '1', '--overlap', '0.25'];
  const tune = ['--events', at('strong.csv'), '--tune', at('rules.json')];
  const tuned = await panns('eval', ...tune, ...listen);
  t.equal(tuned.code, 0, tuned.messages);
  t.match(tuned.out, /bark +2 +\d+\.\d %[\s\S]*rules: /);
  const rules = JSON.parse(readFileSync(at('rules.json'), 'utf8'));
  t.same(Object.keys(rules.threshold), ['bark', 'rain, heavy']);
  // What was tuned is what is measured with it.
  const checked = await panns('eval', ...tune.slice(0, 2), ...listen, '--rules', at('rules.json'));
  const shown = (text: string) => /bark +2 .*?(\d+\.\d %)/.exec(text)?.[1];
  t.match(checked.out, new RegExp(`bark +2 .*${shown(tuned.out)}`));
  writeFileSync(at('rules.json'), '{"threshold": {"bark": 1.1}, "minimumSeconds": 0}');
  const silent = ['--rules', at('rules.json'), '--labels', 'bark', '--format', 'audacity'];
  t.equal((await panns('detect', at('a.wav'), ...listen, ...silent)).out.trim(), '');
  const loud = await panns('detect', at('a.wav'), ...listen, ...silent, '--threshold', '0');
  t.equal(loud.out, '0.000000\t2.500000\tbark\n', 'the command line counts first');
  for (const [text, message] of [
    ['{"treshold": 1}', /"threshold"/],
    ['[]', /JSON object of rules/],
    ['{', /JSON object of rules/],
  ] as const) {
    writeFileSync(at('rules.json'), text);
    t.match(await panns('detect', at('a.wav'), ...listen, ...silent), {
      code: 1,
      messages: message,
    });
  }
  t.match(await panns('eval', ...model, '--data', folder, '--tune', 'x'), {
    ...{ code: 2, messages: /--tune needs --events/ },
  });
  t.match(await panns('eval', ...model), { code: 2, messages: /--data, or --events/ });
});

t.test('columns are made fewer, evenly', async (t) => {
  const { random } = openDraws(t);
  for (let i = 0; i < 50; i++) {
    const count = 1 + random.integer(200);
    const values = Float32Array.from({ length: 2 * count }, () => random.uniform());
    for (const how of ['mean', 'max'] as const) {
      const columns = gatherColumns(2, 8, how);
      for (let from = 0; from < count; ) {
        const part = 1 + random.integer(20);
        columns.push(values.subarray(2 * from, 2 * (from + part)));
        from += part;
      }
      const { data, count: left, each } = columns.result();
      t.equal(left, Math.ceil(count / each));
      t.ok(left <= 8 && (each === 1 || left > 4));
      for (let c = 0; c < left; c++) {
        const own = Array.from({ length: each }, (_, j) => values[2 * (c * each + j) + 1]).filter(
          (x) => x !== undefined,
        );
        const want =
          how === 'max' ? Math.max(...own) : own.reduce((sum, x) => sum + x, 0) / own.length;
        if (Math.abs((data[2 * c + 1] ?? NaN) - want) > 1e-6)
          t.fail(`${how}, column ${c} of ${left}`);
      }
    }
  }
});

t.test('pictures are PNG', async (t) => {
  const { random } = openDraws(t);
  const [width, height] = [5, 3];
  const pixels = Uint8Array.from({ length: 15 }, () => random.integer(4));
  const palette = [
    [1, 2, 3],
    [4, 5, 6],
    [7, 8, 9],
    [250, 251, 252],
  ] as const;
  const png = await encodePng({ width, height, pixels, palette });
  t.equal(png.toString('latin1', 1, 4), 'PNG');
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < png.length; ) {
    const size = png.readUInt32BE(at);
    const type = png.toString('latin1', at + 4, at + 8);
    chunks.set(type, png.subarray(at + 8, at + 8 + size));
    t.equal(png.readUInt32BE(at + 8 + size), crc(png.subarray(at + 4, at + 8 + size)), type);
    at += 12 + size;
  }
  t.same([...chunks.keys()], ['IHDR', 'PLTE', 'IDAT', 'IEND']);
  t.same([...(chunks.get('IHDR') ?? [])], [0, 0, 0, 5, 0, 0, 0, 3, 8, 3, 0, 0, 0]);
  t.same([...(chunks.get('PLTE') ?? [])], palette.flat());
  const lines = inflateSync(chunks.get('IDAT') ?? Buffer.alloc(0));
  t.same(
    [...lines].filter((_, i) => i % 6 === 0),
    [0, 0, 0],
    'no filter',
  );
  t.same(
    [...lines].filter((_, i) => i % 6 > 0),
    [...pixels],
  );
});

/** By its definition, bit by bit. */
function crc(bytes: Uint8Array): number {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}
