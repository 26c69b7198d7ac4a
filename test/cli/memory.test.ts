import { join } from 'node:path';
import t from 'tap';
import { runProgram } from '../../lib/cli/program.js';
import { cudaStatus } from '../../lib/cuda.js';
import type { MemoryNeed } from '../../lib/inference/memory.js';
import { createModel } from '../../lib/inference/model.js';
import { trainingMemory } from '../../lib/train/memory.js';

/** Runs `panns ...` in this process. */
async function panns(...argv: string[]) {
  let out = '';
  let messages = '';
  const code = await runProgram(argv, {
    print: (line) => {
      out += `${line}\n`;
    },
    messages: { write: (text) => (messages += text) },
    signal: new AbortController().signal,
  });
  return { code, out, messages };
}

interface Answer {
  model: string;
  inference: MemoryNeed;
  training: MemoryNeed;
}

t.test('memory: a network by name', async (t) => {
  const words = ['memory', 'Cnn6', '--batch', '3', '--seconds', '1', '--classes', '7'];
  const { code, out } = await panns(...words, '--optimizer', 'sgd', '--json');
  t.equal(code, 0);
  const { model: name, inference, training } = JSON.parse(out) as Answer;
  t.equal(name, 'Cnn6');
  using model = await createModel('Cnn6', { classes: 7 });
  const own = await model.memory({ batch: 3, seconds: 1 });
  const recipe = { batchSize: 3, clipSeconds: 1, optimizer: { kind: 'sgd' } } as const;
  const trained = await trainingMemory(model, recipe);
  for (const [got, want] of [
    [inference, own],
    [training, trained],
  ] as const) {
    // What is free moves from moment to moment.
    const { free: _f, largestBatch: _l, ...fixed } = want;
    t.match(got, fixed);
    t.ok(got.largestBatch > 3);
  }

  const table = await panns(...words);
  t.match(table.out, /^Cnn6 on cpu, clips of 1 s \(32000 samples\)$/m);
  for (const row of ['weights', 'gradients', 'optimizer', 'activations', 'total', 'fits']) {
    t.match(table.out, new RegExp(`^${row} +\\S+.*\\S$`, 'm'));
  }
});

t.test('memory: a file, and what it is not asked', async (t) => {
  using model = await createModel('Cnn6', { classes: 4, sampleRate: 8000 });
  const file = join(t.testdir(), 'four.safetensors');
  await model.save(file);
  const { code, out } = await panns('memory', file, '--seconds', '1', '--json');
  t.equal(code, 0);
  const { inference } = JSON.parse(out) as Answer;
  t.equal(inference.samples, 8000);
  t.equal(inference.weights, (await model.memory()).weights);
  t.match(await panns('memory', file, '--classes', '5'), { code: 2, messages: /by name/ });
  t.match(await panns('memory', 'nowhere.pth'), { code: 1, messages: /ERR_PANNS_IO/ });
  t.match(await panns('memory', 'Cnn6', '--bach', '3'), { code: 2, messages: /--batch/ });
});

t.test('tune: without a GPU a typed error', async (t) => {
  const { available } = await cudaStatus();
  if (available) {
    t.pass('not run', { skip: 'a GPU can be used here' });
    return;
  }
  t.match(await panns('tune', 'Cnn6', '--train'), {
    code: 1,
    out: '',
    messages: /^error ERR_PANNS_CUDA_UNAVAILABLE: /,
  });
  t.match(await panns('memory', 'Cnn6', '--device', 'cuda'), {
    code: 1,
    messages: /^error ERR_PANNS_CUDA_UNAVAILABLE: /,
  });
});
