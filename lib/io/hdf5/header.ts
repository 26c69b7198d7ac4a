import { badHdf5, type Fields, fieldsOf, foreignHdf5 } from './fields.js';
import type { Hdf5File } from './file.js';

/** The kinds of header messages that are read. */
export const MESSAGE = {
  dataspace: 0x01,
  linkInfo: 0x02,
  datatype: 0x03,
  link: 0x06,
  external: 0x07,
  layout: 0x08,
  filters: 0x0b,
  attribute: 0x0c,
  continuation: 0x10,
  symbolTable: 0x11,
} as const;

/** What an object header says about one thing. */
export interface Message {
  readonly kind: number;
  readonly bytes: Uint8Array;
}

/** A piece of a header: its messages, and what stands around them. */
interface Block {
  readonly at: number;
  readonly length: number;
  /** `OCHK` before the messages of a later block of version 2, and a checksum behind them. */
  readonly framed: boolean;
}

/** The forms of a header, by what stands before each message. */
type Form = 'old' | 'new' | 'ordered';
const PREFIX_BYTES: Record<Form, number> = { old: 8, new: 4, ordered: 6 };

/** The longest beginning of a header. */
const START_BYTES = 34;

/** Far more than a data set and its attributes take, of which each has at most 64 kB. */
const MOST_BYTES = 2 ** 24;

/** What a block counts beside its length: a chain of small ones, or a ring of them, ends soon too. */
const BLOCK_BYTES = 2 ** 14;

/** A message that stands elsewhere, in common with others. */
const SHARED = 2;

/**
 * Reads an object header, with all of its blocks.
 *
 * @throws PannsError `ERR_PANNS_DATA` for a damaged one, `ERR_PANNS_UNSUPPORTED`, `ERR_PANNS_IO`
 */
export async function readHeader(file: Hdf5File, address: number): Promise<Message[]> {
  const { path } = file;
  const start = await file.read(address, Math.min(START_BYTES, file.size - file.place(address)));
  const { form, first } = beginning(fieldsOf(start, path), address, path);
  const messages: Message[] = [];
  const blocks = [first];
  let total = 0;
  for (const { at, length, framed } of blocks) {
    total += BLOCK_BYTES + length;
    if (total > MOST_BYTES) throw badHdf5(path, 'it is damaged: an object header without end');
    const fields = fieldsOf(await file.read(at, length), path);
    if (framed && fields.text(4) !== 'OCHK') throw noHeader(path);
    while (fields.left - (framed ? 4 : 0) >= PREFIX_BYTES[form]) {
      const message = readMessage(fields, form, path);
      if (message.kind !== MESSAGE.continuation) {
        messages.push(message);
        continue;
      }
      const place = fieldsOf(message.bytes, path);
      blocks.push({ at: place.number(8), length: place.number(8), framed: form !== 'old' });
    }
  }
  return messages;
}

function noHeader(path: string) {
  return badHdf5(path, 'it is damaged: there is no object header where one should be');
}

function beginning(fields: Fields, address: number, path: string): { form: Form; first: Block } {
  const mark = fields.bytes(4);
  if (Buffer.from(mark).toString('latin1') !== 'OHDR') {
    if (mark[0] !== 1) throw noHeader(path);
    fields.skip(4);
    const length = fields.number(4);
    return { form: 'old', first: { at: address + 16, length, framed: false } };
  }
  if (fields.number(1) !== 2) throw noHeader(path);
  const flags = fields.number(1);
  // Times, and limits of how attributes are kept.
  fields.skip((flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0));
  const length = fields.number(1 << (flags & 3));
  const first = { at: address + fields.at, length, framed: false };
  return { form: flags & 4 ? 'ordered' : 'new', first };
}

function readMessage(fields: Fields, form: Form, path: string): Message {
  const kind = fields.number(form === 'old' ? 2 : 1);
  const length = fields.number(2);
  const flags = fields.number(1);
  fields.skip(form === 'old' ? 3 : PREFIX_BYTES[form] - PREFIX_BYTES.new);
  const bytes = fields.bytes(length);
  const known = Object.values<number>(MESSAGE).includes(kind);
  if (known && kind !== MESSAGE.attribute && flags & SHARED) {
    throw foreignHdf5(path, 'types that several data sets have in common are not read here');
  }
  return { kind, bytes };
}
