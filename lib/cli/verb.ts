import { PannsError } from '../errors.js';
import { type CommandSpec, parseCommand, type Values } from './args.js';
import type { ProgressStream } from './progress.js';

/** What a command sees of the world; a test gives its own. */
export interface Context {
  /** One line of results, to standard output. */
  print(line: string): void;
  /** For progress and messages: standard error. */
  readonly messages: ProgressStream;
  /** Aborted by the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
}

/** A command of the program. */
export interface Verb {
  readonly command: CommandSpec;
  /** Returns the exit code. */
  run(argv: readonly string[], context: Context): Promise<number>;
}

/** The exit codes of the program, beside 128 + the number of a signal. */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/** A verb from its command line and what it does; `--help` and wrong usage are taken care of. */
export function defineVerb<const C extends CommandSpec>(
  command: C,
  body: (values: Values<C>, positionals: readonly string[], context: Context) => Promise<number>,
): Verb {
  return {
    command,
    async run(argv, context) {
      let parsed: ReturnType<typeof parseCommand<C>>;
      try {
        parsed = parseCommand(command, argv);
      } catch (error) {
        return complain(error, context, EXIT.usage);
      }
      if (parsed.help) {
        context.print(parsed.text);
        return EXIT.ok;
      }
      return body(parsed.values, parsed.positionals, context);
    },
  };
}

/** Prints `error CODE: message`; a defect of the program keeps its stack. */
export function complain(error: unknown, { messages }: Context, exit: number): number {
  if (error instanceof PannsError) messages.write(`error ${error.code}: ${error.message}\n`);
  else messages.write(`error: ${error instanceof Error ? error.stack : String(error)}\n`);
  return exit;
}

/** A command line that is well formed and asks for what does not go together. */
export class UsageError extends PannsError {
  constructor(command: CommandSpec, what: string) {
    super('ERR_PANNS_OPTION', `${what} (see ${command.name} --help)`, { where: command.name });
  }
}
