import type { LogmelOptions, NativeFeatures } from '../addon.js';
import { isSamples, type Samples } from '../audio/int16.js';
import { checkOptions, kindOf, PannsError } from '../errors.js';
import { resolveLogmel } from '../models/options.js';
import { callNative, callNativeSync } from '../native/call.js';
import { loadNative } from '../native.js';

/** Options of {@link FeatureExtractor}; the defaults are those of the models at that sample rate. */
export interface FeatureOptions {
  /** In Hz; default 32000. */
  sampleRate?: number | undefined;
  /** In samples, even; default 32 ms. */
  windowSize?: number | undefined;
  /** In samples; default 10 ms. */
  hopSize?: number | undefined;
  /** Default 64. */
  melBins?: number | undefined;
  /** In Hz; default 50. */
  fmin?: number | undefined;
  /** In Hz; default 14000 or half the sample rate. */
  fmax?: number | undefined;
  /** 0, the default, means one a core. */
  threads?: number | undefined;
}

/** Features row-major: (frames, bins) of one waveform, (batch, frames, bins) of several. */
export interface Features {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

const OPTION_NAMES: readonly (keyof FeatureOptions)[] = [
  ...(['sampleRate', 'windowSize', 'hopSize', 'melBins', 'fmin', 'fmax', 'threads'] as const),
];

/**
 * The front-end by itself: log-mel and power spectrograms as the models see them.
 *
 * Frames are centred, edges reflected, the window is Hann. Free it with `dispose()` or `using`.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_NATIVE_MISSING`, `ERR_PANNS_NATIVE_LOAD`
 */
export class FeatureExtractor {
  readonly options: LogmelOptions;
  readonly #native: NativeFeatures;
  #disposed = false;

  constructor(options: FeatureOptions = {}) {
    checkOptions(options, OPTION_NAMES, 'FeatureExtractor');
    const { threads = 0, ...logmel } = options;
    this.options = resolveLogmel(logmel);
    this.#native = callNativeSync('FeatureExtractor', () =>
      loadNative().createFeatures(this.options, threads),
    );
  }

  /**
   * Log-mel in dB, (frames, melBins) with frames = samples / hopSize + 1; silence is -100 dB.
   *
   * Samples are floats in [-1, 1], or integers of 16 bits, which stand for x / 32767.
   * With `batch`, the waveform holds that many clips of equal length, and the shape begins with it.
   *
   * @throws PannsError `ERR_PANNS_SHAPE` for fewer than windowSize / 2 + 1 samples, `ERR_PANNS_DISPOSED`
   */
  logmel(waveform: Samples, options: { batch?: number } = {}): Promise<Features> {
    return this.#run(waveform, options, 'logmel', this.options.melBins);
  }

  /** Power |X|^2, (frames, windowSize / 2 + 1); else as {@link FeatureExtractor.logmel}. */
  spectrogram(waveform: Samples, options: { batch?: number } = {}): Promise<Features> {
    return this.#run(waveform, options, 'spectrogram', this.options.windowSize / 2 + 1);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async #run(
    waveform: Samples,
    options: { batch?: number },
    output: 'logmel' | 'spectrogram',
    bins: number,
  ): Promise<Features> {
    const where = `FeatureExtractor.${output}`;
    if (this.#disposed) {
      throw new PannsError('ERR_PANNS_DISPOSED', 'this extractor has been disposed of', { where });
    }
    checkOptions(options, ['batch'], where);
    const { batch } = options;
    const rows = batch ?? 1;
    const known = isSamples(waveform);
    const samples = known ? waveform.length / rows : 0;
    if (!Number.isSafeInteger(rows) || rows < 1 || !Number.isInteger(samples) || samples < 1) {
      const what = known
        ? `expected as many samples for each of ${rows} clips, got ${waveform.length} in all`
        : `expected samples as Float32Array or Int16Array, got ${kindOf(waveform)}`;
      throw new PannsError('ERR_PANNS_SHAPE', what, { where });
    }
    const data = await callNative(where, () => this.#native.run(waveform, rows, samples, output));
    const frames = Math.floor(samples / this.options.hopSize) + 1;
    return { data, shape: batch === undefined ? [frames, bins] : [rows, frames, bins] };
  }
}
