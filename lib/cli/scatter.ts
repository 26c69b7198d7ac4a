import { escaped, extent, label, niceTicks, round, type Scale, scale } from './plot.js';

/** A point with a name; x is above 0. */
export interface Mark {
  readonly name: string;
  readonly x: number;
  readonly y: number;
}

/** Points over a logarithmic x axis, every one with its name beside it. */
export interface Scatter {
  readonly title: string;
  readonly xTitle: string;
  readonly yTitle: string;
  /** Two at most: each has a colour of its own. */
  readonly groups: readonly { readonly name: string; readonly marks: readonly Mark[] }[];
}

const WIDTH = 960;
const HEIGHT = 640;
/** Names of points far to the right go on into the margin. */
const PLOT: Box = { left: 64, top: 60, right: WIDTH - 120, bottom: HEIGHT - 56 };
const RADIUS = 4;

/** Of the names. DejaVu Sans, the widest of the usual fonts, has 6.8 px a letter at this size. */
const SIZE = 11;
const LETTER = 6.8;
const LINE = 13;
/** From the top of a line to its base line. */
const BASE = 10;

/** Names keep this far from marks, in pixels. */
const GAP = 2;
/** How far from its mark a name begins where nothing is in the way. */
const BESIDE = RADIUS + GAP + 1;

/** The browser's scheme chooses; what ignores the media query shows dark on white. */
const STYLE = `
.paper{fill:#fff} text{fill:#1f2328} .grid{stroke:#d8dee4} .lead{stroke:#8c959f}
.g0{fill:#0072b2} .g1{fill:#d55e00}
@media (prefers-color-scheme: dark){
.paper{fill:#0d1117} text{fill:#e6edf3} .grid{stroke:#30363d} .lead{stroke:#848d97}
.g0{fill:#56b4e9} .g1{fill:#e69f00}}
`;

/**
 * An SVG document of the points; names stand where they cover neither a point nor each other, with a
 * line to their point where that is not beside it. Deterministic: equal input gives equal text.
 */
export function scatterSvg({ title, xTitle, yTitle, groups }: Scatter): string {
  const marks = groups.flatMap((group) => group.marks);
  const x = logScale(extent(marks.map((mark) => mark.x)), [PLOT.left, PLOT.right]);
  const y = scale(niceTicks(extent(marks.map((mark) => mark.y))), [PLOT.bottom, PLOT.top]);
  const spots = marks.map((mark) => ({ ...mark, x: x.at(mark.x), y: y.at(mark.y) }));
  const names = placeNames(spots);
  const dots = groups.flatMap((group, i) =>
    group.marks.map((mark) => {
      const tip = `${mark.name}: ${label(mark.y)} at ${label(Number(mark.x.toPrecision(3)))}`;
      const [cx, cy] = [round(x.at(mark.x)), round(y.at(mark.y))];
      return `<circle class="g${i}" cx="${cx}" cy="${cy}" r="${RADIUS}"><title>${escaped(tip)}</title></circle>`;
    }),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="paper" width="${WIDTH}" height="${HEIGHT}"/>`,
    `<text x="${PLOT.left}" y="22" font-weight="bold">${escaped(title)}</text>`,
    ...legend(groups.map(({ name }) => name)),
    ...axes(x, y, xTitle, yTitle),
    ...names.flatMap(({ lead }) => (lead === undefined ? [] : [drawn('lead', lead)])),
    ...dots,
    `<g class="names" font-size="${SIZE}">`,
    ...names.map(({ name, anchor, at: [px, py] }) => {
      return `<text x="${round(px)}" y="${round(py)}" text-anchor="${anchor}">${escaped(name)}</text>`;
    }),
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}

/** From one point to another: x, y, x, y. */
type Line = readonly [number, number, number, number];

interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

interface PlacedName {
  readonly name: string;
  readonly anchor: 'start' | 'middle' | 'end';
  /** The text's anchor, on its base line. */
  readonly at: readonly [x: number, y: number];
  readonly box: Box;
  /** From the mark, in pixels. */
  readonly reach: number;
  /** From the mark; none where the name is beside it. */
  readonly lead: Line | undefined;
}

/** In radians: to the right and the left, then ever steeper, up before down. */
const DIRECTIONS = [0, 15, 30, 45, 60, 75, 90].flatMap((degrees) => {
  return [degrees, 180 - degrees, -degrees, degrees - 180].map((angle) => (angle * Math.PI) / 180);
});

/** Where every name goes: the shortest lines of as many rounds as names; who fares worst goes first. */
function placeNames(spots: readonly Mark[]): PlacedName[] {
  const crowd = (a: Mark) => spots.filter((b) => distance(a, b) < 5 * LINE).length;
  let order = [...spots].sort((a, b) => crowd(b) - crowd(a));
  let best: PlacedName[] = [];
  let least = Infinity;
  for (const _ of spots) {
    const placed = placeInTurn(order, spots);
    // No place is worse than any; the name then still shows when the mouse rests on its point.
    const reach = new Map(placed.map((place) => [place.name, place.reach]));
    const cost = (spot: Mark) => reach.get(spot.name) ?? WIDTH;
    const sum = spots.reduce((total, spot) => total + cost(spot), 0);
    if (sum < least) [least, best] = [sum, placed];
    const worst = order.reduce((a, b) => (cost(b) > cost(a) ? b : a));
    order = [worst, ...order.filter((spot) => spot !== worst)];
  }
  return best;
}

/** Each name takes the nearest place that is free when its turn comes. */
function placeInTurn(order: readonly Mark[], spots: readonly Mark[]): PlacedName[] {
  const placed: PlacedName[] = [];
  for (const own of order) {
    // A line may leave through points that its own one covers.
    const dots = spots.map((spot) => ({ box: around(spot), own: distance(spot, own) < RADIUS }));
    const free = ({ box, lead }: PlacedName): boolean =>
      box.left >= PLOT.left &&
      box.right <= WIDTH &&
      box.top >= PLOT.top &&
      box.bottom <= PLOT.bottom &&
      !dots.some((dot) => meet(dot.box, box) || (!dot.own && crosses(lead, dot.box))) &&
      !placed.some(
        (other) => meet(other.box, box) || crosses(lead, other.box) || crosses(other.lead, box),
      );
    for (const place of candidates(own)) {
      if (!free(place)) continue;
      placed.push(place);
      break;
    }
  }
  return placed;
}

function* candidates({ name, x, y }: Mark): Generator<PlacedName> {
  const width = LETTER * name.length;
  for (let reach = BESIDE; reach < WIDTH / 3; reach += LINE / 4) {
    for (const direction of DIRECTIONS) {
      const [px, py] = [x + reach * Math.cos(direction), y - reach * Math.sin(direction)];
      // -1: the text ends here, 1: it begins here, 0: it is centred, above or below.
      const side = Math.sign(Math.round(2 * Math.cos(direction)));
      const left = px + (side - 1) * (width / 2);
      const top = py - LINE / 2 - (side === 0 ? (Math.sign(y - py) * LINE) / 2 : 0);
      yield {
        name,
        anchor: side === 0 ? 'middle' : side > 0 ? 'start' : 'end',
        at: [px, top + BASE],
        box: { left, top, right: left + width, bottom: top + LINE },
        reach,
        lead: reach === BESIDE ? undefined : [x, y, px, py],
      };
    }
  }
}

function distance(a: Mark, b: Mark): number {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

function around({ x, y }: Mark): Box {
  const reach = RADIUS + GAP;
  return { left: x - reach, top: y - reach, right: x + reach, bottom: y + reach };
}

function meet(a: Box, b: Box): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/** Whether a line touches a box: what the box's four sides leave of it is not empty (Liang-Barsky). */
function crosses(line: Line | undefined, { left, top, right, bottom }: Box): boolean {
  if (line === undefined) return false;
  const [x, y, toX, toY] = line;
  let [enters, leaves] = [0, 1];
  for (const [from, step, low, high] of [
    [x, toX - x, left, right],
    [y, toY - y, top, bottom],
  ] as const) {
    if (step === 0) {
      if (from < low || from > high) return false;
      continue;
    }
    const [one, two] = [(low - from) / step, (high - from) / step];
    enters = Math.max(enters, Math.min(one, two));
    leaves = Math.min(leaves, Math.max(one, two));
  }
  return enters <= leaves;
}

/** Ticks at 1, 2 and 5 times the powers of ten, the first and the last enclosing the range. */
function logScale(
  [low, high]: readonly [number, number],
  [from, to]: readonly [number, number],
): Scale {
  const powers = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))] as const;
  const all: number[] = [];
  for (let power = powers[0]; power <= powers[1]; power++) {
    all.push(...[1, 2, 5].map((factor) => Number(`${factor}e${power}`)));
  }
  const first = all.findLastIndex((tick) => tick <= low);
  const ticks = all.slice(first, all.findIndex((tick) => tick >= high) + 1);
  const linear = scale([Math.log10(ticks[0] ?? 1), Math.log10(ticks.at(-1) ?? 10)], [from, to]);
  return { ticks, at: (value) => linear.at(Math.log10(value)) };
}

function axes(x: Scale, y: Scale, xTitle: string, yTitle: string): string[] {
  const lines: string[] = [];
  const { left, top, right, bottom } = PLOT;
  for (const tick of y.ticks) {
    const at = round(y.at(tick));
    lines.push(
      drawn('grid', [left, at, right, at]),
      `<text x="${left - 8}" y="${at + 4}" text-anchor="end">${label(tick)}</text>`,
    );
  }
  for (const tick of x.ticks) {
    const at = round(x.at(tick));
    lines.push(
      drawn('grid', [at, top, at, bottom]),
      `<text x="${at}" y="${bottom + 18}" text-anchor="middle">${label(tick)}</text>`,
    );
  }
  const middle = (top + bottom) / 2;
  lines.push(
    `<text x="${(left + right) / 2}" y="${HEIGHT - 14}" text-anchor="middle">${escaped(xTitle)}</text>`,
    `<text transform="translate(18 ${middle}) rotate(-90)" text-anchor="middle">${escaped(yTitle)}</text>`,
  );
  return lines;
}

/** The groups' names below the title. */
function legend(names: readonly string[]): string[] {
  let x = PLOT.left;
  return names.flatMap((name, i) => {
    const dot = `<circle class="g${i}" cx="${round(x + RADIUS)}" cy="40" r="${RADIUS}"/>`;
    const text = `<text x="${round(x + 14)}" y="44">${escaped(name)}</text>`;
    // This type is a tenth larger than that of the names on the plot.
    x += 1.1 * LETTER * name.length + 30;
    return [dot, text];
  });
}

function drawn(style: string, line: Line): string {
  const [x1, y1, x2, y2] = line.map(round);
  return `<line class="${style}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
}
