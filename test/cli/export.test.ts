import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runProgram } from '../../lib/cli/program.js';
import { createModel } from '../../lib/inference/model.js';

/** Runs `panns export ...` in this process. */
async function run(...args: string[]) {
  const out: string[] = [];
  let messages = '';
  const code = await runProgram(['export', ...args], {
    print: (line) => void out.push(line),
    messages: { write: (text) => (messages += text) },
    signal: new AbortController().signal,
  });
  return { code, out, messages };
}

t.test('a file of weights becomes an ONNX file', async (t) => {
  const folder = t.testdir();
  const [weights, file] = [join(folder, 'model.safetensors'), join(folder, 'model.onnx')];
  using model = await createModel('LeeNet11', { classes: ['dog', 'rain'], threads: 1 });
  await model.save(weights);
  const { code, out, messages } = await run(weights, file, '--opset', '18', '--json');
  t.equal(code, 0, messages);
  const { size } = statSync(file);
  t.same(JSON.parse(out[0] ?? ''), {
    ...{ model: 'LeeNet11', file, bytes: size, input: 'waveform', opset: 18 },
  });
  t.ok(size > 4 * model.parameterCount());
  t.equal(messages, '');
});

t.test('a name is exported untrained, and says so', async (t) => {
  const file = join(t.testdir(), 'model.onnx');
  const { code, out, messages } = await run('mn04', file, '--input', 'logmel');
  t.equal(code, 0);
  t.match(out, [/^mn04 is in .*model\.onnx \(4\.0\d MB, opset 17, logmel in\)$/]);
  t.match(messages, /mn04 is exported with random weights/);
});

t.test('what cannot be exported leaves no file', async (t) => {
  const folder = t.testdir();
  const file = join(folder, 'model.onnx');
  const wrong = await run('LeeNet11', file, '--input', 'logmel');
  t.equal(wrong.code, 1);
  t.match(wrong.messages, /error ERR_PANNS_UNSUPPORTED: LeeNet11: .*input "waveform"/);
  const misspelt = await run('LeNet11', file);
  t.equal(misspelt.code, 1);
  t.match(misspelt.messages, /did you mean "LeeNet11"/);
  t.equal((await run('LeeNet11')).code, 2, 'no file named');
  t.equal((await run('LeeNet11', file, '--opset', '16')).code, 2);
  t.notOk(existsSync(file));
  t.same(readdirSync(folder), []);
});
