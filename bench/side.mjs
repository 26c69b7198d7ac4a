// One side of a comparison: a process that prints a line when it is ready, then the milliseconds of
// one repetition for each "go" it is sent, and after "end" its peak memory.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Starts a side; rejects when it ends early or says nothing for `seconds`. */
export async function open(command, args, { seconds = 3600, env = {} } = {}) {
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  // A side that ended early is found out when it is read from.
  child.stdin.on('error', () => {});
  let failure = '';
  child.on('error', ({ message }) => {
    failure = `: ${message}`;
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const watch = setTimeout(() => {
      failure = ` after ${seconds} s without a word`;
      child.kill('SIGKILL');
    }, seconds * 1000);
    const { value, done } = await lines.next();
    clearTimeout(watch);
    if (done) throw new Error(`${command} ${args.join(' ')} ended early${failure}`);
    return value;
  };
  return {
    /** The line that says that it is ready. */
    ready: await read(),
    async time() {
      child.stdin.write('go\n');
      return Number(await read());
    },
    /** The last line: peak memory. */
    async end() {
      child.stdin.write('end\n');
      return Number(await read());
    },
    kill() {
      child.kill('SIGKILL');
    },
  };
}

export const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
