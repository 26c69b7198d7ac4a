// Drives the addon by itself in a worker thread (told by workerData) or a process (by JSON on its
// standard input), without TypeScript: it starts in milliseconds, and what is measured is the addon's.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';

const request = isMainThread ? JSON.parse(readFileSync(0, 'utf8')) : workerData;
const { job, spec, batch = 1, samples = 8000, threads = 1, seed = 1 } = request;
const addon = createRequire(import.meta.url)(request.binding);

/** A line for the parent process, or a message for the parent thread. */
function report(fields) {
  if (isMainThread) process.stdout.write(`${JSON.stringify(fields)}\n`);
  else parentPort.postMessage(fields);
}

/** Noise that depends on the seed alone. */
function noise(length) {
  let state = seed >>> 0 || 1;
  return new Float32Array(length).map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

async function newModel() {
  const model = await addon.createModel(spec, { device: 'cpu', threads }, samples);
  await model.initialise(BigInt(seed));
  return model;
}

async function newSession(model) {
  const classes = spec.nodes[spec.outputs.logits].attrs.out_features;
  const session = await addon.createSession(model, spec, {
    ...{ batch, samples, mixup: false, loss: 'bce', frozen: [], passesOff: [] },
    optimizer: { kind: 'adam', attrs: {} },
  });
  const waveform = noise(batch * samples);
  const target = noise(batch * classes).map((x) => (x > 0.4 ? 1 : 0));
  const step = (index, update = true) =>
    session.step(waveform, target, undefined, {
      ...{ seed: BigInt(seed), step: index, lr: 1e-3, maxNorm: 0, update },
    });
  return { session, step };
}

const jobs = {
  /** Trains until it is stopped from outside. */
  async train() {
    const { step } = await newSession(await newModel());
    for (let i = 0; ; i++) {
      const done = step(i);
      report({ busy: i });
      await done;
      report({ done: i });
    }
  },

  /** Infers until it is stopped from outside. */
  async infer() {
    const model = await newModel();
    const waveform = noise(batch * samples);
    for (let i = 0; ; i++) {
      const done = model.infer(waveform, batch, samples, ['clipwise_output']);
      report({ busy: i });
      await done;
      report({ done: i });
    }
  },

  /** Leaves in the middle of a step, with the engine stopped in an exit handler or not. */
  async exit() {
    if (request.stop) process.once('exit', () => addon.stop());
    const { step } = await newSession(await newModel());
    step(0).then(() => report({ done: 0 }));
    setTimeout(() => {
      process.stdout.write('leaving\n', () => process.exit(7));
    }, request.after);
  },

  /** Loads the addon, works, and has nothing left to do. */
  async idle() {
    const model = await newModel();
    await model.infer(noise(samples), 1, samples, ['logits']);
    process.stdout.write('leaving\n');
  },

  /** Nothing but the addon's jobs keeps the process alive; nobody awaits the last. */
  async unresolved() {
    const { step } = await newSession(await newModel());
    step(0).then(() => report({ done: 0 }));
    step(1).then(() => report({ done: 1 }));
    process.once('exit', (code) => report({ exit: code }));
  },

  /** One inference and one step: everything that came out, bit for bit. */
  async results() {
    const model = await newModel();
    const rounds = [];
    for (let round = 0; round < (request.rounds ?? 1); round++) {
      const inferred = await model.infer(
        noise(batch * samples),
        batch,
        samples,
        Object.keys(spec.outputs),
      );
      const { session, step } = await newSession(model);
      const { loss } = await step(round);
      const gradients = {};
      for (const { name, trainable } of model.parameters()) {
        if (trainable) gradients[name] = await session.gradient(name);
      }
      rounds.push({ inferred, loss, gradients });
      session.dispose();
    }
    const weights = {};
    for (const { name } of model.parameters()) weights[name] = await model.get(name);
    report({ rounds, weights });
  },

  /** Keeps asking for models with many threads, where the system gives only a few. */
  async threads() {
    const outcomes = [];
    for (let i = 0; i < 3; i++) {
      const outcome = await addon.createModel(spec, { device: 'cpu', threads: 512 }, samples).then(
        () => 'made',
        (error) => error.code ?? error.message,
      );
      outcomes.push(outcome);
    }
    const one = await addon.createModel(spec, { device: 'cpu', threads: 1 }, samples).then(
      () => 'made',
      (error) => error.code,
    );
    report({ outcomes, one });
  },

  /**
   * Lets itself map only so many bytes more, asks for more than that, then for less. The limit comes
   * late, as Node.js itself maps gigabytes that it never touches.
   */
  async limited() {
    const { bytes } = request;
    const model = await newModel();
    const { session, step } = await newSession(model);
    const before = await step(0, false);
    session.dispose();
    await model.held(); // behind it: the session's memory is given back by then
    const mapped = Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[0]) * 4096;
    execFileSync('prlimit', [`--pid=${process.pid}`, `--as=${mapped + bytes}`]);
    const options = {
      ...{ samples, mixup: false, loss: 'bce', frozen: [], passesOff: [] },
      optimizer: { kind: 'adam', attrs: {} },
    };
    const need = await model.sessionMemory(spec, { ...options, batch }, true);
    const held = await model.held();
    const fails = (size) =>
      addon.createSession(model, spec, { ...options, batch: size }).then(
        () => ({}),
        ({ code, message }) => ({ code, message }),
      );
    const failed = await fails(2 * need.largestBatch);
    const left = (await model.held()) - held;
    const again = await newSession(model);
    report({ need, failed, left, before, after: await again.step(0, false) });
  },

  /** Counts whose product is a multiple of 2^64, so that unchecked arithmetic sees a small one. */
  async overflow() {
    const none = new Float32Array(0);
    const [batch, length] = [2 ** 62, 8000];
    const calls = {
      infer: async () => (await newModel()).infer(none, batch, length, ['logits']),
      text: async () => (await newModel()).text(batch, length, []),
      features: async () => {
        const front = {
          sampleRate: 8000,
          windowSize: 256,
          hopSize: 80,
          melBins: 16,
          fmin: 50,
          fmax: 4000,
        };
        return addon.createFeatures(front, 1).run(none, batch, length, 'logmel');
      },
      // 2^20 x 2^20 channels with 2^16 x 2^16 taps are 2^72 weights.
      weights: async () => {
        const conv = (path, input, attrs) => ({ op: 'conv', path, inputs: [input], attrs });
        const reduce = (axis, input) => ({
          op: 'reduce',
          path: '',
          inputs: [input],
          attrs: { axis, kind: 'mean' },
        });
        const wide = {
          name: 'Wide',
          nodes: [
            { ...spec.nodes[0], inputs: ['waveform'] },
            conv('a', '#0', { out_channels: 2 ** 20, kernel: 1 }),
            conv('b', '#1', { out_channels: 2 ** 20, kernel: 2 ** 16, padding: 2 ** 16 }),
            reduce('freq', '#2'),
            reduce('time', '#3'),
          ],
          outputs: { out: 4 },
        };
        const model = await addon.createModel(wide, { device: 'cpu', threads: 1 }, length);
        return model.infer(new Float32Array(length), 1, length, ['out']);
      },
    };
    try {
      await calls[request.target]();
      report({ code: 'no error' });
    } catch (error) {
      report({ code: error.code ?? error.message });
    }
  },

  /** Models that nobody keeps, with and without calls of the collector. */
  async forgotten() {
    const rss = [];
    for (let i = 0; i < request.count; i++) {
      const model = await newModel();
      await model.infer(noise(batch * samples), batch, samples, ['logits']);
      if (request.dispose) model.dispose();
      if (request.collect) {
        globalThis.gc();
        await new Promise((resolve) => setImmediate(resolve));
      }
      rss.push(process.memoryUsage.rss());
    }
    report({ rss });
  },

  /** Sessions that are disposed of, or not. */
  async sessions() {
    const rss = [];
    const model = await newModel();
    for (let i = 0; i < request.count; i++) {
      const { session, step } = await newSession(model);
      await step(i);
      session.dispose();
      rss.push(process.memoryUsage.rss());
    }
    report({ rss });
  },

  /** A list of calls with wild specs: each ends with a model, or with an error that has a code. */
  async specs() {
    for (const [index, wild] of request.specs.entries()) {
      report({ index });
      const outcome = {};
      try {
        const text = JSON.parse(wild, (_, value) => {
          if (value === '\u0000nan') return Number.NaN;
          return value === '\u0000infinity' ? Number.POSITIVE_INFINITY : value;
        });
        const model = await addon.createModel(text, { device: 'cpu', threads: 1 }, samples);
        outcome.made = true;
        await model.initialise(1n);
        const result = await model.infer(noise(samples), 1, samples, Object.keys(text.outputs));
        outcome.inferred = Object.values(result).every((values) => values instanceof Float32Array);
        model.dispose();
      } catch (error) {
        outcome.code = error.code ?? null;
        outcome.message = error.message;
      }
      report({ index, ...outcome, rss: process.memoryUsage.rss() });
    }
  },
};

await jobs[job]();
