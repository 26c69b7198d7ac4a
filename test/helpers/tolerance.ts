/** How far a result may lie from the truth, and why that far. */
export interface Tolerance {
  /** In the result's own unit. */
  readonly atol: number;
  /**
   * Relative to the largest magnitude of the tensor it belongs to: where sums cancel, the rounding
   * left in a small element is that of the large terms.
   */
  readonly rtol: number;
  readonly why: string;
}

/** 2^-24, half a unit in the last place of 1: the largest relative error of one float32 rounding. */
const U = 2 ** -24;

/** The one table: element type, then kind of result. */
export const tolerances = {
  f32: {
    exact: { atol: 0, rtol: 0, why: 'copies, selects, or rounds once' },
    once: { atol: 0, rtol: 3 * U, why: 'a sum, or one product and its rounded factor' },
    few: { atol: 0, rtol: 9 * U, why: 'four roundings, of another order on either side' },
    function: { atol: 0, rtol: 16 * U, why: 'exp by a polynomial, then a division' },
    mean: { atol: 0, rtol: 16 * U, why: 'a float sum of up to some hundred terms' },
    product: { atol: 0, rtol: 32 * U, why: 'sums of some hundred products in float' },
    long: {
      atol: 0,
      rtol: 128 * U,
      why: 'as product, of some thousand: rounding grows as its root',
    },
    winograd: {
      atol: 0,
      rtol: 64 * U,
      why: 'as product, through transforms that multiply by up to 8 and cancel',
    },
    norm: {
      atol: 0,
      rtol: 64 * U,
      why: '(x - mean) * invstd with float sums of some hundred terms, which cancel in dgamma',
    },
    loss: { atol: 0, rtol: 16 * U, why: 'float logarithms, summed in double' },
    logmel: {
      atol: 2e-4,
      rtol: 0,
      why: 'dB: a float transform leaves some 1e-5 of relative error in bins far below their neighbours',
    },
    features: {
      atol: 1e-4,
      rtol: 0,
      why:
        '(ln(x + 1e-5) + 4.5) / 5 of clips at 0.1: as logmel, where a band may be one faint bin; ' +
        "PyTorch's own float32 is off by 4e-5 here",
    },
    optimizer: {
      atol: 0,
      rtol: 32 * U,
      why: 'some steps of float updates with a root and a division',
    },
    probe: { atol: 0, rtol: 5e-6, why: 'central differences in float64, then a float32 result' },
    difference: {
      atol: 0,
      rtol: 5e-2,
      why: 'central differences of a float32 loss: its rounding over the step, and kinks of ReLU',
    },
    reordered: {
      atol: 0,
      rtol: 256 * U,
      why: 'the same network, fused and not: other orders of the same sums',
    },
    exported: {
      atol: 0,
      rtol: 1e-4,
      why: 'a whole random network in float against another program in float',
    },
    output: { atol: 0, rtol: 2e-5, why: 'a whole network in float against float64' },
    network: {
      atol: 0,
      rtol: 1e-4,
      why:
        'as output, by the Euclidean norm, of deep networks with random norms: rounding the log-mel ' +
        'to float moves MobileNets by some 1e-5',
    },
    gradient: {
      atol: 0,
      rtol: 5e-5,
      why: 'a whole network back in float against float64, no ReLU near its kink',
    },
    kinked: {
      atol: 0,
      rtol: 3e-2,
      why:
        'as gradient, by the Euclidean norm: of a million ReLUs and maxima some go the other way; ' +
        "PyTorch's own float32 is off by up to 1e-2 here",
    },
    running: { atol: 0, rtol: 1e-5, why: 'running statistics: one tenth of the batch statistics' },
    losses: {
      atol: 0,
      rtol: 1e-4,
      why: "ten steps: Adam's first steps move each weight by lr times the sign of its gradient",
    },
  },
} as const satisfies Record<string, Record<string, Tolerance>>;

export type Kind = keyof typeof tolerances.f32;

/** What a comparison found. */
export interface Comparison {
  readonly ok: boolean;
  /** The largest error over what is allowed; NaN counts as infinite. */
  readonly worst: number;
  /** The largest error over the largest magnitude of `want`. */
  readonly relative: number;
  readonly message: string;
}

const largest = new Map<Kind, Comparison>();

/** The largest error of each kind that this process has seen, as text. */
export function worstErrors(): string[] {
  return [...largest].map(
    ([kind, { worst, relative }]) =>
      `worst ${kind}: ${relative.toExponential(2)} relative, ${(100 * worst).toFixed(0)} % of what is allowed`,
  );
}

/**
 * Compares two arrays by a row of the table; equal infinities are equal. `least` is a magnitude below
 * which the largest of `want` counts as that large: for a few sums that may all have cancelled.
 */
export function compare(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  kind: Kind,
  least = 0,
): Comparison {
  if (got.length !== want.length) {
    const message = `expected ${want.length} values, got ${got.length}`;
    return { ok: false, worst: Number.POSITIVE_INFINITY, relative: Number.NaN, message };
  }
  const { atol, rtol } = tolerances.f32[kind];
  let scale = least;
  for (let i = 0; i < want.length; i++) scale = Math.max(scale, Math.abs(want[i] as number));
  const allowed = atol + rtol * scale;
  let error = 0;
  let at = 0;
  for (let i = 0; i < want.length; i++) {
    const difference = Math.abs((got[i] as number) - (want[i] as number));
    if (difference <= error || got[i] === want[i]) continue;
    error = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
    at = i;
    if (error === Number.POSITIVE_INFINITY) break;
  }
  const worst = error === 0 ? 0 : error / allowed;
  const message =
    `${kind}: largest error ${error.toExponential(2)}, allowed ${allowed.toExponential(2)} ` +
    `(element ${at}: got ${got[at]}, expected ${want[at]}, largest ${scale.toPrecision(4)})`;
  return noted(kind, { ok: error <= allowed, worst, relative: error / (scale || 1), message });
}

/**
 * As {@link compare}, of the Euclidean norms: a few elements may be far off. `least` is a norm below
 * which `want` counts as that large: for what vanishes in exact arithmetic, and not quite in float.
 */
export function compareNorms(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  kind: Kind,
  least = 0,
): Comparison {
  const norm = (a: ArrayLike<number>, b?: ArrayLike<number>) => {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += ((a[i] as number) - (b?.[i] ?? 0)) ** 2;
    return Math.sqrt(sum);
  };
  const { atol, rtol } = tolerances.f32[kind];
  const scale = Math.max(norm(want), least);
  const error = got.length === want.length ? norm(got, want) : Number.NaN;
  const allowed = atol + rtol * scale;
  const message = `${kind}: norm of the error ${error.toExponential(2)}, allowed ${allowed.toExponential(2)}`;
  const worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error / (allowed || 1);
  return noted(kind, { ok: error <= allowed, worst, relative: error / (scale || 1), message });
}

function noted(kind: Kind, found: Comparison): Comparison {
  const before = largest.get(kind);
  if (before === undefined || found.worst > before.worst) largest.set(kind, found);
  return found;
}
