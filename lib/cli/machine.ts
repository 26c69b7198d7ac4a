import { findFfmpeg } from '../audio/ffmpeg.js';
import { type CudaStatus, cudaStatus, whyNoCuda } from '../cuda.js';
import { cacheFolder } from '../inference/cache.js';
import { loadNative } from '../native.js';
import { formatBytes } from './format.js';
import { packageVersion } from './version.js';

/** What this installation is, and what it finds on the machine. */
export interface Machine {
  readonly version: string;
  readonly native: string;
  readonly node: string;
  /** `linux-x64`. */
  readonly platform: string;
  readonly cpu: {
    readonly name: string;
    readonly tier: string;
    readonly cores: number;
    readonly memoryBytes: number;
  };
  readonly cuda: CudaStatus;
  readonly audioLibrary: {
    readonly path: string;
    readonly version: string;
    readonly error: string;
  };
  readonly ffmpeg: string | null;
  /** Where downloaded weights and compiled GPU plans are kept. */
  readonly cache: string;
}

/** @throws PannsError `ERR_PANNS_NATIVE_MISSING`, `ERR_PANNS_NATIVE_LOAD` */
export async function describeMachine(): Promise<Machine> {
  const addon = loadNative();
  return {
    version: packageVersion(),
    native: addon.version,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    cpu: addon.cpu(),
    cuda: await cudaStatus(),
    audioLibrary: addon.audioLibrary(),
    ffmpeg: findFfmpeg() ?? null,
    cache: cacheFolder(),
  };
}

/** The facts in words, with the names they go by. */
export function machineRows(machine: Machine): [name: string, value: string][] {
  const { cpu, cuda, audioLibrary: audio } = machine;
  return [
    ['panns', `${machine.version} (native ${machine.native})`],
    ['Node.js', machine.node],
    ['platform', machine.platform],
    ['CPU', `${cpu.name}, ${cpu.cores} cores, ${formatBytes(cpu.memoryBytes)}`],
    ['CPU kernels', cpu.tier],
    ['CUDA', cuda.available ? gpus(cuda) : `not used: ${whyNoCuda(cuda)}`],
    [
      'audio library',
      audio.error === '' ? `${audio.version} (${audio.path})` : `none: ${audio.error}`,
    ],
    ['ffmpeg', machine.ffmpeg ?? 'none: AAC, M4A and the sound of videos cannot be read'],
    ['cache', machine.cache],
  ];
}

/** The devices that can be used: `NVIDIA H100 80GB HBM3, 79.1 GB, driver for CUDA 13.0`. */
function gpus({ devices, driver }: CudaStatus): string {
  const usable = devices.filter(({ reason }) => reason === '');
  const list = usable.map(({ name, memoryBytes }) => `${name}, ${formatBytes(memoryBytes)}`);
  return `${list.join('; ')}, driver for CUDA ${driver}`;
}
