// A training of a few steps on noise, in one process or in one of several; the first prints the
// median of clips a second.
//
//   node bench/distributed_worker.mjs '{"model":"Cnn6","samples":64000,"batch":8,"threads":2,"steps":6}'
//   mpirun -n 2 node bench/distributed_worker.mjs '{..., "batch":4, "threads":1, "distributed":{"overlap":true}}'
import { createModel, openProcessGroup, Trainer } from '../dist/index.js';

const { model: name, samples, batch, threads, steps, distributed } = JSON.parse(process.argv[2]);
const group = distributed ? await openProcessGroup(distributed) : undefined;
const rate = 32000;
const clips = Array.from({ length: 64 }, (_, i) => ({
  id: String(i),
  path: String(i),
  labels: [i % 527],
}));
const classes = Array.from({ length: 527 }, (_, i) => `class ${i}`);
const decode = async (requests) =>
  requests.map(({ path }) =>
    Float32Array.from({ length: samples }, (_, i) => Math.sin(i * i * (Number(path) + 1)) / 4),
  );
const model = await createModel(name, { classes, threads });
const trainer = new Trainer(model, {
  ...{ dataset: { classes, clips, skipped: [] }, decode, batchSize: batch, steps },
  ...{ clipSeconds: samples / rate, distributed: group },
});
const rates = [];
for await (const { clipsPerSecond } of trainer) rates.push(clipsPerSecond);
// The first step plans memory and decodes what later ones remember.
const rest = rates.slice(1).sort((a, b) => a - b);
if ((group?.rank ?? 0) === 0) console.log(JSON.stringify({ rate: rest[rest.length >> 1] }));
trainer.dispose();
model.dispose();
await group?.close();
