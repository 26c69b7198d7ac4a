/** How a table column is set: text to the left, numbers to the right. */
export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A time span in seconds, in two units at most: `850 ms`, `4.2 s`, `3:07`, `2:15:00`, `3 d 4 h`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '-';
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < MINUTE) return `${whole} s`;
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)}:${two(whole % MINUTE)}`;
  if (whole < DAY) {
    return `${Math.floor(whole / HOUR)}:${two((whole % HOUR) / MINUTE)}:${two(whole % MINUTE)}`;
  }
  const hours = Math.round(whole / HOUR);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A number with up to `digits` significant digits, whole ones kept: 1234, 56.7, 0.0123, 1.20e-7. */
export function formatNumber(value: number, digits = 3): string {
  if (Number.isNaN(value)) return '-';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e15))
    return value.toExponential(Math.max(0, digits - 1));
  const whole = size < 1 ? 1 : Math.floor(Math.log10(size)) + 1;
  if (whole >= digits) return String(Math.round(value));
  const decimals =
    size !== 0 && size < 1 ? digits - 1 - Math.floor(Math.log10(size)) : digits - whole;
  return String(Number(value.toFixed(decimals)));
}

/** A share in 0..1 as percent with one decimal. */
export function formatPercent(share: number): string {
  return Number.isFinite(share) ? `${(share * 100).toFixed(1)} %` : '-';
}

/** A count of bytes in the unit that suits it: `512 B`, `1.5 kB`, `327 MB` (1 kB = 1000 B). */
export function formatBytes(bytes: number): string {
  let size = bytes;
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  // 999.5 would round to 1000 of the smaller unit.
  while (size >= 999.5 && units.length > 1) {
    size /= 1000;
    units.shift();
  }
  return `${units[0] === 'B' ? size : formatNumber(size, 3)} ${units[0]}`;
}

/** Text that a terminal shows as it is: control characters, escape codes too, become `?`. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, '?');
}

/** Rows under their titles, in columns two spaces apart, without a trailing newline or blanks. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const cells = rows.map((row) => columns.map((_, i) => printable(String(row[i] ?? ''))));
  const lines = [columns.map(({ title }) => title), ...cells];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => widthOf(line[i] ?? ''))));
  const set = (line: readonly string[]) =>
    line
      .map((cell, i) => {
        const blank = ' '.repeat((widths[i] ?? 0) - widthOf(cell));
        return columns[i]?.align === 'right' ? blank + cell : cell + blank;
      })
      .join('  ')
      .trimEnd();
  return lines.map(set).join('\n');
}

/** Breaks text at blanks into lines of at most `width` characters; a longer word keeps its line. */
export function wrapText(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    const longer = line === '' ? word : `${line} ${word}`;
    if (line !== '' && widthOf(longer) > width) {
      lines.push(line);
      line = word;
    } else {
      line = longer;
    }
  }
  if (line !== '' || lines.length === 0) lines.push(line);
  return lines;
}

/** Characters, not UTF-16 units. */
export function widthOf(text: string): number {
  return [...text].length;
}
