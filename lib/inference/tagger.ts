import { checkOptions, optionCheck, PannsError } from '../errors.js';
import { checkUnplaced, type DeviceChoice } from './device.js';
import { Model } from './model.js';
import { loadModel } from './model_file.js';
import { type AudioSource, openSource, type SourceOptions, sourceOptionNames } from './source.js';
import { cutWindows, NEGLIGIBLE_SECONDS, WINDOWS_AT_ONCE } from './windows.js';

const check = optionCheck('AudioTagger');

/** Options of {@link AudioTagger.load}. */
export interface TaggerOptions extends DeviceChoice {
  /** Longer audio is scored in windows of this length; default 10. */
  windowSeconds?: number | undefined;
  /** From one window's begin to the next, at most windowSeconds; default windowSeconds. */
  hopSeconds?: number | undefined;
  /** How the windows' scores become one; default `'mean'`. */
  aggregate?: 'mean' | 'max' | undefined;
  /** How many labels `tag` lists; default 10. */
  topK?: number | undefined;
}

/** Options of {@link AudioTagger.tag}. */
export interface TagOptions extends SourceOptions {
  topK?: number | undefined;
  /** Labels with lower scores are not listed; default 0. */
  threshold?: number | undefined;
}

/** A class and its score. */
export interface Tag {
  /** The name of the class, or its index as text where the model has no names. */
  readonly label: string;
  readonly index: number;
  readonly score: number;
}

/** A window of the audio, in seconds. */
export interface Segment {
  readonly start: number;
  readonly end: number;
  /** (K) */
  readonly scores: Float32Array;
}

/** What `tag` found. */
export interface Tags {
  /** The best first. */
  readonly labels: readonly Tag[];
  /** (K): the windows' scores as one. */
  readonly scores: Float32Array;
  /** (E): the mean over the windows. */
  readonly embedding: Float32Array;
  readonly segments: readonly Segment[];
  /** How long the audio is, less a rest under 0.1 s, which is in no window. */
  readonly seconds: number;
  /** Whether the file is cut off, and the rest was tagged: it says that it holds more. */
  readonly truncated: boolean;
}

const DEFAULT_TOP = 10;

/**
 * Says what is heard in audio of any length.
 *
 * Clips shorter than the model's minimum are padded with zeros; long audio is decoded and scored
 * window by window, so memory does not grow with it but for the scores.
 *
 * ```ts
 * using tagger = await AudioTagger.load('run/model.safetensors');
 * const { labels } = await tagger.tag('street.ogg');
 * ```
 */
export class AudioTagger {
  readonly model: Model;
  readonly #owned: boolean;
  readonly #settings: { window: number; hop: number; aggregate: 'mean' | 'max'; topK: number };

  /** Use {@link AudioTagger.load}; a model that is passed in stays the caller's to dispose of. */
  constructor(model: Model, options: Omit<TaggerOptions, keyof DeviceChoice> = {}, owned = false) {
    checkOptions(options, ['windowSeconds', 'hopSeconds', 'aggregate', 'topK'], 'AudioTagger');
    const { windowSeconds = 10, aggregate = 'mean', topK = DEFAULT_TOP } = options;
    const hopSeconds = options.hopSeconds ?? windowSeconds;
    const least = model.minimumSamples / model.sampleRate;
    const fits = windowSeconds >= least && windowSeconds <= 3600;
    check('windowSeconds', windowSeconds, fits, `a number in ${least}..3600`);
    const inside = hopSeconds * model.sampleRate >= 1 && hopSeconds <= windowSeconds;
    check('hopSeconds', hopSeconds, inside, `a number above 0, at most ${windowSeconds}`);
    check('aggregate', aggregate, ['mean', 'max'].includes(aggregate), '"mean" or "max"');
    checkTop(topK);
    this.model = model;
    this.#owned = owned;
    this.#settings = {
      window: Math.round(windowSeconds * model.sampleRate),
      hop: Math.max(1, Math.round(hopSeconds * model.sampleRate)),
      ...{ aggregate, topK },
    };
  }

  /**
   * A tagger with a model, with the model in a file, or with published weights by the model's name:
   * `mn04`.
   *
   * @throws PannsError `ERR_PANNS_OPTION`, and as {@link loadModel}
   */
  static async load(model: string | Model, options: TaggerOptions = {}): Promise<AudioTagger> {
    const { device, threads, gpu, precision, ...rest } = options;
    const place = { device, threads, gpu, precision };
    if (model instanceof Model) {
      checkUnplaced(place, 'AudioTagger.load');
      return new AudioTagger(model, rest);
    }
    const loaded = await loadModel(model, place);
    try {
      return new AudioTagger(loaded, rest, true);
    } catch (error) {
      loaded.dispose();
      throw error;
    }
  }

  /**
   * Tags an audio file (a path or its bytes), or mono samples: floats in [-1, 1] or 16-bit integers.
   *
   * @throws PannsError `ERR_PANNS_AUDIO_*`, `ERR_PANNS_IO`, `ERR_PANNS_OPTION`, `ERR_PANNS_NAN`,
   *   `ERR_PANNS_DISPOSED`; AbortError
   */
  async tag(source: AudioSource, options: TagOptions = {}): Promise<Tags> {
    checkOptions(options, ['topK', 'threshold', ...sourceOptionNames], 'tag');
    const { window, hop, aggregate } = this.#settings;
    const { topK = this.#settings.topK, threshold = 0, signal } = options;
    checkTop(topK);
    check(
      'threshold',
      threshold,
      typeof threshold === 'number' && !Number.isNaN(threshold),
      'a number',
    );
    const { model } = this;
    const rate = model.sampleRate;
    const { sampleRate, nanToZero } = options;
    const { read, truncated } = await openSource(
      source,
      rate,
      { sampleRate, nanToZero, signal },
      'tag',
    );
    const scores = new Float64Array(model.classCount).fill(aggregate === 'max' ? -Infinity : 0);
    const embedding = new Float64Array(model.embeddingSize);
    const segments: Segment[] = [];
    let end = 0;
    const batches = cutWindows(read, window, hop, WINDOWS_AT_ONCE, NEGLIGIBLE_SECONDS * rate);
    for await (const { samples, length, starts } of batches) {
      const out = await model.infer(samples, { batch: starts.length, ...(signal && { signal }) });
      for (const [row, start] of starts.entries()) {
        const own = rowOf(out.clipwise_output.data, row, model.classCount);
        segments.push({ start: start / rate, end: (start + length) / rate, scores: own.slice() });
        for (let k = 0; k < own.length; k++) {
          const score = own[k] ?? 0;
          const before = scores[k] ?? 0;
          scores[k] = aggregate === 'max' ? Math.max(before, score) : before + score;
        }
        if (model.embeddingSize > 0) {
          const features = rowOf(out.embedding.data, row, model.embeddingSize);
          for (let e = 0; e < features.length; e++)
            embedding[e] = (embedding[e] ?? 0) + (features[e] ?? 0);
        }
        end = Math.max(end, start + length);
      }
    }
    if (segments.length === 0) {
      throw new PannsError('ERR_PANNS_AUDIO_EMPTY', 'expected audio, got no samples', {
        where: 'tag',
      });
    }
    const share = 1 / segments.length;
    const total = Float32Array.from(scores, (sum) => (aggregate === 'max' ? sum : sum * share));
    return {
      labels: this.best(total, { topK, threshold }),
      scores: total,
      embedding: Float32Array.from(embedding, (sum) => sum * share),
      segments,
      seconds: end / rate,
      truncated: truncated(),
    };
  }

  /**
   * The classes with the highest scores (K), the best first, ties in their order.
   *
   * @throws PannsError `ERR_PANNS_OPTION`
   */
  best(scores: Float32Array, options: { topK?: number; threshold?: number } = {}): Tag[] {
    checkOptions(options, ['topK', 'threshold'], 'best');
    const { topK = this.#settings.topK, threshold = 0 } = options;
    checkTop(topK);
    const { classes } = this.model;
    const order = Array.from(scores.keys()).sort((a, b) => {
      return (scores[b] ?? 0) - (scores[a] ?? 0) || a - b;
    });
    const tags = order.map((index) => {
      const label = typeof classes === 'number' ? String(index) : (classes[index] ?? String(index));
      return { label, index, score: scores[index] ?? 0 };
    });
    return tags.filter(({ score }) => score >= threshold).slice(0, topK);
  }

  /** Frees the model, unless it was passed in. */
  dispose(): void {
    if (this.#owned) this.model.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function rowOf(data: Float32Array, row: number, columns: number): Float32Array {
  return data.subarray(row * columns, (row + 1) * columns);
}

function checkTop(topK: number): void {
  check('topK', topK, Number.isSafeInteger(topK) && topK >= 1, 'a whole number >= 1');
}
