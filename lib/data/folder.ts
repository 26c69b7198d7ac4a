import type { Dirent } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { extname, join, relative, sep } from 'node:path';
import { checkOptions, nearest } from '../errors.js';
import { ioError } from '../io/failure.js';
import { type Clip, checkClassNames, type Dataset, dataError, firstTen } from './dataset.js';

/** The file names that count as audio in a folder, lower case. */
export const AUDIO_EXTENSIONS: readonly string[] = [
  '.wav',
  '.wave',
  '.flac',
  '.mp3',
  '.ogg',
  '.oga',
  '.opus',
  '.m4a',
  '.aac',
  '.aif',
  '.aiff',
];

/** Options of {@link fromFolder}. */
export interface FolderOptions {
  /** The classes and their order; without it, the folder names in code-unit order. */
  classes?: readonly string[] | undefined;
  /** What counts as audio, with the dot; default `.wav`, `.flac`, `.mp3` and the rest of what is read. */
  extensions?: readonly string[] | undefined;
}

/**
 * Reads a data set from a folder that has one folder a class: `root/dog/1.wav`, `root/rain/a/2.wav`.
 *
 * Classes are the sorted folder names; the files of a class may lie in nested folders and come in
 * sorted order. Hidden files and folders and other file types are passed over.
 *
 * @throws PannsError `ERR_PANNS_DATA` for a class without audio, audio outside a class folder, no
 *   class at all, or folders that are not the given `classes`; `ERR_PANNS_IO`; `ERR_PANNS_OPTION`
 */
export async function fromFolder(root: string, options: FolderOptions = {}): Promise<Dataset> {
  checkOptions(options, ['classes', 'extensions'], 'fromFolder');
  const extensions = new Set((options.extensions ?? AUDIO_EXTENSIONS).map((e) => e.toLowerCase()));
  const isAudio = (name: string) => extensions.has(extname(name).toLowerCase());
  const folders: string[] = [];
  const stray: string[] = [];
  for (const { name, isFolder } of await list(root)) {
    if (isFolder) folders.push(name);
    else if (isAudio(name)) stray.push(name);
  }
  if (stray.length > 0) {
    throw dataError(root, `audio files lie outside the class folders: ${firstTen(stray)}`);
  }
  if (folders.length === 0) {
    throw dataError(root, 'there is no class folder here', {
      expected: 'one folder for each class',
    });
  }
  const classes = options.classes ?? folders;
  checkClassNames(classes, root);
  checkSameNames(folders, classes, root);

  const clips: Clip[] = [];
  const silent: string[] = [];
  for (const [label, name] of classes.entries()) {
    const files: string[] = [];
    await gatherAudio(join(root, name), isAudio, new Set(), files);
    if (files.length === 0) silent.push(name);
    for (const path of files) {
      clips.push({ id: relative(root, path).split(sep).join('/'), path, labels: [label] });
    }
  }
  if (silent.length > 0) {
    throw dataError(root, `these class folders hold no audio: ${firstTen(silent)}`, {
      expected: `files ending in ${[...extensions].join(', ')}`,
    });
  }
  return { classes, clips, skipped: [] };
}

function checkSameNames(
  folders: readonly string[],
  classes: readonly string[],
  root: string,
): void {
  const known = new Set(classes);
  const found = new Set(folders);
  const extra = folders.filter((name) => !known.has(name));
  const missing = classes.filter((name) => !found.has(name));
  if (extra.length === 0 && missing.length === 0) return;
  const parts: string[] = [];
  if (extra.length > 0) {
    const guess = nearest(extra[0] ?? '', classes);
    parts.push(`folders that are no class: ${firstTen(extra)} (the nearest class is "${guess}")`);
  }
  if (missing.length > 0) parts.push(`classes without a folder: ${firstTen(missing)}`);
  throw dataError(root, parts.join('; '), { expected: classes.length, actual: folders.length });
}

async function gatherAudio(
  folder: string,
  isAudio: (name: string) => boolean,
  visited: Set<string>,
  into: string[],
): Promise<void> {
  // A link may lead back to a folder above it.
  const place = await realpath(folder).catch((error) => {
    throw ioError(error, 'read the folder', folder);
  });
  if (visited.has(place)) return;
  visited.add(place);
  for (const { name, isFolder } of await list(folder)) {
    const path = join(folder, name);
    if (isFolder) await gatherAudio(path, isAudio, visited, into);
    else if (isAudio(name)) into.push(path);
  }
}

/** What a folder holds, sorted by code units (the same on every machine), without hidden names. */
async function list(folder: string): Promise<{ name: string; isFolder: boolean }[]> {
  let found: Dirent[];
  try {
    found = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    throw ioError(error, 'read the folder', folder);
  }
  const visible = found.filter(({ name }) => !name.startsWith('.'));
  visible.sort((a, b) => (a.name < b.name ? -1 : 1));
  return Promise.all(
    visible.map(async (entry) => ({
      name: entry.name,
      isFolder: entry.isSymbolicLink()
        ? await isLinkedFolder(join(folder, entry.name))
        : entry.isDirectory(),
    })),
  );
}

async function isLinkedFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    // A link to nowhere: if it is named as audio, decoding will report it by name.
    return false;
  }
}
