/**
 * Steps a second of a training whose base is frozen, beside one of the whole network: what pruning
 * the backward pass, folding frozen norms and caching features save.
 *
 *   node bench/frozen.mjs [model] [batch] [seconds] [rounds]
 */
import { createModel, Trainer } from '../dist/index.js';

const [name = 'Cnn10', batch = '4', seconds = '5', rounds = '5'] = process.argv.slice(2);
const classes = ['a', 'b', 'c', 'd'];
const clips = Array.from({ length: 16 }, (_, i) => {
  return { id: String(i), path: String(i), labels: [i % classes.length] };
});
const dataset = { classes, clips, skipped: [] };
const decode = async (requests) =>
  requests.map(({ maxSamples }) =>
    Float32Array.from({ length: maxSamples }, () => Math.random() - 0.5),
  );

const variants = {
  'all trains': { freeze: 'none' },
  'base frozen, norms follow': { freeze: 'base', frozenNorms: 'train' },
  'base frozen': { freeze: 'base' },
  'base frozen, cached features': { freeze: 'base', cacheFeatures: true },
};
const times = Object.fromEntries(Object.keys(variants).map((key) => [key, []]));
const warm = 2;
for (let round = 0; round < Number(rounds); round++) {
  // Interleaved, so that other load meets all of them.
  for (const [key, recipe] of Object.entries(variants)) {
    const model = await createModel(name, { classes, activation: 'softmax', seed: round });
    const trainer = new Trainer(model, {
      ...{ ...recipe, dataset, decode, clipSeconds: Number(seconds), batchSize: Number(batch) },
      steps: warm + 3,
    });
    for await (const step of trainer) if (step.index > warm) times[key].push(1000 * step.seconds);
    trainer.dispose();
    model.dispose();
  }
}
const rows = Object.entries(times).map(([variant, values]) => {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => Number(sorted[Math.floor(share * (sorted.length - 1))].toFixed(2));
  return { variant, n: sorted.length, medianMs: at(0.5), spreadMs: [at(0.1), at(0.9)] };
});
console.log(
  JSON.stringify({ model: name, batch: Number(batch), seconds: Number(seconds), rows }, null, 2),
);
