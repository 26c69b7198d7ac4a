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
    function: { atol: 0, rtol: 16 * U, why: 'exp by a polynomial, then a division' },
    mean: { atol: 0, rtol: 16 * U, why: 'a float sum of up to some hundred terms' },
    product: { atol: 0, rtol: 32 * U, why: 'sums of some hundred products in float' },
    winograd: {
      atol: 0,
      rtol: 64 * U,
      why: 'as product, through transforms that multiply by up to 8 and cancel',
    },
    norm: { atol: 0, rtol: 32 * U, why: '(x - mean) * invstd with float sums of some hundred terms' },
    loss: { atol: 0, rtol: 16 * U, why: 'float logarithms, summed in double' },
    logmel: {
      atol: 2e-4,
      rtol: 0,
      why: 'dB: a float transform leaves some 1e-5 of relative error in bins far below their neighbours',
    },
    optimizer: { atol: 0, rtol: 32 * U, why: 'some steps of float updates with a root and a division' },
    probe: { atol: 0, rtol: 5e-6, why: 'central differences in float64, then a float32 result' },
    difference: {
      atol: 0,
      rtol: 2e-2,
      why: 'central differences of a float32 loss: its rounding over the step, and kinks of ReLU',
    },
    reordered: {
      atol: 0,
      rtol: 256 * U,
      why: 'the same network, fused and not: other orders of the same sums',
    },
    output: { atol: 0, rtol: 1e-4, why: 'a whole network in float against float64' },
    gradient: {
      atol: 0,
      rtol: 2e-3,
      why: 'a whole network back, where a ReLU or maximum near its kink may go the other way',
    },
    running: { atol: 0, rtol: 1e-5, why: 'running statistics: one tenth of the batch statistics' },
    losses: {
      atol: 0,
      rtol: 2e-3,
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

const largest = new Map<Kind, { worst: number; relative: number }>();

/** The largest error of each kind that this process has seen, as text. */
export function worstErrors(): string[] {
  return [...largest].map(
    ([kind, { worst, relative }]) =>
      `worst ${kind}: ${relative.toExponential(2)} relative, ${(100 * worst).toFixed(0)} % of what is allowed`,
  );
}

/** Compares two arrays by a row of the table; equal infinities are equal. */
export function compare(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  kind: Kind,
): Comparison {
  if (got.length !== want.length) {
    const message = `expected ${want.length} values, got ${got.length}`;
    return { ok: false, worst: Number.POSITIVE_INFINITY, relative: Number.NaN, message };
  }
  const { atol, rtol } = tolerances.f32[kind];
  let scale = 0;
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
  const relative = scale > 0 ? error / scale : error;
  const before = largest.get(kind);
  if (before === undefined || worst > before.worst) largest.set(kind, { worst, relative });
  return { ok: error <= allowed, worst, relative, message };
}
