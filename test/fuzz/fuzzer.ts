import { text } from '../../lib/io/pth/opcodes.js';
import { encodePth } from '../../lib/io/pth/writer.js';
import type { SafetensorsTensor } from '../../lib/io/safetensors.js';
import { encodeSafetensors } from '../../lib/io/safetensors_writer.js';
import { openWeights } from '../../lib/io/weights.js';
import { mutate, type Outcome, runCases } from './cases.js';
import { legacyFile, pickle, storage, tensor } from './pickles.js';
import { zipOf } from './zips.js';

/** A file, and how it is put together again after its pickle was mutated. */
interface Seed {
  readonly bytes: Buffer;
  readonly around: (mutated: Buffer) => Buffer;
}

const EXPECTED = /^ERR_PANNS_(CHECKPOINT|UNSUPPORTED)$/;

/** Small files of each format; of archives also the pickle alone, with checksums that are right. */
export async function seeds(): Promise<Seed[]> {
  const state: [string, SafetensorsTensor][] = [
    ['conv.weight', { dtype: 'F32', shape: [2, 3], data: Float32Array.of(1, -2, 3, 0.5, 0, 9) }],
    ['bn.num_batches_tracked', { dtype: 'I64', shape: [], data: BigInt64Array.of(12n) }],
    ['half', { dtype: 'BF16', shape: [3], data: Uint16Array.of(1, 2, 3) }],
  ];
  const parts: Buffer[] = [];
  for await (const part of encodePth(state, { metadata: [['note', 'text']] })) {
    const { buffer, byteOffset, byteLength } = part as ArrayBufferView;
    parts.push(Buffer.from(buffer, byteOffset, byteLength));
  }
  const archive = Buffer.concat(parts);
  const chunks = encodeSafetensors(state, [['format', 'pt']]) as ArrayBufferView[];
  const views = chunks.map((c) => Buffer.from(c.buffer, c.byteOffset, c.byteLength));
  const number = (n: number) => Buffer.from([0x4b, n]);
  const view = (from: number, n: number, step: number) => {
    return tensor(storage('7', number(12)), number(from), [number(n)], [number(step)]);
  };
  const members = ['(', text('a'), view(0, 4, 3), text('module.b'), view(2, 5, 1), 'u'];
  const object = pickle('}', text('model'), 'ccollections\nOrderedDict\n)R', ...members, 's');
  const memory = Buffer.from(Float32Array.from({ length: 12 }, (_, i) => i).buffer);
  const legacy = legacyFile(object, [['7', 12, memory]]);
  const records = (data: Buffer) =>
    [
      ['x/data.pkl', data],
      ['x/data/7', memory],
    ] as const;
  const whole = (bytes: Buffer): Seed => ({ bytes, around: (mutated) => mutated });
  return [
    whole(archive),
    whole(Buffer.concat(views)),
    whole(legacy),
    whole(zipOf(records(object), { zip64: true })),
    { bytes: object, around: (data) => zipOf(records(data)) },
    { bytes: object, around: (data) => legacyFile(data, [['7', 12, memory]]) },
    whole(Buffer.concat([legacy.subarray(0, 60), pickle('}', text('a'), 'cos\nsystem\n', 's')])),
  ];
}

/** Runs `cases` mutated files through the reader; equal seeds give equal files. */
export async function fuzz(seed: number, cases: number): Promise<Outcome> {
  const files = await seeds();
  const others = files.map(({ bytes }) => bytes);
  return runCases(seed, cases, EXPECTED, async (random) => {
    const { bytes, around } = files[random.integer(files.length)] as Seed;
    await readWhole(around(mutate(bytes, random, others)));
  });
}

async function readWhole(bytes: Uint8Array): Promise<void> {
  const file = await openWeights(bytes);
  for (const [name, { shape }] of file.entries) {
    const { data } = await file.read(name);
    const count = shape.reduce((product, n) => product * n, 1);
    if (data.length !== count) throw new Error(`${name}: ${data.length} of ${count} elements`);
  }
}
