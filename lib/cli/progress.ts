import { formatDuration, formatNumber, printable } from './format.js';

/** Where progress goes: standard error, or a test's own sink. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** Options of {@link createProgress}. */
export interface ProgressOptions {
  label: string;
  /** How many units there are; without it neither a bar nor the time left is shown. */
  total?: number | undefined;
  /** What a unit is, plural: `clips`. Default nothing. */
  unit?: string | undefined;
  /** Behind the units a second; default `/s`. */
  rate?: string | undefined;
  /** Where a resumed run begins; the rate counts from here. Default 0. */
  initial?: number | undefined;
  /** Default standard error, so that standard output carries results alone. */
  stream?: ProgressStream | undefined;
  /** Show nothing, as with `--json`. */
  silent?: boolean | undefined;
  /** A clock in milliseconds; default a monotonic one. */
  now?: (() => number) | undefined;
}

/** A running display. */
export interface Progress {
  /** Says how much is done, with a few words such as `loss 0.31`. */
  update(done: number, text?: string): void;
  /** Prints a line of its own above the display. */
  log(line: string): void;
  /** Shows the end state and leaves the display; later calls do nothing. */
  finish(text?: string): void;
}

/** A terminal is redrawn at most this often, in ms: smooth to the eye, and no load. */
const REDRAW_MS = 100;

/** A log file gets a line at most this often, in ms. */
const LINE_MS = 10_000;

/** The rate forgets what lies further back than about this, in ms. */
const MEMORY_MS = 10_000;

const BAR_CELLS = 24;
const DEFAULT_COLUMNS = 80;

/**
 * A progress display of one line: a bar redrawn in place on a terminal, a plain line now and then
 * elsewhere, nothing when silent.
 *
 * If the process exits in between, the line is ended, so that the prompt starts on its own.
 */
export function createProgress(options: ProgressOptions): Progress {
  const { total, initial = 0, silent = false } = options;
  const stream = options.stream ?? process.stderr;
  const now = options.now ?? (() => performance.now());
  if (silent) return { update() {}, log() {}, finish() {} };

  const isTerminal = stream.isTTY === true;
  const rate = createRateMeter(initial, now());
  let done = initial;
  let text = '';
  let drawn: { time: number; line: string } | undefined;
  let finished = false;

  const compose = (): string => {
    const parts = [printable(options.label)];
    if (total !== undefined) {
      const share = total > 0 ? Math.min(1, Math.max(0, done / total)) : 1;
      if (isTerminal) parts.push(bar(share));
      parts.push(`${String(Math.floor(share * 100)).padStart(3)} %`);
    }
    const unit = options.unit === undefined ? '' : ` ${options.unit}`;
    parts.push(total === undefined ? `${done}${unit}` : `${done}/${total}${unit}`);
    const speed = rate.value();
    if (speed > 0) {
      parts.push(`${formatNumber(speed)}${options.rate ?? '/s'}`);
      const left = total === undefined ? 0 : (total - done) / speed;
      if (left > 0) parts.push(`${formatDuration(left)} left`);
    }
    if (text !== '') parts.push(printable(text));
    return parts.join('  ');
  };
  const draw = (time: number): void => {
    const whole = compose();
    // The last column stays free: a full line would wrap, and "\r" would not come back over it.
    const columns = stream.columns || DEFAULT_COLUMNS;
    const line = isTerminal ? [...whole].slice(0, columns - 1).join('') : whole;
    drawn = { time, line };
    stream.write(isTerminal ? `\r${line}\x1b[K` : `${line}\n`);
  };
  const endLine = (): void => {
    if (isTerminal && drawn !== undefined) stream.write('\n');
  };
  process.once('exit', endLine);

  return {
    update(nowDone, nowText = text) {
      if (finished) return;
      const time = now();
      done = nowDone;
      text = nowText;
      rate.add(done, time);
      const pause = isTerminal ? REDRAW_MS : LINE_MS;
      if (drawn === undefined || time - drawn.time >= pause) draw(time);
    },
    log(line) {
      if (finished) return;
      if (!isTerminal || drawn === undefined) stream.write(`${printable(line)}\n`);
      else stream.write(`\r\x1b[K${printable(line)}\n${drawn.line}`);
    },
    finish(lastText = text) {
      if (finished) return;
      finished = true;
      text = lastText;
      draw(now());
      endLine();
      process.removeListener('exit', endLine);
    },
  };
}

function bar(share: number): string {
  const full = Math.round(share * BAR_CELLS);
  return `[${'='.repeat(full)}${' '.repeat(BAR_CELLS - full)}]`;
}

/** Units a second, old ones counting less; the plain mean until enough time has passed. */
function createRateMeter(initial: number, start: number) {
  let lastDone = initial;
  let lastTime = start;
  let units = 0;
  let seconds = 0;
  return {
    add(done: number, time: number): void {
      const passed = Math.max(0, time - lastTime);
      const keep = Math.exp(-passed / MEMORY_MS);
      units = units * keep + (done - lastDone);
      seconds = seconds * keep + passed / 1000;
      lastDone = done;
      lastTime = time;
    },
    value: (): number => (seconds > 0 ? Math.max(0, units / seconds) : 0),
  };
}
