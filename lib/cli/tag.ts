import { readdir, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { AUDIO_EXTENSIONS } from '../data/folder.js';
import { PannsError } from '../errors.js';
import { AudioTagger, type Tags } from '../inference/tagger.js';
import { ioError } from '../io/failure.js';
import { audioOptions, chosenAudio, noteTruncated } from './audio.js';
import { chosenDevice, deviceOptions } from './device.js';
import { formatDuration, formatTable } from './format.js';
import { MODEL_HELP } from './network.js';
import { createProgress } from './progress.js';
import { type Context, complain, defineVerb, EXIT } from './verb.js';

/** `panns tag`: says what is heard in files. */
export const tag = defineVerb(
  {
    name: 'panns tag',
    summary: 'Say what is heard in audio files',
    positionals: [{ name: 'file', help: 'audio files, or folders of them', many: true }],
    options: {
      model: {
        type: 'string',
        value: 'file',
        required: true,
        short: 'm',
        help: MODEL_HELP,
      },
      top: { type: 'integer', min: 1, default: 5, help: 'labels to print' },
      threshold: { type: 'number', default: 0, help: 'no labels with lower scores' },
      window: { type: 'number', min: 0.01, default: 10, help: 'seconds scored at once' },
      hop: { type: 'number', min: 0.001, help: 'seconds between windows; default --window' },
      aggregate: {
        type: 'string',
        choices: ['mean', 'max'],
        default: 'mean',
        help: 'how windows become one result',
      },
      segments: { type: 'boolean', help: 'also print the best labels of each window' },
      ...audioOptions,
      ...deviceOptions,
      json: { type: 'boolean', help: 'print a JSON line a file' },
    },
  },
  async (values, positionals, context) => {
    const { top, threshold, window, hop, aggregate, segments, json } = values;
    const files = (await Promise.all(positionals.map(audioFiles))).flat();
    const { print, messages, signal } = context;
    using tagger = await AudioTagger.load(values.model, {
      ...{ windowSeconds: window, hopSeconds: hop, aggregate, topK: top },
      ...chosenDevice(values),
    });
    const progress = createProgress({
      label: 'tagging',
      total: files.length,
      unit: 'files',
      stream: messages,
      // A result is a line or a table of its own; progress between them helps only where many pass.
      silent: json || files.length < 2 || messages.isTTY !== true,
    });
    let failed = 0;
    // One file is read while another is scored.
    const options = { threshold, signal, ...chosenAudio(values) };
    const next = prefetch(files, (file) => tagger.tag(file, options));
    for (const [i, file] of files.entries()) {
      try {
        const tags = await next();
        if (json) print(JSON.stringify(jsonResult(file, tags, segments, top, tagger)));
        else {
          printTable(file, tags, segments, top, tagger, context);
          if (tags.truncated) noteTruncated(file, context);
        }
      } catch (error) {
        if (!(error instanceof PannsError)) throw error;
        failed++;
        if (json)
          print(JSON.stringify({ file, error: { code: error.code, message: error.message } }));
        else complain(error, context, EXIT.failed);
      }
      progress.update(i + 1, file);
    }
    progress.finish();
    return failed > 0 ? EXIT.failed : EXIT.ok;
  },
);

/** Calls `work` for the next item when the result for the one before it is asked for. */
function prefetch<T, R>(items: readonly T[], work: (item: T) => Promise<R>): () => Promise<R> {
  let begun = 0;
  const begin = () => {
    const item = items[begun++];
    const result = item === undefined ? undefined : work(item);
    // It is told when it is asked for, or not at all where something else ends the loop.
    result?.catch(() => {});
    return result;
  };
  let ahead = begin();
  return async () => {
    const current = ahead;
    ahead = begin();
    if (current === undefined) throw new RangeError('no more items');
    return current;
  };
}

function jsonResult(file: string, tags: Tags, segments: boolean, top: number, tagger: AudioTagger) {
  const { labels, seconds, truncated } = tags;
  if (!segments) return { file, seconds, truncated, labels };
  const windows = tags.segments.map(({ start, end, scores }) => {
    return { start, end, labels: tagger.best(scores, { topK: top }) };
  });
  return { file, seconds, truncated, labels, segments: windows };
}

function printTable(
  file: string,
  tags: Tags,
  segments: boolean,
  top: number,
  tagger: AudioTagger,
  { print }: Context,
): void {
  print(`${file} (${formatDuration(tags.seconds)})`);
  const rows = tags.labels.map(({ label, score }) => [score.toFixed(3), label]);
  if (rows.length === 0) print('  no label reaches the threshold');
  else print(indented(formatTable([{ title: 'score', align: 'right' }, { title: 'label' }], rows)));
  if (!segments) return;
  const columns = [
    { title: 'from', align: 'right' },
    { title: 'to', align: 'right' },
    { title: 'labels' },
  ] as const;
  const windows = tags.segments.map(({ start, end, scores }) => {
    const best = tagger.best(scores, { topK: top });
    const words = best.map(({ label, score }) => `${label} ${score.toFixed(2)}`);
    return [start.toFixed(2), end.toFixed(2), words.join(', ')];
  });
  print(indented(formatTable(columns, windows)));
}

function indented(text: string): string {
  return text.replace(/^/gm, '  ');
}

/** A file as it is; of a folder all audio files in it, sorted. */
export async function audioFiles(path: string): Promise<string[]> {
  // What is not there is reported with the other files' results.
  const found = await stat(path).catch(() => undefined);
  if (!found?.isDirectory()) return [path];
  let names: string[];
  try {
    names = await readdir(path, { recursive: true });
  } catch (error) {
    throw ioError(error, 'read the folder', path);
  }
  const audio = names.filter((name) => AUDIO_EXTENSIONS.includes(extname(name).toLowerCase()));
  if (audio.length === 0) {
    const what = `there are no audio files here (${AUDIO_EXTENSIONS.join(', ')})`;
    throw new PannsError('ERR_PANNS_DATA', what, { where: path });
  }
  return audio.sort().map((name) => join(path, name));
}
