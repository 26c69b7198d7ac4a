import type { DeviceChoice } from '../inference/device.js';
import type { CommandSpec } from './args.js';

/** Where a model runs: for every verb that runs one. */
export const deviceOptions = {
  device: {
    type: 'string',
    choices: ['cpu', 'cuda', 'auto'],
    help: 'auto is a GPU where there is one to use; default cpu',
  },
  gpu: { type: 'integer', min: 0, max: 1024, help: 'which GPU; default 0' },
  precision: {
    type: 'string',
    choices: ['fp32', 'tf32', 'bf16', 'fp16'],
    help: 'of feature maps on a GPU; default fp32',
  },
  threads: { type: 'integer', min: 0, max: 1024, default: 0, help: 'on the CPU; 0: one a core' },
} as const satisfies CommandSpec['options'];

/** The values of {@link deviceOptions}. */
export type DeviceValues = Required<Pick<DeviceChoice, keyof typeof deviceOptions>>;

/** The part of a command line that says where a model runs. */
export function chosenDevice({ device, gpu, precision, threads }: DeviceValues): DeviceChoice {
  return { device, gpu, precision, threads };
}
