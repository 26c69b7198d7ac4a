import { firstNotFinite } from '../audio/finite.js';
import { isSamples, type Samples } from '../audio/int16.js';
import { kindOf, PannsError } from '../errors.js';

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
  const list = Array.isArray(given) ? given : [];
  const wrong = list.find((clip) => !isSamples(clip) || clip.length === 0);
  if (list.length === 0 || wrong !== undefined || list.includes(undefined)) {
    const came = wrong ?? waveforms;
    const kind = isSamples(came) || came?.length === 0 ? 'an empty one' : kindOf(came);
    const what = `expected samples: a Float32Array or an Int16Array, or a list of them, none empty; got ${kind}`;
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

/**
 * Checks samples or weights, of which the first is the `first`-th of all.
 *
 * @throws PannsError `ERR_PANNS_NAN` naming the first value that is NaN or infinite
 */
export function checkFinite(values: Samples, where: string, first = 0): void {
  if (values instanceof Int16Array) return;
  const bad = firstNotFinite(values);
  if (bad < 0) return;
  const what = `expected numbers, value ${first + bad} is ${values[bad]}`;
  throw new PannsError('ERR_PANNS_NAN', what, { where });
}
