#!/usr/bin/env node
// Finds what sounds alike: keeps the embeddings of a folder's recordings in one file, and asks it for
// the windows that are nearest to a recording.
//
//   node examples/embeddings.mjs index sounds store.safetensors [model]
//   node examples/embeddings.mjs query recording.wav store.safetensors
import { readdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import { embed, loadModel, PannsError, readSafetensors, writeSafetensors } from 'panns';

const windowSeconds = 2;
const isAudio = /\.(wav|flac|mp3|ogg|opus|m4a|aiff?)$/i;

/**
 * The windows of a recording, rows of unit length: a product of two is the cosine of their angle.
 *
 * @param {import('panns').Model} model
 * @param {string} path
 */
async function windowsOf(model, path) {
  const { data, shape, windows } = await embed(model, path, { windowSeconds });
  return windows.map(({ start, end }, i) => {
    const row = data.subarray(i * shape[1], (i + 1) * shape[1]);
    const length = Math.hypot(...row) || 1;
    return { path, start, end, row: row.map((value) => value / length) };
  });
}

/** @param {string} folder @param {string} store @param {string} source */
async function index(folder, store, source = 'mn04') {
  const model = await loadModel(source);
  const found = [];
  for (const name of (await readdir(folder, { recursive: true })).sort()) {
    if (!isAudio.test(name)) continue;
    try {
      found.push(...(await windowsOf(model, resolve(folder, name))));
    } catch (error) {
      // One damaged file among many is told of, and the others are kept.
      if (!(error instanceof PannsError && error.code.startsWith('ERR_PANNS_AUDIO'))) throw error;
      console.error(`passed over: ${error.code}: ${error.message}`);
    }
  }
  const shape = [found.length, model.embeddingSize];
  const data = new Float32Array(found.length * model.embeddingSize);
  for (const [i, { row }] of found.entries()) data.set(row, i * row.length);
  const places = JSON.stringify(found.map(({ path, start, end }) => ({ path, start, end })));
  const notes = Object.entries({ model: source, places });
  await writeSafetensors(store, [['embedding', { dtype: 'F32', shape, data }]], notes);
  console.log(`wrote ${store}: windows: ${found.length}`);
}

/** @param {string} recording @param {string} store */
async function query(recording, store) {
  const { metadata, tensors } = await readSafetensors(store);
  const stored = tensors.get('embedding');
  const source = metadata.get('model');
  if (stored?.dtype !== 'F32' || source === undefined) {
    throw new PannsError('ERR_PANNS_DATA', 'this is no store of embeddings', { where: store });
  }
  /** @type {{ path: string, start: number, end: number }[]} */
  const places = JSON.parse(metadata.get('places') ?? '[]');
  for (const { start, end, row } of await windowsOf(await loadModel(source), recording)) {
    console.log(`${start.toFixed(1)} to ${end.toFixed(1)} s is like`);
    const near = places.map((place, i) => {
      const other = stored.data.subarray(i * row.length, (i + 1) * row.length);
      return { ...place, cosine: row.reduce((sum, value, e) => sum + value * (other[e] ?? 0), 0) };
    });
    for (const { cosine, path, start, end } of near
      .sort((a, b) => b.cosine - a.cosine)
      .slice(0, 5)) {
      console.log(`  ${cosine.toFixed(4)} ${path} ${start.toFixed(1)} to ${end.toFixed(1)} s`);
    }
  }
}

const [verb, first, second, model] = process.argv.slice(2);
try {
  if (first === undefined || second === undefined || (verb !== 'index' && verb !== 'query')) {
    console.error('usage: embeddings.mjs index folder store [model] | query recording store');
    process.exitCode = 2;
  } else if (verb === 'index') await index(first, second, model);
  else await query(first, second);
} catch (error) {
  // Node.js names a folder that is not there as this package names its own errors: by a code.
  if (!(error instanceof Error && 'code' in error)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
}
