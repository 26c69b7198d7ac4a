// A process that answers each line of stdin, a case in JSON, with one line of JSON.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** One that says nothing for so long hangs: cuDNN compiles some plans for seconds each. */
export const PATIENCE_SECONDS = 240;

/**
 * Started at the first case, and again after it ended. With `group` it leads a group of its own, that
 * those which it starts end with it.
 */
export function openWorker(command, args, { env = {}, group = false } = {}) {
  let child;
  let gone;
  let lines;
  let words = '';
  const kill = (one) => {
    if (!group) return one.kill('SIGKILL');
    try {
      process.kill(-one.pid, 'SIGKILL');
    } catch (error) {
      // All of them have ended.
      if (error.code !== 'ESRCH') throw error;
    }
  };
  const start = () => {
    child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: group,
      env: { ...process.env, ...env },
    });
    const begun = child;
    words = '';
    child.on('error', ({ message }) => {
      words = message;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      words = (words + text).slice(-2000);
    });
    // Its end shows in what it answers: nothing.
    child.stdin.on('error', () => {});
    gone = new Promise((done) => {
      begun.on('close', (code, signal) => {
        if (child === begun) child = undefined;
        done(signal ?? code);
      });
    });
    lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  };
  let answered = false;
  return {
    /** `answer`, or why there is none in `failure`; `late` where that is the time. */
    async ask(one, seconds = PATIENCE_SECONDS) {
      const used = child !== undefined && answered;
      if (child === undefined) start();
      const asked = child;
      let late = false;
      const watch = setTimeout(() => {
        late = true;
        kill(asked);
      }, seconds * 1000);
      const end = gone;
      asked.stdin.write(`${JSON.stringify(one)}\n`);
      const { value, done } = await lines.next();
      clearTimeout(watch);
      answered = !done;
      if (!done) return { answer: JSON.parse(value) };
      const status = await end;
      // It was done with the case before, as a worker is that the device has failed: not by this one.
      if (used && status === 0 && !late) return this.ask(one, seconds);
      const how = late ? `no answer for ${Math.round(seconds)} s` : `it ended (${status})`;
      return { failure: `${how}: ${words.trim().slice(-500)}`, late };
    },
    /** Says that there are no more cases, and waits so many seconds for what it does in the end. */
    async end(seconds) {
      if (child === undefined) return;
      const asked = child;
      const watch = setTimeout(() => kill(asked), seconds * 1000);
      asked.stdin.end();
      await gone;
      clearTimeout(watch);
    },
    kill() {
      if (child !== undefined) kill(child);
    },
  };
}
