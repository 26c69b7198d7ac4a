import { writePth } from './pth/writer.js';
import type { SafetensorsTensor } from './safetensors.js';
import { writeSafetensors } from './safetensors_writer.js';

/** How the paths of PyTorch's files end. */
const PTH = /\.(pth|pt)$/i;

/** Whether weights at this path are written as PyTorch does, and not as safetensors. */
export function isPthPath(path: string): boolean {
  return PTH.test(path);
}

/**
 * Writes weights in the format that the path's end names: `.pth` and `.pt` are PyTorch's, all else is
 * safetensors.
 *
 * @throws PannsError as {@link writePth} and {@link writeSafetensors}
 */
export async function writeWeights(
  path: string,
  tensors: Iterable<readonly [string, SafetensorsTensor]>,
  metadata: Iterable<readonly [string, string]> = [],
): Promise<void> {
  if (isPthPath(path)) await writePth(path, tensors, { metadata });
  else await writeSafetensors(path, tensors, metadata);
}
