import type { CudaStatus } from './addon.js';
import { callNative } from './native/call.js';
import { loadNative } from './native.js';

export type {
  CudaDeviceStatus,
  CudaLibraryStatus,
  CudaProblem,
  CudaStatus,
} from './addon.js';

/**
 * Whether CUDA can be used here: driver, devices and libraries, or the reason why not and what
 * mends it.
 *
 * Never rejects for a GPU that is missing. The first call opens the CUDA backend and cuDNN where
 * they are installed, which can take a second.
 *
 * @throws PannsError `ERR_PANNS_NATIVE_MISSING`, `ERR_PANNS_NATIVE_LOAD`
 */
export function cudaStatus(): Promise<CudaStatus> {
  return callNative('cudaStatus', () => loadNative().cudaStatus());
}

/** @internal In words: why CUDA is not used, and what mends it. */
export function whyNoCuda({ reason, mend }: CudaStatus): string {
  return mend === '' ? reason : `${reason}; ${mend}`;
}

let warned = false;

/** @internal Says once in the life of the process that `device: 'auto'` goes on with the CPU. */
export function warnOfCpu(status: CudaStatus): void {
  if (warned) return;
  warned = true;
  process.emitWarning(`device "auto" is the CPU here: ${whyNoCuda(status)}`, {
    type: 'PannsWarning',
    code: 'PANNS_CUDA_NOT_USED',
  });
}
