// The trainings that processes share in these tests; a process by itself can run them too.
import { createHash } from 'node:crypto';
import type { BatchLoader } from '../../lib/data/loader.js';
import type { Decode } from '../../lib/data/reader.js';
import {
  createModel,
  type Model,
  type ModelRow,
  PannsError,
  Trainer,
  type TrainerOptions,
} from '../../lib/index.js';
import type { ProcessGroup } from '../../lib/train/distributed.js';
import { RATE, SECONDS, tinyModel, tones } from '../trainer/synthetic.js';

/** Steps of {@link trainPlain}, and examples of one process a step. */
export const STEPS = 5;
export const BATCH = 3;

/** A network without norms and dropout: its gradients do not tell how a batch was divided. */
export const Plain: ModelRow = {
  name: 'Plain',
  defaults: {
    sampleRate: RATE,
    melBins: 16,
    embeddingSize: 24,
    specAugment: false,
    dropout: false,
  },
  build(b, waveform, config) {
    const { sampleRate, windowSize, hopSize, melBins, fmin, fmax, classes } = config;
    const front = b.logmel(waveform, { sampleRate, windowSize, hopSize, melBins, fmin, fmax });
    let x = config.mixup === true ? b.mixup(front) : front;
    for (const [i, channels] of [8, 12].entries()) {
      x = b.pool(b.relu(b.conv(`conv${i}`, x, { channels, kernel: 3, padding: 1 })), 'avg', 2);
    }
    const embedding = b.relu(
      b.linear('fc1', b.reduceTime(b.meanOverFrequency(x), 'mean'), config.embeddingSize),
    );
    const logits = b.linear('fc', embedding, classes);
    return { embedding, logits, clipwise_output: b.softmax(logits) };
  },
};

/** What leaves a gap among the gradients of {@link Plain}, and one before them. */
export const FROZEN = ['conv0', 'fc1'];

/** What a training left behind. */
export interface Outcome {
  readonly losses: number[];
  readonly gradNorms: number[];
  /** Of every parameter, bit for bit. */
  readonly digest: string;
  readonly error?: { readonly name: string; readonly code: string; readonly message: string };
}

export async function digestOf(model: Model, running = false): Promise<string> {
  const hash = createHash('sha256');
  for (const { name, trainable } of model.parameters()) {
    if (trainable || running) hash.update(await model.getParameter(name));
  }
  return hash.digest('hex');
}

/** Runs a trainer to its end, or to the error that ends it. */
export async function outcomeOf(trainer: Trainer): Promise<Outcome> {
  const losses: number[] = [];
  const gradNorms: number[] = [];
  let error: Outcome['error'];
  try {
    for await (const { loss, gradNorm } of trainer) {
      losses.push(loss);
      gradNorms.push(gradNorm);
    }
  } catch (thrown) {
    const { name, code = '', message } = thrown as PannsError;
    error = { name, code, message };
  }
  return { losses, gradNorms, digest: await digestOf(trainer.model), ...(error && { error }) };
}

const { dataset, decode } = tones(31);

/** Mixup, clipping, an order over several epochs; `batchSize` examples a process. */
export async function trainPlain(
  seed: number,
  batchSize: number,
  distributed?: ProcessGroup,
  freeze: readonly string[] = [],
  device: 'cpu' | 'cuda' = 'cpu',
): Promise<Outcome & { weights: Record<string, number[]> }> {
  const { classes } = dataset;
  using model = await createModel(Plain, {
    ...{ classes, activation: 'softmax', threads: 1, seed },
    ...{ device, gpu: distributed?.localRank },
  });
  const trainer = new Trainer(model, {
    ...{ dataset, decode, batchSize, steps: STEPS, mixup: true, clipSeconds: SECONDS, seed: 11 },
    ...{ clipGradNorm: 0.5, sampler: 'balanced', distributed, freeze },
    optimizer: { kind: 'sgd', lr: 0.05 },
  });
  const outcome = await outcomeOf(trainer);
  const weights: Record<string, number[]> = {};
  for (const { name } of model.parameters()) {
    weights[name] = [...(await model.getParameter(name))];
  }
  return { ...outcome, weights };
}

/** With norms, dropout and SpecAugment; the seed of the weights differs from process to process. */
export async function trainTiny(
  distributed: ProcessGroup,
  options: Partial<TrainerOptions> = {},
  device: 'cpu' | 'cuda' = 'cpu',
): Promise<{ trainer: Trainer; outcome: Outcome }> {
  const { rank, localRank: gpu } = distributed;
  const model = await tinyModel({ seed: 3 + rank, device, gpu });
  const trainer = new Trainer(model, {
    ...{ dataset, decode, batchSize: BATCH, steps: STEPS, clipSeconds: SECONDS, distributed },
    ...options,
  });
  return { trainer, outcome: await outcomeOf(trainer) };
}

/** Batches of noise, of which the one of the step `bad` holds a NaN; another `kind`, other noise. */
export function noiseLoader(bad: number | undefined, kind = 0): BatchLoader {
  let batch = 0;
  const state = () => ({ sampler: { kind: 'sequential', count: 1, position: 0 }, batch }) as const;
  const loader: BatchLoader = {
    async next() {
      const waveform = Float32Array.from({ length: BATCH * RATE * SECONDS }, (_, i) => {
        return Math.sin(i * i * 0.01 * (batch + 1) + i * kind);
      });
      if (batch === bad) waveform[5] = Number.NaN;
      const target = Float32Array.from({ length: BATCH * 3 }, (_, i) => Number(i % 3 === 0));
      batch++;
      const indices = [0, 1, 2];
      return { done: false, value: { waveform, target, indices, epoch: 0, stateAfter: state() } };
    },
    return: async () => ({ done: true, value: undefined }),
    [Symbol.asyncIterator]: () => loader,
    close: () => undefined,
    state,
    skipped: [],
    cachedBytes: 0,
  };
  return loader;
}

/** Clips as they are, but for one that cannot be decoded. */
export function decodeBut(path: string): Decode {
  return async (requests) => {
    const clips = await decode(requests);
    return clips.map((clip, i) => {
      if (requests[i]?.path !== path) return clip;
      return new PannsError('ERR_PANNS_AUDIO_CORRUPT', 'this clip is damaged');
    });
  };
}
