import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createModel } from '../inference/model.js';
import { loadModel } from '../inference/model_file.js';
import { exportOnnx } from '../inference/onnx.js';
import { formatBytes } from './format.js';
import { defineVerb, EXIT } from './verb.js';

/** `panns export`: writes a model for other programs. */
export const exportVerb = defineVerb(
  {
    name: 'panns export',
    summary: 'Write a model as an ONNX file',
    positionals: [
      { name: 'model', help: 'a .safetensors file, or the name of a model, untrained' },
      { name: 'out', help: 'the .onnx file' },
    ],
    options: {
      input: {
        type: 'string',
        choices: ['waveform', 'logmel'],
        default: 'waveform',
        help: 'what the graph takes: samples, or log-mel spectrograms',
      },
      opset: {
        type: 'integer',
        min: 17,
        max: 22,
        default: 17,
        help: "version of ONNX's operators",
      },
      json: { type: 'boolean', help: 'print JSON' },
    },
  },
  async ({ input, opset, json }, [source = '', out = ''], { print, messages, signal }) => {
    // What is no file and does not look like one is a name; a wrong one gets the nearest suggested.
    const untrained = !existsSync(source) && !/[./\\]/.test(source);
    using model = await (untrained ? createModel(source) : loadModel(source));
    if (untrained) messages.write(`${source} is exported with random weights\n`);
    await exportOnnx(model, out, { input, opset, signal });
    const { size } = await stat(out);
    if (json) print(JSON.stringify({ model: model.name, file: out, bytes: size, input, opset }));
    else print(`${model.name} is in ${out} (${formatBytes(size)}, opset ${opset}, ${input} in)`);
    return EXIT.ok;
  },
);
