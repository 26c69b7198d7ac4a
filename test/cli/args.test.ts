import t from 'tap';
import { type CommandSpec, formatHelp, parseCommand } from '../../lib/cli/args.js';

const command = {
  name: 'panns train',
  summary: 'Train a model on a folder or CSV file of labelled sounds.',
  positionals: [
    { name: 'data', help: 'a folder with one folder a class, or a CSV file' },
    { name: 'more', help: 'further data', optional: true, many: true },
  ],
  options: {
    model: {
      type: 'string',
      choices: ['Cnn6', 'Cnn10', 'Cnn14'],
      default: 'Cnn14',
      help: 'the model',
    },
    out: {
      type: 'string',
      short: 'o',
      value: 'folder',
      required: true,
      help: 'where the run goes',
    },
    'batch-size': { type: 'integer', default: 32, min: 1, max: 4096, help: 'clips in a step' },
    rate: { type: 'number', min: 0, help: 'the learning rate' },
    gain: { type: 'number', default: 0, help: 'in dB' },
    folds: { type: 'list', help: 'the folds to train on' },
    mixup: { type: 'boolean', default: true, help: 'mix pairs of clips' },
    json: { type: 'boolean', short: 'j', help: 'print JSON, one object a line' },
  },
} as const satisfies CommandSpec;

function parse(line: string) {
  const parsed = parseCommand(
    command,
    line.split(' ').filter((word) => word !== ''),
  );
  if (parsed.help) throw new Error('help was not asked for');
  return parsed;
}

t.test('defaults, types and positionals', async (t) => {
  const { values, positionals } = parse('data --out run');
  t.same(positionals, ['data']);
  t.same(values, {
    model: 'Cnn14',
    out: 'run',
    'batch-size': 32,
    rate: undefined,
    gain: 0,
    folds: undefined,
    mixup: true,
    json: false,
  });
  // These lines are checked by the compiler: the spec gives the values their types.
  const model: 'Cnn6' | 'Cnn10' | 'Cnn14' = values.model;
  const size: number = values['batch-size'];
  const rate: number | undefined = values.rate;
  t.same([model, size, rate], ['Cnn14', 32, undefined]);
});

t.test('every way to write an option', async (t) => {
  const line =
    'a -o run --batch-size=8 --rate 1e-3 --gain -3.5 b --no-mixup -j --folds 1,2 --folds=3 c';
  const { values, positionals } = parse(line);
  t.same(positionals, ['a', 'b', 'c']);
  t.match(values, {
    out: 'run',
    'batch-size': 8,
    rate: 1e-3,
    gain: -3.5,
    mixup: false,
    json: true,
  });
  t.same(values.folds, ['1', '2', '3']);
  t.equal(parse('a -orun').values.out, 'run');
  t.equal(parse('a --out=--odd').values.out, '--odd', 'an equals sign takes anything');
  t.equal(parse('a --out -').values.out, '-');
  t.equal(parse('a --out x --out y').values.out, 'y');
  t.equal(parse('a --out x --no-mixup --mixup').values.mixup, true);
  t.same(parse('--out x -- --json -j').positionals, ['--json', '-j']);
});

t.test('faults name the option, what was expected and what is nearest', async (t) => {
  const cases: [string, RegExp][] = [
    [
      'a --out x --bach-size 3',
      /unknown option --bach-size; did you mean --batch-size\?.*panns train --help/,
    ],
    ['a --out x --no-mixip', /unknown option --no-mixip; did you mean --mixup/],
    ['a --out x --no-out', /unknown option --no-out/],
    ['a --out x --no-mixup=3', /unknown option --no-mixup/],
    ['a --out x -q', /unknown option -q/],
    ['a --out x --constructor', /unknown option --constructor/],
    ['a --out x --__proto__ 1', /unknown option --__proto__/],
    ['a', /the option --out is missing/],
    ['a --out', /--out needs a value: --out <folder>/],
    ['a --out --json', /--out needs a value/],
    [
      'a --out x --model cnn14x',
      /--model is "cnn14x"; did you mean "Cnn14"\? \(one of Cnn6, Cnn10, Cnn14\)/,
    ],
    ['a --out x --batch-size 0', /expected a whole number in 1\.\.4096/],
    ['a --out x --batch-size 2.5', /--batch-size is "2\.5"; expected a whole number/],
    ['a --out x --batch-size 1e400', /whole number/],
    ['a --out x --rate -1', /--rate is "-1"; expected a number >= 0/],
    ['a --out x --rate 0x10', /expected a number/],
    ['a --out x --rate=', /expected a number/],
    ['a --out x --rate NaN', /expected a number/],
    ['a --out x --json=yes', /--json takes no value, got "yes"/],
    ['--out x', /the argument <data> is missing/],
  ];
  for (const [line, message] of cases) {
    t.throws(() => parse(line), { code: 'ERR_PANNS_OPTION', where: 'panns train', message }, line);
  }
  const single = { ...command, positionals: [{ name: 'data', help: 'x' }] } as const;
  t.throws(() => parseCommand(single, ['a', 'b', '--out', 'x']), {
    message: /no place for the argument "b"/,
  });
});

t.test('help wins over faults and is aligned', async (t) => {
  for (const argv of [['--help'], ['-h'], ['--nonsense', '--rate', 'x', '--help'], ['a', '-jh']]) {
    const parsed = parseCommand(command, argv);
    t.ok(parsed.help, argv.join(' '));
  }
  t.notOk(parseCommand(command, ['--out', 'x', '--', '--help']).help);
  const text = formatHelp(command, 72);
  t.equal(
    text,
    `Train a model on a folder or CSV file of labelled sounds.

Usage: panns train <data> [<more>...] [options]

Arguments:
  <data>                 a folder with one folder a class, or a CSV file
  <more>                 further data

Options:
      --model <text>     the model (Cnn6 | Cnn10 | Cnn14; default Cnn14)
  -o, --out <folder>     where the run goes (required)
      --batch-size <n>   clips in a step (in 1..4096; default 32)
      --rate <n>         the learning rate (>= 0)
      --gain <n>         in dB (default 0)
      --folds <a,b,...>  the folds to train on
      --[no-]mixup       mix pairs of clips (default true)
  -j, --json             print JSON, one object a line
  -h, --help             show this text`,
  );
  const narrow = formatHelp(command, 48).split('\n');
  t.notOk(narrow.some((line) => /\s$/.test(line) || line.length > 48));
  const model = narrow.findIndex((line) => line.includes('--model'));
  t.equal(narrow[model + 1], `${' '.repeat(25)}| Cnn14; default Cnn14)`, 'long texts go on below');
});
