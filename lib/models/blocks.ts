import type { Builder, Extent, Tensor } from './tensor.js';

/** A block: twice or once convolution, norm and ReLU, then mean pooling over (time, frequency). */
export type Block = (
  b: Builder,
  name: string,
  x: Tensor<'map'>,
  channels: number,
  pool: Extent,
) => Tensor<'map'>;

/** Two 3x3 convolutions: (N, C, T, F) to (N, channels, T / pool, F / pool). */
export const convBlock: Block = (b, name, x, channels, pool) =>
  b.scope(name, () => {
    b.register('conv1', 'conv2', 'bn1', 'bn2');
    const one = b.conv('conv1', x, { channels, kernel: 3, padding: 1 });
    const two = b.conv('conv2', b.relu(b.batchNorm('bn1', one)), {
      channels,
      kernel: 3,
      padding: 1,
    });
    return b.pool(b.relu(b.batchNorm('bn2', two)), 'avg', pool);
  });

/** One 5x5 convolution: (N, C, T, F) to (N, channels, T / pool, F / pool). */
export const convBlock5x5: Block = (b, name, x, channels, pool) =>
  b.scope(name, () => {
    const one = b.conv('conv1', x, { channels, kernel: 5, padding: 2 });
    return b.pool(b.relu(b.batchNorm('bn1', one)), 'avg', pool);
  });
