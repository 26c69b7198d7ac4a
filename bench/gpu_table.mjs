// The results of bench/gpu.mjs as text, narrow enough for a terminal.
import { PEERS } from './gpu_cases.mjs';

const seconds = (row) => row?.startSeconds?.toFixed(0) ?? '-';
const gigabytes = (row) => (row?.peakMiB ? (row.peakMiB / 1024).toFixed(1) : '-');
const range = ([least, most]) => `${least.toFixed(2)}..${most.toFixed(2)}`;

function measured(row) {
  if (row === undefined) return '-';
  return row.failed === undefined ? (row.timesOurs?.toFixed(2) ?? '?') : 'failed';
}

/** The peer with the shortest time beside ours; undefined where none was measured. */
export function bestPeer(rows) {
  const peers = rows.filter(({ side, timesOurs }) => PEERS.includes(side) && timesOurs > 0);
  return peers.sort((a, b) => a.timesOurs - b.timesOurs)[0];
}

function columns(lines) {
  const widths = lines[0].map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  const padded = (cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]));
  return lines.map((line) => line.map(padded).join('  '));
}

/** One line a case: our time, that of each peer as a multiple of it, and the best of them. */
function comparisons(results) {
  const head = ['case', 'ms', 'clips/s', ...PEERS, 'best peer', 'of rounds'];
  const lines = results.map(({ case: name, rows }) => {
    const [own] = rows;
    const best = bestPeer(rows);
    const peers = PEERS.map((peer) => measured(rows.find(({ side }) => side === peer)));
    const time = own.ms
      ? [own.ms.median.toFixed(2), own.clipsPerSecond.toFixed(0)]
      : ['failed', '-'];
    const chosen = best
      ? [`${best.side} ${best.timesOurs.toFixed(2)}x`, range(best.rounds)]
      : ['-', '-'];
    return [name, ...time, ...peers, ...chosen];
  });
  return columns([head, ...lines]);
}

/** What each side took to start, and what memory; the card's median clock and greatest power. */
function costs(results) {
  const lines = results.map(({ case: name, rows, card }) => {
    const best = bestPeer(rows);
    const state = [card?.['clocks.sm'][1], card?.['power.draw'][2]].map(
      (x) => x?.toFixed(0) ?? '-',
    );
    return [name, seconds(rows[0]), seconds(best), gigabytes(rows[0]), gigabytes(best), ...state];
  });
  const head = ['case', 'start s, ours', 'best peer', 'GiB, ours', 'best peer', 'SM MHz', 'W'];
  return columns([head, ...lines]);
}

/** A case of our own side in several ways: times as multiples of the usual one. */
function ways({ case: name, rows: [own, ...others] }) {
  const text = (row) =>
    row.failed === undefined && row.rounds
      ? `${measured(row)}x (${range(row.rounds)})`
      : `failed: ${row.failed?.split('\n').at(-1).slice(0, 80)}`;
  const head = `${name}: ${own.ms ? `${own.ms.median.toFixed(2)} ms` : 'failed'}; of that`;
  return [head, ...others.map((row) => `  ${row.side.padEnd(28)} ${text(row)}`)];
}

/** Why sides did not take part, in a line each. */
function reasons(results) {
  return results.flatMap(({ case: name, rows }) =>
    rows.flatMap(({ side, failed }) => {
      if (failed === undefined) return [];
      return [`  ${name}, ${side}: ${failed.split('\n').at(-1).slice(0, 150)}`];
    }),
  );
}

/** All of a report, the shortest form that shows it. */
export function tableOf({ results, leftOut, card, torch }) {
  const compared = results.filter(({ work }) => work.ways === undefined);
  const alone = results.filter(({ work }) => work.ways !== undefined);
  const failed = reasons(results);
  const { cuDNN } = results[0]?.rows[0].versions ?? {};
  const lines = [
    `${card?.name ?? 'no GPU'}, driver ${card?.driver ?? '-'}, cuDNN ${cuDNN || '-'}; ` +
      `PyTorch ${torch.version ?? 'none'}, cuDNN ${torch.cudnn ?? '-'}`,
  ];
  if (compared.length > 0) {
    lines.push('', 'times of peers in multiples of ours:', ...comparisons(compared));
    lines.push('', ...costs(compared));
  }
  for (const one of alone) lines.push('', ...ways(one));
  if (failed.length > 0) lines.push('', 'failed:', ...failed);
  if (leftOut.length > 0) lines.push('', `no time was left for: ${leftOut.join('; ')}`);
  return lines.join('\n');
}
