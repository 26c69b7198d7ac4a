import { createRandom } from '../../lib/data/random.js';
import { PannsError } from '../../lib/errors.js';
import { text } from '../../lib/io/pth/opcodes.js';
import { encodePth } from '../../lib/io/pth/writer.js';
import type { SafetensorsTensor } from '../../lib/io/safetensors.js';
import { encodeSafetensors } from '../../lib/io/safetensors_writer.js';
import { openWeights } from '../../lib/io/weights.js';
import { mutations } from './mutations.js';
import { legacyFile, pickle, storage, tensor } from './pickles.js';
import { zipOf } from './zips.js';

/** What became of mutated files. */
export interface Outcome {
  cases: number;
  /** Read to the end. */
  read: number;
  /** Refused with an error of the package, by code. */
  readonly refused: Map<string, number>;
  /** Anything else: a defect. */
  readonly faults: string[];
  /** Of the slowest case, in ms, and the seed that made it. */
  slowest: number;
  slowestSeed: number;
}

/** A file, and how it is put together again after its pickle was mutated. */
interface Seed {
  readonly bytes: Buffer;
  readonly around: (mutated: Buffer) => Buffer;
}

const EXPECTED = new Set(['ERR_PANNS_CHECKPOINT', 'ERR_PANNS_UNSUPPORTED']);

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
  const outcome: Outcome = {
    ...{ cases: 0, read: 0, refused: new Map(), faults: [], slowest: 0, slowestSeed: 0 },
  };
  for (let i = 0; i < cases; i++) {
    const own = (seed + i) >>> 0;
    const random = createRandom(own);
    const file = files[random.integer(files.length)] as Seed;
    let bytes: Buffer = Buffer.from(file.bytes);
    for (let n = 1 + random.integer(3); n > 0; n--) {
      const mutate = mutations[random.integer(mutations.length)];
      bytes = mutate?.(bytes, random, others) ?? bytes;
    }
    const start = performance.now();
    await readCase(file.around(bytes), own, outcome);
    const elapsed = performance.now() - start;
    if (elapsed > outcome.slowest) {
      outcome.slowest = elapsed;
      outcome.slowestSeed = own;
    }
    outcome.cases++;
    if (i % 256 === 0) await new Promise(setImmediate);
  }
  return outcome;
}

async function readCase(bytes: Uint8Array, seed: number, outcome: Outcome): Promise<void> {
  try {
    const file = await openWeights(bytes);
    for (const [name, { shape }] of file.entries) {
      const { data } = await file.read(name);
      const count = shape.reduce((product, n) => product * n, 1);
      if (data.length !== count) throw new Error(`${name}: ${data.length} of ${count} elements`);
    }
    outcome.read++;
  } catch (error) {
    if (error instanceof PannsError && EXPECTED.has(error.code)) {
      outcome.refused.set(error.code, (outcome.refused.get(error.code) ?? 0) + 1);
    } else if (outcome.faults.length < 20) {
      outcome.faults.push(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  }
}
