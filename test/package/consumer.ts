import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, realpathSync, symlinkSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Manifest, Published } from './registry.js';

export const root = join(import.meta.dirname, '..', '..');
export const consumer = join(import.meta.dirname, 'consumer');

/** What a program did. */
export interface Ran {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end; only the variables in `env` are set. */
export function run(
  program: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv = { PATH: process.env.PATH },
  owner: { uid?: number; gid?: number } = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const out = { stdout: '', stderr: '' };
    // Ten minutes: long enough to be no measure of anything.
    const child = spawn(program, args, { cwd, env, timeout: 600_000, ...owner });
    child.stdin.end();
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        out[name] += text;
      });
    }
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ ...out, status, signal }));
  });
}

/** npm's own program, to be run by any Node.js. */
export function npmProgram(): string | undefined {
  const { npm_execpath: started = '', PATH = '' } = process.env;
  const places = [started, ...PATH.split(delimiter).map((folder) => join(folder, 'npm'))];
  const found = places.find((place) => place !== '' && existsSync(place));
  const program = found === undefined ? undefined : realpathSync(found);
  return program?.endsWith('.js') ? program : undefined;
}

/** A PATH with node and sh, and nothing else: no compiler, no CMake, no Python. */
export function barePath(folder: string, node = process.execPath): string {
  mkdirSync(folder, { recursive: true });
  symlinkSync(node, join(folder, 'node'));
  symlinkSync('/bin/sh', join(folder, 'sh'));
  return folder;
}

export function manifestOf(folder: string): Manifest & { readonly devDependencies: object } {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
}

/** Our tarball and, packed from node_modules, all that it depends on. */
export async function publishedWith(tarball: string, out: string, npm: string) {
  const published: Published[] = [{ manifest: manifestOf(root), tarball }];
  for (const { manifest } of published) {
    for (const name of Object.keys(manifest.dependencies ?? {})) {
      if (published.some((one) => one.manifest.name === name)) continue;
      const folder = join(root, 'node_modules', name);
      const args = [npm, 'pack', folder, '--json', '--ignore-scripts', '--pack-destination', out];
      const { status, stdout, stderr } = await run(process.execPath, args, out);
      if (status !== 0) throw new Error(stderr);
      const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
      published.push({ manifest: manifestOf(folder), tarball: join(out, filename) });
    }
  }
  return published;
}

/** Copies a user's program into a folder, so that `panns` is what is installed there. */
export function giveProgram(name: string, folder: string): string {
  const file = join(folder, name);
  cpSync(join(consumer, name), file);
  return file;
}
