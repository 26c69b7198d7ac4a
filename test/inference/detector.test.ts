import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeWav16 } from '../../lib/audio/wav.js';
import { EventDetector } from '../../lib/inference/detector.js';
import type { DetectedEvent } from '../../lib/inference/events.js';
import { createModel } from '../../lib/inference/model.js';
import { openDraws } from '../helpers/random.js';
import { sharedFile } from '../helpers/shared.js';
import { compare } from '../helpers/tolerance.js';

const RATE = 8000;
const HOP = 80;
const K = 3;
const TINY = {
  ...{ sampleRate: RATE, melBins: 16, classes: ['low', 'high', 'none'], seed: 3, threads: 1 },
} as const;

/** Noise that swells, of 16-bit values, so that a file gives it back exactly. */
function draw(t: { comment(text: string): void }, seconds: number): Float32Array {
  const { random } = openDraws(t);
  return Float32Array.from({ length: Math.round(seconds * RATE) }, (_, i) => {
    const loud = 0.5 + 0.5 * Math.sin(i / 2500);
    return Math.round(32767 * loud * random.between(-0.9, 0.9)) / 32768;
  });
}

/** A detector whose scores are spread, so that thresholds divide them. */
async function tiny(head: 'max' | 'clip') {
  const model = await createModel('Cnn6', { ...TINY, head });
  const bias = await model.getParameter('fc_audioset.weight');
  await model.setParameter(
    'fc_audioset.weight',
    bias.map((x) => 8 * x),
  );
  return model;
}

/**
 * The scores of frames from those that the model gives: Cnn6 has segments of 16 frames, made by averages
 * of two four times over, so that the middle of the first lies 7.5 frames after the first frame's. A
 * frame lasts until the next one begins; its score lies between those of the nearest segments.
 */
function between(own: Float32Array, frames: number): Float32Array {
  const segments = Math.floor((frames + 1) / 16);
  return Float32Array.from({ length: frames * K }, (_, i) => {
    const [t, k] = [Math.floor(i / K), i % K];
    const at = Math.min(segments - 1, Math.max(0, (t + 0.5 - 7.5) / 16));
    const [a, b] = [Math.floor(at), Math.ceil(at)].map((s) => own[16 * s * K + k] ?? NaN);
    return (a ?? NaN) + (at - Math.floor(at)) * ((b ?? NaN) - (a ?? NaN));
  });
}

t.test('scores of a short clip are the model’s own', async (t) => {
  using model = await tiny('max');
  const detector = await EventDetector.load(model);
  const x = draw(t, 1.234);
  const { framewise, seconds, hopSeconds, events } = await detector.detect(x, { framewise: true });
  t.equal(seconds, 1.234);
  t.equal(hopSeconds, 0.01);
  t.same(framewise?.shape, [124, K]);
  const padded = new Float32Array(124 * HOP);
  padded.set(x);
  const { framewise_output } = await model.infer(padded, { outputs: ['framewise_output'] });
  const own = between(framewise_output.data, 124);
  const { ok, message } = compare(framewise?.data ?? [], own, 'reordered');
  t.ok(ok, message);
  t.ok(events.every(({ offset }) => offset <= 1.234));
  t.equal((await detector.detect(x)).framewise, undefined);
});

t.test('windows are cross-faded', async (t) => {
  using model = await tiny('max');
  const options = { windowSeconds: 2, overlapSeconds: 0.5 };
  const detector = await EventDetector.load(model, options);
  const x = draw(t, 5.337);
  const total = Math.ceil(x.length / HOP);
  const padded = new Float32Array(total * HOP);
  padded.set(x);
  const sums = new Float64Array(total * K);
  const weights = new Float64Array(total);
  // The last window ends with the audio.
  for (const first of [0, 150, 300, total - 200]) {
    const part = padded.slice(first * HOP, (first + 200) * HOP);
    const { framewise_output } = await model.infer(part, { outputs: ['framewise_output'] });
    const own = between(framewise_output.data, 200);
    for (let f = 0; f < 200; f++) {
      const weight = Math.min(1, (f + 1) / 51, (200 - f) / 51);
      weights[first + f] = (weights[first + f] ?? 0) + weight;
      for (let k = 0; k < K; k++) {
        const at = (first + f) * K + k;
        sums[at] = (sums[at] ?? 0) + weight * (own[f * K + k] ?? NaN);
      }
    }
  }
  const want = sums.map((sum, i) => sum / (weights[Math.floor(i / K)] ?? NaN));
  let largest = 0;
  const { framewise } = await detector.detect(x, {
    framewise: true,
    onScores: ({ frames }) => {
      largest = Math.max(largest, frames);
    },
  });
  t.same(framewise?.shape, [total, K]);
  const { ok, message } = compare(framewise?.data ?? [], want, 'reordered');
  t.ok(ok, message);
  t.ok(largest <= 200, 'no block is longer than a window');
});

t.test('a model of clips scores the window around each frame', async (t) => {
  using model = await tiny('clip');
  const detector = await EventDetector.load(model, { windowSeconds: 1, hopSeconds: 0.25 });
  t.equal(detector.hopSeconds, 0.25);
  const x = draw(t, 3.6);
  const { framewise } = await detector.detect(x, { framewise: true });
  t.same(framewise?.shape, [15, K]);
  const padded = new Float32Array(15 * 2000);
  padded.set(x);
  // An odd number of hops: 1.25 s, with two hops on either side of the frame.
  const windows = Array.from({ length: 15 }, (_, frame) => {
    const first = Math.min(Math.max(0, frame - 2), 10);
    return padded.slice(first * 2000, (first + 5) * 2000);
  });
  const { clipwise_output } = await model.infer(windows);
  const { ok, message } = compare(framewise?.data ?? [], clipwise_output.data, 'reordered');
  t.ok(ok, message);
  const short = await detector.detect(x.slice(0, 3000), { framewise: true });
  t.same(short.framewise?.shape, [2, K]);
});

t.test('a stream of 16 bits at a rate of its own gives the scores of the whole', async (t) => {
  using model = await tiny('max');
  const { random } = openDraws(t);
  using detector = await EventDetector.load(model, { windowSeconds: 1, overlapSeconds: 0.2 });
  const sampleRate = 11025;
  const length = 3 * sampleRate + random.integer(sampleRate);
  const x = Int16Array.from({ length }, () => random.integer(65536) - 32768);
  async function* pieces() {
    for (let from = 0; from < length; ) {
      const count = random.integer(3000);
      yield x.slice(from, from + count);
      from += count;
    }
  }
  const scored = async (source: Int16Array | AsyncIterable<Int16Array>) => {
    const scores: number[] = [];
    for await (const block of detector.scores(source, { sampleRate })) scores.push(...block.scores);
    return Float32Array.from(scores);
  };
  const { ok, message } = compare(await scored(pieces()), await scored(x), 'reordered');
  t.ok(ok, message);
});

t.test('a stream that waits for ever is left when it is aborted', async (t) => {
  using model = await tiny('max');
  using detector = await EventDetector.load(model, { windowSeconds: 1 });
  for (const later of [false, true]) {
    const stop = new AbortController();
    async function* microphone() {
      yield draw(t, 1.5);
      if (later) setImmediate(() => stop.abort('enough'));
      else stop.abort('enough');
      await new Promise(() => undefined);
    }
    const listen = async () => {
      for await (const _ of detector.detectStream(microphone(), { signal: stop.signal }));
    };
    await t.rejects(listen(), { name: 'AbortError', cause: 'enough' });
  }
});

t.test('files, bytes, samples and streams give the same events', async (t) => {
  using model = await tiny('max');
  const { random } = openDraws(t);
  const x = draw(t, 4.5);
  const options = { windowSeconds: 1, overlapSeconds: 0.2 };
  const probe = await EventDetector.load(model, options);
  const { framewise } = await probe.detect(x, { framewise: true });
  // In the widest gap between a class's scores near the middle: rounding must not decide.
  const thresholds = TINY.classes.map((label, k) => {
    const own = (framewise?.data ?? new Float32Array(0)).filter((_, i) => i % K === k).sort();
    const middle = own.slice(own.length >> 2, 3 * (own.length >> 2));
    const gaps = middle.slice(1).map((score, i) => score - (middle[i] ?? 0));
    const widest = gaps.indexOf(Math.max(...gaps));
    return [label, ((middle[widest] ?? 0) + (middle[widest + 1] ?? 0)) / 2];
  });
  const threshold = Object.fromEntries(thresholds) as Record<string, number>;
  const rules = { threshold, medianSeconds: 0.05 };
  const detector = await EventDetector.load(model, { ...options, ...rules });
  const path = join(t.testdir(), 'noise.wav');
  await writeWav16(path, x, RATE);
  const { events, seconds } = await detector.detect(path);
  t.ok(events.length >= 3, `${events.length} events`);
  t.ok(events.some(({ onset, offset }) => onset > 0 || offset < 4.5));
  t.equal(seconds, 4.5);
  const onsets = events.map(({ onset }) => onset);
  t.same(
    onsets,
    [...onsets].sort((a, b) => a - b),
  );
  for (const source of [x, new Uint8Array(readFileSync(path))]) {
    t.same((await detector.detect(source)).events, events);
  }
  let closed = false;
  async function* pieces() {
    try {
      for (let from = 0; from < x.length; ) {
        const count = random.integer(3000);
        yield x.slice(from, from + count);
        from += count;
      }
    } finally {
      closed = true;
    }
  }
  const live: DetectedEvent[] = [];
  for await (const event of detector.detectStream(pieces())) live.push(event);
  live.sort((a, b) => a.onset - b.onset || a.index - b.index);
  const places = (list: readonly DetectedEvent[]) => list.map(({ score: _, ...rest }) => rest);
  const scores = (list: readonly DetectedEvent[]) => list.map(({ score }) => score);
  t.same(places(live), places(events));
  // One window at a time, and four at once.
  t.ok(compare(scores(live), scores(events), 'reordered').ok);
  t.ok(closed);
  closed = false;
  for await (const _ of detector.detectStream(pieces())) break;
  t.ok(closed, 'a stream that nobody wants any more is told so');
  const only = await detector.detect(x, { labels: ['high'] });
  t.same(
    only.events,
    events.filter(({ label }) => label === 'high'),
  );
});

const weights = sharedFile('data', 'efficientat_mn04_as', 'mn04_as_mAP_432.pt');
const sound = sharedFile('data', 'audioset', 'R9_ZSCveAHg_7s.wav');
t.test('someone speaks after the alarm', { skip: weights.skip || sound.skip }, async (t) => {
  using detector = await EventDetector.load(weights.path, {
    ...{ windowSeconds: 1, hopSeconds: 0.1, threshold: 0.4, maximumGapSeconds: 0.2 },
    ...{ labels: ['Speech'], threads: 1 },
  });
  const { events, seconds } = await detector.detect(sound.path);
  t.equal(seconds, 7);
  // In the figure that PANNs' authors print of it, speech lasts from about 2.5 s to the end.
  const first = events[0];
  t.equal(events.length, 1);
  t.ok(Math.abs((first?.onset ?? 0) - 2.5) < 0.5, `from ${first?.onset} s`);
  t.ok((first?.offset ?? 0) > 6.5, `to ${first?.offset} s`);
});

t.test('a model that has its device takes no other', async (t) => {
  using model = await createModel('Cnn6', {
    classes: 2,
    sampleRate: 8000,
    melBins: 16,
    head: 'max',
  });
  await t.rejects(EventDetector.load(model, { threads: 1 }), {
    code: 'ERR_PANNS_OPTION',
    message: /expected no threads beside a model/,
  });
});

t.test('wrong use is refused', async (t) => {
  using clips = await tiny('clip');
  using model = await tiny('max');
  const option = (message: RegExp) => ({ code: 'ERR_PANNS_OPTION', message });
  await t.rejects(EventDetector.load(clips), option(/set windowSeconds and hopSeconds/));
  const half = { windowSeconds: 1, overlapSeconds: 0.1 };
  await t.rejects(EventDetector.load(clips, half), option(/scores clips/));
  await t.rejects(EventDetector.load(model, { hopSeconds: 0.1 }), option(/model's own/));
  await t.rejects(EventDetector.load(model, { windowSeconds: 0.01 }), option(/windowSeconds/));
  const over = { windowSeconds: 1, overlapSeconds: 0.8 };
  await t.rejects(EventDetector.load(model, over), option(/overlapSeconds/));
  await t.rejects(EventDetector.load(model, { threshold: { lwo: 1 } }), option(/"low"/));
  const detector = await EventDetector.load(model);
  const x = draw(t, 0.5);
  await t.rejects(detector.detect(x, { tresholds: 1 } as object), option(/threshold/));
  await t.rejects(detector.detect(7 as unknown as string), option(/source/));
  await t.rejects(detector.detect('/no/such.wav'), { code: 'ERR_PANNS_AUDIO_NOT_FOUND' });
  await t.rejects(detector.detect(new Float32Array(0)), { code: 'ERR_PANNS_AUDIO_EMPTY' });
  await t.rejects(detector.detect(x, { signal: AbortSignal.abort() }), { code: 'ABORT_ERR' });
  async function* wrong() {
    yield [1, 2] as unknown as Float32Array;
  }
  const stream = (options = {}) => detector.detectStream(wrong(), options).next();
  await t.rejects(stream(), { code: 'ERR_PANNS_SHAPE' });
  await t.rejects(stream({ sampleRate: 0 }), option(/sampleRate/));
  await t.rejects(EventDetector.load('/no/such.safetensors'), { code: 'ERR_PANNS_IO' });
});
