import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';

/** Requests and replies alike: JSON, and float32 arrays beside it. */
export interface Message {
  readonly header: Record<string, unknown>;
  readonly arrays: Float32Array[];
}

/** A child process that answers one request after another over its stdin and stdout. */
export interface Peer {
  call(header: Record<string, unknown>, arrays?: readonly Float32Array[]): Promise<Message>;
  close(): Promise<void>;
}

/** A message as bytes: u32 length of the header, the header, then the arrays, little-endian. */
export function encode(
  header: Record<string, unknown>,
  arrays: readonly Float32Array[],
): Uint8Array[] {
  const lengths = arrays.map((array) => array.length);
  const json = Buffer.from(JSON.stringify({ ...header, lengths }));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(json.length);
  return [
    size,
    json,
    ...arrays.map((array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)),
  ];
}

/** Messages out of a stream, one after another; undefined at its end. */
export function openReader(stream: Readable): () => Promise<Message | undefined> {
  const chunks: Buffer[] = [];
  let held = 0;
  let ended = false;
  let wake = () => {};
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    held += chunk.length;
    wake();
  });
  for (const event of ['end', 'close', 'error']) {
    stream.on(event, () => {
      ended = true;
      wake();
    });
  }
  const take = async (bytes: number): Promise<Buffer | undefined> => {
    while (held < bytes) {
      if (ended) return undefined;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const all = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
    held -= bytes;
    chunks.splice(0, chunks.length, all.subarray(bytes));
    return all.subarray(0, bytes);
  };
  return async () => {
    const size = await take(4);
    const json = size && (await take(size.readUInt32LE()));
    if (json === undefined) return undefined;
    const { lengths, ...header } = JSON.parse(json.toString()) as { lengths: number[] };
    const arrays: Float32Array[] = [];
    for (const length of lengths) {
      const bytes = await take(4 * length);
      if (bytes === undefined) return undefined;
      const array = new Float32Array(length);
      new Uint8Array(array.buffer).set(bytes);
      arrays.push(array);
    }
    return { header, arrays };
  };
}

/** Starts a program as a {@link Peer}; a request that it answers with `error` throws. */
export function startPeer(
  program: string,
  args: readonly string[],
  env: Record<string, string | undefined> = {},
): Peer {
  const child = spawn(program, args, {
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-4000);
  });
  // A program that is not there, or that dies: the reply that never comes says so.
  child.on('error', (error) => {
    complaint += error.message;
    child.stdout.destroy();
  });
  child.stdin.on('error', () => undefined);

  const read = openReader(child.stdout);
  const ask = async (header: Record<string, unknown>, arrays: readonly Float32Array[]) => {
    for (const bytes of encode(header, arrays)) child.stdin.write(bytes);
    const reply = await read();
    if (reply === undefined) throw new Error(`${program} gave no answer: ${complaint}`);
    const { error } = reply.header;
    if (error !== undefined) throw new Error(String(error));
    return reply;
  };
  let last: Promise<unknown> = Promise.resolve();
  return {
    call(header, arrays = []) {
      const reply = last.then(() => ask(header, arrays));
      last = reply.catch(() => undefined);
      return reply;
    },
    async close() {
      await last;
      await stop(child);
    },
  };
}

async function stop(child: ChildProcess): Promise<void> {
  child.stdin?.end();
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  await once(child, 'exit');
}
