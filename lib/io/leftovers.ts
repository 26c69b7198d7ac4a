import { createHash, randomBytes } from 'node:crypto';
import { readdir, readlink, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { isAlive } from './lock.js';

/** Of a temporary name, so that all of it stays under the 255 bytes that file systems allow. */
const MOST_NAME = 200;

/**
 * A hidden name beside `target` for what will be renamed to it. It says which process it belongs to, so
 * that {@link removeLeftovers} can tell what one that was killed has left.
 */
export async function temporaryBeside(target: string): Promise<string> {
  const owner = `${await numbering()}-${process.pid}-${randomBytes(6).toString('hex')}`;
  return join(dirname(target), `${prefixOf(target)}${owner}.tmp`);
}

/**
 * Removes what processes that are no more have left beside `target` under names of
 * {@link temporaryBeside}. Those of a live process stay, and those of other machines, of which nothing is
 * known.
 */
export async function removeLeftovers(target: string): Promise<void> {
  const prefix = prefixOf(target);
  const here = await numbering();
  const names = await readdir(dirname(target)).catch(() => []);
  for (const name of names) {
    if (!name.startsWith(prefix)) continue;
    const [, place, pid] =
      /^([0-9a-f]{8})-(\d+)-[0-9a-f]{12}\.tmp$/.exec(name.slice(prefix.length)) ?? [];
    if (place !== here || isAlive(Number(pid))) continue;
    // Where it cannot be removed it is in nobody's way.
    await rm(join(dirname(target), name), { recursive: true, force: true }).catch(() => undefined);
  }
}

const prefixOf = (target: string) => `.${basename(target).slice(0, MOST_NAME)}.`;

/** Stands for the machine, and on Linux for the container, that a process number means something in. */
async function numbering(): Promise<string> {
  const namespace = await readlink('/proc/self/ns/pid').catch(() => '');
  return createHash('sha256').update(`${hostname()} ${namespace}`).digest('hex').slice(0, 8);
}
