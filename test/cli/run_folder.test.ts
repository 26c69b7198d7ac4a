import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createRun, type RunConfig } from '../../lib/cli/run_folder.js';

const config = (data: string): RunConfig => ({
  ...{ version: 1, panns: '0', node: '0', platform: 'any', data, classes: ['a', 'b'] },
  ...{ model: { name: 'Cnn6', options: {} }, recipe: {}, checkpointEpochs: 1 },
  split: { trainFolds: undefined, valFolds: undefined, valFraction: 0, seed: 0 },
});

t.test('a training that left nothing makes room, any other does not', async (t) => {
  for (const left of [
    'checkpoints/step-000001.safetensors',
    'metrics.jsonl',
    'model.safetensors',
  ]) {
    const folder = join(t.testdir(), 'run');
    const again = (data: string) => createRun(folder, config(data));
    await again('first');
    await again('second');
    mkdirSync(join(folder, 'checkpoints'), { recursive: true });
    await again('third');
    writeFileSync(join(folder, left), 'results');
    const message = /holds a training already/;
    await t.rejects(again('fourth'), { code: 'ERR_PANNS_OPTION', message }, left);
    t.match(readFileSync(join(folder, 'config.json'), 'utf8'), '"data": "third"');
  }
});
