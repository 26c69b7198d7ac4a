import { PannsError } from '../errors.js';

/** Clips as the core takes them. */
export interface Rows {
  /** (rows, samples), row-major. */
  readonly data: Float32Array;
  readonly rows: number;
  readonly samples: number;
}

/**
 * One array of `batch` clips, or a list of clips, as rows of equal length of at least `minimum`
 * samples; zeros fill up what is shorter. An array that is long enough comes back as it is.
 *
 * @throws PannsError `ERR_PANNS_SHAPE`, `ERR_PANNS_NAN`
 */
export function arrangeRows(
  waveforms: Float32Array | readonly Float32Array[],
  batch: number | undefined,
  minimum: number,
): Rows {
  const where = 'infer';
  const clips = waveforms instanceof Float32Array ? [waveforms] : waveforms;
  const valid = Array.isArray(clips) && clips.length > 0;
  if (!valid || clips.some((clip) => !(clip instanceof Float32Array) || clip.length === 0)) {
    const what = 'expected samples: a Float32Array, or a list of them, none empty';
    throw new PannsError('ERR_PANNS_SHAPE', what, { where });
  }
  for (const clip of clips) checkFinite(clip, where);
  if (!(waveforms instanceof Float32Array)) {
    if (batch !== undefined && batch !== clips.length) {
      const what = `expected no batch beside a list, got ${batch} for ${clips.length} clips`;
      throw new PannsError('ERR_PANNS_SHAPE', what, { where });
    }
    const samples = clips.reduce((most, { length }) => Math.max(most, length), minimum);
    return { data: padded(clips, samples, clips.length), rows: clips.length, samples };
  }
  const rows = batch ?? 1;
  const samples = waveforms.length / rows;
  if (!Number.isSafeInteger(rows) || rows < 1 || !Number.isInteger(samples)) {
    const what = `expected a batch that divides the ${waveforms.length} samples, got ${batch}`;
    throw new PannsError('ERR_PANNS_SHAPE', what, { where, actual: batch });
  }
  if (samples >= minimum) return { data: waveforms, rows, samples };
  const short = Array.from({ length: rows }, (_, i) => {
    return waveforms.subarray(i * samples, (i + 1) * samples);
  });
  return { data: padded(short, minimum, rows), rows, samples: minimum };
}

/** The clips one after another, each on `length` samples, with zeros up to `rows` rows. */
export function padded(clips: readonly Float32Array[], length: number, rows: number): Float32Array {
  const data = new Float32Array(length * rows);
  for (const [i, clip] of clips.entries()) data.set(clip, i * length);
  return data;
}

/** @throws PannsError `ERR_PANNS_NAN` naming the first value that is NaN or infinite */
export function checkFinite(values: Float32Array, where: string): void {
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) continue;
    throw new PannsError('ERR_PANNS_NAN', `expected numbers, value ${i} is ${values[i]}`, {
      where,
    });
  }
}
