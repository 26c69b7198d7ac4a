import type { Dataset } from '../../lib/data/dataset.js';
import type { Batch, BatchLoader } from '../../lib/data/loader.js';
import type { Decode } from '../../lib/data/reader.js';
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

/** A loader that writes over each batch as soon as it is given back, and how many were. */
export function spoiling(loader: BatchLoader): { loader: BatchLoader; given(): number } {
  let given = 0;
  const release = ({ waveform, target, lambda }: Batch) => {
    given++;
    for (let i = 0; i < waveform.length; i++) waveform[i] = (i * 7919 + given) % 20_011;
    target.fill(1);
    lambda?.fill(0.25);
  };
  const next = () => loader.next();
  const spoilt: BatchLoader = { ...loader, next, release, [Symbol.asyncIterator]: () => spoilt };
  return { loader: spoilt, given: () => given };
}

/** A loader that has made `count` batches when it gives the first: of those, none is waited for. */
export function madeAhead(loader: BatchLoader, count: number): BatchLoader {
  const made: Awaited<ReturnType<BatchLoader['next']>>[] = [];
  let state = loader.state();
  let first = true;
  const ahead: BatchLoader = {
    ...loader,
    async next() {
      while (first && made.length < count) made.push(await loader.next());
      first = false;
      const result = made.shift() ?? (await loader.next());
      state = result.value?.stateAfter ?? state;
      return result;
    },
    state: () => state,
    [Symbol.asyncIterator]: () => ahead,
  };
  return ahead;
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
