import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Random } from '../../lib/data/random.js';
import { createEventFinder } from '../../lib/inference/events.js';
import { type FileEvent, merged } from '../../lib/metrics/event.js';
import { eventBasedMetrics } from '../../lib/metrics/event_based.js';
import { psds, psdsScenarios } from '../../lib/metrics/psds.js';
import { type DetectionScores, segmentBasedMetrics } from '../../lib/metrics/segment_based.js';
import { openDraws } from '../helpers/random.js';

const CLASSES = ['bark', 'rain', 'speech'];
const FILES = ['a.wav', 'b.wav', 'c.wav'];
const SECONDS = 10;

const close = (a: number, b: number) =>
  a === b || (Number.isNaN(a) && Number.isNaN(b)) || Math.abs(a - b) <= 1e-12 * (1 + Math.abs(b));

/** Events that do not overlap others of their class in their file, each with a length above 0. */
function drawEvents(random: Random, most: number): FileEvent[] {
  return FILES.flatMap((file) =>
    CLASSES.flatMap((label) => {
      const times = Array.from({ length: random.integer(most + 1) }, () => {
        const onset = random.between(0, SECONDS - 0.5);
        return { onset, offset: Math.min(SECONDS, onset + random.between(0.05, 3)) };
      });
      const apart = merged(times.sort((a, b) => a.onset - b.onset));
      return apart.map((interval) => ({ file, ...interval, label }));
    }),
  );
}

/** What a system might find: most of the reference, moved, some renamed or lost, some invented. */
function drawEstimate(random: Random, reference: readonly FileEvent[]): FileEvent[] {
  const moved = reference
    .filter(() => random.uniform() < 0.8)
    .map(({ file, onset, offset, label }) => {
      const from = Math.max(0, onset + 0.25 * random.normal());
      const other = random.uniform() < 0.15 ? (CLASSES[random.integer(3)] ?? label) : label;
      return {
        file,
        onset: from,
        offset: Math.max(from + 0.02, offset + 0.3 * random.normal()),
        label: other,
      };
    });
  return apart([...moved, ...drawEvents(random, 1)]);
}

/** psds_eval takes no events of a class that overlap. */
function apart(events: readonly FileEvent[]): FileEvent[] {
  return FILES.flatMap((file) =>
    CLASSES.flatMap((label) => {
      const own = events.filter((event) => event.file === file && event.label === label);
      const sorted = own.sort((a, b) => a.onset - b.onset);
      return merged(sorted).map((interval) => ({ file, ...interval, label }));
    }),
  );
}

const rows = (events: readonly FileEvent[]) =>
  events.map(({ file, onset, offset, label }) => [file, onset, offset, label]);

const e = (onset: number, offset: number, label = 'bark', file = 'a.wav'): FileEvent => {
  return { file, onset, offset, label };
};

t.test('segments by hand', async (t) => {
  // Reference: bark in 0, 1, 2; rain in 1. Found: bark in 1, rain in 1, speech in 2.
  const reference = [e(0.9, 2.1), e(1.2, 1.4, 'rain')];
  const found = [e(1.0, 1.5), e(1.9, 2, 'rain'), e(2.5, 2.9, 'speech')];
  const { overall, perClass, classAverage } = segmentBasedMetrics(reference, found);
  t.match(overall, { hits: 2, reference: 4, estimated: 3 });
  t.match(overall, { substitutions: 1, deletions: 1, insertions: 0, errorRate: 0.5 });
  t.equal(overall.precision, 2 / 3);
  t.equal(overall.recall, 0.5);
  t.same(
    perClass.map(({ label, hits }) => [label, hits]),
    [
      ['bark', 1],
      ['rain', 1],
      ['speech', 0],
    ],
  );
  t.equal(perClass[0]?.errorRate, 2 / 3);
  t.ok(Number.isNaN(perClass[2]?.errorRate), 'speech is not in the reference');
  t.ok(close(classAverage.errorRate, 1 / 3), 'the mean over the classes that have one');
});

t.test('events by hand', async (t) => {
  const reference = [e(1, 2), e(3, 8)];
  t.equal(eventBasedMetrics(reference, [e(1.19, 2.19)]).overall.hits, 1, 'within the collar');
  t.equal(eventBasedMetrics(reference, [e(1.21, 2)]).overall.hits, 0, 'the onset is not');
  t.equal(eventBasedMetrics(reference, [e(3, 8.9)]).overall.hits, 1, 'a fifth of the length');
  t.equal(eventBasedMetrics(reference, [e(1, 2.3)]).overall.hits, 0);
  t.equal(eventBasedMetrics(reference, [e(1, 7)], { onsetOnly: true }).overall.hits, 1);
  t.equal(eventBasedMetrics(reference, [e(1, 2, 'rain')]).overall.hits, 0, 'another class');
  t.equal(eventBasedMetrics(reference, [e(1, 2, 'bark', 'b.wav')]).overall.hits, 0, 'another file');
  // Whoever pairs the first reference with the first estimate leaves the second without.
  const chain = eventBasedMetrics([e(1, 2), e(1.15, 2)], [e(1.1, 2), e(0.85, 2)]);
  t.equal(chain.overall.hits, 2, 'as many pairs as possible');
});

t.test('a class that is never found has precision 0, or none', async (t) => {
  const reference = [e(0, 1), e(2, 3, 'rain')];
  const found = [e(0, 1)];
  t.equal(segmentBasedMetrics(reference, found).classAverage.f1, 0.5);
  const nan = segmentBasedMetrics(reference, found, { emptyPrecision: 'nan' });
  t.equal(nan.classAverage.f1, 1);
  t.ok(Number.isNaN(nan.perClass[1]?.f1));
  t.equal(eventBasedMetrics(reference, found).classAverage.f1, 0.5);
});

t.test('psds by hand', async (t) => {
  const durations = new Map([['a.wav', 3600]]);
  const reference = [e(10, 20), e(30, 40), e(50, 60, 'rain')];
  const rate = (points: FileEvent[][], changes = {}) =>
    psds({ reference, durations, operatingPoints: points }, { ...psdsScenarios.psds1, ...changes });
  t.equal(rate([reference]).value, 1, 'all of it and nothing else');
  const half = rate([[e(10, 20), e(50, 60, 'rain')]], { instabilityCost: 0 });
  t.equal(half.value, 0.75);
  t.same(half.perClass, [
    { label: 'bark', value: 0.5 },
    { label: 'rain', value: 1 },
  ]);
  // Half of bark, all of rain: mean 0.75, spread 0.25.
  t.equal(rate([[e(10, 20), e(50, 60, 'rain')]]).value, 0.5);
  // Two false positives an hour: of 100 allowed, the first two find nothing.
  const late = [...reference, e(100, 101), e(102, 103), e(200, 201, 'rain'), e(300, 301, 'rain')];
  t.ok(close(rate([late]).value, 0.98));
  t.ok(close(rate([late], { mostFalsePerHour: 4 }).value, 0.5));
  t.equal(rate([[e(10, 27)]], { detectionTolerance: 0.58, instabilityCost: 0 }).value, 0.25);
  t.equal(rate([[e(10, 27)]], { detectionTolerance: 0.6, instabilityCost: 0 }).value, 0);
});

t.test('wrong input is refused', async (t) => {
  const data = { code: 'ERR_PANNS_DATA' };
  const option = { code: 'ERR_PANNS_OPTION' };
  t.throws(() => segmentBasedMetrics([e(2, 1)], []), data);
  t.throws(() => segmentBasedMetrics([e(-1, 1)], []), data);
  t.throws(() => eventBasedMetrics([], [e(0, NaN)]), { ...data, message: /event 0 \(bark in a/ });
  t.throws(() => eventBasedMetrics([e(0, 1e12)], []), data);
  t.throws(() => segmentBasedMetrics([], [], { segmentSeconds: 0 }), option);
  t.throws(() => eventBasedMetrics([], [], { collar: -1 }), option);
  t.throws(() => eventBasedMetrics([], [], { colar: 1 } as object), {
    ...option,
    message: /collar/,
  });
  const input = { reference: [e(0, 1)], durations: new Map([['a.wav', 2]]), operatingPoints: [[]] };
  t.throws(() => psds({ ...input, durations: new Map() }), data);
  t.throws(() => psds({ ...input, reference: [] }), data);
  t.throws(() => psds({ ...input, operatingPoints: [] }), data);
  t.throws(() => psds(input, { ...psdsScenarios.psds1, detectionTolerance: 2 }), option);
  t.equal(psds(input).value, 0, 'nothing found');
});

const root = join(import.meta.dirname, '../..');
const own = join(root, '.venv/bin/python');
const python = process.env.PANNS_PYTHON ?? (existsSync(own) ? own : undefined);

t.test(
  'sed_eval, psds_eval and NumPy agree',
  {
    skip: python === undefined ? 'no Python: set PANNS_PYTHON or make .venv' : false,
    timeout: 300_000,
  },
  async (t) => {
    const { random } = openDraws(t);
    const cases = Array.from({ length: 16 }, (_, i) => {
      const reference = drawEvents(random, 4);
      const estimated = drawEstimate(random, reference);
      const shape = { segment: [0.5, 1, 1.7][i % 3] ?? 1, collar: 0.2, share: i % 2 ? 0.2 : 0.5 };
      return {
        classes: CLASSES,
        reference,
        estimated,
        ...shape,
        empty: i % 4 < 2 ? 'zero' : 'nan',
      } as const;
    });
    const polyphonic = Array.from({ length: 8 }, (_, i) => {
      // psds_eval wants every class in the reference.
      const sure = CLASSES.map((label) => e(9.6, 9.9, label, 'c.wav'));
      const reference = apart([...drawEvents(random, 3), ...sure]);
      const points = Array.from({ length: 4 }, () => drawEstimate(random, reference));
      const scenario = {
        ...(i % 2 ? psdsScenarios.psds1 : psdsScenarios.psds2),
        // Thirty seconds: one false positive is 120 an hour.
        mostFalsePerHour: [100, 700, 3000][i % 3] ?? 100,
        instabilityCost: [0, 0.5, 1][(i >> 1) % 3] ?? 0,
      };
      return { reference, points, scenario };
    });
    const medians = Array.from({ length: 30 }, () => {
      const levels = random.integer(2) ? 4 : 2 ** 20;
      const values = Array.from(
        { length: 1 + random.integer(60) },
        () => random.integer(levels) / levels,
      );
      return { values, size: 3 + 2 * random.integer(15) };
    });
    const request = {
      cases: cases.map((one) => ({
        ...one,
        reference: rows(one.reference),
        estimated: rows(one.estimated),
      })),
      psds: polyphonic.map(({ reference, points, scenario }) => {
        const durations = FILES.map((file) => [file, SECONDS]);
        return { scenario, durations, reference: rows(reference), points: points.map(rows) };
      }),
      medians,
    };
    const child = spawnSync(python ?? '', [join(root, 'test/oracle/events.py')], {
      input: JSON.stringify(request),
      encoding: 'utf8',
      maxBuffer: 1e8,
    });
    if (child.status === 3) {
      t.pass('not run', { skip: child.stderr.trim() });
      return;
    }
    t.equal(child.status, 0, child.stderr);
    type Wanted = {
      overall: DetectionScores;
      classAverage: DetectionScores;
      perClass: DetectionScores[];
    };
    const wanted = JSON.parse(
      child.stdout.replace(/\bNaN\b/g, 'null'),
      (_, value) => value ?? Number.NaN,
    ) as {
      cases: Record<'segments' | 'events' | 'onsets', Wanted>[];
      psds: { value: number; mean: number }[];
      medians: number[][];
    };
    for (const [i, { reference, estimated, segment, collar, share, empty }] of cases.entries()) {
      const options = { classes: CLASSES, emptyPrecision: empty };
      const ours = {
        segments: segmentBasedMetrics(reference, estimated, {
          ...options,
          segmentSeconds: segment,
        }),
        events: eventBasedMetrics(reference, estimated, { ...options, collar, offsetShare: share }),
        onsets: eventBasedMetrics(reference, estimated, { ...options, collar, onsetOnly: true }),
      };
      for (const kind of ['segments', 'events', 'onsets'] as const) {
        const theirs = wanted.cases[i]?.[kind];
        const { overall, classAverage, perClass } = ours[kind];
        const pairs: [string, Partial<DetectionScores>, DetectionScores | undefined][] = [
          ['overall', overall, theirs?.overall],
          ['average', classAverage, theirs?.classAverage],
          ...perClass.map(
            (one, k) =>
              [one.label, one, theirs?.perClass[k]] as [string, DetectionScores, DetectionScores],
          ),
        ];
        // Theirs divides by almost nothing where there is no reference; ours is NaN.
        const whole = perClass.every((one) => one.reference > 0);
        for (const [name, got, want] of pairs) {
          for (const key of ['f1', 'precision', 'recall', 'errorRate'] as const) {
            if (key === 'errorRate' && !(key in got && whole)) continue;
            const fits = close(got[key] ?? Infinity, want?.[key] ?? Infinity);
            if (!fits)
              t.fail(`${kind} ${name} ${key} of case ${i}: ${got[key]}, not ${want?.[key]}`);
          }
        }
      }
    }
    const durations = new Map(FILES.map((file) => [file, SECONDS]));
    for (const [i, { reference, points, scenario }] of polyphonic.entries()) {
      const got = psds({ reference, durations, operatingPoints: points }, scenario);
      const mean = got.perClass.reduce((sum, { value }) => sum + value, 0) / got.perClass.length;
      const want = wanted.psds[i];
      t.ok(
        Math.abs(got.value - (want?.value ?? NaN)) < 1e-9,
        `psds ${i}: ${got.value}, ${want?.value}`,
      );
      t.ok(Math.abs(mean - (want?.mean ?? NaN)) < 1e-9, `mean of the classes ${i}: ${mean}`);
    }
    t.ok(
      wanted.psds.some(({ value }) => value > 0.1),
      'not all scores are 0',
    );
    for (const [i, { values, size }] of medians.entries()) {
      const got = await medianBySteps(values, size);
      if (!got.every((value, k) => value === wanted.medians[i]?.[k])) {
        t.fail(`median of ${size} over ${values.length}`, { values, got, want: wanted.medians[i] });
      }
    }
  },
);

/** What the filter makes of scores, seen through thresholds: which of them each frame reaches. */
async function medianBySteps(values: readonly number[], size: number): Promise<number[]> {
  const result = values.map(() => -1);
  for (const level of [...new Set(values)].sort((a, b) => a - b)) {
    const finder = createEventFinder(['x'], 1, { medianSeconds: size, threshold: level });
    const split = values.length >> 1;
    const events = await finder.push(Float32Array.from(values.slice(0, split)));
    events.push(...(await finder.push(Float32Array.from(values.slice(split)))));
    events.push(...finder.finish(values.length));
    for (const { onset, offset } of events) result.fill(level, onset, offset);
  }
  return result;
}
