import t from 'tap';
import { createSchedule, type ScheduleOptions } from '../../lib/train/schedule.js';

const close = (a: number, b: number) => Math.abs(a - b) < 1e-15;

t.test('constant, as PANNs trains', async (t) => {
  const rate = createSchedule({ kind: 'constant', rate: 1e-3 });
  for (const step of [0, 1, 1e6]) t.equal(rate(step), 1e-3);
});

t.test('a warm-up rises in equal parts and meets the curve', async (t) => {
  const rate = createSchedule({ kind: 'constant', rate: 1, warmup: 4 });
  t.same([0, 1, 2, 3, 4, 5].map(rate), [0.25, 0.5, 0.75, 1, 1, 1]);
  const cosine = createSchedule({ kind: 'cosine', rate: 1, warmup: 10, steps: 30 });
  t.equal(cosine(9), 1);
  t.equal(cosine(10), 1);
  t.ok(close(cosine(4), 0.5));
});

t.test('cosine: half way down in the middle, the floor at the end and after', async (t) => {
  const rate = createSchedule({ kind: 'cosine', rate: 3, floor: 1, steps: 100 });
  t.equal(rate(0), 3);
  t.ok(close(rate(50), 2));
  t.ok(close(rate(25), 2 + Math.SQRT1_2));
  t.equal(rate(100), 1);
  t.equal(rate(1000), 1);
  for (let step = 1; step <= 100; step++) t.ok(rate(step) < rate(step - 1));
});

t.test('step: falls by the factor after each interval', async (t) => {
  const rate = createSchedule({ kind: 'step', rate: 8, every: 10, factor: 0.5 });
  t.same([0, 9, 10, 19, 20, 30].map(rate), [8, 8, 4, 4, 2, 1]);
  t.ok(close(createSchedule({ kind: 'step', rate: 1, every: 1 })(2), 0.01));
});

t.test('options are checked', async (t) => {
  const faults: [unknown, RegExp][] = [
    [{ kind: 'constant', rate: -1 }, /expected rate to be .*, got -1/],
    [{ kind: 'constant', rate: NaN }, /expected rate to be .*, got NaN/],
    [{ kind: 'constant' }, /expected rate to be .*, got undefined/],
    [{ kind: 'constant', rate: 1, warmup: 1.5 }, /expected warmup to be .*, got 1.5/],
    [{ kind: 'cosine', rate: 1, steps: 10, warmup: 10 }, /whole number > warmup \(10\)/],
    [{ kind: 'cosine', rate: 1, steps: 10, floor: 2 }, /expected floor to be .*, got 2/],
    [{ kind: 'step', rate: 1, every: 0 }, /expected every to be .*, got 0/],
    [{ kind: 'step', rate: 1, every: 1, factor: 0 }, /expected factor to be .*, got 0/],
    [{ kind: 'constant', rate: 1, steps: 5 }, /unknown option "steps"/],
    [{ kind: 'cosin', rate: 1 }, /expected kind to be one of .*perhaps cosine, got cosin/],
  ];
  for (const [options, message] of faults) {
    const make = () => createSchedule(options as ScheduleOptions);
    t.throws(make, { code: 'ERR_PANNS_OPTION', message }, String(message));
  }
});
