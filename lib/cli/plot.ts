/** A line of a chart. */
export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** One chart of a figure, with a y axis of its own. */
export interface Chart {
  readonly title: string;
  readonly series: readonly Series[];
  /** The range of the y axis; default that of the points. */
  readonly range?: readonly [number, number];
}

const WIDTH = 640;
const CHART_HEIGHT = 240;
const MARGIN = { left: 60, right: 20, top: 36, bottom: 40 };

/** Dark enough on white, and told apart also by people who see few colours (Okabe and Ito). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7'];

/** An SVG document of charts below each other over the same x axis; points that are no numbers are left out. */
export function plotSvg(xTitle: string, charts: readonly Chart[]): string {
  const height = charts.length * CHART_HEIGHT;
  const all = charts.flatMap((chart) => chart.series.flatMap(({ points }) => points));
  const x = scale(niceTicks(extent(all.map(([value]) => value))), [
    MARGIN.left,
    WIDTH - MARGIN.right,
  ]);
  const body = charts.map((chart, i) => drawChart(chart, x, xTitle, i * CHART_HEIGHT));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    ...body.flat(),
    '</svg>',
    '',
  ].join('\n');
}

/** An axis. */
export interface Scale {
  readonly ticks: readonly number[];
  readonly at: (value: number) => number;
}

function drawChart(
  { title, series, range }: Chart,
  x: Scale,
  xTitle: string,
  top: number,
): string[] {
  const bottom = top + CHART_HEIGHT - MARGIN.bottom;
  const values = series.flatMap(({ points }) => points.map(([, value]) => value));
  const y = scale(niceTicks(range ?? extent(values)), [bottom, top + MARGIN.top]);
  const lines = [
    `<text x="${MARGIN.left}" y="${top + 22}" font-weight="bold">${escaped(title)}</text>`,
  ];
  for (const tick of y.ticks) {
    const at = round(y.at(tick));
    lines.push(
      `<line x1="${MARGIN.left}" y1="${at}" x2="${WIDTH - MARGIN.right}" y2="${at}" stroke="#ddd"/>`,
      `<text x="${MARGIN.left - 6}" y="${at + 4}" text-anchor="end">${label(tick)}</text>`,
    );
  }
  for (const tick of x.ticks) {
    lines.push(
      `<text x="${round(x.at(tick))}" y="${bottom + 16}" text-anchor="middle">${label(tick)}</text>`,
    );
  }
  lines.push(
    `<text x="${WIDTH - MARGIN.right}" y="${bottom + 32}" text-anchor="end">${escaped(xTitle)}</text>`,
  );
  let legend = WIDTH - MARGIN.right;
  for (const [i, { name, points }] of series.entries()) {
    const colour = COLOURS[i % COLOURS.length];
    const path = points
      .filter((point) => point.every(Number.isFinite))
      .map(([px, py]) => `${round(x.at(px))},${round(y.at(py))}`);
    lines.push(
      `<polyline points="${path.join(' ')}" fill="none" stroke="${colour}" stroke-width="1.5"/>`,
      `<text x="${legend}" y="${top + 22}" text-anchor="end" fill="${colour}">${escaped(name)}</text>`,
    );
    // About 7 px a letter at this size, and a gap.
    legend -= 7 * name.length + 16;
  }
  return lines;
}

/** Least and greatest of the numbers among the values, apart. */
export function extent(values: readonly number[]): readonly [number, number] {
  const known = values.filter(Number.isFinite);
  if (known.length === 0) return [0, 1];
  const low = known.reduce((least, value) => Math.min(least, value));
  const high = known.reduce((most, value) => Math.max(most, value));
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

/** About five round numbers whose first and last enclose the range. */
export function niceTicks([low, high]: readonly [number, number]): number[] {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

/** Where values between the first and the last tick stand between two pixels. */
export function scale(ticks: readonly number[], [from, to]: readonly [number, number]): Scale {
  const low = ticks[0] ?? 0;
  const high = ticks.at(-1) ?? 1;
  return { ticks, at: (value) => from + ((value - low) / (high - low)) * (to - from) };
}

/** A tick as people write it, without the rest of a rounding. */
export function label(value: number): string {
  return String(Number(value.toPrecision(6)));
}

/** Pixels to a tenth. */
export function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Text as SVG writes it. */
export function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
