import { AbortError, nearest } from '../errors.js';
import { build } from './build.js';
import { convert } from './convert.js';
import { demo } from './demo.js';
import { describe } from './describe.js';
import { detect } from './detect.js';
import { doctor } from './doctor.js';
import { download } from './download.js';
import { embedVerb } from './embed.js';
import { evaluateVerb } from './eval.js';
import { exportVerb } from './export.js';
import { widthOf } from './format.js';
import { info } from './info.js';
import { memory } from './memory.js';
import { models } from './models.js';
import { pack } from './pack.js';
import { profile } from './profile.js';
import { tag } from './tag.js';
import { train } from './train.js';
import { tune } from './tune.js';
import { type Context, complain, EXIT, UsageError, type Verb } from './verb.js';
import { packageVersion } from './version.js';

const verbs: ReadonlyMap<string, Verb> = new Map(
  Object.entries({
    train,
    pack,
    eval: evaluateVerb,
    tag,
    detect,
    embed: embedVerb,
    export: exportVerb,
    models,
    download,
    describe,
    convert,
    memory,
    tune,
    profile,
    info,
    doctor,
    build,
    demo,
  }),
);

/**
 * Runs `panns <verb> ...` and returns the exit code: 0, 1 for a failure, 2 for a wrong command line.
 *
 * An abort of the context's signal comes back as an AbortError, once the verb has put its work away.
 */
export async function runProgram(argv: readonly string[], context: Context): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    context.print(overview());
    return name === undefined ? EXIT.usage : EXIT.ok;
  }
  if (name === '--version' || name === 'version') {
    context.print(packageVersion());
    return EXIT.ok;
  }
  const verb = verbs.get(name);
  if (verb === undefined) {
    const guess = nearest(name, [...verbs.keys()]);
    context.messages.write(
      `error: there is no command "${name}"; did you mean "panns ${guess}"?\n`,
    );
    return EXIT.usage;
  }
  try {
    return await verb.run(rest, context);
  } catch (error) {
    if (error instanceof AbortError) throw error;
    return complain(error, context, error instanceof UsageError ? EXIT.usage : EXIT.failed);
  }
}

function overview(): string {
  const left = Math.max(...[...verbs.keys()].map(widthOf));
  const lines = [...verbs].map(
    ([name, { command }]) => `  ${name.padEnd(left)}  ${command.summary}`,
  );
  return [
    'panns: audio neural networks for tagging, to run and to train',
    '',
    'Usage: panns <command> [options]',
    '',
    ...lines,
    '',
    'panns <command> --help describes the options; panns --version prints the version.',
  ].join('\n');
}
