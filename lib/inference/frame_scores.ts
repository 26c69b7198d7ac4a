import { PannsError } from '../errors.js';
import { type SegmentGrid, segmentGrid } from '../models/timing.js';
import { type Model, modelInternals } from './model.js';
import { cutWindows, type ReadSamples, ROUNDING, WINDOWS_AT_ONCE } from './windows.js';

/** Scores of consecutive frames; frame k lasts from k * hop to (k + 1) * hop. */
export interface FrameScores {
  /** The number of the first frame. */
  readonly first: number;
  readonly frames: number;
  /** (frames, K), row-major. */
  readonly scores: Float32Array;
}

/** How long audio is cut up for a model, in samples. */
export interface FramePlan {
  /** What scores a frame: the model's head, or the whole window around it. */
  readonly kind: 'framewise' | 'windows';
  /** Length of a window, a whole number of frames. */
  readonly window: number;
  /** From one window to the next, a whole number of frames. */
  readonly step: number;
  /** Length of a frame. */
  readonly hop: number;
  /** One in so many of the model's frames is kept. */
  readonly stride: number;
  /** The segments behind the frames, where the model's head scores segments. */
  readonly grid?: SegmentGrid | undefined;
  /** Windows that go through the model together; default four. */
  readonly atOnce?: number;
}

/** Options of {@link planFrames}, in seconds. */
export interface PlanOptions {
  windowSeconds?: number | undefined;
  overlapSeconds?: number | undefined;
  hopSeconds?: number | undefined;
}

/** Frames need not be shorter, in seconds: networks of the waveform would have one a sample. */
const SHORTEST_FRAME = 0.01;

const WINDOW_SECONDS = 10;
/** Twice as far as a segment of 0.32 s sees beyond its edges in PANNs' head, and some more. */
const OVERLAP_SECONDS = 1;

/**
 * How to score audio of any length frame by frame: by windows that overlap where the model has
 * `framewise_output`, else by the clip scores of a window around each frame.
 *
 * @throws PannsError `ERR_PANNS_OPTION`
 */
export function planFrames(model: Model, options: PlanOptions, where: string): FramePlan {
  const { sampleRate: rate } = model;
  const { windowSeconds, overlapSeconds, hopSeconds } = options;
  const refuse = (what: string) => new PannsError('ERR_PANNS_OPTION', what, { where });
  const inRange = (name: string, value: number | undefined, least: number, most: number) => {
    if (value === undefined || (value >= least && value <= most)) return;
    throw refuse(`expected ${name} to be a number in ${least}..${most}, got ${value}`);
  };
  const shortest = model.minimumSamples / rate;
  inRange('windowSeconds', windowSeconds, shortest, 3600);
  const { description } = modelInternals(model);
  const framesOf = description.outputs.framewise_output?.frames;
  if (framesOf !== undefined) {
    if (hopSeconds !== undefined) {
      throw refuse(`hopSeconds is the model's own: ${model.name} scores frames`);
    }
    // One more window's worth of samples adds as many frames as fit it.
    const span = model.lengthFor(10 * rate);
    const own = Math.round(span / (framesOf(2 * span) - framesOf(span)));
    const stride = Math.max(1, Math.round((SHORTEST_FRAME * rate) / own));
    const hop = own * stride;
    const least = Math.ceil(model.minimumSamples / hop);
    const window = Math.max(least, Math.round(((windowSeconds ?? WINDOW_SECONDS) * rate) / hop));
    inRange('overlapSeconds', overlapSeconds, 0, (window * hop) / 2 / rate);
    const overlap = overlapSeconds ?? Math.min(OVERLAP_SECONDS, (window * hop) / 4 / rate);
    const step = Math.max(1, window - Math.round((overlap * rate) / hop));
    const cut = { window: window * hop, step: step * hop, hop, stride };
    return { kind: 'framewise', ...cut, grid: segmentGrid(description) };
  }
  if (overlapSeconds !== undefined) {
    throw refuse(`overlapSeconds has no meaning here: ${model.name} scores clips; set hopSeconds`);
  }
  if (windowSeconds === undefined || hopSeconds === undefined) {
    const what = `${model.name} scores whole clips, not frames: set windowSeconds and hopSeconds to score a window around each frame, or train a model with the head "max" or "att"`;
    throw refuse(what);
  }
  inRange('hopSeconds', hopSeconds, 0.001, windowSeconds);
  const hop = Math.round(hopSeconds * rate);
  // An odd number of frames: then one lies in the middle.
  const hops = 2 * Math.ceil((windowSeconds * rate) / hop / 2 - 0.5 - 1e-9) + 1;
  return { kind: 'windows', window: hops * hop, step: hop, hop, stride: 1 };
}

/** What {@link scoreFrames} tells at the end. */
export interface ScoredAudio {
  /** In samples. */
  readonly length: number;
}

/**
 * Scores of all frames of audio of any length, in order; returns how long it was.
 *
 * `framewise`: the score of a frame lies on the line between those of the segments whose middles are
 * around it. Where windows overlap, scores are cross-faded, so that nothing jumps at a seam.
 * `windows`: a frame has the score of the window whose middle it is; at both ends, of the outermost.
 * Memory is that of a few windows. The blocks are the caller's to keep.
 *
 * @throws PannsError as {@link Model.infer}; AbortError
 */
export async function* scoreFrames(
  model: Model,
  read: ReadSamples,
  plan: FramePlan,
  signal: AbortSignal | undefined,
): AsyncGenerator<FrameScores, ScoredAudio> {
  const { window, step, hop, kind, atOnce = WINDOWS_AT_ONCE } = plan;
  const audio = wholeFrames(read, hop);
  const classes = model.classCount;
  const output = kind === 'framewise' ? 'framewise_output' : 'clipwise_output';
  const mixer = createMixer(classes, (window - step) / hop);
  // A rest of any length gets a window: every frame has its score.
  for await (const batch of cutWindows(audio.read, window, step, atOnce, 0)) {
    const { samples, length, starts } = batch;
    const middle = Math.floor((length / hop - 1) / 2);
    const answer = await model.infer(samples, {
      batch: starts.length,
      outputs: [output],
      ...(signal && { signal }),
    });
    const { data, shape } = answer[output];
    const size = data.length / starts.length;
    for (const [row, start] of starts.entries()) {
      const scores = data.subarray(row * size, (row + 1) * size);
      const first = start / hop;
      if (kind === 'windows') {
        // From where the last window left off, up to the middle of this one.
        const block = mixer.repeat(scores, first + middle + 1);
        if (block !== undefined) yield block;
        continue;
      }
      const done = mixer.before(first);
      if (done !== undefined) yield done;
      // Half a million scores a window of AudioSet's classes: others get their turn in between.
      await new Promise<void>((resolve) => setImmediate(resolve));
      const frames = framesOf(plan, length, scores, shape[1] ?? 0, classes);
      mixer.add(first, frames.length / classes, frames);
    }
  }
  const length = audio.samples();
  const rest = mixer.rest(Math.ceil(length / hop));
  if (rest !== undefined) yield rest;
  return { length };
}

/** The scores (frames, K) of a window of `length` samples from the model's own `rows` frames. */
function framesOf(
  { hop, stride, grid }: FramePlan,
  length: number,
  scores: Float32Array,
  rows: number,
  classes: number,
): Float32Array {
  const count = Math.min(Math.floor((rows - 1) / stride) + 1, length / hop);
  const frames = new Float32Array(count * classes);
  const last = grid === undefined ? rows - 1 : Math.max(0, grid.count(length) - 1);
  for (let t = 0; t < count; t++) {
    // Where the frame's middle lies among the segments; before the first middle, that one's scores.
    const place =
      grid === undefined ? t * stride : Math.max(0, ((t + 0.5) * hop - grid.first) / grid.step);
    const before = Math.min(last, Math.floor(place));
    const share = Math.min(1, place - before);
    const [from, to] = [before, Math.min(last, before + 1)].map((segment) => {
      return Math.min(rows - 1, segment * (grid?.ratio ?? 1)) * classes;
    }) as [number, number];
    for (let k = 0; k < classes; k++) {
      const [a, b] = [scores[from + k] ?? 0, scores[to + k] ?? 0];
      frames[t * classes + k] = a + share * (b - a);
    }
  }
  return frames;
}

/** Reads so that audio ends on a whole frame, with zeros up to there. */
function wholeFrames(read: ReadSamples, hop: number) {
  let length = 0;
  const padded: ReadSamples = async (start, count) => {
    const samples = await read(start, count);
    const end = start + samples.length;
    if (samples.length > 0) length = end;
    if (samples.length > 0 && samples.length >= count - ROUNDING) return samples;
    const all = new Float32Array(Math.ceil(end / hop) * hop - start);
    all.set(samples);
    return all;
  };
  return { read: padded, samples: () => length };
}

/** Sums of weighted scores of the frames that later windows may still touch. */
function createMixer(classes: number, overlap: number) {
  let first = 0;
  let frames = 0;
  let sums = new Float32Array(0);
  let weights = new Float32Array(0);
  let last = new Float32Array(classes);

  const take = (count: number): FrameScores | undefined => {
    if (count <= 0) return undefined;
    const scores = sums.slice(0, count * classes);
    for (let t = 0; t < count; t++) {
      const share = 1 / (weights[t] ?? 1);
      for (let k = t * classes; k < (t + 1) * classes; k++) scores[k] = (scores[k] ?? 0) * share;
    }
    sums.copyWithin(0, count * classes, frames * classes);
    weights.copyWithin(0, count, frames);
    sums.fill(0, (frames - count) * classes);
    weights.fill(0, frames - count);
    const block = { first, frames: count, scores };
    first += count;
    frames -= count;
    last = scores.slice(-classes);
    return block;
  };
  const repeat = (row: Float32Array, until: number): FrameScores | undefined => {
    const count = until - first;
    if (count <= 0) return undefined;
    const scores = new Float32Array(count * classes);
    for (let t = 0; t < count; t++) scores.set(row, t * classes);
    const block = { first, frames: count, scores };
    first = until;
    last = row.slice();
    return block;
  };
  return {
    repeat,
    /** The frames before `frame`, which no window touches any more. */
    before: (frame: number) => take(frame - first),
    /** The scores of a window that begins at frame `start`. */
    add(start: number, count: number, scores: Float32Array): void {
      const needed = start + count - first;
      if (needed * classes > sums.length) {
        const grown = new Float32Array(needed * classes);
        grown.set(sums);
        sums = grown;
        const heavier = new Float32Array(needed);
        heavier.set(weights);
        weights = heavier;
      }
      frames = Math.max(frames, needed);
      for (let t = 0; t < count; t++) {
        // A window's edges count little where another one has its middle.
        const weight = Math.min(1, (t + 1) / (overlap + 1), (count - t) / (overlap + 1));
        const to = start - first + t;
        weights[to] = (weights[to] ?? 0) + weight;
        const from = t * classes;
        for (let k = 0; k < classes; k++) {
          const at = to * classes + k;
          sums[at] = (sums[at] ?? 0) + weight * (scores[from + k] ?? 0);
        }
      }
    },
    /** What is left, `total` frames in all; frames that no window had are as the last before them. */
    rest(total: number): FrameScores | undefined {
      const left = total - first;
      const block = take(Math.min(frames, left));
      const missing = repeat(last, total);
      if (block === undefined || missing === undefined) return block ?? missing;
      const scores = new Float32Array(block.scores.length + missing.scores.length);
      scores.set(block.scores);
      scores.set(missing.scores, block.scores.length);
      return { first: block.first, frames: left, scores };
    },
  };
}
