import t from 'tap';
import {
  formatBytes,
  formatDuration,
  formatNumber,
  formatPercent,
  formatTable,
  printable,
  wrapText,
} from '../../lib/cli/format.js';

t.test('durations', async (t) => {
  const cases: [number, string][] = [
    [0, '0 ms'],
    [0.85, '850 ms'],
    [0.9996, '1.0 s'],
    [4.24, '4.2 s'],
    [9.96, '10 s'],
    [59.4, '59 s'],
    [59.6, '1:00'],
    [187, '3:07'],
    [3599.7, '1:00:00'],
    [8100, '2:15:00'],
    [86399.6, '1 d 0 h'],
    [273600, '3 d 4 h'],
    [Infinity, '-'],
    [NaN, '-'],
    [-1, '-'],
  ];
  for (const [seconds, text] of cases) t.equal(formatDuration(seconds), text);
});

t.test('numbers', async (t) => {
  const cases: [number, string][] = [
    [0, '0'],
    [1234.5, '1235'],
    [56.789, '56.8'],
    [-5.6789, '-5.68'],
    [0.012345, '0.0123'],
    [1.2e-7, '1.20e-7'],
    [0.5, '0.5'],
    [NaN, '-'],
    [-Infinity, '-inf'],
    [1e20, '1.00e+20'],
  ];
  for (const [value, text] of cases) t.equal(formatNumber(value), text);
  t.equal(formatNumber(0.43149, 2), '0.43');
  t.equal(formatPercent(0.9634), '96.3 %');
  t.equal(formatPercent(NaN), '-');
  t.same([0, 999, 1500, 999_600, 326_800_000, 5e15].map(formatBytes), [
    '0 B',
    '999 B',
    '1.5 kB',
    '1 MB',
    '327 MB',
    '5000 TB',
  ]);
});

t.test('tables are aligned, and no cell can move the cursor', async (t) => {
  const columns = [{ title: 'class' }, { title: 'AP', align: 'right' }, { title: 'n' }] as const;
  const rows = [
    ['dog', 0.5, 1],
    ['é😀\x1b[31m\n', 12.25],
  ];
  t.equal(
    formatTable(columns, rows),
    ['class        AP  n', 'dog         0.5  1', 'é😀?[31m?  12.25'].join('\n'),
  );
  t.equal(formatTable(columns, []), 'class  AP  n');
  t.equal(printable('a\tb\u2028c\u009bd'), 'a?b?c?d');
});

t.test('text is broken at blanks', async (t) => {
  t.same(wrapText('one two  three\nfour', 9), ['one two', 'three', 'four']);
  t.same(wrapText('incomprehensible', 5), ['incomprehensible']);
  t.same(wrapText('', 5), ['']);
});
