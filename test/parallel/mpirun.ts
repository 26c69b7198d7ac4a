import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import type { Request } from './worker.js';

const root = join(import.meta.dirname, '..', '..');

/** An MPI of this machine. */
export interface Mpi {
  readonly name: 'Open MPI' | 'MPICH';
  /** The folder of mpirun and mpicc. */
  readonly programs: string;
  readonly args: readonly string[];
}

/**
 * One of each kind: `PANNS_MPIRUN`'s, that beside the oracle's Python (the wheel of
 * test/oracle/requirements.txt), and those on the PATH.
 */
export function findMpi(): Mpi[] {
  const { PANNS_MPIRUN, PANNS_PYTHON, PATH = '' } = process.env;
  const python = PANNS_PYTHON ?? join(root, '.venv', 'bin', 'python');
  const folders = [
    PANNS_MPIRUN && dirname(PANNS_MPIRUN),
    dirname(python),
    ...PATH.split(delimiter),
  ];
  const found = new Map<string, Mpi>();
  for (const programs of folders) {
    if (!programs) continue;
    const { status, stdout } = spawnSync(join(programs, 'mpirun'), ['--version'], {
      encoding: 'utf8',
    });
    if (status !== 0) continue;
    // As root in a container, and with more processes than cores.
    const many = ['--allow-run-as-root', '--oversubscribe', '--bind-to', 'none'];
    const mpi: Mpi = /Open MPI/.test(stdout)
      ? { name: 'Open MPI', programs, args: many }
      : { name: 'MPICH', programs, args: [] };
    if (!found.has(mpi.name)) found.set(mpi.name, mpi);
  }
  return [...found.values()];
}

/** How processes that were started together ended. */
export interface Ending {
  /** 124 when they were ended for taking too long. */
  readonly status: number;
  readonly output: string;
  readonly seconds: number;
  /** What each left, by its rank; undefined for one that came to nothing. */
  readonly results: readonly (Record<string, never> | undefined)[];
}

/** Ends what hangs: everything here takes seconds, on a machine that is loaded a minute. */
const PATIENCE_MS = 240_000;

/** Starts so many processes of worker.ts with a request. */
export async function runProcesses(
  { programs, args }: Mpi,
  count: number,
  request: Request,
  environment: Record<string, string> = {},
): Promise<Ending> {
  mkdirSync(request.folder, { recursive: true });
  const path = join(request.folder, 'request.json');
  writeFileSync(path, JSON.stringify(request));
  const worker = join(import.meta.dirname, 'worker.ts');
  const began = performance.now();
  const child = spawn(
    join(programs, 'mpirun'),
    [...args, '-n', String(count), process.execPath, ...process.execArgv, worker, path],
    { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill('SIGKILL');
  }, PATIENCE_MS);
  const status = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(late ? 124 : (code ?? 1)));
  });
  clearTimeout(timer);
  const results = Array.from({ length: count }, (_, rank) => {
    try {
      return JSON.parse(readFileSync(join(request.folder, `rank-${rank}.json`), 'utf8'));
    } catch {
      return undefined;
    }
  });
  return { status, output, seconds: (performance.now() - began) / 1000, results };
}
