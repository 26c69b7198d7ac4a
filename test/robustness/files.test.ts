import { spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createRandom } from '../../lib/data/random.js';
import { isErrorCode, PannsError } from '../../lib/errors.js';
import { createModel, type Model } from '../../lib/inference/model.js';
import { loadModel } from '../../lib/inference/model_file.js';
import { freshSeed } from '../data/fresh_seed.js';

t.jobs = 1;

const isRoot = process.getuid?.() === 0;
const MiB = 2 ** 20;

/** A small front-end keeps the file at a few megabytes. */
function newModel(seed = 1): Promise<Model> {
  return createModel('Cnn6', { classes: 3, sampleRate: 4000, windowSize: 64, melBins: 16, seed });
}

/** The header of a safetensors file as JSON, and the bytes after it. */
interface Parts {
  header: Record<string, { shape: number[]; data_offsets: [number, number]; dtype: string }>;
  description: Record<string, unknown>;
  data: Uint8Array;
}

function split(bytes: Uint8Array): Parts {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__, ...header } = JSON.parse(
    Buffer.from(bytes.subarray(8, 8 + length)).toString(),
  );
  return { header, description: JSON.parse(__metadata__.panns), data: bytes.subarray(8 + length) };
}

function joined({ header, description, data }: Parts): Uint8Array {
  const all = { __metadata__: { panns: JSON.stringify(description) }, ...header };
  let text = JSON.stringify(all);
  text += ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
  return Buffer.concat([length, Buffer.from(text), data]);
}

async function saved(t: Test): Promise<{ path: string; bytes: Uint8Array }> {
  const path = join(t.testdir(), 'model.safetensors');
  const model = await newModel();
  await model.save(path);
  model.dispose();
  return { path, bytes: readFileSync(path) };
}

/** Loads the file and runs it once: what it answered, or the error. */
async function attempt(path: string): Promise<unknown> {
  let model: Model | undefined;
  try {
    model = await loadModel(path, { threads: 1 });
    return await model.infer(new Float32Array(model.minimumSamples));
  } catch (error) {
    return error;
  } finally {
    model?.dispose();
  }
}

/** Runs `use` with the path of a small disk of its own; skips where that cannot be. */
async function withDisk(
  t: Test,
  options: string,
  use: (disk: string) => Promise<void>,
): Promise<void> {
  const disk = mkdtempSync(join(tmpdir(), 'panns-disk-'));
  const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', disk], {
    encoding: 'utf8',
  });
  try {
    if (mount.status === 0) await use(disk);
    else
      t.pass('not run', {
        skip: `no disk to mount: ${mount.error?.message ?? mount.stderr.trim()}`,
      });
  } finally {
    if (mount.status === 0) spawnSync('umount', [disk]);
    rmdirSync(disk);
  }
}

t.test('a full disk: the old file stays, nothing else is left', async (t) => {
  const model = await newModel();
  t.teardown(() => model.dispose());
  await withDisk(t, 'size=1m', async (disk) => {
    const path = join(disk, 'model.safetensors');
    writeFileSync(path, 'the old one');
    const full = { name: 'PannsError', code: 'ERR_PANNS_IO', message: /disk is full.*ENOSPC/ };
    await t.rejects(model.save(path), full);
    t.equal(readFileSync(path, 'utf8'), 'the old one');
    t.same(readdirSync(disk), ['model.safetensors']);
  });
});

t.test('a file system that is read-only', async (t) => {
  const model = await newModel();
  t.teardown(() => model.dispose());
  await withDisk(t, 'ro,size=1m', async (disk) => {
    await t.rejects(model.save(join(disk, 'm')), {
      code: 'ERR_PANNS_IO',
      message: /read-only.*EROFS/,
    });
  });
});

t.test(
  'a folder without write permission',
  { skip: isRoot && 'root may write anywhere' },
  async (t) => {
    const folder = join(t.testdir(), 'closed');
    mkdirSync(folder, { mode: 0o500 });
    const model = await newModel();
    t.teardown(() => model.dispose());
    await t.rejects(model.save(join(folder, 'm')), { code: 'ERR_PANNS_IO' });
  },
);

t.test('a folder that does not exist, a path that is a folder', async (t) => {
  const folder = t.testdir();
  const model = await newModel();
  t.teardown(() => model.dispose());
  await t.rejects(model.save(join(folder, 'no', 'm')), {
    code: 'ERR_PANNS_IO',
    message: /create the folder/,
  });
  await t.rejects(model.save(folder), { code: 'ERR_PANNS_IO', message: /folder/ });
  await t.rejects(loadModel(join(folder, 'none')), { code: 'ERR_PANNS_IO' });
  await t.rejects(loadModel(folder), { code: 'ERR_PANNS_IO' });
  t.same(readdirSync(folder), []);
});

t.test('a model that was saved comes back bit for bit', async (t) => {
  const { path } = await saved(t);
  const [model, loaded] = [await newModel(), await loadModel(path)];
  const clip = new Float32Array(8000).map((_, i) => Math.sin(i / 3) * Math.cos(i / 70));
  t.same(await loaded.infer(clip), await model.infer(clip));
  t.same(await loaded.stateDict(), await model.stateDict());
  model.dispose();
  loaded.dispose();
});

t.test('truncated files', async (t) => {
  const { path, bytes } = await saved(t);
  for (const length of [
    0,
    1,
    7,
    8,
    9,
    100,
    5000,
    bytes.length >> 1,
    bytes.length - 4,
    bytes.length - 1,
  ]) {
    writeFileSync(path, bytes.subarray(0, length));
    t.match(
      await attempt(path),
      { name: 'PannsError', code: 'ERR_PANNS_CHECKPOINT' },
      `${length} bytes`,
    );
  }
  writeFileSync(path, Buffer.concat([bytes, Buffer.alloc(16)]));
  t.match(await attempt(path), { code: 'ERR_PANNS_CHECKPOINT' }, 'bytes after the end');
});

t.test('files of another kind', async (t) => {
  const path = join(t.testdir(), 'model');
  const foreign: Record<string, Buffer> = {
    text: Buffer.from('a text that is no model\n'.repeat(50)),
    zeros: Buffer.alloc(10_000),
    ones: Buffer.alloc(10_000, 0xff),
    zip: Buffer.concat([Buffer.from('PK\x03\x04'), Buffer.alloc(1000, 1)]),
    'safetensors of something else': Buffer.from(
      `\x40\0\0\0\0\0\0\0${'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.padEnd(64)}\0\0\0\0`,
    ),
  };
  for (const [kind, bytes] of Object.entries(foreign)) {
    writeFileSync(path, bytes);
    t.match(await attempt(path), { name: 'PannsError', code: 'ERR_PANNS_CHECKPOINT' }, kind);
  }
});

t.test('NaN and infinite weights', async (t) => {
  const { path, bytes } = await saved(t);
  for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
    const copy = new Uint8Array(bytes);
    const { header, data } = split(copy);
    const [begin = 0] = header['conv_block2.conv1.weight']?.data_offsets ?? [];
    new DataView(copy.buffer).setFloat32(copy.length - data.length + begin + 20, bad, true);
    writeFileSync(path, copy);
    t.match(await attempt(path), { name: 'PannsError', code: 'ERR_PANNS_NAN' }, String(bad));
  }
});

t.test('a NaN far into a tensor is told by its place there', async (t) => {
  const model = await createModel('Cnn10', { classes: 2 });
  const state = await model.stateDict();
  const { data } = state.get('conv_block3.conv1.weight') ?? {};
  // Beyond the first of the slices in which weights are looked at.
  const place = 200_000;
  (data as Float32Array)[place] = Number.NaN;
  await t.rejects(model.loadStateDict(state), {
    code: 'ERR_PANNS_NAN',
    message: new RegExp(`value ${place} is NaN`),
  });
  model.dispose();
});

/** Each changes a whole model's file into one that no writer makes. */
const hostile: Record<string, (parts: Parts) => void> = {
  'no nodes': ({ description }) => nodesOf(description).splice(0),
  'an unknown op': ({ description }) => set(nodesOf(description)[3], 'op', 'system'),
  'a backward op': ({ description }) => set(nodesOf(description)[3], 'op', 'conv_backward_weight'),
  'a later node as input': ({ description }) => set(nodesOf(description)[3], 'inputs', ['#9']),
  'no outputs': ({ description }) => set(description.spec, 'outputs', {}),
  'other outputs': ({ description }) =>
    set(description.spec, 'outputs', { clipwise_output: 2, embedding: 3 }),
  'an output of another width': ({ description }) => set(description, 'embeddingSize', 7),
  'an embedding beyond all memory': ({ description }) => set(description, 'embeddingSize', 2 ** 50),
  'more classes than there are': ({ description }) => {
    set(description.config, 'classes', 5);
  },
  'more classes than memory': ({ description }) => {
    set(description.config, 'classes', 2 ** 45);
  },
  'huge channels': ({ description }) => {
    for (const node of nodesOf(description))
      if (node.op === 'conv') set(node.attrs, 'out_channels', 2 ** 20);
  },
  'kernels whose size overflows': ({ description }) => {
    for (const node of nodesOf(description)) {
      if (node.op !== 'conv') continue;
      Object.assign(node.attrs as object, {
        out_channels: 2 ** 20,
        kernel: [65536, 65536],
        padding: [65536, 65536],
      });
    }
  },
  'a minimum length beyond all memory': ({ description }) =>
    set(description, 'minimumSamples', 2 ** 50),
  'a huge minimum length': ({ description }) => set(description, 'minimumSamples', 2 ** 34),
  'a rate of nonsense': ({ description }) => set(description.config, 'sampleRate', -4000),
  'a window too long for its tables': ({ description, header }) => {
    // The tensors in the file stay small; to compute what they are compared with would take 17 GB.
    set(description.config, 'windowSize', 65536);
    for (const entry of description.stateDict as {
      name: string;
      role: string;
      shape: number[];
    }[]) {
      const stored = header[entry.name];
      if (entry.role !== 'derived' || stored === undefined) continue;
      entry.shape = stored.shape = [stored.shape.reduce((a, b) => a * b, 1)];
    }
  },
  'a state dict of other names': ({ description }) => {
    for (const entry of description.stateDict as { name: string }[]) entry.name = `x.${entry.name}`;
  },
  'a state dict that lacks a weight': ({ description, header }) => {
    const entries = description.stateDict as { name: string }[];
    const at = entries.findIndex(({ name }) => name === 'fc1.weight');
    entries.splice(at, 1);
    // Kept in the file under a training run's prefix, so that the bytes have no hole.
    const entry = header['fc1.weight'];
    delete header['fc1.weight'];
    if (entry) header['optimizer.fc1.weight'] = entry;
  },
  'shapes that differ between spec and state dict': ({ description, header }) => {
    for (const entry of description.stateDict as { name: string; shape: number[] }[]) {
      if (entry.name !== 'fc1.weight') continue;
      entry.shape.reverse().push(1);
      const stored = header['fc1.weight'];
      if (stored) stored.shape = entry.shape;
    }
  },
  'a version of tomorrow': ({ description }) => set(description, 'version', 2),
  'labels of another count': ({ description }) => set(description, 'labels', ['a']),
  'a shape beyond all memory': ({ header }) =>
    set(header['fc1.weight'], 'shape', [2 ** 40, 2 ** 40]),
};

/** These could end the process: each has a child of its own, with a limit on its memory. */
const ALONE = [
  'kernels whose size overflows',
  'a window too long for its tables',
  'a huge minimum length',
];

function nodesOf(description: Record<string, unknown>): Record<string, unknown>[] {
  return (description.spec as { nodes: Record<string, unknown>[] }).nodes;
}

function set(owner: unknown, key: string, value: unknown): void {
  (owner as Record<string, unknown>)[key] = value;
}

t.test('hostile files: a typed error, little memory, little time', async (t) => {
  const { path, bytes } = await saved(t);
  t.match(await attempt(path), { clipwise_output: { shape: [1, 3] } }, 'the file itself is good');
  for (const [name, change] of Object.entries(hostile)) {
    if (ALONE.includes(name)) continue;
    const parts = split(bytes);
    change(parts);
    writeFileSync(path, joined(parts));
    const begin = performance.now();
    const before = process.memoryUsage.rss();
    const outcome = await attempt(path);
    const grown = (process.memoryUsage.rss() - before) / MiB;
    t.ok(
      outcome instanceof PannsError,
      `${name}: ${outcome instanceof Error ? outcome.message : 'no error'}`,
    );
    t.ok(performance.now() - begin < 10_000, `${name}: in time`);
    t.ok(grown < 500, `${name}: ${grown.toFixed(0)} MiB`);
  }
});

t.test('hostile files that aim at memory', async (t) => {
  const { path, bytes } = await saved(t);
  const script = join(import.meta.dirname, 'load_hostile.ts');
  for (const name of ALONE) {
    const parts = split(bytes);
    hostile[name]?.(parts);
    writeFileSync(path, joined(parts));
    const command = ['ulimit -c 0; ulimit -d 4000000; exec "$@"', 'sh', process.execPath];
    const child = spawnSync('bash', ['-c', ...command, ...process.execArgv, script, path], {
      encoding: 'utf8',
      timeout: 40_000,
      killSignal: 'SIGKILL',
    });
    const report = /REPORT (.*)/.exec(child.stdout)?.[1];
    t.match(
      { code: child.status, signal: child.signal },
      { code: 0, signal: null },
      `${name}: the process goes on`,
    );
    const { code, message, rss } = JSON.parse(report ?? '{}') as Record<string, unknown>;
    t.match(code, /^ERR_PANNS_/, `${name}: ${message}`);
    t.ok((rss as number) < 1500 * MiB, `${name}: RSS ${((rss as number) / MiB).toFixed(0)} MiB`);
  }
});

t.test('two hundred random changes of a model file', async (t) => {
  const { path, bytes } = await saved(t);
  const random = createRandom(freshSeed(t));
  const whole = (below: number) => Math.floor(random.uniform() * below);
  const headerEnd = bytes.length - split(bytes).data.length;
  const counts = new Map<string, number>();
  let slowest = 0;
  for (let round = 0; round < 200; round++) {
    let copy = Buffer.from(bytes);
    for (let i = whole(3); i >= 0; i--) {
      // The header is a small part of the file, and where parsers break.
      const at = whole(10) < 8 ? whole(headerEnd) : whole(copy.length);
      const kind = whole(4);
      if (kind === 0) copy[at] = (copy[at] ?? 0) ^ (1 << whole(8));
      else if (kind === 1) copy[at] = pickDigit(whole(16));
      else if (kind === 2)
        copy = Buffer.concat([copy.subarray(0, at), copy.subarray(at + 1 + whole(20))]);
      else copy.copyWithin(at, whole(headerEnd), whole(headerEnd));
    }
    writeFileSync(path, copy);
    const begin = performance.now();
    const outcome = await attempt(path);
    slowest = Math.max(slowest, performance.now() - begin);
    const code = outcome instanceof Error ? String((outcome as { code?: unknown }).code) : 'loaded';
    counts.set(code, (counts.get(code) ?? 0) + 1);
    if (code !== 'loaded' && (!isErrorCode(code) || code === 'ERR_PANNS_INTERNAL')) {
      t.fail(`round ${round}: ${(outcome as Error).stack}`);
    }
  }
  t.comment(`${JSON.stringify(Object.fromEntries(counts))}, slowest ${slowest.toFixed(0)} ms`);
  t.ok((counts.get('ERR_PANNS_CHECKPOINT') ?? 0) > 50);
  t.ok(slowest < 10_000);
});

/** Characters that mean something in JSON. */
function pickDigit(index: number): number {
  return '0123456789-.[]{"'.charCodeAt(index);
}
