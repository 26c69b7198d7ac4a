import type { Samples } from '../audio/int16.js';
import { PannsError } from '../errors.js';

/** Clips of equal length, as the core takes them. */
export interface RowGroup {
  /** (rows.length, samples), row-major. */
  readonly data: Samples;
  readonly samples: number;
  /** Which of the caller's clips these are. */
  readonly rows: readonly number[];
}

/**
 * One array of `batch` clips, or a list of clips of any lengths, as groups of equal length. Each clip
 * is filled up with zeros to `lengthFor` its own length and no further, so that its scores do not
 * depend on the lengths beside it. An array that needs no zeros comes back as it is.
 *
 * @throws PannsError `ERR_PANNS_SHAPE`, `ERR_PANNS_NAN`
 */
export function arrangeRows(
  waveforms: Samples | readonly Samples[],
  batch: number | undefined,
  lengthFor: (samples: number) => number,
): RowGroup[] {
  const where = 'infer';
  const given = isSamples(waveforms) ? [waveforms] : waveforms;
  const valid = Array.isArray(given) && given.length > 0;
  if (!valid || given.some((clip) => !isSamples(clip) || clip.length === 0)) {
    const what = 'expected samples: a Float32Array or an Int16Array, or a list of them, none empty';
    throw new PannsError('ERR_PANNS_SHAPE', what, { where });
  }
  if (given.some((clip) => clip.constructor !== given[0]?.constructor)) {
    const what = 'expected all clips in the same form: Float32Arrays, or Int16Arrays';
    throw new PannsError('ERR_PANNS_SHAPE', what, { where });
  }
  for (const clip of given) checkFinite(clip, where);
  if (!isSamples(waveforms)) {
    if (batch !== undefined && batch !== given.length) {
      const what = `expected no batch beside a list, got ${batch} for ${given.length} clips`;
      throw new PannsError('ERR_PANNS_SHAPE', what, { where });
    }
    return groups(given, lengthFor);
  }
  const count = batch ?? 1;
  const samples = waveforms.length / count;
  if (!Number.isSafeInteger(count) || count < 1 || !Number.isInteger(samples)) {
    const what = `expected a batch that divides the ${waveforms.length} samples, got ${batch}`;
    throw new PannsError('ERR_PANNS_SHAPE', what, { where, actual: batch });
  }
  const rows = Array.from({ length: count }, (_, i) => i);
  if (lengthFor(samples) === samples) return [{ data: waveforms, samples, rows }];
  return groups(
    rows.map((i) => waveforms.subarray(i * samples, (i + 1) * samples)),
    lengthFor,
  );
}

/** @internal */
export function isSamples(value: unknown): value is Samples {
  return value instanceof Float32Array || value instanceof Int16Array;
}

function groups(clips: readonly Samples[], lengthFor: (samples: number) => number): RowGroup[] {
  const lengths = new Map<number, number[]>();
  for (const [i, { length }] of clips.entries()) {
    const samples = lengthFor(length);
    const rows = lengths.get(samples);
    if (rows === undefined) lengths.set(samples, [i]);
    else rows.push(i);
  }
  return [...lengths].map(([samples, rows]) => {
    const chosen = rows.map((i) => clips[i] as Samples);
    return { data: padded(chosen, samples, rows.length), samples, rows };
  });
}

/** The clips one after another, each on `length` samples, with zeros up to `rows` rows. */
export function padded(clips: readonly Samples[], length: number, rows: number): Samples {
  const size = length * rows;
  const data = clips[0] instanceof Int16Array ? new Int16Array(size) : new Float32Array(size);
  for (const [i, clip] of clips.entries()) data.set(clip, i * length);
  return data;
}

/** @throws PannsError `ERR_PANNS_NAN` naming the first value that is NaN or infinite */
export function checkFinite(values: Samples, where: string): void {
  if (values instanceof Int16Array) return;
  for (let i = 0; i < values.length; i++) {
    if (Number.isFinite(values[i])) continue;
    throw new PannsError('ERR_PANNS_NAN', `expected numbers, value ${i} is ${values[i]}`, {
      where,
    });
  }
}
