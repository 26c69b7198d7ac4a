import { existsSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { PannsError } from '../errors.js';

/** How this process was started beside others, by the variables that its launcher set. */
export interface Launcher {
  readonly kind: 'Open MPI' | 'MPICH' | 'Slurm' | 'torchrun';
  /** 0..size - 1. */
  readonly rank: number;
  readonly size: number;
  /** Among the processes on this machine: chooses the GPU. */
  readonly localRank: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Rank, size and local rank. An mpirun inside a Slurm job sets both its own and Slurm's, and its own
 * count; torchrun's names are common words, so they come last.
 */
const VARIABLES: readonly (readonly [Launcher['kind'], string, string, string])[] = [
  ['Open MPI', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'],
  ['MPICH', 'PMI_RANK', 'PMI_SIZE', 'MPI_LOCALRANKID'],
  ['Slurm', 'SLURM_PROCID', 'SLURM_STEP_NUM_TASKS', 'SLURM_LOCALID'],
  ['torchrun', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'],
];

/** Who started this process, or undefined when nobody says so. */
export function findLauncher(environment: Environment = process.env): Launcher | undefined {
  const whole = (name: string) => {
    const text = environment[name];
    return text !== undefined && /^\d{1,7}$/.test(text) ? Number(text) : undefined;
  };
  for (const [kind, rankName, sizeName, localName] of VARIABLES) {
    const rank = whole(rankName);
    const size = whole(sizeName);
    if (rank === undefined || size === undefined || rank >= size) continue;
    return { kind, rank, size, localRank: whole(localName) ?? 0 };
  }
  return undefined;
}

/** Where process 0 of those that torchrun started, or whoever sets its variables, is to be met. */
export interface MeetingPoint {
  readonly address: string;
  readonly port: number;
}

/**
 * By `MASTER_ADDR` and `MASTER_PORT`. torchrun's own agent listens at that port, and says so: the
 * processes then meet at the next one. `PANNS_MASTER_PORT` names another.
 *
 * @throws PannsError `ERR_PANNS_PARALLEL` when a variable is missing or no port
 */
export function meetingPoint(environment: Environment = process.env): MeetingPoint {
  const { MASTER_ADDR: address, MASTER_PORT, PANNS_MASTER_PORT } = environment;
  const agent = environment.TORCHELASTIC_USE_AGENT_STORE === 'True';
  const name = PANNS_MASTER_PORT === undefined ? 'MASTER_PORT' : 'PANNS_MASTER_PORT';
  const text = PANNS_MASTER_PORT ?? MASTER_PORT ?? '';
  const port = Number(text) + Number(agent && PANNS_MASTER_PORT === undefined);
  if (address && /^\d{1,5}$/.test(text) && port >= 1 && port <= 65535) return { address, port };
  const what = address
    ? `expected ${name} to be a port of process 0's machine, got "${text}"`
    : 'expected MASTER_ADDR and MASTER_PORT to say where process 0 is to be met, as torchrun sets them';
  throw new PannsError('ERR_PANNS_PARALLEL', what, { where: 'openProcessGroup' });
}

/** The file names of the two binary interfaces: Open MPI's, and MPICH's, which Intel's MPI has too. */
const OPEN_MPI = 'libmpi.so.40';
const MPICH = 'libmpi.so.12';

/**
 * Where the launcher's MPI library may lie, the likeliest place first: `PANNS_MPI_LIBRARY` alone when
 * it is set; else beside the program that started this process, beside the Python or Conda environment
 * in use or the mpirun on the PATH, then wherever the system looks. Open MPI's comes first, except
 * under MPICH's launcher.
 */
export function mpiLibraries(
  kind: Launcher['kind'],
  environment: Environment = process.env,
): string[] {
  const chosen = environment.PANNS_MPI_LIBRARY;
  if (chosen) return [chosen];
  const { VIRTUAL_ENV, CONDA_PREFIX, I_MPI_ROOT, PATH = '' } = environment;
  const programs = [
    `/proc/${process.ppid}/exe`,
    ...PATH.split(delimiter).map((folder) => join(folder, 'mpirun')),
  ];
  const places = programs
    .flatMap((program) => [target(program), program])
    .flatMap((program) => (program?.includes('/bin/') ? [dirname(dirname(program))] : []));
  const folders = [places[0], VIRTUAL_ENV, CONDA_PREFIX, I_MPI_ROOT, ...places]
    .flatMap((root) => (root ? ['lib', 'lib64', 'lib/release'].map((lib) => join(root, lib)) : []))
    // The system's own folders are left to its loader, which knows their order.
    .filter((folder) => !/^(\/usr)?\/lib(64)?(\/|$)/.test(folder));
  const names = kind === 'MPICH' ? [MPICH, OPEN_MPI] : [OPEN_MPI, MPICH];
  const found = names.flatMap((name) =>
    folders.map((folder) => join(folder, name)).filter((path) => existsSync(path)),
  );
  return [...new Set([...found, ...names])];
}

/** The file that a link leads to; undefined when there is none, or it is not ours to see. */
function target(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
