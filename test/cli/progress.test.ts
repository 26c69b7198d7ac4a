import t from 'tap';
import { createProgress, type ProgressOptions } from '../../lib/cli/progress.js';

/** A redrawn line without what puts it in place. */
function shown(text = ''): string {
  return text.replaceAll('\r', '').replaceAll('\x1b[K', '');
}

/** A display with a clock that the test moves, and a sink that keeps what is written. */
function display(options: Partial<ProgressOptions> & { isTTY: boolean; columns?: number }) {
  const written: string[] = [];
  let time = 5000;
  const { isTTY, columns, ...rest } = options;
  const progress = createProgress({
    label: 'train',
    total: 200,
    stream: { isTTY, columns, write: (text: string) => written.push(text) },
    now: () => time,
    ...rest,
  });
  return {
    progress,
    written,
    wait: (ms: number) => {
      time += ms;
    },
  };
}

t.test('a terminal: one line, redrawn at most ten times a second', async (t) => {
  const { progress, written, wait } = display({ isTTY: true, unit: 'steps', columns: 120 });
  for (let step = 1; step <= 100; step++) {
    wait(20);
    progress.update(step, `loss ${(1 / step).toFixed(2)}`);
  }
  t.equal(written.length, 20, '2 s of updates');
  const bar = `[${'='.repeat(12)}${' '.repeat(12)}]`;
  const rest = ' 48 %  96/200 steps  50/s  2.1 s left  loss 0.01';
  t.equal(written.at(-1), `\rtrain  ${bar}  ${rest}\x1b[K`);
  progress.finish('loss 0.01');
  t.match(written.at(-2) ?? '', /^\rtrain .* 50 % {2}100\/200/);
  t.equal(written.at(-1), '\n');
  progress.update(101);
  progress.log('late');
  progress.finish();
  t.equal(written.at(-1), '\n', 'nothing after the end');
});

t.test('a terminal: lines never wrap and carry no control characters', async (t) => {
  const { progress, written } = display({ isTTY: true, columns: 30, label: 'a\x1b[2Jb\n' });
  progress.update(50, 'x'.repeat(100));
  t.equal(written.length, 1);
  const line = shown(written[0]);
  t.equal(line.length, 29);
  t.ok(line.startsWith('a?[2Jb?  ['));
  progress.finish();
});

t.test('a terminal: log lines stand above the bar', async (t) => {
  const { progress, written } = display({ isTTY: true });
  progress.log('before');
  progress.update(1);
  progress.log('note');
  t.equal(written[0], 'before\n');
  const bar = shown(written[1]);
  t.equal(written[2], `\r\x1b[Knote\n${bar}`);
  progress.finish();
});

t.test('elsewhere: a plain line now and then, and the last', async (t) => {
  const { progress, written, wait } = display({ isTTY: false });
  for (let step = 1; step <= 200; step++) {
    wait(150);
    progress.update(step);
  }
  progress.log('note');
  progress.finish('done');
  t.equal(written.length, 5, '30 s of updates: three lines, a note, the end');
  for (const line of written) t.equal(shown(line), line);
  t.match(written[0] ?? '', /^train {4}0 % {2}1\/200 {2}6\.67\/s {2}30 s left\n$/);
  t.match(written[4] ?? '', /^train {2}100 % {2}200\/200 {2}6\.67\/s {2}done\n$/);
});

t.test('silent: nothing at all', async (t) => {
  const { progress, written } = display({ isTTY: true, silent: true });
  progress.update(1);
  progress.log('x');
  progress.finish();
  t.same(written, []);
});

t.test('no total, and a resumed run', async (t) => {
  const counting = display({ isTTY: false, total: undefined, unit: 'clips' });
  counting.wait(1000);
  counting.progress.update(500);
  t.equal(counting.written[0], 'train  500 clips  500/s\n');
  counting.progress.finish();
  const resumed = display({ isTTY: false, initial: 150 });
  resumed.wait(1000);
  resumed.progress.update(160);
  t.equal(resumed.written[0], 'train   80 %  160/200  10/s  4.0 s left\n', 'the rate of this run');
  resumed.progress.finish();
});

t.test('the rate follows a change', async (t) => {
  const { progress, written, wait } = display({ isTTY: true, total: undefined });
  for (let step = 1; step <= 100; step++) {
    wait(1000);
    progress.update(step);
  }
  wait(30_000);
  progress.update(3100);
  const rate = Number(/ ([\d.]+)\/s/.exec(written.at(-1) ?? '')?.[1]);
  t.ok(rate > 90, `100 a second of late, 1 before: ${rate}`);
  progress.finish();
});

t.test('leaving in the middle ends the line, finishing removes the watch', async (t) => {
  const before = process.listenerCount('exit');
  const { progress, written } = display({ isTTY: true });
  progress.update(3);
  const watch = process.listeners('exit').at(-1) as () => void;
  watch();
  t.equal(written.at(-1), '\n');
  progress.finish();
  t.equal(process.listenerCount('exit'), before);
});
