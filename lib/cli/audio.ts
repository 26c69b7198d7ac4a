import type { CommandSpec } from './args.js';
import { printable } from './format.js';
import type { Context } from './verb.js';

/** How a command that listens to files reads them. */
export const audioOptions = {
  'nan-to-zero': { type: 'boolean', help: 'read NaN and infinite samples as 0' },
} as const satisfies CommandSpec['options'];

/** The values of {@link audioOptions}, as the library takes them; nothing unless it was asked for. */
export function chosenAudio(values: { readonly 'nan-to-zero': boolean }): { nanToZero?: true } {
  return values['nan-to-zero'] ? { nanToZero: true } : {};
}

/** Says beside the results of a file that they are of a part of it. */
export function noteTruncated(file: string, { messages }: Pick<Context, 'messages'>): void {
  messages.write(`note: ${printable(file)} is cut off: the results are of what is there\n`);
}
