import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { toInt16 } from '../../lib/audio/int16.js';
import { loadAudio } from '../../lib/audio/load.js';
import { encodeWav16 } from '../../lib/audio/wav.js';
import type { Clip } from '../../lib/data/dataset.js';
import { type Batch, createBatchLoader, type LoaderOptions } from '../../lib/data/loader.js';
import { createRandom } from '../../lib/data/random.js';
import { type DecodeRequest, rememberClips } from '../../lib/data/reader.js';
import { balancedSampler, sequentialSampler, uniformSampler } from '../../lib/data/sampler.js';
import { PannsError } from '../../lib/errors.js';
import { freshSeed } from './fresh_seed.js';

const S = 50;
const K = 4;
/** How long decoders take, of loaders that are compared too. */
const pauses = createRandom(freshSeed(t));

/** Clips of every length around S, each with its own samples, and a decoder that counts its work. */
function fixture(count: number, seed: number) {
  const random = createRandom(seed);
  const clips: Clip[] = Array.from({ length: count }, (_, i) => ({
    id: `clip${i}`,
    path: `/audio/${i}.wav`,
    labels: i % 5 === 0 ? [i % K, (i + 1) % K].sort() : [i % K],
  }));
  const audio = new Map(
    clips.map(({ path }) => {
      const length = 1 + random.integer(2 * S);
      return [path, new Float32Array(length).map(() => random.between(-1.2, 1.2))];
    }),
  );
  const asked: DecodeRequest[] = [];
  const decode = async (requests: readonly DecodeRequest[]) => {
    asked.push(...requests);
    // Some batches take longer than others.
    const ticks = pauses.integer(4);
    for (let i = 0; i < ticks; i++) await new Promise(setImmediate);
    return requests.map(({ path }) => audio.get(path) ?? new Error('no such file'));
  };
  const options = (over: Partial<LoaderOptions> = {}): LoaderOptions => ({
    clips,
    classes: K,
    samplesPerClip: S,
    sampleRate: 8000,
    decode,
    sampler: uniformSampler(count, seed),
    batchSize: 6,
    ...over,
  });
  return { clips, audio, asked, decode, options };
}

async function take(loader: AsyncIterator<Batch>, count: number): Promise<Batch[]> {
  const batches: Batch[] = [];
  while (batches.length < count) {
    const { done, value } = await loader.next();
    if (done) break;
    batches.push(value);
  }
  return batches;
}

const essence = (batches: Batch[]) =>
  batches.map(({ waveform, target, lambda, indices }) => ({ waveform, target, lambda, indices }));

t.test('a batch holds what its clips hold, cut or padded, through int16', async (t) => {
  const { clips, audio, options } = fixture(11, freshSeed(t));
  const batches = await take(createBatchLoader(options({ sampler: sequentialSampler(11) })), 9);
  t.same(
    batches.map(({ indices }) => indices.length),
    [6, 5],
    'the last batch is what is left',
  );
  t.same(
    batches.flatMap(({ indices }) => indices),
    [...clips.keys()],
  );
  for (const { waveform, target, indices, lambda } of batches) {
    t.equal(waveform.length, indices.length * S);
    t.equal(target.length, indices.length * K);
    t.equal(lambda, undefined);
    for (const [row, index] of indices.entries()) {
      const clip = clips[index];
      const source = audio.get(clip?.path ?? '') ?? new Float32Array(0);
      for (let i = 0; i < S; i++) {
        // The rule in plain words: clip, scale, cut the fraction off.
        const clipped = Math.min(1, Math.max(-1, source[i] ?? 0));
        const expected = Math.trunc(clipped * 32767);
        if (waveform[row * S + i] !== expected + 0) t.fail(`clip ${index} sample ${i}`);
      }
      const row01 = [...target.subarray(row * K, row * K + K)];
      t.same(
        row01,
        Array.from({ length: K }, (_, k) => (clip?.labels.includes(k) ? 1 : 0)),
      );
    }
  }
});

t.test('after the first epoch nothing is decoded, unless memory or the cache is off', async (t) => {
  const seed = freshSeed(t);
  const reference = fixture(12, seed);
  const expected = essence(await take(createBatchLoader(reference.options()), 8));
  t.equal(reference.asked.length, 12, 'each clip once');

  const off = fixture(12, seed);
  const plain = createBatchLoader(off.options({ cache: 'none', prefetch: 0 }));
  t.same(essence(await take(plain, 8)), expected);
  t.equal(off.asked.length, 48);
  t.equal(plain.cachedBytes, 0);

  const small = fixture(12, seed);
  const limited = createBatchLoader(small.options({ cacheBytes: 5 * 2 * S }));
  t.same(essence(await take(limited, 8)), expected, 'the memory limit does not change a batch');
  t.ok(limited.cachedBytes > 0 && limited.cachedBytes <= 5 * 2 * S);
  t.ok(small.asked.length > 12 && small.asked.length < 48);
});

t.test('requests say what is wanted; parts are cut to their duration', async (t) => {
  const { asked, options, clips } = fixture(1, freshSeed(t));
  const part = { ...clips[0], start: 1.5, duration: 0.0025 } as Clip;
  const long = new Float32Array(S).fill(0.5);
  const decode = async (requests: readonly DecodeRequest[]) => {
    asked.push(...requests);
    return [long];
  };
  const loader = createBatchLoader(
    options({ clips: [part], batchSize: 1, sampler: sequentialSampler(1), decode }),
  );
  const [batch] = await take(loader, 1);
  t.same(asked, [
    { path: '/audio/0.wav', sampleRate: 8000, maxSamples: S, start: 1.5, duration: 0.0025 },
  ]);
  t.equal(batch?.waveform.filter((x) => x !== 0).length, 20, '0.0025 s at 8 kHz');
});

t.test('mixup draws pairs, with weights that a resumed run draws again', async (t) => {
  const seed = freshSeed(t);
  const make = () => fixture(30, seed).options({ mixup: true, batchSize: 3, seed });
  const batches = await take(createBatchLoader(make()), 10);
  for (const { indices, lambda, waveform } of batches) {
    t.equal(indices.length, 6);
    t.equal(waveform.length, 6 * S);
    t.equal(lambda?.length, 6);
    for (let i = 0; i < 6; i += 2) {
      t.ok(Math.abs((lambda?.[i] ?? 0) + (lambda?.[i + 1] ?? 0) - 1) < 1e-6);
    }
  }
  t.equal(new Set(batches.map(({ lambda }) => String(lambda))).size, 10);
  const odd = createBatchLoader({
    ...make(),
    clips: fixture(5, seed).clips,
    sampler: sequentialSampler(5),
  });
  t.equal(
    (await take(odd, 5)).reduce((sum, { indices }) => sum + indices.length, 0),
    4,
    'pairs only',
  );
});

t.test('a run that stops anywhere goes on as if it had not', async (t) => {
  const seed = freshSeed(t);
  const labels = fixture(40, seed).clips.map((clip) => clip.labels);
  const samplers = [() => uniformSampler(40, seed), () => balancedSampler(labels, K, seed)];
  for (const sampler of samplers) {
    const options = () => fixture(40, seed).options({ sampler: sampler(), mixup: true, seed });
    const whole = essence(await take(createBatchLoader(options()), 20));
    for (const [stop, prefetch] of [
      [0, 2],
      [1, 5],
      [7, 0],
      [13, 3],
    ] as const) {
      const first = createBatchLoader({ ...options(), prefetch });
      const before = await take(first, stop);
      // Let the loader run ahead: its state must still be that of the last batch handed out.
      for (let i = 0; i < 30; i++) await new Promise(setImmediate);
      const state = JSON.parse(JSON.stringify(first.state()));
      if (stop > 0) t.same(state, JSON.parse(JSON.stringify(before.at(-1)?.stateAfter)));
      first.close();
      const second = createBatchLoader(options(), state);
      t.same(essence(await take(second, 20 - stop)), whole.slice(stop), `stopped after ${stop}`);
    }
  }
  const broken = { sampler: uniformSampler(40, seed).state(), batch: -1 };
  const options = fixture(40, seed).options();
  t.throws(() => createBatchLoader(options, broken), { code: 'ERR_PANNS_CHECKPOINT' });
  t.throws(() => createBatchLoader(options, {} as never), { code: 'ERR_PANNS_CHECKPOINT' });
});

t.test('batches are made ahead, no more than asked for, one decode at a time', async (t) => {
  const { options, decode } = fixture(60, freshSeed(t));
  let running = 0;
  let calls = 0;
  const watched = async (requests: readonly DecodeRequest[]) => {
    calls++;
    t.equal(++running, 1);
    const results = await decode(requests);
    running--;
    return results;
  };
  const loader = createBatchLoader(options({ decode: watched, prefetch: 3 }));
  t.equal(calls, 0, 'nothing happens before the first batch is asked for');
  await loader.next();
  // Rows are filled by threads, which take their time; then nothing more is to come.
  for (let i = 0; calls < 4 && i < 1000; i++) await sleep(5);
  await sleep(50);
  t.equal(calls, 4);
  loader.close();
  t.same(await loader.next(), { done: true, value: undefined });
});

t.test('breaking out of a loop keeps the place; close ends', async (t) => {
  const seed = freshSeed(t);
  const expected = essence(await take(createBatchLoader(fixture(20, seed).options()), 6));
  const loader = createBatchLoader(fixture(20, seed).options());
  const seen: Batch[] = [];
  for (const stop of [2, 3, 6]) {
    for await (const batch of loader) {
      seen.push(batch);
      if (seen.length === stop) break;
    }
  }
  t.same(essence(seen), expected);
});

t.test('bad clips are named', async (t) => {
  const { clips, audio, options } = fixture(40, freshSeed(t));
  audio.delete('/audio/3.wav');
  audio.set('/audio/5.wav', new Float32Array(0));
  audio.set('/audio/8.wav', new Float32Array([0, Number.NaN]));
  audio.set('/audio/9.wav', new Float32Array([0, 0.5, Infinity]));
  const loader = createBatchLoader(options({ sampler: sequentialSampler(40), batchSize: 20 }));
  const error = await loader.next().catch((e: unknown) => e);
  t.match(error, { code: 'ERR_PANNS_DATA' });
  const { message } = error as PannsError;
  t.match(
    message,
    /4 clips cannot be decoded: clip3 \(no such file\), clip5 \(it holds no samples\)/,
  );
  t.match(message, /clip8 \(sample 1 is NaN\), clip9 \(sample 2 is Infinity\)/);
  await t.rejects(loader.next(), { code: 'ERR_PANNS_DATA' }, 'and it stays so');
  for (const { path } of clips) audio.delete(path);
  const many = createBatchLoader(options({ sampler: sequentialSampler(40), batchSize: 40 }));
  await t.rejects(many.next(), { message: /40 clips.*clip9 \(no such file\) and 30 more/ });
});

t.test('a decoder that fails as a whole, or answers wrongly, is reported', async (t) => {
  const { options } = fixture(10, freshSeed(t));
  const failure = new PannsError('ERR_PANNS_AUDIO_LIBRARY', 'the decoder is gone');
  const failing = createBatchLoader(options({ decode: () => Promise.reject(failure) }));
  await t.rejects(failing.next(), failure);
  await t.rejects(createBatchLoader(options({ decode: async () => [] })).next(), {
    code: 'ERR_PANNS_OPTION',
    message: /0 results for 6 requests/,
  });
  const integers = (requests: readonly unknown[]) => requests.map(() => new Int16Array(4));
  const decode = async (requests: readonly unknown[]) =>
    integers(requests) as unknown as Float32Array[];
  await t.rejects(createBatchLoader(options({ decode })).next(), {
    ...{ code: 'ERR_PANNS_OPTION', message: /expected decode to give Float32Arrays.*Int16Array/ },
  });
  const clips = [{ id: 'lone', path: 'lone.wav', label: 1 } as unknown as Clip];
  t.throws(() => createBatchLoader(options({ clips })), {
    ...{ code: 'ERR_PANNS_OPTION', message: /labels of clip lone to be a list.*undefined/ },
  });
});

t.test('skipped clips are replaced, the order and the resumed order stay exact', async (t) => {
  const seed = freshSeed(t);
  const bad = [2, 7, 11];
  const make = (over: Partial<LoaderOptions> = {}) => {
    const { audio, options } = fixture(15, seed);
    for (const index of bad) audio.delete(`/audio/${index}.wav`);
    return options({ onBadClip: 'skip', ...over });
  };
  const loader = createBatchLoader(make());
  const batches = await take(loader, 12);
  const drawn = batches.flatMap(({ indices }) => [...indices]);
  const good = uniformSampler(15, seed)
    .take(500)
    .filter((index) => !bad.includes(index));
  t.same(drawn, good.slice(0, drawn.length), "the sampler's own order without the bad clips");
  t.equal(drawn.length, 72, 'full batches');
  t.same(loader.skipped.map(({ id }) => id).sort(), ['clip11', 'clip2', 'clip7']);
  t.match(loader.skipped[0], { reason: 'no such file' });
  const resumed = createBatchLoader(make(), batches[4]?.stateAfter);
  t.same(essence(await take(resumed, 7)), essence(batches.slice(5)));
  const finite = createBatchLoader(make({ sampler: sequentialSampler(15) }));
  t.equal(
    (await take(finite, 9)).reduce((sum, { indices }) => sum + indices.length, 0),
    12,
  );
  const lost = createBatchLoader(make({ decode: async (r) => r.map(() => new Error('gone')) }));
  await t.rejects(lost.next(), { code: 'ERR_PANNS_DATA', message: /no clip that is drawn/ });
});

t.test('options are checked', async (t) => {
  const { options, clips } = fixture(3, 1);
  const faults: Partial<LoaderOptions>[] = [
    { batchSize: 0 },
    { samplesPerClip: 1.5 },
    { classes: 0 },
    { prefetch: -1 },
    { mixupAlpha: 0 },
    { cacheBytes: Number.NaN },
    { clips: [] },
    { clips: [{ ...(clips[0] as Clip), labels: [K] }] },
    { batchsize: 3 } as never,
    { cache: 'disk' as never },
    { onBadClip: 'ignore' as never },
  ];
  for (const fault of faults) {
    const name = Object.keys(fault).join();
    t.throws(() => createBatchLoader(options(fault)), { code: 'ERR_PANNS_OPTION' }, name);
  }
});

t.test('int16 and back is exact to one step, and exact on its own values', async (t) => {
  const random = createRandom(freshSeed(t));
  const samples = new Float32Array(10_000).map(() => random.between(-1.5, 1.5));
  const packed = toInt16(samples);
  samples.forEach((sample, i) => {
    const clipped = Math.max(-1, Math.min(1, sample));
    const lost = Math.abs(clipped) - Math.abs((packed[i] ?? Number.NaN) / 32767);
    if (!(lost > -1e-7 && lost < 1 / 32767)) t.fail(`${sample} became ${packed[i]}`);
  });
  t.same(
    [...toInt16(new Float32Array([1, -1, 2, -2, 0.99999, -0.00003, Number.NaN]))],
    [32767, -32767, 32767, -32767, 32766, 0, 0],
  );
});

t.test('longer clips give another part each epoch, the same for the same seed', async (t) => {
  const seed = freshSeed(t);
  const rate = 8000;
  const { clips, asked, options } = fixture(4, seed);
  // 30 samples, 50, 51 and 4000; the third begins 100 samples into its file.
  const lengths = [30, 50, 51, 4000].map((samples) => samples / rate);
  const parts = clips.map((clip, i) => (i === 2 ? { ...clip, start: 100 / rate } : clip));
  const decode = async (requests: readonly DecodeRequest[]) => {
    asked.push(...requests);
    return requests.map(({ start = 0, maxSamples }) => {
      // A little more than a whole step: 16 bits hold the step, rounded or cut.
      return new Float32Array(maxSamples).fill((Math.round(start * rate) + 0.25) / 32767);
    });
  };
  const run = async (over: Partial<LoaderOptions>, epochs: number) => {
    const all = { clips: parts, decode, lengths, batchSize: 4, seed, prefetch: 0, ...over };
    const batches = await take(createBatchLoader(options(all)), epochs);
    // Where each clip began, epoch by epoch.
    return batches.map(({ waveform, indices }) => {
      const first = indices.map((_, row) => Number(waveform[row * S]));
      const scale = waveform instanceof Int16Array ? 1 : 32767;
      return clips.map((_, i) => Math.round((first[indices.indexOf(i)] ?? NaN) * scale));
    });
  };
  const starts = await run({}, 200);
  for (const [short, same, close] of starts) {
    t.ok(short === 0 && same === 0 && (close === 100 || close === 101), `${short} ${close}`);
  }
  const column = (i: number) => starts.map((row) => row[i] ?? NaN);
  t.equal(new Set(column(2)).size, 2, 'the first and the last place are both drawn');
  const long = column(3);
  t.ok(long.every((at) => at >= 0 && at <= 4000 - S));
  t.ok(new Set(long).size > 150);
  const mean = long.reduce((sum, at) => sum + at / 200, 0);
  // Uniform in 0..3950: the mean of 200 has a standard deviation of 81.
  t.ok(Math.abs(mean - 1975) < 6 * 81, `mean ${mean}`);
  t.same(await run({ cache: 'none' }, 200), starts, 'whatever is cached');
  t.not((await run({ seed: seed + 1 }, 1))[0]?.[3], starts[0]?.[3]);
  asked.length = 0;
  await run({}, 5);
  // The first two are kept, the others are decoded anew.
  t.equal(asked.length, 2 + 5 * 2);
  t.ok(asked.every(({ maxSamples }) => maxSamples === S));
  t.same(new Set((await run({ lengths: [NaN, NaN, NaN, NaN] }, 5)).map(String)).size, 1);
});

t.test('memory goes round, and what was not given back is never written to', async (t) => {
  const seed = freshSeed(t);
  const { audio, clips, options } = fixture(25, seed);
  const random = createRandom(seed, 1);
  // Bad clips let rows move up; a small cache leaves clips to decode each time.
  for (const index of [3, 4, 11, 20]) audio.delete(clips[index]?.path ?? '');
  const rowOf = (index: number): Int16Array => {
    const row = new Int16Array(S);
    toInt16((audio.get(clips[index]?.path ?? '') as Float32Array).subarray(0, S), row);
    return row;
  };
  const labels = clips.map((clip) => clip.labels);
  for (const cacheBytes of [0, 7 * 2 * S, 1e6]) {
    const loader = createBatchLoader(
      // Balanced sampling draws some clips twice for a batch.
      options({
        ...{ sampler: balancedSampler(labels, K, seed), batchSize: 16, cacheBytes, prefetch: 1 },
        onBadClip: 'skip',
      }),
    );
    const held: { batch: Batch; copy: Int16Array }[] = [];
    const buffers = new Set<ArrayBufferLike>();
    let [most, twice] = [0, 0];
    for (let step = 0; step < 40; step++) {
      const [batch] = await take(loader, 1);
      if (batch === undefined) throw new Error('no batch');
      const wrong = batch.indices.filter((index, row) => {
        const got = batch.waveform.subarray(row * S, (row + 1) * S);
        return `${got}` !== `${rowOf(index)}`;
      });
      t.same(wrong, [], 'rows are their clips, in memory that others had before');
      twice += batch.indices.length - new Set(batch.indices).size;
      held.push({ batch, copy: Int16Array.from(batch.waveform) });
      buffers.add(batch.waveform.buffer);
      most = Math.max(most, held.length);
      while (held.length > 0 && random.integer(5) > 1) {
        const [given] = held.splice(random.integer(held.length), 1);
        loader.release?.(given?.batch as Batch<Int16Array>);
        // Once is enough; nor is anything else taken for one of its own.
        loader.release?.(given?.batch as Batch<Int16Array>);
        loader.release?.({ ...(given?.batch as Batch), waveform: new Int16Array(16 * S) });
      }
      await new Promise(setImmediate);
      for (const { batch: kept, copy } of held) {
        if (`${kept.waveform}` !== `${copy}`) t.fail('a batch that was kept has changed');
      }
    }
    t.ok(twice > 0, 'some clips came twice in a batch');
    t.equal(loader.skipped.length, 4);
    // Those held, two ahead (one being made), and the one in hand.
    t.ok(buffers.size <= most + 3, `${buffers.size} buffers, ${most} held`);
    loader.close();
  }
});

t.test(
  'files on the threads of the addon: the bits of a decoder, and the same reasons',
  async (t) => {
    const seed = freshSeed(t);
    const random = createRandom(seed);
    const folder = t.testdir();
    const rate = 8000;
    const length = 700;
    const lengths: number[] = [];
    const clips = await Promise.all(
      Array.from({ length: 12 }, async (_, i): Promise<Clip> => {
        const path = join(folder, `${i}.wav`);
        const sound = new Float32Array(1 + random.integer(2 * length)).map(() =>
          random.between(-1, 1),
        );
        const own = i % 2 === 0 ? rate : 11_025;
        // Of those that are longer another part comes each time.
        lengths[i] = i % 4 !== 0 && i % 3 === 1 ? sound.length / own : Number.NaN;
        const bytes = encodeWav16(sound, own);
        await writeFile(path, i === 5 ? bytes.subarray(0, 20) : bytes);
        return { id: `clip${i}`, path, labels: [i % K], ...(i % 4 === 0 && { duration: 0.01 }) };
      }),
    );
    const decode = (requests: readonly DecodeRequest[]) =>
      Promise.all(
        requests.map(({ path, maxSamples, ...request }) =>
          loadAudio(path, request).then(
            ({ samples }) => samples,
            (error: Error) => error,
          ),
        ),
      );
    const base = {
      clips,
      classes: K,
      samplesPerClip: length,
      sampleRate: rate,
      batchSize: 5,
      seed,
    };
    const make = (over: Partial<LoaderOptions>) =>
      createBatchLoader({
        ...{ ...base, sampler: uniformSampler(12, seed), onBadClip: 'skip' as const },
        ...{ lengths: clips.map((_, i) => (i % 3 === 0 ? 2 * length : Number.NaN) / rate) },
        ...over,
      });
    const one = make({ decode });
    const two = make({});
    t.same(essence(await take(two, 9)), essence(await take(one, 9)));
    t.same(
      two.skipped.map(({ id }) => id),
      one.skipped.map(({ id }) => id),
    );
    const reason = two.skipped.find(({ id }) => id === 'clip5')?.reason ?? '';
    t.match(reason, /5\.wav/);
    t.equal(two.cachedBytes, one.cachedBytes);
    t.ok(two.cachedBytes > 0);
    const shared = rememberClips(1e9);
    const [three, four] = [make({ decode: shared }), make({ decode: shared })];
    const [a, b] = await Promise.all([take(three, 9), take(four, 9)]);
    const expected = essence(await take(make({}), 9));
    t.same(essence(a), expected, 'two loaders over one memory');
    t.same(essence(b), expected);
    t.equal(three.cachedBytes, 0, 'which is not theirs');
  },
);

t.test('closing stops what is being decoded, and calls no clip bad for it', async (t) => {
  const path = join(t.testdir(), 'long.wav');
  await writeFile(path, encodeWav16(new Float32Array(8000 * 60).fill(0.25), 8000));
  const clips = Array.from({ length: 400 }, (_, i) => ({
    id: `${i}`,
    path,
    labels: [0],
    start: i / 10,
  }));
  for (const onBadClip of ['throw', 'skip'] as const) {
    const loader = createBatchLoader({
      ...{ clips, classes: 1, samplesPerClip: 8000, sampleRate: 16_000, batchSize: 400 },
      ...{ sampler: sequentialSampler(400), onBadClip },
    });
    const next = loader.next();
    await new Promise(setImmediate); // the first clips are being read
    loader.close();
    t.same(await next, { done: true, value: undefined }, 'no error, whatever was under way');
    t.same(loader.skipped, []);
  }
});
