#!/usr/bin/env node
// What is heard in a recording of any length: a table of labels.
//
//   node examples/tag.mjs recording.wav [model]
//
// The model is a file, or the name of published weights, which are fetched once; default mn04.
import { AudioTagger, PannsError } from 'panns';

const [file, source = 'mn04'] = process.argv.slice(2);
if (file === undefined) {
  console.error('usage: tag.mjs recording.wav [model]');
  process.exit(2);
}

/** @param {number} score in 0..1 */
const bar = (score) => '█'.repeat(Math.round(20 * score)).padEnd(20, '·');

try {
  // With TypeScript, or from Node.js 24 on: `using tagger = ...`, and no dispose().
  const tagger = await AudioTagger.load(source);
  try {
    const { labels, segments, seconds } = await tagger.tag(file, { topK: 8 });
    console.log(`${file}: ${seconds.toFixed(1)} s, windows: ${segments.length}`);
    console.log(`mean  ${' '.repeat(20)}  most  label`);
    for (const { label, index, score } of labels) {
      // A short sound has a low mean over a long recording, and a high score where it is heard.
      const most = segments.reduce((max, { scores }) => Math.max(max, scores[index] ?? 0), 0);
      console.log(`${score.toFixed(3)} ${bar(score)}  ${most.toFixed(3)} ${label}`);
    }
  } finally {
    tagger.dispose();
  }
} catch (error) {
  if (!(error instanceof PannsError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
}
