import { parseArgs } from 'node:util';
import { nearest, PannsError } from '../errors.js';
import { widthOf, wrapText } from './format.js';

interface Described {
  readonly help: string;
  /** One letter: `-o`. */
  readonly short?: string;
}

interface Valued extends Described {
  /** What stands for the value in the help text: `<value>`. */
  readonly value?: string;
  readonly required?: true;
}

/** One option of a command. */
export type OptionSpec =
  /** `--name`, and `--no-name` to take it back; false unless `default` says true. */
  | (Described & { readonly type: 'boolean'; readonly default?: boolean })
  /** A number, or with `integer` a whole one; the bounds belong to the range. */
  | (Valued & {
      readonly type: 'number' | 'integer';
      readonly default?: number;
      readonly min?: number;
      readonly max?: number;
    })
  | (Valued & {
      readonly type: 'string';
      readonly default?: string;
      readonly choices?: readonly string[];
    })
  /** Values separated by commas, or the option given several times. */
  | (Valued & { readonly type: 'list'; readonly default?: readonly string[] });

/** An argument without a dash. */
export interface PositionalSpec {
  readonly name: string;
  readonly help: string;
  readonly optional?: true;
  /** Takes all that follow; only the last may. */
  readonly many?: true;
}

/** A command of the program: `panns train <data> [options]`. */
export interface CommandSpec {
  /** With the program: `panns train`. */
  readonly name: string;
  readonly summary: string;
  readonly positionals?: readonly PositionalSpec[];
  /** Names in kebab case, as typed: `batch-size`. */
  readonly options: Readonly<Record<string, OptionSpec>>;
}

type ValueOf<O extends OptionSpec> = O extends { type: 'boolean' }
  ? boolean
  : O extends { type: 'number' | 'integer' }
    ? number
    : O extends { type: 'list' }
      ? readonly string[]
      : O extends { choices: readonly (infer C extends string)[] }
        ? C
        : string;

/** Whether an option always has a value. */
type Certain<O extends OptionSpec> = O extends
  | { type: 'boolean' }
  | { required: true }
  | { default: unknown }
  ? true
  : false;

/** The values of a command's options by their names, typed by its spec. */
export type Values<C extends CommandSpec> = {
  readonly [N in keyof C['options']]: Certain<C['options'][N]> extends true
    ? ValueOf<C['options'][N]>
    : ValueOf<C['options'][N]> | undefined;
};

/** What a command line says. */
export type ParsedCommand<C extends CommandSpec> =
  | { readonly help: true; readonly text: string }
  | { readonly help: false; readonly values: Values<C>; readonly positionals: readonly string[] };

/**
 * Reads a command line, without the program and the command, by a command's description.
 *
 * `--help` or `-h` anywhere wins over every fault. Where an option is given twice the last counts
 * (lists add up). Declare the spec with `as const satisfies CommandSpec`: it types the values.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for an unknown option (naming the nearest), a value that is
 *   missing, of the wrong type, out of range or not among the choices, and missing or surplus
 *   arguments
 */
export function parseCommand<const C extends CommandSpec>(
  command: C,
  argv: readonly string[],
): ParsedCommand<C> {
  const specs = new Map(Object.entries(command.options));
  const { tokens } = parseArgs({
    args: [...argv],
    options: parserOptions(specs),
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const isHelp = (token: (typeof tokens)[number]) =>
    token.kind === 'option' && token.name === 'help' && !specs.has('help');
  if (tokens.some(isHelp)) return { help: true, text: formatHelp(command) };

  const values = new Map<string, unknown>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    const { name, value } = readOption(command, specs, token);
    const before = values.get(name);
    const adds = Array.isArray(before) && Array.isArray(value);
    values.set(name, adds ? [...before, ...value] : value);
  }
  for (const [name, spec] of specs) {
    if (values.has(name)) continue;
    if ('required' in spec && spec.required) {
      throw usageError(command, `the option --${name} is missing`, spec.help);
    }
    values.set(name, spec.default ?? (spec.type === 'boolean' ? false : undefined));
  }
  checkPositionals(command, positionals);
  return { help: false, values: Object.fromEntries(values) as Values<C>, positionals };
}

/** The help text of a command: usage, arguments and options in aligned columns of `width` in all. */
export function formatHelp(command: CommandSpec, width = 80): string {
  const positionals = command.positionals ?? [];
  const usage = positionals.map(({ name, optional, many }) => {
    const shown = `<${name}>${many ? '...' : ''}`;
    return optional ? `[${shown}]` : shown;
  });
  const sections = [
    ...wrapText(command.summary, width),
    '',
    `Usage: ${[command.name, ...usage, '[options]'].join(' ')}`,
  ];
  const given = positionals.map(({ name, help }): [string, string] => [`<${name}>`, help]);
  const options = Object.entries(command.options).map(([name, spec]): [string, string] => [
    optionTitle(name, spec),
    `${spec.help}${optionNotes(spec)}`,
  ]);
  if (!('help' in command.options)) options.push(['-h, --help', 'show this text']);
  const left = Math.max(...[...given, ...options].map(([title]) => widthOf(title)));
  if (given.length > 0) sections.push('', 'Arguments:', ...definitions(given, left, width));
  sections.push('', 'Options:', ...definitions(options, left, width));
  return sections.join('\n');
}

type ParserOptions = Record<string, { type: 'string' | 'boolean'; short?: string }>;

function parserOptions(specs: ReadonlyMap<string, OptionSpec>): ParserOptions {
  const options: ParserOptions = { help: { type: 'boolean', short: 'h' } };
  for (const [name, { type, short }] of specs) {
    options[name] = {
      type: type === 'boolean' ? 'boolean' : 'string',
      ...(short === undefined ? {} : { short }),
    };
  }
  return options;
}

interface OptionToken {
  readonly name: string;
  readonly rawName: string;
  readonly value?: string | undefined;
  readonly inlineValue?: boolean | undefined;
}

function readOption(
  command: CommandSpec,
  specs: ReadonlyMap<string, OptionSpec>,
  token: OptionToken,
): { name: string; value: unknown } {
  const spec = specs.get(token.name);
  if (spec === undefined) {
    const positive = token.name.startsWith('no-') ? token.name.slice(3) : '';
    if (specs.get(positive)?.type === 'boolean' && token.value === undefined) {
      return { name: positive, value: false };
    }
    throw unknownOption(command, specs, token.rawName);
  }
  const { name, value } = token;
  if (spec.type === 'boolean') {
    if (value === undefined) return { name, value: true };
    throw usageError(command, `--${name} takes no value, got "${value}"`);
  }
  // "--out --json" is a forgotten value; "--gain -3" and "--out=--json" are meant.
  const forgotten =
    value?.startsWith('-') && !token.inlineValue && !isNumeric(value) && value !== '-';
  if (value === undefined || forgotten) {
    throw usageError(command, `--${name} needs a value: --${name} ${placeholder(spec)}`, spec.help);
  }
  return { name, value: readValue(command, name, spec, value) };
}

function readValue(
  command: CommandSpec,
  name: string,
  spec: Exclude<OptionSpec, { type: 'boolean' }>,
  text: string,
): unknown {
  switch (spec.type) {
    case 'list':
      return text
        .split(',')
        .map((item) => item.trim())
        .filter((item) => item !== '');
    case 'string': {
      if (spec.choices === undefined || spec.choices.includes(text)) return text;
      const guess = nearest(text, spec.choices);
      const hint = guess === undefined ? '' : `; did you mean "${guess}"?`;
      const what = `--${name} is "${text}"${hint} (one of ${spec.choices.join(', ')})`;
      throw usageError(command, what, spec.choices, text);
    }
    default: {
      const number = Number(text);
      const whole = spec.type === 'integer';
      const fits = number >= (spec.min ?? -Infinity) && number <= (spec.max ?? Infinity);
      if (isNumeric(text) && fits && (!whole || Number.isSafeInteger(number))) return number;
      const kind = whole ? 'a whole number' : 'a number';
      const what = `--${name} is "${text}"; expected ${kind}${rangeNote(spec)}`;
      throw usageError(command, what, `${kind}${rangeNote(spec)}`, text);
    }
  }
}

/** Decimal numbers as people write them: Number() alone would also take "", "0x10" and " 1 ". */
function isNumeric(text: string): boolean {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) && Number.isFinite(Number(text));
}

function checkPositionals(command: CommandSpec, given: readonly string[]): void {
  const wanted = command.positionals ?? [];
  const missing = wanted.find(({ optional }, i) => !optional && i >= given.length);
  if (missing !== undefined) {
    throw usageError(command, `the argument <${missing.name}> is missing`, missing.help);
  }
  const surplus = given[wanted.length];
  if (surplus === undefined || wanted.at(-1)?.many) return;
  throw usageError(command, `there is no place for the argument "${surplus}"`);
}

function unknownOption(
  command: CommandSpec,
  specs: ReadonlyMap<string, OptionSpec>,
  rawName: string,
): PannsError {
  const known = [...specs.keys(), 'help'];
  const guess = nearest(rawName.replace(/^-+/, ''), known);
  return usageError(command, `unknown option ${rawName}; did you mean --${guess}?`, known, rawName);
}

function usageError(
  command: CommandSpec,
  what: string,
  expected?: unknown,
  actual?: unknown,
): PannsError {
  return new PannsError('ERR_PANNS_OPTION', `${what} (see ${command.name} --help)`, {
    where: command.name,
    expected,
    actual,
  });
}

function optionTitle(name: string, spec: OptionSpec): string {
  const short = spec.short === undefined ? '    ' : `-${spec.short}, `;
  if (spec.type === 'boolean') return `${short}--${spec.default ? '[no-]' : ''}${name}`;
  return `${short}--${name} ${placeholder(spec)}`;
}

function placeholder(spec: Exclude<OptionSpec, { type: 'boolean' }>): string {
  if (spec.value !== undefined) return `<${spec.value}>`;
  if (spec.type === 'list') return '<a,b,...>';
  return spec.type === 'string' ? '<text>' : '<n>';
}

function optionNotes(spec: OptionSpec): string {
  const notes: string[] = [];
  if (spec.type === 'string' && spec.choices) notes.push(spec.choices.join(' | '));
  if (spec.type === 'number' || spec.type === 'integer') {
    const range = rangeNote(spec).trim();
    if (range !== '') notes.push(range);
  }
  if ('required' in spec && spec.required) notes.push('required');
  if (spec.default !== undefined && spec.default !== false) notes.push(`default ${spec.default}`);
  return notes.length === 0 ? '' : ` (${notes.join('; ')})`;
}

function rangeNote({ min, max }: { min?: number; max?: number }): string {
  if (min !== undefined && max !== undefined) return ` in ${min}..${max}`;
  if (min !== undefined) return ` >= ${min}`;
  return max === undefined ? '' : ` <= ${max}`;
}

function definitions(
  pairs: readonly (readonly [string, string])[],
  left: number,
  width: number,
): string[] {
  // Two blanks on either side of the title; a narrow terminal still gets 20 columns of text.
  const indent = left + 4;
  return pairs.flatMap(([title, text]) =>
    wrapText(text, Math.max(20, width - indent)).map((line, i) => {
      const head =
        i === 0 ? `  ${title}${' '.repeat(left - widthOf(title))}  ` : ' '.repeat(indent);
      return `${head}${line}`.trimEnd();
    }),
  );
}
