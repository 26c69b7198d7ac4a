import { extname } from 'node:path';
import { PannsError } from '../errors.js';
import { type Embeddings, embed } from '../inference/embed.js';
import { loadModel } from '../inference/model_file.js';
import { writeFileAtomic } from '../io/atomic.js';
import { toHalf } from '../io/half.js';
import { writeNpy } from '../io/npy.js';
import { writeSafetensors } from '../io/safetensors_writer.js';
import { audioOptions, chosenAudio, noteTruncated } from './audio.js';
import { chosenDevice, deviceOptions } from './device.js';
import { MODEL_HELP } from './network.js';
import { createProgress } from './progress.js';
import { audioFiles } from './tag.js';
import { complain, defineVerb, EXIT, UsageError } from './verb.js';

/** A row of the result: which part of which file it is of. */
interface IndexRow {
  readonly file: string;
  readonly start: number;
  readonly end: number;
}

/** How the codes of faults begin that concern one file only: the others are still embedded. */
const AUDIO_FAULTS = /^ERR_PANNS_AUDIO_/;

const command = {
  name: 'panns embed',
  summary: 'Write the embeddings of audio files',
  positionals: [{ name: 'file', help: 'audio files, or folders of them', many: true }],
  options: {
    model: { type: 'string', value: 'file', required: true, short: 'm', help: MODEL_HELP },
    out: {
      type: 'string',
      value: 'file',
      required: true,
      short: 'o',
      help: '.npy (one row a window) or .safetensors (tensor "embedding")',
    },
    index: {
      type: 'string',
      value: 'file',
      help: 'which row is of which file and seconds, .csv or .json; default beside --out',
    },
    window: { type: 'number', min: 0.01, default: 10, help: 'seconds of a row' },
    hop: { type: 'number', min: 0.001, help: 'seconds between windows; default --window' },
    half: { type: 'boolean', help: 'write 16-bit floats instead of 32' },
    mean: { type: 'boolean', help: 'one row a file: the mean of its windows' },
    ...audioOptions,
    ...deviceOptions,
    json: { type: 'boolean', help: 'print JSON' },
  },
} as const;

/** `panns embed`: embeddings of files, as arrays that Python reads. */
export const embedVerb = defineVerb(command, async (values, positionals, context) => {
  const { out, window, hop, half, mean, json } = values;
  const format = extname(out).toLowerCase();
  if (format !== '.npy' && format !== '.safetensors') {
    throw new UsageError(command, `--out "${out}" ends neither in .npy nor in .safetensors`);
  }
  const index = values.index ?? `${out.slice(0, -format.length)}.csv`;
  if (!/\.(csv|json)$/i.test(index)) {
    throw new UsageError(command, `--index "${index}" ends neither in .csv nor in .json`);
  }
  const files = (await Promise.all(positionals.map(audioFiles))).flat();
  const { print, messages, signal } = context;
  using model = await loadModel(values.model, chosenDevice(values));
  const progress = createProgress({
    ...{ label: 'embedding', total: files.length, unit: 'files', stream: messages, silent: json },
  });
  const rows: Float32Array[] = [];
  const records: IndexRow[] = [];
  let [failed, truncated] = [0, 0];
  for (const [i, file] of files.entries()) {
    try {
      const options = { windowSeconds: window, hopSeconds: hop, signal, ...chosenAudio(values) };
      const found = await embed(model, file, options);
      if (found.truncated) {
        truncated++;
        noteTruncated(file, context);
      }
      const kept = mean ? meanOf(found) : found;
      rows.push(kept.data);
      for (const place of kept.windows) records.push({ file, ...place });
    } catch (error) {
      if (!(error instanceof PannsError) || !AUDIO_FAULTS.test(error.code)) throw error;
      failed++;
      complain(error, context, EXIT.failed);
    }
    progress.update(i + 1, file);
  }
  progress.finish();
  if (records.length === 0) {
    throw new PannsError('ERR_PANNS_DATA', 'no file could be read', { where: command.name });
  }
  const shape = [records.length, model.embeddingSize];
  const values32 = joined(rows);
  const data = half ? await toHalf(values32, command.name) : values32;
  if (format === '.npy') await writeNpy(out, shape, data);
  else if (data instanceof Uint16Array) {
    await writeSafetensors(out, [['embedding', { dtype: 'F16', shape, data }]]);
  } else await writeSafetensors(out, [['embedding', { dtype: 'F32', shape, data }]]);
  const text = /\.json$/i.test(index) ? `${JSON.stringify(records, null, 1)}\n` : csvOf(records);
  await writeFileAtomic(index, [text]);
  const counts = { files: files.length - failed, failed, truncated };
  if (json) print(JSON.stringify({ out, index, shape, ...counts }));
  else print(`${shape.join(' x ')} values: ${out}\nrows: ${index}`);
  return failed > 0 ? EXIT.failed : EXIT.ok;
});

/** One row: the mean over windows, over all of the file's time. */
function meanOf(found: Embeddings): Embeddings {
  const {
    data,
    shape: [windows, columns],
    windows: places,
  } = found;
  const sums = new Float64Array(columns);
  for (let i = 0; i < data.length; i++)
    sums[i % columns] = (sums[i % columns] ?? 0) + (data[i] ?? 0);
  return {
    ...found,
    data: Float32Array.from(sums, (sum) => sum / windows),
    shape: [1, columns],
    windows: [{ start: places[0]?.start ?? 0, end: places.at(-1)?.end ?? 0 }],
  };
}

function joined(rows: readonly Float32Array[]): Float32Array {
  const data = new Float32Array(rows.reduce((sum, { length }) => sum + length, 0));
  let filled = 0;
  for (const row of rows) {
    data.set(row, filled);
    filled += row.length;
  }
  return data;
}

/** RFC 4180: names with commas, quotes or line ends stand in quotes. */
function csvOf(records: readonly IndexRow[]): string {
  const lines = records.map(({ file, start, end }, row) => {
    const name = /[",\r\n]/.test(file) ? `"${file.replaceAll('"', '""')}"` : file;
    return `${row},${name},${start},${end}\n`;
  });
  return `row,file,start,end\n${lines.join('')}`;
}
