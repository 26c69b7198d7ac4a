/**
 * What a training step costs the host: the same calls as on a GPU, on the device that computes nothing.
 * Clips are short, as copying them is another matter.
 *
 *   node bench/host.mjs [rounds]
 */
import { cpus } from 'node:os';
import { loadNative } from '../dist/native.js';
import { modelSpec } from './spec.mjs';

const rounds = Number(process.argv[2] ?? 7);
const STEPS = 300;
const BATCH = 1;
const SAMPLES = 10240;
const addon = loadNative();
const optimizer = { kind: 'adam', attrs: { amsgrad: true } };
const options = { batch: BATCH, samples: SAMPLES, mixup: true, loss: 'bce', optimizer };

const rows = [];
for (const name of ['Cnn14', 'Wavegram_Logmel_Cnn14', 'Cnn6', 'MobileNetV1', 'mn04']) {
  const spec = modelSpec(name);
  const model = await addon.createModel(spec, { device: 'null', threads: 0 }, SAMPLES);
  const session = await addon.createSession(model, spec, {
    ...{ ...options, frozen: [], passesOff: [] },
  });
  const clips = 2 * BATCH;
  const waveform = new Int16Array(clips * SAMPLES);
  const target = new Float32Array(clips * 527);
  const lambda = new Float32Array(clips).fill(0.5);
  const begin = (step) =>
    session.begin(waveform, target, lambda, { seed: 1n, step, lr: 1e-3, maxNorm: 0, update: true });
  const round = async () => {
    const before = process.cpuUsage();
    const start = performance.now();
    await begin(0);
    for (let step = 1; step <= STEPS; step++) {
      if (step < STEPS) await begin(step);
      await session.finish();
    }
    const { user, system } = process.cpuUsage(before);
    return { wall: (1e3 * (performance.now() - start)) / STEPS, cpu: (user + system) / STEPS };
  };
  await round();
  const found = [];
  for (let i = 0; i < rounds; i++) found.push(await round());
  const summary = (key) => {
    const sorted = found.map((one) => one[key]).sort((a, b) => a - b);
    const at = (share) => Math.round(sorted[Math.round(share * (sorted.length - 1))]);
    return { median: at(0.5), spread: [at(0), at(1)] };
  };
  rows.push({
    name,
    nodes: session.text().split('\n').length,
    us: summary('wall'),
    cpuUs: summary('cpu'),
  });
  session.dispose();
  model.dispose();
}
const about = {
  cpu: cpus()[0]?.model,
  node: process.versions.node,
  date: new Date().toISOString(),
};
console.log(
  JSON.stringify(
    { ...about, rounds, steps: STEPS, clips: 2 * BATCH, samples: SAMPLES, rows },
    null,
    2,
  ),
);
