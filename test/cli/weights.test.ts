import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runProgram } from '../../lib/cli/program.js';
import { createModel } from '../../lib/inference/model.js';
import { loadModel } from '../../lib/inference/model_file.js';
import { writePth } from '../../lib/io/pth/writer.js';

async function run(...args: string[]) {
  const out: string[] = [];
  let messages = '';
  const code = await runProgram(args, {
    print: (line) => void out.push(...line.split('\n')),
    messages: { write: (text) => (messages += text) },
    signal: new AbortController().signal,
  });
  return { code, out, messages };
}

t.test('weights are converted there and back, and described', async (t) => {
  const folder = t.testdir();
  const [first, pth, last, bare] = ['a.safetensors', 'b.pth', 'c.safetensors', 'd.pt'].map((name) =>
    join(folder, name),
  ) as [string, string, string, string];
  using model = await createModel('LeeNet11', { classes: ['dog', 'rain'], threads: 1 });
  await model.save(first);
  t.equal((await run('convert', first, pth)).code, 0);
  const { code, out } = await run('convert', pth, last, '--json');
  t.equal(code, 0);
  t.match(JSON.parse(out[0] ?? ''), { file: last, model: 'LeeNet11', tensors: 58 });
  using again = await loadModel(last, { threads: 1 });
  t.same(await again.stateDict(), await model.stateDict());
  t.same(again.classes, ['dog', 'rain']);

  const page = await run('describe', pth);
  t.match(page.out.join('\n'), /PyTorch, ZIP archive[\s\S]*LeeNet11, as the file says[\s\S]*"dog"/);
  // What a network without a spectrogram has no use for is not told.
  t.match(page.out.join('\n'), /2 classes \("dog" \.\.\.\), 32000 Hz, embedding 512, head clip/);
  await writePth(bare, await model.stateDict(), { stateKey: '' });
  const facts = JSON.parse((await run('describe', bare, '--json')).out[0] ?? '');
  t.match(facts, { format: 'pth', model: 'LeeNet11', recognisedBy: 'tensors', stateKey: '' });
  t.match(facts.tensors[0], { name: 'conv_block1.conv1.weight', dtype: 'F32', role: 'parameter' });
});

t.test('half the size, read back as float32', async (t) => {
  const folder = t.testdir();
  const whole = join(folder, 'a.safetensors');
  using model = await createModel('Cnn6', {
    ...{ classes: ['dog', 'rain'], sampleRate: 8000, melBins: 16, threads: 1, seed: 7 },
  });
  await model.save(whole);
  for (const name of ['b.safetensors', 'c.pth']) {
    const half = join(folder, name);
    t.equal((await run('convert', whole, half, '--half')).code, 0);
    t.ok(statSync(half).size < 0.51 * statSync(whole).size);
    using again = await loadModel(half, { threads: 1 });
    t.same(again.classes, ['dog', 'rain']);
    for (const { name, shape } of model.parameters()) {
      const [before, after] = [await model.getParameter(name), await again.getParameter(name)];
      // Eleven bits: half of the last one; below 2^-14 the steps stay 2^-24.
      const fits = (a: number, b: number) => Math.abs(a - b) <= Math.abs(a) * 2 ** -11 + 2 ** -25;
      t.ok(
        after.every((value, i) => fits(before[i] ?? NaN, value)),
        name,
      );
      const same = after.every((value, i) => value === before[i]);
      t.equal(same, shape.length < 2, `${name} of [${shape}]`);
    }
  }
});

t.test('unknown tensors are converted as they are, and said so', async (t) => {
  const folder = t.testdir();
  const path = join(folder, 'x.pth');
  const out = join(folder, 'y.safetensors');
  await writePth(path, [['other', { dtype: 'F32', shape: [2], data: Float32Array.of(1, 2) }]]);
  const { code, messages } = await run('convert', path, out);
  t.equal(code, 0);
  t.match(messages, /fit no model/);
  t.match(
    (await run('describe', out)).out.join('\n'),
    /none that is known here[\s\S]*other +F32 +\[2\]/,
  );
  t.equal((await run('convert', path, join(folder, 'y.onnx'))).code, 2);
  t.equal((await run('convert', path, out, '--model', 'Cnn6')).code, 1);
  t.equal((await run('describe', join(folder, 'none'))).code, 1);
  t.notOk(existsSync(join(folder, 'y.onnx')));
});
