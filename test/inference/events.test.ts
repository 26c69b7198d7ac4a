import t from 'tap';
import { formatEvents } from '../../lib/inference/event_text.js';
import {
  createEventFinder,
  createEventFinders,
  type DetectedEvent,
  type EventRules,
} from '../../lib/inference/events.js';
import { openDraws } from '../helpers/random.js';

interface Rules {
  median: number;
  high: number;
  low: number;
  shortest: number;
  gap: number;
}

/** The rules by their definition, in frames, with all scores of one class at hand. */
function naive(scores: readonly number[], { median, high, low, shortest, gap }: Rules) {
  const half = (median - 1) / 2;
  const at = (i: number): number => {
    if (i < 0) return at(-1 - i);
    return i < scores.length ? (scores[i] ?? 0) : at(2 * scores.length - 1 - i);
  };
  const smooth = scores.map((_, t) => {
    const near = Array.from({ length: median }, (_, i) => at(t - half + i));
    return near.sort((a, b) => a - b)[half] ?? 0;
  });
  const active = smooth.map((score) => score >= low);
  let stretches: [number, number][] = [];
  for (let t = 0; t < active.length; t++) {
    if (!active[t]) continue;
    if (t === 0 || !active[t - 1]) stretches.push([t, t]);
    (stretches.at(-1) as [number, number])[1] = t + 1;
  }
  const peak = ([from, to]: readonly [number, number]) => Math.max(...smooth.slice(from, to));
  stretches = stretches.filter((one) => peak(one) >= high && one[1] - one[0] >= shortest);
  const joined: { from: number; to: number; score: number }[] = [];
  for (const one of stretches) {
    const [from, to] = one;
    const last = joined.at(-1);
    if (last !== undefined && from - last.to <= gap) {
      last.to = to;
      last.score = Math.max(last.score, peak(one));
    } else {
      joined.push({ from, to, score: peak(one) });
    }
  }
  return joined;
}

t.test('events are those of the definition, however scores come', async (t) => {
  const { random } = openDraws(t);
  const hop = 0.01;
  let found = 0;
  for (let i = 0; i < 150; i++) {
    const frames = 1 + random.integer(120);
    const labels = ['a', 'b'];
    const levels = random.integer(2) ? 5 : 2 ** 20;
    // Of 32 bits, as the finder gets them.
    const columns = labels.map(() =>
      Array.from({ length: frames }, () => Math.fround(random.integer(levels) / levels)),
    );
    const rules = labels.map((): Rules => {
      const high = random.between(0.3, 0.9);
      const low = high * random.between(0.5, 1);
      const median = 1 + 2 * random.integer(6);
      return { median, high, low, shortest: random.integer(4), gap: random.integer(5) };
    });
    const named = (of: (rule: Rules) => number) =>
      Object.fromEntries(rules.map((rule, k) => [labels[k] ?? '', of(rule)]));
    const finder = createEventFinder(labels, hop, {
      medianSeconds: named(({ median }) => median * hop),
      threshold: named(({ high }) => high),
      lowThreshold: named(({ low }) => low),
      minimumSeconds: named(({ shortest }) => shortest * hop),
      maximumGapSeconds: named(({ gap }) => gap * hop),
    });
    const events: DetectedEvent[] = [];
    for (let from = 0; from < frames; ) {
      const count = Math.min(frames - from, random.integer(30));
      const block = Float32Array.from({ length: 2 * count }, (_, j) => {
        return columns[j % 2]?.[from + (j >> 1)] ?? Number.NaN;
      });
      events.push(...(await finder.push(block)));
      from += count;
    }
    const seconds = (frames - 0.5) * hop;
    events.push(...finder.finish(seconds));
    for (const [k, label] of labels.entries()) {
      const want = naive(columns[k] ?? [], rules[k] as Rules).map(({ from, to, score }) => ({
        onset: Number((from * hop).toFixed(6)),
        offset: Number(Math.min(to * hop, seconds).toFixed(6)),
        ...{ label, index: k, score },
      }));
      const got = events
        .filter(({ index }) => index === k)
        .map((event) => ({ ...event, offset: Number(event.offset.toFixed(6)) }));
      if (JSON.stringify(got) !== JSON.stringify(want)) t.same(got, want, JSON.stringify(rules[k]));
      found += want.length;
    }
  }
  t.ok(found > 300, `${found} events`);
});

t.test('several rules at once find what each finds alone', async (t) => {
  const { random } = openDraws(t);
  const labels = ['a', 'b', 'c'];
  const scores = Float32Array.from({ length: 3 * 400 }, () => random.uniform());
  const drawRules = (): EventRules => ({
    medianSeconds: { a: 0.1 * random.integer(4), b: 0.3 },
    threshold: random.between(0.4, 0.7),
    minimumSeconds: 0.1 * random.integer(3),
    maximumGapSeconds: 0.1 * random.integer(3),
    ...(random.integer(2) === 1 && { labels: ['c', 'a'] }),
  });
  const rules = Array.from({ length: 20 }, drawRules);
  const run = async (finder: {
    push(part: Float32Array): Promise<unknown[]>;
    finish(seconds: number): unknown[];
  }) =>
    [await finder.push(scores.subarray(0, 750)), await finder.push(scores.subarray(750))].concat([
      finder.finish(39.95),
    ]);
  const together = await run(createEventFinders(labels, 0.1, rules));
  let found = 0;
  for (const [r, rule] of rules.entries()) {
    const alone = await run(createEventFinder(labels, 0.1, rule));
    t.same(
      together.map((lists) => lists[r]),
      alone,
    );
    found += alone.flat().length;
  }
  t.ok(found > 500, `${found} events`);
});

t.test('an event is handed out as soon as nothing can change it', async (t) => {
  const finder = createEventFinder(['a'], 0.1, { threshold: 0.5, maximumGapSeconds: 0.2 });
  const push = async (...scores: number[]) => {
    return (await finder.push(Float32Array.from(scores))).map(({ onset, offset }) => [
      onset,
      offset,
    ]);
  };
  t.same(await push(0, 1, 1, 0, 0), []);
  t.same(await push(0), [[0.1, 0.3]], 'a gap of three frames is too long');
  t.same(await push(1, 0, 1, 0, 0), []);
  t.same(
    finder.finish(1.1).map(({ onset, offset }) => [onset, offset]),
    [[0.6, 0.9]],
  );
});

t.test('wrong rules are refused', async (t) => {
  const refused = (rules: object, message: RegExp) =>
    t.throws(() => createEventFinder(['dog', 'rain'], 0.01, rules), {
      code: 'ERR_PANNS_OPTION',
      message,
    });
  refused({ treshold: 0.5 }, /"threshold"/);
  refused({ threshold: { dgo: 0.5 } }, /"dog"/);
  refused({ threshold: 'high' }, /a number/);
  refused({ threshold: NaN }, /a number/);
  refused({ threshold: [0.5] }, /a number/);
  refused({ threshold: 0.2, lowThreshold: 0.3 }, /lowThreshold 0.3 is above/);
  refused({ labels: [] }, /labels/);
  refused({ labels: ['cat'] }, /no class "cat"/);
  refused({ minimumSeconds: -1 }, /0..3600/);
  t.doesNotThrow(() => createEventFinder(['dog'], 0.01, { threshold: { dog: 1 } }));
  for (const hop of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(() => createEventFinder(['dog'], hop), { code: 'ERR_PANNS_OPTION', message: /hop/ });
  }
  const finder = createEventFinder(['dog', 'rain'], 0.01);
  await t.rejects(finder.push(new Float32Array(5)), { code: 'ERR_PANNS_SHAPE', message: /got 5/ });
});

t.test('files of events', async (t) => {
  const event = {
    onset: 0.1 + 0.2,
    offset: 1.25,
    label: 'Baby "cry", infant cry',
    index: 3,
    score: 0.5,
  };
  const one = [{ file: 'a,b.wav', events: [event] }];
  t.equal(
    formatEvents(one, 'csv'),
    'filename,onset,offset,event_label,score\n"a,b.wav",0.3,1.25,"Baby ""cry"", infant cry",0.5\n',
  );
  t.equal(
    formatEvents(one, 'tsv'),
    'filename\tonset\toffset\tevent_label\na,b.wav\t0.3\t1.25\tBaby "cry", infant cry\n',
  );
  t.equal(formatEvents(one, 'audacity'), '0.300000\t1.250000\tBaby "cry", infant cry\n');
  t.same(JSON.parse(formatEvents(one, 'json')), one);
  t.throws(() => formatEvents([...one, ...one], 'audacity'), { code: 'ERR_PANNS_OPTION' });
  t.throws(() => formatEvents(one, 'xml' as 'csv'), { code: 'ERR_PANNS_OPTION' });
});
