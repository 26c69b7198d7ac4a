import { createHash, randomBytes, randomInt } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type DownloadOptions, fetchPublished } from '../../lib/inference/download.js';
import type { PublishedFile } from '../../lib/models/pretrained.js';

// What the machine is set to shall decide nothing here.
delete process.env.PANNS_MIRROR;
delete process.env.PANNS_OFFLINE;
delete process.env.PANNS_CACHE;

/** About three times what one attempt must bring to count: pieces can break off in between. */
export const BYTES = 3_000_000 + randomInt(100_000);

/** As quick as a test may be. */
const PAUSE = 5;

export const fetchQuickly = (row: PublishedFile, options: DownloadOptions) =>
  fetchPublished(row, options, PAUSE);

/** Answers the n-th request, counted from 0. */
export type Answer = (request: IncomingMessage, response: ServerResponse, n: number) => unknown;

/** A server on this machine that notes what is asked for. */
export interface FileServer {
  /** What the option `mirror` takes. */
  readonly mirror: string;
  readonly requests: readonly IncomingMessage[];
}

/** Starts a server that ends with the test. */
export async function serve(
  t: { teardown(f: () => unknown): unknown },
  answer: Answer,
): Promise<FileServer> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    void answer(request, response, requests.length - 1);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { mirror: `http://127.0.0.1:${port}/some/folder`, requests };
}

/** Bytes that begin as a PyTorch file does and are new in every run. */
export function weightsOf(bytes: number): Buffer {
  return Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), randomBytes(bytes - 4)]);
}

let made = 0;

/** A row of a file that nobody has published, nor another row, with all that could be known of it. */
export function madeUp(content: Buffer): Required<Omit<PublishedFile, 'options'>> {
  const digest = (kind: string) => createHash(kind).update(content).digest('hex');
  return {
    ...{ name: 'MadeUp', model: 'Cnn6', file: `MadeUp_mAP=0.${made++}.pth`, mAP: 0.5 },
    ...{ bytes: content.length, md5: digest('md5'), sha256: digest('sha256') },
    source: {
      ...{ title: 'Made up', authors: 'N. N.', licence: 'MIT', page: 'https://panns.invalid' },
      base: 'https://panns.invalid/files/',
    },
  };
}

/** The same where neither size nor digest is known. */
export function unverifiable(content: Buffer): PublishedFile {
  const { name, model, file, mAP, source } = madeUp(content);
  return { name, model, file, mAP, source };
}

/** The byte that a request wants first. */
export function firstByte({ headers }: IncomingMessage): number {
  return Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0);
}

/** What an honest server answers: the whole, or the range, with its validator. */
export function head(
  request: IncomingMessage,
  response: ServerResponse,
  content: Buffer,
  etag = '"one"',
): Buffer {
  const condition = request.headers['if-range'];
  const first = condition === undefined || condition === etag ? firstByte(request) : 0;
  const rest = content.subarray(first);
  const range = `bytes ${first}-${content.length - 1}/${content.length}`;
  response.writeHead(first > 0 ? 206 : 200, {
    ...{ etag, 'content-length': rest.length },
    ...(first > 0 ? { 'content-range': range } : {}),
  });
  return rest;
}

/** Sends everything that is asked for. */
export function honest(content: Buffer, etag?: string): Answer {
  return (request, response) => response.end(head(request, response, content, etag));
}

/**
 * Sends so many bytes of what is asked for, and closes the connection once they lie in `folder`: what
 * a client has not read when it learns of the end is lost, and how much that is nobody knows.
 */
export function breaksAfter(content: Buffer, bytes: number, folder: string): Answer {
  return (request, response) => {
    const sent = head(request, response, content).subarray(0, bytes);
    response.write(sent);
    const timer = setInterval(() => {
      if (partSize(folder) < firstByte(request) + sent.length) return;
      clearInterval(timer);
      response.destroy();
    }, 10);
    response.on('close', () => clearInterval(timer));
  };
}

function partSize(folder: string): number {
  const part = readdirSync(folder).find((name) => name.endsWith('.part'));
  return part === undefined ? 0 : (statSync(join(folder, part), WHERE_IT_IS)?.size ?? 0);
}

/** It may be renamed in between. */
const WHERE_IT_IS = { throwIfNoEntry: false } as const;
