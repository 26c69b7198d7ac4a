import t from 'tap';
import type { NativeModel, NativeSession, StepState } from '../../lib/addon.js';
import { decodeAudio } from '../../lib/audio/decode.js';
import { encodeWav16 } from '../../lib/audio/wav.js';
import { loadNative } from '../../lib/native.js';
import { freshSeed } from '../data/fresh_seed.js';
import { CLASSES, randomBatch, SECOND, sessionOptions, smallModel } from './small_model.js';

t.jobs = 1;

const addon = loadNative();
const { spec } = smallModel();
const OUT = ['clipwise_output'];

/** ES2024's resizable buffers, which Node 20 has and the types of ES2023 do not know. */
type Resizable = ArrayBuffer & { resize(bytes: number): void };
const ResizableBuffer = ArrayBuffer as unknown as new (
  bytes: number,
  options: { maxByteLength?: number },
) => Resizable;

async function newModel(): Promise<NativeModel> {
  const model = await addon.createModel(spec, { device: 'cpu', threads: 1 }, SECOND);
  await model.initialise(3n);
  return model;
}

async function score(model: NativeModel, waveform: Float32Array): Promise<Float32Array> {
  return (await model.infer(waveform, 1, SECOND, OUT)).clipwise_output as Float32Array;
}

const state: StepState = { seed: 5n, step: 0, lr: 1e-3, maxNorm: 0, update: false };

async function newSession(model: NativeModel): Promise<NativeSession> {
  return addon.createSession(model, spec, sessionOptions(2, SECOND));
}

function shared(values: Float32Array): Float32Array {
  const array = new Float32Array<ArrayBufferLike>(new SharedArrayBuffer(values.byteLength));
  array.set(values);
  return array;
}

/** Keeps the engine's only thread at work, so that what is posted next has not begun. */
function occupy(model: NativeModel): Promise<unknown> {
  return model.infer(new Float32Array(40 * SECOND), 40, SECOND, OUT);
}

t.test('a plain array is copied before the call returns', async (t) => {
  const model = await newModel();
  const { waveform } = randomBatch(freshSeed(t), 1, SECOND);
  const expected = await score(model, waveform);
  const ways: Record<string, (array: Float32Array<Resizable>) => void> = {
    overwritten: (array) => array.fill(Number.NaN),
    transferred: (array) => structuredClone(array.buffer, { transfer: [array.buffer] }),
    'shrunk and grown': (array) => {
      array.buffer.resize(4);
      array.buffer.resize(4 * SECOND);
    },
    'shrunk to nothing': (array) => array.buffer.resize(0),
  };
  for (const [way, change] of Object.entries(ways)) {
    const buffer = new ResizableBuffer(
      4 * SECOND,
      way.startsWith('shrunk') ? { maxByteLength: 8 * SECOND } : {},
    );
    const array = new Float32Array(buffer);
    array.set(waveform);
    const busy = occupy(model);
    const answer = score(model, array);
    change(array);
    t.same(await answer, expected, `${way} right after the call`);
    await busy;
  }
});

t.test('shared memory is read in place when the job runs', async (t) => {
  const model = await newModel();
  const random = randomBatch(freshSeed(t), 2, SECOND).waveform;
  const [first, second] = [random.slice(0, SECOND), random.slice(SECOND)];
  const array = shared(first);
  t.same(await score(model, array), await score(model, first), 'the same numbers as from a copy');
  const busy = occupy(model);
  const answer = score(model, array);
  array.set(second);
  t.same(await answer, await score(model, second), 'what was written before the job began counts');
  await busy;
});

t.test(
  "a file's bytes are read in place where they are shared, and copied elsewhere",
  async (t) => {
    const random = randomBatch(freshSeed(t), 2, SECOND).waveform;
    const files = [0, 1].map((i) =>
      encodeWav16(random.slice(i * SECOND, (i + 1) * SECOND), SECOND),
    );
    const [first, second] = files as [Uint8Array, Uint8Array];
    const samples = async (bytes: Uint8Array) => (await decodeAudio(bytes)).channels[0];
    const [own, other] = [await samples(first), await samples(second)];
    t.ok(own?.some((sample, i) => sample !== other?.[i]));
    // Half a minute to another rate keeps the engine's thread at work, so that what follows waits.
    const long = encodeWav16(randomBatch(1, 1, 30 * 44100).waveform, 44100);
    for (const [memory, expected] of [
      [new SharedArrayBuffer(first.length), other],
      [new ArrayBuffer(first.length), own],
    ] as const) {
      const bytes = new Uint8Array<ArrayBufferLike>(memory);
      bytes.set(first);
      const busy = decodeAudio(long, { sampleRate: 32000 });
      const answer = samples(bytes);
      bytes.set(second);
      t.same(await answer, expected, memory.constructor.name);
      await busy;
    }
  },
);

t.test('shared memory stays alive when nobody else holds it', async (t) => {
  const model = await newModel();
  const { waveform } = randomBatch(freshSeed(t), 1, SECOND);
  const expected = await score(model, waveform);
  const busy = occupy(model);
  const answers = Array.from({ length: 20 }, () => score(model, shared(waveform)));
  // Rubbish for the collector to run over.
  for (let i = 0; i < 50; i++) new Float32Array(250_000).fill(i);
  globalThis.gc?.();
  for (const answer of await Promise.all(answers)) t.same(answer, expected);
  await busy;
});

t.test('views at any offset', async (t) => {
  const model = await newModel();
  const { waveform } = randomBatch(freshSeed(t), 1, SECOND);
  const expected = await score(model, waveform);
  for (const make of [(n: number) => new ArrayBuffer(n), (n: number) => new SharedArrayBuffer(n)]) {
    for (const byteOffset of [0, 4, 8, 12, 60]) {
      const buffer = make(4 * SECOND + 64);
      new Float32Array(buffer).fill(Number.NaN);
      const view = new Float32Array<ArrayBufferLike>(buffer, byteOffset, SECOND);
      view.set(waveform);
      t.same(await score(model, view), expected, `${buffer.constructor.name} + ${byteOffset}`);
    }
  }
  // @types/node alone does not declare WebAssembly.
  const { WebAssembly } = globalThis as unknown as {
    WebAssembly: { Memory: new (o: object) => { buffer: SharedArrayBuffer } };
  };
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const view = new Float32Array(memory.buffer, 4, SECOND);
  view.set(waveform);
  t.same(await score(model, view), expected, "a WebAssembly module's shared memory");
});

t.test('other types and lengths are refused with ERR_PANNS_SHAPE', async (t) => {
  const model = await newModel();
  const session = await newSession(model);
  const { waveform, target } = randomBatch(1, 2, SECOND);
  const detached = new Float32Array(SECOND);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  const shrunk = new Float32Array(
    new ResizableBuffer(4 * SECOND, { maxByteLength: 8 * SECOND }),
    0,
    SECOND,
  );
  shrunk.buffer.resize(8);
  const wrong: Record<string, unknown> = {
    Float64Array: new Float64Array(SECOND),
    'number[]': Array.from({ length: SECOND }, () => 0),
    Buffer: Buffer.alloc(4 * SECOND),
    DataView: new DataView(new ArrayBuffer(4 * SECOND)),
    Int32Array: new Int32Array(SECOND),
    Uint16Array: new Uint16Array(SECOND),
    ArrayBuffer: new ArrayBuffer(4 * SECOND),
    SharedArrayBuffer: new SharedArrayBuffer(4 * SECOND),
    'array-like': { length: SECOND, buffer: new ArrayBuffer(4 * SECOND) },
    undefined: undefined,
    null: null,
    string: 'x'.repeat(SECOND),
    'one too few': new Float32Array(SECOND - 1),
    'one too many': new Float32Array(SECOND + 1),
    'one too few of 16 bits': new Int16Array(SECOND - 1),
    empty: new Float32Array(0),
    detached,
    'out of its shrunk buffer': shrunk,
  };
  for (const [name, value] of Object.entries(wrong)) {
    const array = value as Float32Array;
    const fails = { code: 'ERR_PANNS_SHAPE', message: /expected/ };
    await t.rejects(async () => model.infer(array, 1, SECOND, OUT), fails, `infer: ${name}`);
    await t.rejects(
      async () => session.step(array, target, undefined, state),
      fails,
      `step: ${name}`,
    );
    await t.rejects(
      async () => session.step(waveform, array, undefined, state),
      fails,
      `target: ${name}`,
    );
    await t.rejects(async () => model.set('fc_audioset.bias', array), fails, `set: ${name}`);
  }
  session.dispose();
});

t.test('sizes whose product does not fit are refused, not wrapped around', async (t) => {
  const model = await newModel();
  const features = addon.createFeatures(
    { sampleRate: 8000, windowSize: 256, hopSize: 80, melBins: 16, fmin: 50, fmax: 4000 },
    1,
  );
  const sizes = [
    [2 ** 32, 2 ** 32],
    [2 ** 62, 4],
    [-1, -8000],
    [0, 0],
    [Number.NaN, 1],
    [1.5, 8000],
  ] as const;
  for (const [batch, samples] of sizes) {
    for (const array of [new Float32Array(0), new Float32Array(SECOND)]) {
      const name = `${array.length} samples as ${batch} x ${samples}`;
      if (batch === 1.5 && array.length === SECOND) continue;
      await t.rejects(
        async () => model.infer(array, batch, samples, OUT),
        { code: /^ERR_PANNS_/ },
        name,
      );
      await t.rejects(
        async () => features.run(array, batch, samples, 'logmel'),
        { code: /^ERR_PANNS_/ },
        name,
      );
    }
  }
  t.same(
    await score(model, new Float32Array(SECOND)),
    await score(model, new Float32Array(SECOND)),
  );
});

t.test('NaN and infinite samples: scores say so, and the next clip is not touched', async (t) => {
  const model = await newModel();
  const { waveform, target } = randomBatch(freshSeed(t), 2, SECOND);
  const clean = (await model.infer(waveform, 2, SECOND, OUT)).clipwise_output as Float32Array;
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const spoilt = waveform.slice();
    spoilt[SECOND / 2] = bad;
    const scores = (await model.infer(spoilt, 2, SECOND, OUT)).clipwise_output as Float32Array;
    const own = Array.from(scores.subarray(0, CLASSES));
    t.ok(own.every(Number.isNaN), `${bad} shows as NaN in every score (${own})`);
    t.same(
      scores.subarray(CLASSES),
      clean.subarray(CLASSES),
      'the other clip of the batch is the same',
    );
  }
  t.same(
    (await model.infer(waveform, 2, SECOND, OUT)).clipwise_output,
    clean,
    'nothing is left behind',
  );

  const session = await newSession(model);
  const spoilt = waveform.slice();
  spoilt[7] = Number.NaN;
  const before = await weights(model);
  await t.rejects(session.step(spoilt, target, undefined, { ...state, update: true }), {
    code: 'ERR_PANNS_NAN',
  });
  t.same(await weights(model), before, 'a step that failed has changed no weight');
  const badTarget = target.slice();
  badTarget[0] = Number.NaN;
  await t.rejects(session.step(waveform, badTarget, undefined, { ...state, update: true }), {
    code: 'ERR_PANNS_NAN',
  });
});

t.test('update: false changes no weight', async (t) => {
  const model = await newModel();
  const session = await newSession(model);
  const { waveform, target } = randomBatch(freshSeed(t), 2, SECOND);
  const before = await weights(model);
  const { loss } = await session.step(waveform, target, undefined, state);
  t.ok(loss > 0);
  t.same(await weights(model), before);
});

/** What trains; the norms' running statistics follow every forward pass, as in PyTorch. */
async function weights(model: NativeModel): Promise<Record<string, Float32Array>> {
  const all: Record<string, Float32Array> = {};
  for (const { name, trainable } of model.parameters()) {
    if (trainable) all[name] = await model.get(name);
  }
  return all;
}
