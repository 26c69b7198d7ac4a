/** A clip of a pack: its samples are rounded to 16 bits. */
export interface PackClip {
  readonly name: string;
  readonly labels: readonly number[];
  readonly samples: ArrayLike<number>;
}

const bytes = (size: number, ...numbers: number[]) => {
  const buffer = Buffer.alloc(size * numbers.length);
  for (const [i, n] of numbers.entries()) {
    if (size === 8) buffer.writeBigInt64LE(BigInt(n), 8 * i);
    else buffer.writeIntLE(n, size * i, size);
  }
  return buffer;
};
/** In eights of bytes. */
const padded = (...parts: Buffer[]) => {
  const whole = Buffer.concat(parts);
  return Buffer.concat([whole, Buffer.alloc(-whole.length & 7)]);
};
const NOWHERE = -1;

const message = (kind: number, body: Buffer) =>
  Buffer.concat([bytes(2, kind, body.length), bytes(4, 0), body]);

/** An object header of version 1. */
function header(...messages: Buffer[]): Buffer {
  const body = Buffer.concat(messages);
  return Buffer.concat([bytes(2, 1, messages.length), bytes(4, 1, body.length, 0), body]);
}

const whole = (size: number) =>
  Buffer.concat([bytes(1, 0x10, 8, 0, 0), bytes(4, size), bytes(2, 0, 8 * size)]);
const text = (size: number) => Buffer.concat([bytes(1, 0x13, 1, 0, 0), bytes(4, size)]);
const extent = (...shape: number[]) =>
  Buffer.concat([bytes(1, 1, shape.length, 0, 0), bytes(4, 0), bytes(8, ...shape)]);

/** A pack of audioset_tagging_cnn in the oldest form of HDF5, for tests without Python. */
export function writePack(clips: readonly PackClip[], sampleRate: number, classes: number): Buffer {
  const N = clips.length;
  const S = clips[0]?.samples.length ?? 0;
  const target = Buffer.alloc(N * classes);
  for (const [i, { labels }] of clips.entries()) {
    for (const label of labels) target[i * classes + label] = 1;
  }
  const samples = Int16Array.from(clips.flatMap((clip) => Array.from(clip.samples)));
  // In the order of their names, as the tree of a group has them.
  const arrays = [
    {
      ...{ name: 'audio_name', type: text(20), shape: [N] },
      data: Buffer.concat(clips.map(({ name }) => Buffer.from(name.padEnd(20, '\0')))),
    },
    { name: 'target', type: whole(1), shape: [N, classes], data: target },
    { name: 'waveform', type: whole(2), shape: [N, S], data: Buffer.from(samples.buffer) },
  ];
  const names = padded(
    Buffer.from(['', ...arrays.map(({ name }) => name)].join('\0')),
    bytes(1, 0),
  );
  const rate = [padded(Buffer.from('sample_rate\0')), padded(whole(4)), extent()] as const;
  const attribute = padded(bytes(2, 1, 12, 12, 8), ...rate, bytes(4, sampleRate));
  const pieces: Buffer[] = [];
  // Behind the superblock.
  let end = 96;
  const place = (piece: Buffer) => {
    pieces.push(padded(piece));
    end += pieces.at(-1)?.length ?? 0;
    return end - (pieces.at(-1)?.length ?? 0);
  };
  const entries = arrays.map(({ name, type, shape, data }) => {
    const at = place(data);
    const layout = padded(bytes(1, 3, 1), bytes(8, at, data.length));
    const parts = [message(1, extent(...shape)), message(3, padded(type)), message(8, layout)];
    return Buffer.concat([bytes(8, names.indexOf(name), place(header(...parts)), 0, 0, 0)]);
  });
  const leaf = Buffer.alloc(8 + 8 * 40, 0);
  Buffer.concat([Buffer.from('SNOD'), bytes(2, 1, arrays.length), ...entries]).copy(leaf);
  const tree = Buffer.alloc(24 + 65 * 8);
  const last = names.indexOf('waveform');
  const head = [Buffer.from('TREE'), bytes(1, 0, 0), bytes(2, 1), bytes(8, NOWHERE, NOWHERE)];
  Buffer.concat([...head, bytes(8, 0, place(leaf), last)]).copy(tree);
  const heapData = place(names);
  const heap = Buffer.concat([
    Buffer.from('HEAP'),
    bytes(4, 0),
    bytes(8, names.length, 1, heapData),
  ]);
  const links = message(0x11, bytes(8, place(tree), place(heap)));
  const root = place(header(links, message(0x0c, attribute)));
  const superblock = Buffer.concat([
    Buffer.from('\x89HDF\r\n\x1a\n', 'latin1'),
    ...[bytes(1, 0, 0, 0, 0, 0, 8, 8, 0), bytes(2, 4, 16), bytes(4, 0)],
    ...[bytes(8, 0, NOWHERE, end, NOWHERE), bytes(8, 0, root, 0, 0, 0)],
  ]);
  return Buffer.concat([superblock, ...pieces]);
}
