// Types as a user sees them: under strict rules, every declaration file checked, without the types
// of Node.js.
import {
  AudioTagger,
  createModel,
  type ErrorCode,
  FeatureExtractor,
  fromCsv,
  type Model,
  PannsError,
  Trainer,
} from 'panns';

export async function use(file: string): Promise<string[]> {
  using tagger = await AudioTagger.load(file, { topK: 3 });
  const { labels } = await tagger.tag(file);
  return labels.map(({ label, score }) => `${label} ${score.toFixed(2)}`);
}

export async function learn(table: string): Promise<number> {
  const model: Model = await createModel('Cnn14', { classes: ['a', 'b'] });
  const trainer = new Trainer(model, { dataset: await fromCsv(table, {}), epochs: 1 });
  let last = 0;
  for await (const { loss } of trainer) last = loss;
  return last;
}

export function codeOf(error: unknown): ErrorCode | undefined {
  return error instanceof PannsError ? error.code : undefined;
}

export const extractor = (rate: number) => new FeatureExtractor({ sampleRate: rate });

// @ts-expect-error: an option that there is not
export const misspelt = new FeatureExtractor({ sampleRat: 32000 });
