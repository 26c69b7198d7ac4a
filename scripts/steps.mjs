// What the scripts share: the root folder, and running programs one after another. Plain Node, as
// setup.mjs runs before any dependency is installed.
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const jobs = availableParallelism();

/** A program failed or is missing; its output has been shown already. */
export class StepFailed extends Error {}

/** Runs a program with its output shown; returns its exit status, 127 when it does not start. */
export function show(program, args, { env = {} } = {}) {
  const child = spawnSync(program, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (child.error) console.error(`${program}: ${child.error.message}`);
  return child.status ?? 127;
}

/** The standard output of a program, or undefined when it fails or is missing. */
export function read(program, args) {
  const child = spawnSync(program, args, { cwd: root, encoding: 'utf8' });
  return child.status === 0 ? child.stdout : undefined;
}

/** Runs a program with one line on the screen; its output shows only when it fails. */
export function step(title, program, args, { env = {} } = {}) {
  const start = performance.now();
  process.stdout.write(`${title} ... `);
  mkdirSync(join(root, 'build'), { recursive: true });
  const log = join(root, 'build', 'setup.log');
  const out = openSync(log, 'w');
  const child = spawnSync(program, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', out, out],
  });
  closeSync(out);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  if (child.status === 0) {
    console.log(`${seconds} s`);
    return;
  }
  console.log(`failed after ${seconds} s: ${[program, ...args].join(' ')}`);
  console.log(child.error ? child.error.message : readFileSync(log, 'utf8'));
  throw new StepFailed(title);
}

/** Program and first argument that start the JavaScript `file` of an installed package. */
export function packageProgram(file) {
  return [process.execPath, join(root, 'node_modules', file)];
}

/** npm, by the very program that started this script where there is one. */
export function npm() {
  const { npm_execpath: path } = process.env;
  return path?.endsWith('.js') ? [process.execPath, path] : ['npm'];
}
