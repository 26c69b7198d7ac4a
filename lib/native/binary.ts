import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

/** Machines of 64-bit little-endian ELF files, by the number in the header (gABI, e_machine). */
const ELF_MACHINES: ReadonlyMap<number, string> = new Map([
  [62, 'x64'],
  [183, 'arm64'],
  [243, 'riscv64'],
  [258, 'loong64'],
]);

/** Bytes of a 64-bit ELF header. */
const ELF_HEADER = 64;

/**
 * What is wrong with a binary, as far as its header tells; undefined when nothing is.
 *
 * dlopen() maps a file that was cut off and dies of SIGBUS when it touches the missing part, and
 * for another machine's it says "No such file or directory": so this is asked before.
 */
export function binaryFault(path: string): string | undefined {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    return `it cannot be read: ${(error as Error).message}`;
  }
  try {
    const status = fstatSync(file);
    if (!status.isFile()) return 'it is not a file';
    const header = Buffer.alloc(ELF_HEADER);
    return headerFault(header.subarray(0, readSync(file, header, 0, ELF_HEADER, 0)), status.size);
  } finally {
    closeSync(file);
  }
}

function headerFault(header: Buffer, size: number): string | undefined {
  const here = `${process.platform}-${process.arch}`;
  const format = formatOf(header);
  if (format === undefined) {
    return size < ELF_HEADER
      ? `it is cut off or empty (${size} bytes)`
      : 'it is no native library of any platform';
  }
  const expected = { darwin: 'macOS', win32: 'Windows' }[process.platform as string] ?? 'ELF';
  if (format !== expected) return `it is a library for ${format}, and this is ${here}`;
  return format === 'ELF' ? elfFault(header, size, here) : undefined;
}

function formatOf(header: Buffer): 'ELF' | 'macOS' | 'Windows' | undefined {
  if (header.length < 4) return undefined;
  if (header.toString('latin1', 0, 4) === '\x7fELF') return 'ELF';
  if (header.toString('latin1', 0, 2) === 'MZ') return 'Windows';
  // Mach-O of 64 bits, and the universal form.
  return [0xcffaedfe, 0xcafebabe].includes(header.readUInt32BE(0)) ? 'macOS' : undefined;
}

function elfFault(header: Buffer, size: number, here: string): string | undefined {
  if (header.length < ELF_HEADER) return `it is cut off after ${size} bytes`;
  const wide = header[4] === 2;
  if (!wide) {
    const fits = ['ia32', 'arm'].includes(process.arch);
    return fits ? undefined : `it is built for a 32-bit machine, and this is ${here}`;
  }
  const little = header[5] === 1;
  if (!little) return undefined;
  const number = header.readUInt16LE(18);
  const machine = ELF_MACHINES.get(number) ?? `machine ${number}`;
  if (machine !== process.arch) return `it is built for ${machine}, and this is ${here}`;
  // The table of sections is what linkers and strip write last.
  const end =
    Number(header.readBigUInt64LE(40)) + header.readUInt16LE(58) * header.readUInt16LE(60);
  return size < end ? `it is cut off: ${size} of at least ${end} bytes` : undefined;
}
