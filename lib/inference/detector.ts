import type { Samples } from '../audio/int16.js';
import { checkOptions, PannsError } from '../errors.js';
import { checkUnplaced, type DeviceChoice } from './device.js';
import {
  createEventFinder,
  type DetectedEvent,
  type EventRules,
  eventRuleNames,
} from './events.js';
import {
  type FramePlan,
  type FrameScores,
  type PlanOptions,
  planFrames,
  scoreFrames,
} from './frame_scores.js';
import { Model } from './model.js';
import { loadModel } from './model_file.js';
import {
  type AudioSource,
  openSource,
  openStream,
  type SourceOptions,
  sourceOptionNames,
} from './source.js';

/** Options of {@link EventDetector.load}. */
export interface DetectorOptions extends DeviceChoice, EventRules {
  /** Audio is scored in windows of this length; default 10, and no default for models of clips. */
  windowSeconds?: number | undefined;
  /** How much of a window the next one hears again; default 1. Only for models that score frames. */
  overlapSeconds?: number | undefined;
  /** From one score to the next; required for models of clips, and only for those. */
  hopSeconds?: number | undefined;
}

/** Options of {@link EventDetector.detectStream}; rules replace those of the detector. */
export interface DetectStreamOptions extends EventRules, SourceOptions {
  /** Gets every block of scores before the events that end in it. */
  onScores?: ((block: FrameScores) => void) | undefined;
}

/** Options of {@link EventDetector.detect}. */
export interface DetectOptions extends DetectStreamOptions {
  /** Whether the result has the scores of all frames; default false. */
  framewise?: boolean | undefined;
}

/** What is known of audio once all of it was heard. */
export interface AudioEnd {
  /** How long the audio is. */
  readonly seconds: number;
  /** Whether the file is cut off, and the rest was scored: it says that it holds more. */
  readonly truncated: boolean;
}

/** What `detect` found. */
export interface Detection extends AudioEnd {
  /** In the order of onsets, and of classes where those are equal. */
  readonly events: readonly DetectedEvent[];
  /** (frames, K), row-major, before any filter: only where `framewise` asked for it. */
  readonly framewise?: { readonly data: Float32Array; readonly shape: readonly [number, number] };
  /** The length of a frame: frame k lasts from k * hopSeconds to (k + 1) * hopSeconds. */
  readonly hopSeconds: number;
}

const PLAN_NAMES: readonly (keyof PlanOptions)[] = [
  ...(['windowSeconds', 'overlapSeconds', 'hopSeconds'] as const),
];

/**
 * Says what is heard in audio of any length, from when to when.
 *
 * Models whose head scores frames (`framewise_output`: the heads max, avg and att) are run over
 * windows that overlap and are cross-faded. Models of clips score a window around each frame, every
 * `hopSeconds`: their events are about as sharp as `windowSeconds`.
 *
 * ```ts
 * using detector = await EventDetector.load('sed.safetensors', { threshold: 0.5 });
 * const { events } = await detector.detect('street.ogg');
 * for (const { onset, offset, label } of events) console.log(onset, offset, label);
 * ```
 */
export class EventDetector {
  readonly model: Model;
  /** The length of a frame. */
  readonly hopSeconds: number;
  /** The names of the classes, their indices as text where the model has no names. */
  readonly labels: readonly string[];
  readonly #owned: boolean;
  /** How scores become events unless a call says otherwise. */
  readonly rules: EventRules;
  readonly #plan: FramePlan;

  /** Use {@link EventDetector.load}; a model that is passed in stays the caller's to dispose of. */
  constructor(
    model: Model,
    options: Omit<DetectorOptions, keyof DeviceChoice> = {},
    owned = false,
  ) {
    checkOptions(options, [...PLAN_NAMES, ...eventRuleNames], 'EventDetector');
    const { windowSeconds, overlapSeconds, hopSeconds, ...rules } = options;
    const plan = { windowSeconds, overlapSeconds, hopSeconds };
    const { classes, classCount } = model;
    this.model = model;
    this.labels =
      typeof classes === 'number' ? Array.from({ length: classCount }, (_, k) => `${k}`) : classes;
    this.#plan = planFrames(model, plan, 'EventDetector');
    this.hopSeconds = this.#plan.hop / model.sampleRate;
    this.rules = rules;
    this.#owned = owned;
    // Rules that do not fit are an error now, not when the first audio comes.
    createEventFinder(this.labels, this.hopSeconds, rules);
  }

  /**
   * A detector with a model, with the model in a file, or with published weights by the model's name:
   * `Cnn14_DecisionLevelMax`.
   *
   * @throws PannsError `ERR_PANNS_OPTION`, also for a model of clips without windowSeconds and
   *   hopSeconds, and as {@link loadModel}
   */
  static async load(model: string | Model, options: DetectorOptions = {}): Promise<EventDetector> {
    const { device, threads, gpu, precision, ...rest } = options;
    const place = { device, threads, gpu, precision };
    if (model instanceof Model) {
      checkUnplaced(place, 'EventDetector.load');
      return new EventDetector(model, rest);
    }
    const loaded = await loadModel(model, place);
    try {
      return new EventDetector(loaded, rest, true);
    } catch (error) {
      loaded.dispose();
      throw error;
    }
  }

  /**
   * Finds the events in an audio file (a path or its bytes), or in mono samples: floats in [-1, 1] or
   * 16-bit integers.
   *
   * @throws PannsError `ERR_PANNS_AUDIO_*`, `ERR_PANNS_IO`, `ERR_PANNS_OPTION`, `ERR_PANNS_NAN`,
   *   `ERR_PANNS_DISPOSED`; AbortError
   */
  async detect(source: AudioSource, options: DetectOptions = {}): Promise<Detection> {
    const { framewise = false, onScores, ...rest } = options;
    const blocks: FrameScores[] = [];
    const stream = this.detectStream(source, {
      ...rest,
      onScores(block) {
        if (framewise) blocks.push(block);
        onScores?.(block);
      },
    });
    const events: DetectedEvent[] = [];
    let step = await stream.next();
    for (; !step.done; step = await stream.next()) events.push(step.value);
    const { hopSeconds } = this;
    events.sort((a, b) => a.onset - b.onset || a.index - b.index);
    const found = { events, hopSeconds, ...step.value };
    return framewise ? { ...found, framewise: this.#join(blocks) } : found;
  }

  /**
   * Finds events as {@link EventDetector.detect} does and hands each out once it is over; also from
   * samples that come bit by bit, such as a microphone's, at the rate that `sampleRate` gives. The
   * generator returns how long the audio was, and whether its file is cut off.
   *
   * A window is scored when it is complete: choose `windowSeconds` for the delay that is tolerable.
   * A stream that waits is left as soon as `signal` is aborted.
   *
   * @throws PannsError as {@link EventDetector.detect}; AbortError
   */
  async *detectStream(
    source: AudioSource | AsyncIterable<Samples>,
    options: DetectStreamOptions = {},
  ): AsyncGenerator<DetectedEvent, AudioEnd> {
    const where = 'detect';
    checkOptions(options, [...eventRuleNames, ...sourceOptionNames, 'onScores'], where);
    const { sampleRate, nanToZero, signal, onScores, ...rules } = options;
    const given = Object.entries(rules).filter(([, rule]) => rule !== undefined);
    const chosen: EventRules = { ...this.rules, ...Object.fromEntries(given) };
    const finder = createEventFinder(this.labels, this.hopSeconds, chosen);
    const scored = this.scores(source, { sampleRate, nanToZero, signal });
    try {
      let step = await scored.next();
      for (; !step.done; step = await scored.next()) {
        onScores?.(step.value);
        yield* await finder.push(step.value.scores);
      }
      yield* finder.finish(step.value.seconds);
      return step.value;
    } finally {
      // Also when nobody wants the rest: the source is told.
      await scored.return({ seconds: 0, truncated: false });
    }
  }

  /**
   * The scores of all frames, block by block, before any filter; returns how long the audio was, and
   * whether its file is cut off.
   *
   * @throws PannsError as {@link EventDetector.detect}; AbortError
   */
  async *scores(
    source: AudioSource | AsyncIterable<Samples>,
    options: SourceOptions = {},
  ): AsyncGenerator<FrameScores, AudioEnd> {
    const where = 'detect';
    const { signal } = options;
    const rate = this.model.sampleRate;
    const live = typeof source === 'object' && source !== null && Symbol.asyncIterator in source;
    const stream = live ? openStream(source, rate, options, where) : undefined;
    try {
      const opened =
        stream === undefined
          ? await openSource(source as AudioSource, rate, options, where)
          : { ...stream, truncated: () => false };
      const plan = live ? { ...this.#plan, atOnce: 1 } : this.#plan;
      const { length } = yield* scoreFrames(this.model, opened.read, plan, signal);
      if (length > 0) return { seconds: length / rate, truncated: opened.truncated() };
      throw new PannsError('ERR_PANNS_AUDIO_EMPTY', 'expected audio, got no samples', { where });
    } finally {
      await stream?.close();
    }
  }

  /** Frees the model, unless it was passed in. */
  dispose(): void {
    if (this.#owned) this.model.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #join(blocks: readonly FrameScores[]): NonNullable<Detection['framewise']> {
    const frames = blocks.reduce((sum, block) => sum + block.frames, 0);
    const data = new Float32Array(frames * this.model.classCount);
    for (const { first, scores } of blocks) data.set(scores, first * this.model.classCount);
    return { data, shape: [frames, this.model.classCount] };
  }
}
