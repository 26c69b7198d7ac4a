// One side of a comparison: a process that prints a line when it is ready, then the milliseconds of
// one repetition for each "go" it is sent, and after "end" its peak memory.
import { spawn } from 'node:child_process';
import { basename } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/** Characters of a side's standard error that are kept: the reason why it ended. */
const LAST_WORDS = 600;
/** For what a side that has ended said last, ms. */
const FLUSH = 300;

/** Starts a side; rejects when it ends early or says nothing for so many seconds, asked each time. */
export async function open(command, args, { patience = () => 3600, env = {} } = {}) {
  // A group of its own, as compilers start processes that would outlive the one that is killed.
  const child = spawn(command, args, { detached: true, env: { ...process.env, ...env } });
  // A side that ended early is found out when it is read from.
  child.stdin.on('error', () => {});
  let failure = '';
  let words = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    words = (words + text).slice(-LAST_WORDS);
  });
  child.on('error', ({ message }) => {
    failure = `: ${message}`;
  });
  const kill = () => {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended, or never began.
    }
  };
  const gone = new Promise((done) => {
    for (const event of ['exit', 'error']) child.once(event, () => sleep(FLUSH).then(done));
  }).then(() => ({ done: true }));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const seconds = patience();
    const watch = setTimeout(() => {
      failure = ` after ${Math.round(seconds)} s without a word`;
      kill();
    }, seconds * 1000);
    const { value, done } = await Promise.race([lines.next(), gone]);
    clearTimeout(watch);
    if (!done) return value;
    await gone;
    throw new Error(
      `${basename(args[0] ?? command)} ended early${failure}\n${words.trim()}`.trim(),
    );
  };
  const ask = async (word) => {
    child.stdin.write(`${word}\n`);
    return Number(await read());
  };
  return {
    /** The line that says that it is ready. */
    ready: await read(),
    /** The number that it answers a word with. */
    ask,
    /** Milliseconds of one repetition, of `count` in a row where the side counts them. */
    time: (count) => ask(count === undefined ? 'go' : `go ${count}`),
    /** The last line: peak memory. */
    end: () => ask('end'),
    kill,
  };
}

export const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
