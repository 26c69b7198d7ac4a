import type { Dataset } from '../../lib/data/dataset.js';
import type { Decode } from '../../lib/data/loader.js';
import { createModel } from '../../lib/inference/model.js';
import type { ModelRow } from '../../lib/models/row.js';

export const RATE = 8000;
export const SECONDS = 0.2;

const CLASSES = ['low', 'middle', 'high'];

/** Clips that are never files: tones of three pitches, each with noise of its own. */
export function tones(count: number): { dataset: Dataset; decode: Decode } {
  const clips = Array.from({ length: count }, (_, i) => {
    return { id: `tone ${i}`, path: String(i), labels: [i % 3] };
  });
  const decode: Decode = async (requests) => {
    return requests.map(({ path, maxSamples }) => {
      const i = Number(path);
      const frequency = [300, 900, 2700][i % 3] ?? 0;
      return Float32Array.from({ length: maxSamples }, (_, n) => {
        const tone = 0.5 * Math.sin((2 * Math.PI * frequency * n) / RATE + i);
        return tone + 0.2 * Math.sin(n * n * 0.37 * (i + 1));
      });
    });
  };
  return { dataset: { classes: CLASSES, clips, skipped: [] }, decode };
}

/** The smallest model there is: 16 mel bins, 20 frames. */
export async function tinyModel(options: object = {}, row: string | ModelRow = 'Cnn6') {
  return createModel(row, {
    ...{ classes: CLASSES, sampleRate: RATE, melBins: 16, activation: 'softmax', seed: 3 },
    ...{ specAugment: { timeWidth: 4, freqWidth: 2 } },
    // Small work gains nothing from threads, and tests share the machine.
    threads: 1,
    ...options,
  });
}
