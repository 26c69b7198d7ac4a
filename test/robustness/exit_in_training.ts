// Leaves the process in the middle of a step of the public Trainer.

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeWav16 } from '../../lib/audio/wav.js';
import { createModel, fromFolder, Trainer } from '../../lib/index.js';

const folder = mkdtempSync(join(tmpdir(), 'panns-exit-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const name of ['one', 'two']) {
  mkdirSync(join(folder, name));
  for (const clip of ['a', 'b']) {
    const samples = new Float32Array(320_000).map(() => Math.random() - 0.5);
    await writeWav16(join(folder, name, `${clip}.wav`), samples, 32000);
  }
}
const dataset = await fromFolder(folder);
// With all threads of a large machine a step could be done in time.
const model = await createModel('Cnn6', { classes: ['one', 'two'], threads: 2 });
const trainer = new Trainer(model, { dataset, batchSize: 16, clipSeconds: 10, steps: 1 });
setTimeout(() => process.stdout.write('leaving\n', () => process.exit(7)), 1500);
for await (const _ of trainer) process.stdout.write('{"done":true}\n');
