import { badHdf5, type Fields, fieldsOf, foreignHdf5 } from './fields.js';
import type { Hdf5File } from './file.js';
import { MESSAGE, type Message } from './header.js';

/** Of a group's tree, leaves and names: far more than a data set has. */
const MOST_BYTES = 2 ** 20;

/** What each read counts beside its length: small pieces, or a ring of them, end soon too. */
const READ_BYTES = 2 ** 12;

/** Longer names are cut: none that is looked for is as long. */
const MOST_NAME = 255;

/**
 * What a group holds: the addresses of object headers, by name. Links to other places are left out.
 *
 * @throws PannsError `ERR_PANNS_DATA`, `ERR_PANNS_UNSUPPORTED`, `ERR_PANNS_IO`
 */
export async function readLinks(
  file: Hdf5File,
  header: readonly Message[],
): Promise<Map<string, number>> {
  const links = new Map<string, number>();
  for (const { kind, bytes } of header) {
    const fields = fieldsOf(bytes, file.path);
    if (kind === MESSAGE.symbolTable) await readSymbols(file, fields, links);
    if (kind === MESSAGE.link) readLink(fields, links);
    if (kind === MESSAGE.linkInfo && isDense(fields)) {
      throw foreignHdf5(file.path, 'groups of more than 8 names are not read here in this form');
    }
  }
  return links;
}

/** Whether a group of the new form keeps its links outside of its header. */
function isDense(fields: Fields): boolean {
  fields.skip(1);
  if (fields.number(1) & 1) fields.skip(8);
  return fields.address() !== undefined;
}

/** A link of the new form. */
function readLink(fields: Fields, links: Map<string, number>): void {
  fields.skip(1);
  const flags = fields.number(1);
  const type = flags & 8 ? fields.number(1) : 0;
  // The order of creation, and the character set.
  fields.skip((flags & 4 ? 8 : 0) + (flags & 16 ? 1 : 0));
  const name = fields.text(fields.number(1 << (flags & 3)));
  if (type === 0) links.set(name, fields.number(8));
}

/** A group of the old form: a tree of nodes, whose names stand in a heap. */
async function readSymbols(
  whole: Hdf5File,
  table: Fields,
  links: Map<string, number>,
): Promise<void> {
  let left = MOST_BYTES;
  const file: Hdf5File = {
    ...whole,
    async read(address, length) {
      left -= READ_BYTES + length;
      if (left < 0) throw foreignHdf5(whole.path, 'so large a group is not read here');
      return whole.read(address, length);
    },
  };
  const tree = table.number(8);
  const heap = await piece(file, table.number(8), 32, 'HEAP');
  heap.skip(4);
  const length = heap.number(8);
  heap.skip(8);
  const names = await file.read(heap.number(8), length);
  const nodes = [tree];
  for (const node of nodes) {
    const head = await piece(file, node, 24, 'TREE');
    const [type, level] = [head.number(1), head.number(1)];
    if (type !== 0) throw badHdf5(file.path, 'it is damaged: a tree of a group is another one');
    const count = head.number(2);
    // A key of 8 bytes before each child, and one behind the last.
    const children = fieldsOf(await file.read(node + 24, 16 * count), file.path);
    for (let k = 0; k < count; k++) {
      children.skip(8);
      const child = children.number(8);
      if (level > 0) nodes.push(child);
      else await readEntries(file, child, names, links);
    }
  }
}

/** What a leaf of a group's tree names. */
async function readEntries(
  file: Hdf5File,
  address: number,
  names: Uint8Array,
  links: Map<string, number>,
): Promise<void> {
  const head = await piece(file, address, 8, 'SNOD');
  head.skip(2);
  const count = head.number(2);
  const entries = fieldsOf(await file.read(address + 8, 40 * count), file.path);
  for (let i = 0; i < count; i++) {
    const entry = entries.part(40);
    const at = entry.number(8);
    const name = fieldsOf(names.subarray(at, at + MOST_NAME), file.path);
    const target = entry.address();
    if (target !== undefined) links.set(name.text(name.left), target);
  }
}

/** The fields of a piece behind its mark. */
async function piece(
  file: Hdf5File,
  address: number,
  length: number,
  mark: string,
): Promise<Fields> {
  const fields = fieldsOf(await file.read(address, length), file.path);
  if (fields.text(4) === mark) return fields;
  throw badHdf5(file.path, `it is damaged: there is no ${mark} at byte ${file.place(address)}`);
}
