import { nearest, PannsError } from '../errors.js';

/** A result (N, columns), or (N, frames, columns) of `framewise_output`, row-major. */
export interface Output {
  readonly data: Float32Array;
  readonly shape: readonly number[];
  /** Of `framewise_output`: how many frames each row has; zeros follow where clips are shorter. */
  readonly frames?: readonly number[];
}

/** Gathers rows of an output as they come; `most` is the largest number of frames, if there are any. */
export function collect(rows: number, columns: number, most: number | undefined) {
  const data = new Float32Array(rows * (most ?? 1) * columns);
  const counts = new Array<number>(rows).fill(0);
  const output: Output =
    most === undefined
      ? { data, shape: [rows, columns] }
      : { data, shape: [rows, most, columns], frames: counts };
  const put = (values: Float32Array, to: readonly number[], frames = 1): void => {
    const size = frames * columns;
    for (const [i, row] of to.entries()) {
      data.set(values.subarray(i * size, (i + 1) * size), row * (most ?? 1) * columns);
      counts[row] = frames;
    }
  };
  return { output, put };
}

/** @throws PannsError `ERR_PANNS_OPTION` for an output that is not among `known` */
export function checkOutput(output: string, known: readonly string[]): void {
  if (known.includes(output)) return;
  const guess = nearest(output, known);
  const what = `there is no output "${output}"; did you mean "${guess}"? (${known.join(', ')})`;
  throw new PannsError('ERR_PANNS_OPTION', what, {
    where: 'infer',
    expected: known,
    actual: output,
  });
}
