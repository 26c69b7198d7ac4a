#!/usr/bin/env node
// Tags sounds over HTTP: a POST of a file's bytes is answered by labels and scores as JSON.
//
//   node examples/server.mjs --model mn04 --port 8080
//   curl --data-binary @recording.wav http://localhost:8080/
//
// `tagSound` is a handler as node:http has it, and Express takes it as it is: app.post('/tags', ...),
// with no parser of bodies before it.
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { AudioTagger, errorCodes, loadAudio, PannsError } from 'panns';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'mn04' },
    port: { type: 'string', default: '8080' },
    megabytes: { type: 'string', default: '20' },
    waiting: { type: 'string', default: '8' },
  },
});
// A small file can unfold to hours.
const maxSeconds = 300;
const maxBytes = Number(values.megabytes) * 1e6;
const maxWaiting = Number(values.waiting);

/** What is not our fault, or will pass. @type {Readonly<Record<string, number>>} */
const statusOf = {
  ERR_PANNS_AUDIO_FORMAT: 415,
  ERR_PANNS_AUDIO_TOO_LONG: 413,
  ERR_PANNS_AUDIO_CORRUPT: 422,
  ERR_PANNS_AUDIO_EMPTY: 422,
  ERR_PANNS_AUDIO_NAN: 422,
  ERR_PANNS_OUT_OF_MEMORY: 503,
};

/**
 * The body; undefined when it is too long. What is too much is read and dropped, as most senders
 * listen to no answer before they have finished.
 *
 * @param {import('node:http').IncomingMessage} request
 * @returns {Promise<Buffer | undefined>}
 */
function bodyOf(request) {
  return new Promise((resolve, reject) => {
    /** @type {Buffer[]} */
    const pieces = [];
    let bytes = 0;
    request.on('data', (piece) => {
      bytes += piece.length;
      if (bytes <= maxBytes) pieces.push(piece);
      else resolve(undefined);
    });
    request.once('end', () => resolve(Buffer.concat(pieces)));
    request.once('error', reject);
  });
}

/** @param {AudioTagger} tagger @returns {import('node:http').RequestListener} */
function tagging(tagger) {
  let waiting = 0;
  return async function tagSound(request, response) {
    /** @param {number} status @param {object} answer @param {Record<string, string>} [headers] */
    const reply = (status, answer, headers) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(`${JSON.stringify(answer)}\n`);
    };
    if (request.method !== 'POST') return reply(405, { error: 'POST audio' }, { allow: 'POST' });
    if (waiting >= maxWaiting) return reply(503, { error: 'busy' }, { 'retry-after': '1' });
    waiting++;
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    try {
      const body = await bodyOf(request);
      if (body === undefined) return reply(413, { error: `at most ${maxBytes} bytes` });
      const { sampleRate } = tagger.model;
      const { signal } = gone;
      const { samples } = await loadAudio(body, { sampleRate, maxSeconds, signal });
      const { labels, seconds } = await tagger.tag(samples, { signal });
      reply(200, { seconds, labels });
    } catch (error) {
      if (gone.signal.aborted) return;
      const code = error instanceof PannsError ? error.code : 'ERR_PANNS_INTERNAL';
      const status = statusOf[code] ?? 500;
      if (status >= 500) console.error(error);
      // Messages are for us: they may name folders of this machine.
      reply(status, { code, error: status < 500 ? errorCodes[code] : 'try again later' });
    } finally {
      waiting--;
    }
  };
}

try {
  const tagger = await AudioTagger.load(values.model);
  // Who sends too slowly shall not keep a place for ever.
  const server = createServer({ requestTimeout: 30_000 }, tagging(tagger));
  server.listen(Number(values.port), () => console.log('listening on', server.address()));
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => {
      // What is under way is answered, for ten seconds at most.
      server.close(() => tagger.dispose());
      setTimeout(() => server.closeAllConnections(), 10_000).unref();
    });
  }
} catch (error) {
  if (!(error instanceof PannsError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
}
