import { checkOptions, PannsError } from '../errors.js';
import type { Model } from './model.js';
import { type AudioSource, openSource, type SourceOptions, sourceOptionNames } from './source.js';
import { cutWindows, NEGLIGIBLE_SECONDS, WINDOWS_AT_ONCE } from './windows.js';

/** Options of {@link embed}. */
export interface EmbedOptions extends SourceOptions {
  /** Of each window; default 10, as the published models were trained. */
  windowSeconds?: number | undefined;
  /** From one window to the next; default `windowSeconds`. */
  hopSeconds?: number | undefined;
}

/** The embeddings of the windows of one recording. */
export interface Embeddings {
  /** (windows, E), row-major. */
  readonly data: Float32Array;
  readonly shape: readonly [windows: number, columns: number];
  /** Where each window begins and ends, in seconds. */
  readonly windows: readonly { readonly start: number; readonly end: number }[];
  /** Whether the file is cut off, and the rest was embedded: it says that it holds more. */
  readonly truncated: boolean;
}

/**
 * What a model's layer before the classifier says of each window of a recording: (windows, E).
 *
 * Audio shorter than a window is taken whole, and the last window ends with the audio. Files are
 * decoded window by window.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, also for a model without an embedding; `ERR_PANNS_AUDIO_*`,
 *   `ERR_PANNS_IO`, `ERR_PANNS_NAN`, `ERR_PANNS_DISPOSED`; AbortError
 */
export async function embed(
  model: Model,
  source: AudioSource,
  options: EmbedOptions = {},
): Promise<Embeddings> {
  const where = 'embed';
  checkOptions(options, ['windowSeconds', 'hopSeconds', ...sourceOptionNames], where);
  const { windowSeconds = 10, hopSeconds = windowSeconds } = options;
  const { sampleRate, nanToZero, signal } = options;
  const { embeddingSize: columns, sampleRate: rate } = model;
  if (columns === 0) {
    const what = `the model has no embedding; its outputs are scores of segments`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: `${where}/${model.name}` });
  }
  const least = model.minimumSamples / rate;
  if (!(windowSeconds >= least && windowSeconds <= 3600)) {
    const what = `expected windowSeconds to be a number in ${least}..3600, got ${windowSeconds}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: windowSeconds });
  }
  if (!(hopSeconds * rate >= 1 && hopSeconds <= windowSeconds)) {
    const what = `expected hopSeconds to be above 0, at most ${windowSeconds}, got ${hopSeconds}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: hopSeconds });
  }
  const window = Math.round(windowSeconds * rate);
  const hop = Math.max(1, Math.round(hopSeconds * rate));
  const { read, truncated } = await openSource(
    source,
    rate,
    { sampleRate, nanToZero, signal },
    where,
  );
  const rows: Float32Array[] = [];
  const windows: { start: number; end: number }[] = [];
  const batches = cutWindows(read, window, hop, WINDOWS_AT_ONCE, NEGLIGIBLE_SECONDS * rate);
  for await (const { samples, length, starts } of batches) {
    const batch = starts.length;
    const out = await model.infer(samples, { batch, outputs: ['embedding'], signal });
    rows.push(out.embedding.data);
    for (const start of starts) windows.push({ start: start / rate, end: (start + length) / rate });
  }
  if (windows.length === 0) {
    const what = 'expected audio, got no samples';
    throw new PannsError('ERR_PANNS_AUDIO_EMPTY', what, { where });
  }
  const data = new Float32Array(windows.length * columns);
  let filled = 0;
  for (const row of rows) {
    data.set(row, filled);
    filled += row.length;
  }
  return { data, shape: [windows.length, columns], windows, truncated: truncated() };
}
