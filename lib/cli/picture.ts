import type { DetectedEvent } from '../inference/events.js';
import { escaped, label, niceTicks, round } from './plot.js';
import { encodePng } from './png.js';

/** Columns of values that come in order of time, made fewer so that memory does not grow with time. */
export interface Columns {
  /** How many values a column has. */
  readonly rows: number;
  /** Takes columns one after another, (count, rows). */
  push(values: Float32Array): void;
  /** What there is now: (count, rows), and how many of the given columns one of them stands for. */
  result(): { readonly data: Float32Array; readonly count: number; readonly each: number };
}

/**
 * Gathers columns; once there are more than `most`, each two neighbours become one, their mean or
 * their greater value. So there are between most / 2 and `most` in the end, or all.
 */
export function gatherColumns(rows: number, most: number, how: 'mean' | 'max'): Columns {
  let each = 1;
  let count = 0;
  // Of the column under way: how many of the given ones it has.
  let inside = 0;
  const data = new Float32Array(most * rows);
  const halve = () => {
    for (let c = 0; c < count; c += 2) {
      for (let r = 0; r < rows; r++) {
        const a = data[c * rows + r] ?? 0;
        const b = data[(c + 1) * rows + r] ?? 0;
        data[(c / 2) * rows + r] = how === 'max' ? Math.max(a, b) : (a + b) / 2;
      }
    }
    count /= 2;
    each *= 2;
  };
  return {
    rows,
    push(values) {
      for (let from = 0; from < values.length; from += rows) {
        if (inside === 0 && count === most) halve();
        const to = count * rows;
        for (let r = 0; r < rows; r++) {
          const value = values[from + r] ?? 0;
          const before = data[to + r] ?? 0;
          data[to + r] =
            inside === 0
              ? value
              : how === 'max'
                ? Math.max(before, value)
                : before + (value - before) / (inside + 1);
        }
        inside++;
        if (inside < each) continue;
        inside = 0;
        count++;
      }
    },
    result() {
      const whole = inside > 0 ? count + 1 : count;
      return { data: data.slice(0, whole * rows), count: whole, each };
    },
  };
}

/** Most columns of a panel; even, so that neighbours pair up. */
export const MOST_COLUMNS = 1600;

/** What a picture of detections shows. */
export interface DetectionPicture {
  readonly title: string;
  readonly seconds: number;
  /** Log-mel in dB: rows are bins from low to high; and the seconds of one given column. */
  readonly logmel: Columns;
  readonly logmelSeconds: number;
  /** Of mel bins, in Hz, at the low end, and at the high end. */
  readonly frequencies: readonly [number, number];
  /** Scores: rows are classes; and the seconds of one given column. */
  readonly scores: Columns;
  readonly scoreSeconds: number;
  readonly labels: readonly string[];
  readonly events: readonly DetectedEvent[];
  /** Rows to draw at most, those of the highest scores. */
  readonly rows: number;
}

const WIDTH = 960;
const RIGHT = WIDTH - 24;
const TOP = 40;
const LOGMEL_HEIGHT = 200;
const ROW = 22;
const GAP = 14;
/** Of a letter at the size of the labels; DejaVu Sans, the widest of the usual fonts. */
const LETTER = 6.6;
const LONGEST_LABEL = 34;

/** From quiet to loud: dark blue over purple and orange to a pale yellow, ever lighter. */
const HEAT = ramp([
  [8, 8, 32],
  [58, 18, 104],
  [140, 40, 110],
  [214, 80, 78],
  [248, 154, 66],
  [252, 246, 180],
]);
/** From nothing to certain: white to dark blue. */
const INK = ramp([
  [255, 255, 255],
  [206, 224, 241],
  [120, 174, 216],
  [33, 102, 172],
  [8, 48, 107],
]);

/** What is quieter than the loudest by more is drawn as silence, in dB. */
const DYNAMIC_RANGE = 80;

/**
 * An SVG document of two panels over one time axis: the log-mel spectrogram, and the classes with the
 * highest scores, a row each, with the events as bars.
 */
export async function detectionSvg(picture: DetectionPicture): Promise<string> {
  const { title, seconds, labels, events, frequencies, logmel, scores } = picture;
  const rows = topRows(picture);
  const names = rows.map((k) => shortened(labels[k] ?? ''));
  const left = Math.max(64, 16 + LETTER * Math.max(0, ...names.map((name) => name.length)));
  const at = (time: number) => left + (time / seconds) * (RIGHT - left);
  const below = TOP + LOGMEL_HEIGHT + GAP;
  const tall = rows.length * ROW;
  const bottom = below + tall;
  const height = bottom + 44;
  // The last column may reach beyond the end by less than itself.
  const wide = (columns: Columns, each: number) => {
    const { count, each: together } = columns.result();
    return at(Math.min(seconds, count * together * each)) - left;
  };
  const ticks = niceTicks([0, seconds]).filter((tick) => tick <= seconds * (1 + 1e-9));
  const rowOf = new Map(rows.map((k, row) => [k, row]));
  const bars = events.flatMap(({ index, onset, offset, score, label: name }) => {
    const row = rowOf.get(index);
    if (row === undefined) return [];
    const tip = `${name}: ${label(onset)} to ${label(offset)} s, score ${score.toFixed(3)}`;
    const length = Math.max(1.5, at(offset) - at(onset));
    return [
      `<rect class="event" x="${round(at(onset))}" y="${below + row * ROW + 3}" width="${round(length)}" height="${ROW - 6}" rx="2"><title>${escaped(tip)}</title></rect>`,
    ];
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12" role="img">`,
    `<title>${escaped(title)}</title>`,
    '<style>.event{fill:#d55e00;fill-opacity:.12;stroke:#d55e00;stroke-width:1.5} .grid{stroke:#d8dee4} .frame{fill:none;stroke:#8c959f}</style>',
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    `<text x="${round(left)}" y="24" font-weight="bold">${escaped(title)}</text>`,
    image(await logmelPng(picture), left, TOP, wide(logmel, picture.logmelSeconds), LOGMEL_HEIGHT),
    ...frequencyAxis(frequencies, left),
    image(await scoresPng(picture, rows), left, below, wide(scores, picture.scoreSeconds), tall),
    ...ticks.map((tick) => {
      const x = round(at(tick));
      return `<line class="grid" x1="${x}" y1="${below}" x2="${x}" y2="${bottom + 4}" stroke-opacity=".6"/><text x="${x}" y="${bottom + 18}" text-anchor="middle">${label(tick)}</text>`;
    }),
    ...names.flatMap((name, row) => [
      `<text x="${round(left - 8)}" y="${below + row * ROW + 15}" text-anchor="end">${escaped(name)}</text>`,
      `<line class="grid" x1="${round(left)}" y1="${below + row * ROW}" x2="${RIGHT}" y2="${below + row * ROW}"/>`,
    ]),
    ...bars,
    `<rect class="frame" x="${round(left)}" y="${TOP}" width="${round(RIGHT - left)}" height="${LOGMEL_HEIGHT}"/>`,
    `<rect class="frame" x="${round(left)}" y="${below}" width="${round(RIGHT - left)}" height="${tall}"/>`,
    `<text x="${RIGHT}" y="${bottom + 36}" text-anchor="end">seconds</text>`,
    '</svg>',
    '',
  ].join('\n');
}

/** The classes of events, then those with the highest scores; the highest first. */
function topRows({ scores, events, rows }: DetectionPicture): number[] {
  const { data, count } = scores.result();
  const best = new Float32Array(scores.rows).fill(-Infinity);
  for (let c = 0; c < count; c++) {
    for (let k = 0; k < scores.rows; k++) {
      best[k] = Math.max(best[k] ?? 0, data[c * scores.rows + k] ?? 0);
    }
  }
  const named = new Set(events.map(({ index }) => index));
  const order = [...best.keys()].sort((a, b) => {
    return Number(named.has(b)) - Number(named.has(a)) || (best[b] ?? 0) - (best[a] ?? 0) || a - b;
  });
  return order.slice(0, rows).sort((a, b) => (best[b] ?? 0) - (best[a] ?? 0) || a - b);
}

function logmelPng({ logmel }: DetectionPicture): Promise<Buffer> {
  const { data, count } = logmel.result();
  const bins = logmel.rows;
  const loudest = data.reduce((most, value) => Math.max(most, value), -Infinity);
  const pixels = new Uint8Array(count * bins);
  for (let t = 0; t < count; t++) {
    for (let bin = 0; bin < bins; bin++) {
      const share = 1 - (loudest - (data[t * bins + bin] ?? 0)) / DYNAMIC_RANGE;
      pixels[(bins - 1 - bin) * count + t] = shade(share);
    }
  }
  return encodePng({ width: count, height: bins, pixels, palette: HEAT });
}

function scoresPng({ scores }: DetectionPicture, rows: readonly number[]): Promise<Buffer> {
  const { data, count } = scores.result();
  // As high as it is shown: programs that smooth what they enlarge keep the rows apart.
  const height = rows.length * ROW;
  const pixels = new Uint8Array(count * height);
  for (const [row, k] of rows.entries()) {
    const line = Uint8Array.from({ length: count }, (_, t) =>
      shade(data[t * scores.rows + k] ?? 0),
    );
    for (let y = row * ROW; y < (row + 1) * ROW; y++) pixels.set(line, y * count);
  }
  return encodePng({ width: count, height, pixels, palette: INK });
}

function shade(share: number): number {
  return Math.round(255 * Math.min(1, Math.max(0, share)));
}

function image(png: Buffer, left: number, top: number, width: number, height: number): string {
  const place = `x="${round(left)}" y="${top}" width="${round(width)}" height="${height}"`;
  return `<image ${place} preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,${png.toString('base64')}"/>`;
}

/** A few round frequencies where their mel bins are: Slaney's scale, as the front-end has it. */
function frequencyAxis([low, high]: readonly [number, number], left: number): string[] {
  const from = mel(low);
  const to = mel(high);
  return [250, 500, 1000, 2000, 4000, 8000, 16000]
    .filter((hertz) => hertz > low && hertz < high)
    .map((hertz) => {
      const y = round(TOP + LOGMEL_HEIGHT * (1 - (mel(hertz) - from) / (to - from)));
      const text = hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`;
      return `<text x="${round(left - 8)}" y="${y + 4}" text-anchor="end" font-size="10">${text}</text><line x1="${round(left - 4)}" y1="${y}" x2="${round(left)}" y2="${y}" stroke="#8c959f"/>`;
    });
}

/** Slaney's mel scale: linear to 1 kHz, logarithmic above. */
function mel(hertz: number): number {
  return hertz < 1000 ? (3 * hertz) / 200 : 15 + (27 * Math.log(hertz / 1000)) / Math.log(6.4);
}

function shortened(name: string): string {
  return name.length <= LONGEST_LABEL ? name : `${name.slice(0, LONGEST_LABEL - 1)}…`;
}

/** 256 colours through the given ones. */
function ramp(stops: readonly (readonly [number, number, number])[]): [number, number, number][] {
  return Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (stops.length - 1);
    const from = Math.min(stops.length - 2, Math.floor(place));
    const mix = (c: 0 | 1 | 2) => {
      const a = stops[from]?.[c] ?? 0;
      return Math.round(a + ((stops[from + 1]?.[c] ?? 0) - a) * (place - from));
    };
    return [mix(0), mix(1), mix(2)];
  });
}
