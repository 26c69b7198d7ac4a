import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type CacheState, cacheFolder, examineFile } from '../inference/cache.js';
import { type DownloadProgress, downloadWeights, publishedFile } from '../inference/download.js';
import { type PublishedFile, publishedFiles, publishedUrl } from '../models/pretrained.js';
import { type Column, formatBytes, formatDuration, formatTable, printable } from './format.js';
import { createProgress, type Progress, type ProgressStream } from './progress.js';
import { type Context, defineVerb, EXIT, UsageError } from './verb.js';

const command = {
  name: 'panns download',
  summary: 'Fetch published weights, or list those there are',
  positionals: [
    { name: 'name', help: 'fetch these, as --list names them', optional: true, many: true },
  ],
  options: {
    list: { type: 'boolean', help: 'list published weights, and which of them are here' },
    check: { type: 'boolean', help: 'read the files that are here and compare their digests' },
    folder: {
      type: 'string',
      value: 'folder',
      help: 'where files are kept (default: PANNS_CACHE, or the cache folder of the system)',
    },
    mirror: {
      type: 'string',
      value: 'address',
      help: 'an address or a folder that files come from (default: PANNS_MIRROR, or the publisher)',
    },
    json: { type: 'boolean', help: 'print JSON, one file a line' },
  },
} as const;

/** `panns download`: published weights come here, are listed, or are checked. */
export const download = defineVerb(command, async (values, names, context) => {
  const { list, check, json } = values;
  if (list && check) throw new UsageError(command, '--list and --check are two commands');
  if (!list && !check && names.length === 0) {
    throw new UsageError(command, 'name what to fetch, or see what there is with --list');
  }
  const folder = resolve(values.folder ?? cacheFolder());
  const rows = names.length === 0 ? publishedFiles : [...new Set(names)].map(publishedFile);
  if (check) return checkFiles(rows, folder, names.length > 0, json, context);
  if (list) await listFiles(rows, folder, json, context);
  else await fetchFiles(rows, folder, values.mirror, json, context);
  return EXIT.ok;
});

const COLUMNS: readonly Column[] = [
  ...[{ title: 'name' }, { title: 'model' }, { title: 'options' }],
  ...[{ title: 'size', align: 'right' } as const, { title: 'mAP', align: 'right' } as const],
  ...[{ title: 'licence' }, { title: 'here' }],
];

const HERE: Record<CacheState['state'], string> = { good: 'yes', bad: 'damaged', missing: '-' };

async function listFiles(
  rows: readonly PublishedFile[],
  folder: string,
  json: boolean,
  { print, signal }: Context,
): Promise<void> {
  const cells: string[][] = [];
  for (const row of rows) {
    const path = join(folder, row.file);
    const found = await examineFile(row, path, { signal });
    if (json) {
      print(JSON.stringify({ ...factsOf(row, path), ...found }));
      continue;
    }
    const options = Object.entries(row.options ?? {}).map(([name, value]) => `${name} ${value}`);
    const size = row.bytes === undefined ? '-' : formatBytes(row.bytes);
    cells.push([
      ...[row.name, row.model, options.join(', '), size, row.mAP.toFixed(3)],
      ...[row.source.licence, HERE[found.state]],
    ]);
  }
  if (json) return;
  print(formatTable(COLUMNS, cells));
  print(
    '\nThe options are those of a model that takes the weights; a size that is not known is -.',
  );
  for (const { authors, title, licence, page } of new Set(rows.map(({ source }) => source))) {
    print(`${licence}: ${authors}, "${title}", ${page}`);
  }
  print(`Files are kept in ${folder}.`);
}

function factsOf(row: PublishedFile, path: string) {
  const { name, model, options, file, bytes, md5, sha256, mAP, source } = row;
  return {
    ...{ name, model, options, file, bytes, md5, sha256, mAP, licence: source.licence },
    ...{ authors: source.authors, title: source.title, doi: source.doi, url: publishedUrl(row) },
    path,
  };
}

/** Reads every file that is here; those that were named have to be. */
async function checkFiles(
  rows: readonly PublishedFile[],
  folder: string,
  named: boolean,
  json: boolean,
  { print, signal }: Context,
): Promise<number> {
  let [here, faults] = [0, 0];
  for (const row of rows) {
    const path = join(folder, row.file);
    const found = await examineFile(row, path, { signal, afresh: true });
    if (found.state === 'missing' && !named) continue;
    here += found.state === 'missing' ? 0 : 1;
    faults += found.state === 'good' ? 0 : 1;
    const known = row.sha256 ?? row.md5;
    if (json) {
      print(JSON.stringify({ name: row.name, path, published: known !== undefined, ...found }));
    } else if (found.state === 'good') {
      const basis = known === undefined ? 'as it was when it came' : 'as published';
      print(`${row.name} is good, ${basis}: ${path}`);
    } else {
      const fault = found.state === 'bad' ? `has ${found.fault}` : 'is not here';
      print(`${row.name} ${fault}: ${path}`);
    }
  }
  if (here === 0 && faults === 0 && !json) print(`There are no published weights in ${folder}.`);
  return faults === 0 ? EXIT.ok : EXIT.failed;
}

async function fetchFiles(
  rows: readonly PublishedFile[],
  folder: string,
  mirror: string | undefined,
  json: boolean,
  { print, messages, signal }: Context,
): Promise<void> {
  for (const row of rows) {
    const display = displayOf(messages, json);
    let path: string;
    try {
      const chosen = mirror === undefined ? {} : { mirror };
      const { onProgress } = display;
      path = await downloadWeights(row.name, { folder, signal, onProgress, ...chosen });
    } finally {
      display.finish();
    }
    const { size } = await stat(path);
    if (json) print(JSON.stringify({ name: row.name, model: row.model, path, bytes: size }));
    else print(`${row.name} is in ${path} (${formatBytes(size)}, ${row.source.licence})`);
  }
}

/** A display that appears with the first byte: for what is here already there is nothing to show. */
function displayOf(stream: ProgressStream, silent: boolean) {
  let progress: Progress | undefined;
  // Whole tenths of a megabyte: the last digit does not flicker.
  const megabytes = (bytes: number) => Math.round(bytes / 1e5) / 10;
  return {
    onProgress({ name, received, total, waiting }: DownloadProgress): void {
      if (waiting !== undefined) {
        const { reason, seconds } = waiting;
        const line = `${name}: ${reason}; trying again in ${formatDuration(seconds)}`;
        if (progress !== undefined) progress.log(line);
        else if (!silent) stream.write(`${printable(line)}\n`);
        return;
      }
      progress ??= createProgress({
        ...{ label: name, unit: 'MB', rate: ' MB/s', initial: megabytes(received), stream, silent },
        total: total === undefined ? undefined : megabytes(total),
      });
      progress.update(megabytes(received));
    },
    finish: () => progress?.finish(),
  };
}
