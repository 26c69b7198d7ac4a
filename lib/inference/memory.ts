import type { NativeMemory } from '../addon.js';

/** What computing needs of a device's memory, known before any of it is taken. In bytes. */
export interface MemoryNeed {
  readonly device: 'cpu' | 'cuda';
  /** Clips that are computed at once. */
  readonly batch: number;
  /** Of each clip, with the zeros that it is padded with. */
  readonly samples: number;
  /** Parameters and running statistics. The model has them already. */
  readonly weights: number;
  /** Of training; 0 at inference. */
  readonly gradients: number;
  /** The optimizer's state; 0 at inference. */
  readonly optimizer: number;
  /** Inputs, and what layers pass on. */
  readonly activations: number;
  /** What kernels work in, one after the other. */
  readonly scratch: number;
  /** What kernels keep: weights in a form of their own, tables. */
  readonly kernels: number;
  readonly total: number;
  /**
   * What is free at this moment for all but the weights; undefined where the system does not say. On a
   * CPU the least of what the machine has available, its container's limit and `ulimit -v` leave.
   */
  readonly free: number | undefined;
  /** Whether that is enough. */
  readonly fits: boolean;
  /**
   * The largest batch that fits now; 0 where not even one clip does, and 65536 at most. On a GPU with
   * the scratch memory that kernels take for `batch`.
   */
  readonly largestBatch: number;
}

/**
 * At most so many samples go through the core at once, or one clip: 8 clips of 10 s at 32 kHz. The
 * first maps of Cnn14 take 16 MB for each such clip, and more clips at once are hardly faster.
 */
const SAMPLES_AT_ONCE = 8 * 320_000;

/** @internal How many clips of so many samples inference computes at once. */
export function clipsAtOnce(samples: number): number {
  return Math.max(1, Math.floor(SAMPLES_AT_ONCE / samples));
}

/** @internal The parts in the core's words, added up. */
export function memoryNeed(
  { free, largestBatch = 0, device, ...parts }: NativeMemory,
  size: { batch: number; samples: number },
): MemoryNeed {
  const total = Object.values(parts).reduce((sum, bytes) => sum + bytes, 0);
  const added = total - parts.weights;
  return {
    // The null device is for tests, which see its name.
    device: device as MemoryNeed['device'],
    ...size,
    ...parts,
    total,
    free,
    fits: free === undefined || added <= free,
    largestBatch,
  };
}
