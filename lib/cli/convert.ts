import { stat } from 'node:fs/promises';
import { throwIfAborted } from '../errors.js';
import { modelMetadata } from '../inference/description.js';
import { type StoredModel, storedModel, storedModelIfAny } from '../inference/stored.js';
import { halved } from '../io/half.js';
import type { SafetensorsTensor } from '../io/safetensors.js';
import { openWeights, type WeightsFile } from '../io/weights.js';
import { isPthPath, writeWeights } from '../io/weights_writer.js';
import { formatBytes } from './format.js';
import { defineVerb, EXIT, UsageError } from './verb.js';

const command = {
  name: 'panns convert',
  summary: 'Write weights in another format, and under the names of their model',
  positionals: [
    { name: 'in', help: 'a .safetensors file, or what torch.save wrote' },
    { name: 'out', help: '.pth or .pt for PyTorch, .safetensors else' },
  ],
  options: {
    model: { type: 'string', value: 'name', help: 'what the file holds, where it does not say it' },
    half: { type: 'boolean', help: 'keep matrices and filters as 16-bit floats: half the size' },
    json: { type: 'boolean', help: 'print JSON' },
  },
} as const;

/** `panns convert`: weights from one format to another, bit for bit unless they are halved. */
export const convert = defineVerb(
  command,
  async ({ model, half, json }, [source = '', out = ''], { print, messages, signal }) => {
    if (!isPthPath(out) && !out.endsWith('.safetensors')) {
      const what = `"${out}" ends in none of .safetensors, .pth and .pt; "panns export" writes ONNX`;
      throw new UsageError(command, what);
    }
    const file = await openWeights(source);
    try {
      const found = await (model === undefined ? storedModelIfAny(file) : storedModel(file, model));
      if (found === undefined) {
        messages.write(
          'the tensors fit no model that is known here; they are written as they are\n',
        );
      }
      const tensors = await readAll(found?.file ?? file, found, half, signal);
      await writeWeights(out, tensors, found ? modelMetadata(found.description) : []);
      const { size } = await stat(out);
      const name = found?.description.name;
      if (json) {
        const facts = { file: out, bytes: size, model: name ?? null, tensors: tensors.size };
        print(JSON.stringify(facts));
      } else {
        print(
          `${tensors.size} tensors${name ? ` of ${name}` : ''} are in ${out} (${formatBytes(size)})`,
        );
      }
      return EXIT.ok;
    } finally {
      await file.close();
    }
  },
);

/** All tensors, in the model's order where there is one. */
async function readAll(
  file: WeightsFile,
  found: StoredModel | undefined,
  half: boolean,
  signal: AbortSignal,
): Promise<Map<string, SafetensorsTensor>> {
  const order = found?.description.stateDict.map(({ name }) => name) ?? [];
  const names = new Set([
    ...order.filter((name) => file.entries.has(name)),
    ...file.entries.keys(),
  ]);
  const tensors = new Map<string, SafetensorsTensor>();
  for (const name of names) {
    throwIfAborted(signal);
    const tensor = await file.read(name);
    tensors.set(name, half ? await halved(tensor, name) : tensor);
  }
  return tensors;
}
