// Our side of loader.mjs: the milliseconds of a batch for each "go", and after "loop" the processor time
// that the event loop's thread took of them. Batches are given back as a Trainer gives them back.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createBatchLoader } from '../dist/data/loader.js';
import { uniformSampler } from '../dist/data/sampler.js';
import { fromFolder, fromHdf5, fromPacked } from '../dist/index.js';

const { source, folder, rows, batches } = JSON.parse(process.argv[2]);
const open = {
  packed: () => fromPacked(join(folder, 'packed')),
  hdf5: () => fromHdf5(join(folder, 'pack.h5')),
};
const dataset = await (open[source] ?? (() => fromFolder(join(folder, 'files'))))();
const { clips, classes } = dataset;
const loader = createBatchLoader({
  ...{ clips, classes: classes.length, samplesPerClip: 320_000, sampleRate: 32_000 },
  ...{ batchSize: rows, sampler: uniformSampler(clips.length, 1) },
  cache: source === 'memory' ? 'memory-int16' : 'none',
});

async function run(count) {
  for (let i = 0; i < count; i++) {
    const { value } = await loader.next();
    loader.release(value);
  }
}

/** Processor time of the event loop's thread, ms. */
function loopTime() {
  const path = `/proc/self/task/${process.pid}/schedstat`;
  return Number(readFileSync(path, 'utf8').split(' ')[0]) / 1e6;
}

// The first pass fills caches.
await run(Math.ceil(clips.length / rows) + 3);
console.log('ready');
let [done, active] = [0, 0];
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'end') break;
  if (line === 'loop') {
    console.log(active / done);
    continue;
  }
  const before = loopTime();
  const began = performance.now();
  await run(batches);
  console.log((performance.now() - began) / batches);
  active += loopTime() - before;
  done += batches;
}
console.log(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
process.exit(0);
