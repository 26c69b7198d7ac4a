#!/usr/bin/env node
// Live detection: each sound is printed once it is over. Raw mono samples at 32 kHz come by standard
// input, from a microphone or from anything that ffmpeg reads; Ctrl+C ends it.
//
//   arecord -q -t raw -f S16_LE -c 1 -r 32000 | node examples/stream.mjs
//   ffmpeg -v error -i URL -f f32le -ac 1 -ar 32000 - | node examples/stream.mjs --format f32le
import { addAbortSignal } from 'node:stream';
import { parseArgs } from 'node:util';
import { EventDetector, PannsError } from 'panns';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'mn04' },
    format: { type: 'string', default: 's16le' },
    // A sound is known this many seconds after it was heard; shorter windows tell less.
    window: { type: 'string', default: '1' },
    threshold: { type: 'string', default: '0.3' },
  },
});

/** Bytes a sample, and how one is read. @type {Record<string, [number, (b: Buffer, at: number) => number]>} */
const formats = {
  s16le: [2, (bytes, at) => bytes.readInt16LE(at) / 32768],
  f32le: [4, (bytes, at) => bytes.readFloatLE(at)],
};

/**
 * Samples of bytes that come in pieces; a piece may end inside a sample.
 *
 * @param {AsyncIterable<Buffer>} pieces
 * @param {[number, (b: Buffer, at: number) => number]} format
 */
async function* samplesOf(pieces, [size, read]) {
  let rest = Buffer.alloc(0);
  for await (const piece of pieces) {
    const bytes = Buffer.concat([rest, piece]);
    const samples = new Float32Array(Math.floor(bytes.length / size));
    for (let i = 0; i < samples.length; i++) samples[i] = read(bytes, i * size);
    rest = bytes.subarray(samples.length * size);
    yield samples;
  }
}

const format = formats[values.format];
if (format === undefined || process.stdin.isTTY) {
  console.error(`usage: ... | stream.mjs [--format ${Object.keys(formats).join('|')}]`);
  process.exit(2);
}
const stop = new AbortController();
process.once('SIGINT', () => stop.abort());

try {
  const detector = await EventDetector.load(values.model, {
    windowSeconds: Number(values.window),
    hopSeconds: Number(values.window) / 4,
    threshold: Number(values.threshold),
  });
  // The signal ends the waiting for sound too, not the work on it alone.
  const sound = samplesOf(addAbortSignal(stop.signal, process.stdin), format);
  for await (const event of detector.detectStream(sound, { signal: stop.signal })) {
    const { onset, offset, label, score } = event;
    console.log(`${onset.toFixed(2)} ${offset.toFixed(2)} ${score.toFixed(3)} ${label}`);
  }
} catch (error) {
  if (stop.signal.aborted) console.error('stopped');
  else if (error instanceof PannsError) console.error(`${error.code}: ${error.message}`);
  else throw error;
  process.exitCode = stop.signal.aborted ? 0 : 1;
}
