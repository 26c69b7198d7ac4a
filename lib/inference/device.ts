import type { DeviceOptions } from '../addon.js';
import { cudaStatus, warnOfCpu, whyNoCuda } from '../cuda.js';
import { PannsError } from '../errors.js';

/** Where a model computes. */
export interface DeviceChoice {
  /** Default `'cpu'`; `'auto'` is a GPU where {@link cudaStatus} finds one to use, else the CPU. */
  device?: 'cpu' | 'cuda' | 'auto' | undefined;
  /** Threads that compute; 0, the default, means one a core. */
  threads?: number | undefined;
  /** Which GPU, in the driver's order (`cudaStatus().devices`); default 0. */
  gpu?: number | undefined;
  /**
   * How feature maps are stored and multiplied on a GPU: `'fp32'` (the default) rounds nothing,
   * `'tf32'` rounds what tensor cores multiply, `'bf16'` and `'fp16'` take half the memory. Weights,
   * statistics, log-mel and loss are float32 in all of them, and the CPU computes in float32.
   */
  precision?: 'fp32' | 'tf32' | 'bf16' | 'fp16' | undefined;
}

/** What devices can be told; one list for the options of all that place a model. */
export const deviceOptionNames = ['device', 'threads', 'gpu', 'precision'] as const;
const PRECISIONS: readonly string[] = ['fp32', 'tf32', 'bf16', 'fp16'];

/**
 * A choice in the core's words; `'cuda'` and `'auto'` ask what there is.
 *
 * @throws PannsError `ERR_PANNS_OPTION`, `ERR_PANNS_CUDA_UNAVAILABLE`
 */
export async function resolveDevice(
  { device = 'cpu', threads = 0, gpu = 0, precision = 'fp32' }: DeviceChoice,
  where: string,
): Promise<DeviceOptions> {
  if (device !== 'cpu' && device !== 'cuda' && device !== 'auto') {
    const what = `expected device to be "cpu", "cuda" or "auto", got "${device}"`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: device });
  }
  if (!Number.isSafeInteger(threads) || threads < 0 || threads > 1024) {
    const what = `expected threads to be 0 (one a core) to 1024, got ${threads}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: threads });
  }
  if (!Number.isSafeInteger(gpu) || gpu < 0 || gpu > 1024) {
    const what = `expected gpu to be a device's number (0 and up), got ${gpu}`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: gpu });
  }
  if (!PRECISIONS.includes(precision)) {
    const what = `expected precision to be one of ${PRECISIONS.join(', ')}, got "${precision}"`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: precision });
  }
  return { device: await chooseDevice(device, where), threads, index: gpu, precision };
}

/**
 * Checks that nothing asks for a place for a model that has one.
 *
 * @throws PannsError `ERR_PANNS_OPTION`
 */
export function checkUnplaced(choice: DeviceChoice, where: string): void {
  const given = deviceOptionNames.find((name) => choice[name] !== undefined);
  if (given === undefined) return;
  const what = `expected no ${given} beside a model, which has its device: give it to createModel or loadModel`;
  throw new PannsError('ERR_PANNS_OPTION', what, { where, actual: choice[given] });
}

/** `'auto'` asks only: the CPU is no error then, and is said once. */
async function chooseDevice(
  device: 'cpu' | 'cuda' | 'auto',
  where: string,
): Promise<'cpu' | 'cuda'> {
  if (device === 'cpu') return device;
  const status = await cudaStatus();
  if (status.available) return 'cuda';
  if (device === 'auto') {
    warnOfCpu(status);
    return 'cpu';
  }
  const what = `${whyNoCuda(status)}; or use device "cpu" or "auto"`;
  throw new PannsError('ERR_PANNS_CUDA_UNAVAILABLE', what, { where });
}
