import { findFfmpeg } from '../audio/ffmpeg.js';
import { type CudaStatus, cudaStatus, whyNoCuda } from '../cuda.js';
import { modelNames } from '../models/index.js';
import { loadNative } from '../native.js';
import { formatBytes } from './format.js';
import { defineVerb, EXIT } from './verb.js';
import { packageVersion } from './version.js';

/** `panns info`: what this installation is and can use. */
export const info = defineVerb(
  {
    name: 'panns info',
    summary: 'Show versions, processor, audio library and devices',
    options: { json: { type: 'boolean', help: 'print JSON' } },
  },
  async ({ json }, _, { print }) => {
    const addon = loadNative();
    const cpu = addon.cpu();
    const audio = addon.audioLibrary();
    const ffmpeg = findFfmpeg();
    const cuda = await cudaStatus();
    const facts = {
      version: packageVersion(),
      native: addon.version,
      node: process.versions.node,
      platform: `${process.platform}-${process.arch}`,
      cpu,
      cuda,
      audioLibrary: audio,
      ffmpeg: ffmpeg ?? null,
      models: modelNames,
    };
    if (json) {
      print(JSON.stringify(facts));
      return EXIT.ok;
    }
    const rows: [string, string][] = [
      ['panns', `${facts.version} (native ${facts.native})`],
      ['Node.js', facts.node],
      ['platform', facts.platform],
      ['CPU', `${cpu.name}, ${cpu.cores} cores, ${formatBytes(cpu.memoryBytes)}`],
      ['CPU kernels', cpu.tier],
      ['CUDA', cuda.available ? gpus(cuda) : `not used: ${whyNoCuda(cuda)}`],
      [
        'audio library',
        audio.error === '' ? `${audio.version} (${audio.path})` : `none: ${audio.error}`,
      ],
      ['ffmpeg', ffmpeg ?? 'none: AAC, M4A and the sound of videos cannot be read'],
      ['models', modelNames.join(', ')],
    ];
    for (const [name, value] of rows) print(`${name.padEnd(15)}${value}`);
    return EXIT.ok;
  },
);

/** The devices that can be used: `NVIDIA H100 80GB HBM3, 79.1 GB, driver for CUDA 13.0`. */
function gpus({ devices, driver }: CudaStatus): string {
  const usable = devices.filter(({ reason }) => reason === '');
  const list = usable.map(({ name, memoryBytes }) => `${name}, ${formatBytes(memoryBytes)}`);
  return `${list.join('; ')}, driver for CUDA ${driver}`;
}
