// Our side of a case: reads the work as JSON from argv, then one line of stdin a repetition.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { allocate, createModel, FeatureExtractor } from '../dist/index.js';
import { loadNative } from '../dist/native.js';

const work = JSON.parse(process.argv[2]);

function noise(length) {
  const out = allocate(length);
  let state = 12345;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    out[i] = state / 2 ** 31 / 4;
  }
  return out;
}

async function prepare() {
  const addon = loadNative();
  if (work.kind === 'infer') {
    const model = await createModel(work.model, { seed: 1 });
    const wave = noise(work.batch * work.samples);
    return () => model.infer(wave, { batch: work.batch, outputs: ['clipwise_output'] });
  }
  if (work.kind === 'train') {
    const { modelSpec } = await import('./spec.mjs');
    const spec = modelSpec(work.model);
    const model = await addon.createModel(spec, { device: 'cpu', threads: 0 }, work.samples);
    await model.initialise(1n);
    const session = await addon.createSession(model, spec, {
      ...{
        batch: work.batch,
        samples: work.samples,
        mixup: false,
        loss: 'bce',
        frozen: [],
        passesOff: [],
      },
      optimizer: { kind: 'adam', attrs: {} },
    });
    const wave = noise(work.batch * work.samples);
    const target = new Float32Array(work.batch * 527).map((_, i) => (i % 101 === 0 ? 1 : 0));
    let step = 0;
    return () =>
      session.step(wave, target, undefined, {
        seed: 1n,
        step: step++,
        lr: 1e-5,
        maxNorm: 0,
        update: true,
      });
  }
  if (work.kind === 'logmel') {
    const extractor = new FeatureExtractor();
    const wave = noise(work.samples);
    return () => extractor.logmel(wave);
  }
  const wave = noise(work.samples);
  return () => addon.resample(wave, work.from, work.to);
}

const run = await prepare();
const repeat = work.repeat ?? 1;
await run();
console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'end') break;
  const began = performance.now();
  for (let i = 0; i < repeat; i++) await run();
  console.log(((performance.now() - began) / repeat).toFixed(4));
}
console.log(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
process.exit(0);
