import { join } from 'node:path';
import t from 'tap';
import { writeWav16 } from '../../lib/audio/wav.js';
import type { StrongDataset } from '../../lib/data/strong.js';
import { EventDetector } from '../../lib/inference/detector.js';
import { createModel } from '../../lib/inference/model.js';
import { evaluateEvents } from '../../lib/train/evaluate_events.js';
import { tuneEvents } from '../../lib/train/tune_events.js';
import { openDraws } from '../helpers/random.js';

const RATE = 8000;
const CLASSES = ['long', 'short', 'absent'];
const HOP = 0.1;
const SECONDS = 20;

/**
 * A detector whose scores are made up: `long` fades in and out and has holes of up to 0.3 s, `short`
 * stands beside false peaks of 0.1 s that are as high. Rules for both at once do badly.
 */
async function made(t: Parameters<typeof openDraws>[0] & { testdir(): string }, files: number) {
  const { random } = openDraws(t);
  const folder = t.testdir();
  const scores = new Map<string, Float32Array>();
  const list: StrongDataset['files'][number][] = [];
  const frames = SECONDS / HOP;
  for (let f = 0; f < files; f++) {
    const path = join(folder, `${f}.wav`);
    await writeWav16(path, new Float32Array(SECONDS * RATE), RATE);
    const own = Float32Array.from({ length: 3 * frames }, () => random.between(0, 0.1));
    const put = (label: number, from: number, to: number, score: () => number) => {
      for (let i = from; i < to; i++) own[3 * i + label] = score();
    };
    const from = 10 + random.integer(30);
    const to = from + 60 + random.integer(60);
    put(0, from, to, () => random.between(0.25, 0.35));
    put(0, from + 20, from + 30, () => 0.6);
    put(0, from + 40, from + 43, () => 0.02);
    const events = [{ onset: from * HOP, offset: to * HOP, label: 0 }];
    for (let at = 5; at < frames - 20; at += 20) {
      put(1, at, at + 1, () => random.between(0.8, 0.9));
      put(1, at + 9, at + 14, () => random.between(0.7, 0.9));
      events.push({ onset: (at + 9) * HOP, offset: (at + 14) * HOP, label: 1 });
    }
    scores.set(path, own);
    list.push({ id: `${f}.wav`, path, seconds: SECONDS, events });
  }
  const model = await createModel('Cnn6', {
    ...{ classes: CLASSES, sampleRate: RATE, melBins: 16, threads: 1 },
  });
  const detector = await EventDetector.load(model, { windowSeconds: 0.3, hopSeconds: HOP });
  const heard: string[] = [];
  detector.scores = async function* (source) {
    heard.push(String(source));
    const own = scores.get(String(source)) ?? new Float32Array(0);
    yield { first: 0, frames: 50, scores: own.slice(0, 150) };
    yield { first: 50, frames: frames - 50, scores: own.slice(150) };
    return { seconds: SECONDS, truncated: false };
  };
  const dataset: StrongDataset = { classes: CLASSES, files: list, skipped: [] };
  return { model, detector, dataset, heard };
}

t.test('each class gets rules of its own, which hold on other files', async (t) => {
  const { model, detector, dataset, heard } = await made(t, 8);
  using _ = model;
  const [first, rest] = [dataset.files.slice(0, 4), dataset.files.slice(4)];
  const ticks: number[] = [];
  const { rules, perClass } = await tuneEvents(
    [{ detector, dataset: { ...dataset, files: first } }],
    {
      onProgress: (done, total) => {
        t.equal(total, 6);
        ticks.push(done);
      },
    },
  );
  t.same(ticks, [1, 2, 3, 4, 5, 6]);
  t.equal(heard.length, 4, 'each file is heard once');
  t.match(perClass, [
    { label: 'long', events: 4, f1: 1 },
    { label: 'short', events: 36 },
  ]);
  t.same(Object.keys(rules.threshold), ['long', 'short'], 'nothing is known of the third');
  const test = { ...dataset, files: rest };
  const tuned = await evaluateEvents(detector, test, { rules });
  t.ok(tuned.events.overall.f1 > 0.95, `F1 ${tuned.events.overall.f1}`);
  const usual = await evaluateEvents(detector, test, { rules: { threshold: 0.5 } });
  t.ok(usual.events.overall.f1 < 0.75, `without: ${usual.events.overall.f1}`);
  const segments = await tuneEvents([{ detector, dataset: test }], { goal: 'segments' });
  t.ok(segments.perClass.every(({ f1 }) => f1 > 0.9));
});

t.test('parts are tuned together, also where files have the same names', async (t) => {
  const { model, detector, dataset } = await made(t, 2);
  using _ = model;
  const one = await tuneEvents([{ detector, dataset }]);
  const both = await tuneEvents([
    { detector, dataset },
    { detector, dataset },
  ]);
  t.same(
    both.perClass.map(({ events }) => events),
    one.perClass.map(({ events }) => 2 * events),
  );
  t.same(both.rules, one.rules);
});

t.test('wrong use is refused', async (t) => {
  const { model, detector, dataset } = await made(t, 1);
  using _ = model;
  const refused = (parts: unknown, options: object, code: string, message: RegExp) =>
    t.rejects(tuneEvents(parts as [], options), { code, message });
  await refused([], {}, 'ERR_PANNS_OPTION', /at least one/);
  const part = { detector, dataset };
  await refused([part], { goal: 'event' }, 'ERR_PANNS_OPTION', /"events" or "segments"/);
  await refused([part], { colar: 1 }, 'ERR_PANNS_OPTION', /collarSeconds/);
  const empty = { ...dataset, files: dataset.files.map((file) => ({ ...file, events: [] })) };
  await refused([{ detector, dataset: empty }], {}, 'ERR_PANNS_DATA', /got none/);
  const other = { ...dataset, classes: ['long', 'cat', 'absent'] };
  await refused([{ detector, dataset: other }], {}, 'ERR_PANNS_DATA', /cat/);
  const signal = AbortSignal.abort();
  await refused([part], { signal }, 'ABORT_ERR', /abort/);
});
