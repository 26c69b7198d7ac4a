import { PannsError } from '../errors.js';
import type { GraphDescription } from './tensor.js';

/** What one layer costs for a clip. */
export interface LayerCost {
  /** Values that train. */
  readonly parameters: number;
  /** Multiply-accumulates of a convolution or linear layer; 0 for every other op. */
  readonly macs: number;
  /** As the paper counts them; see {@link modelCost}. */
  readonly multiplyAdds: number;
}

/** What a network costs for a clip. */
export interface ModelCost extends LayerCost {
  /** Values in norms' buffers. */
  readonly buffers: number;
  /** Further multiply-accumulates where the spectrogram is a convolution, as in the reference. */
  readonly spectrogramMacs: number;
}

type Described = Pick<GraphDescription, 'spec' | 'values' | 'stateDict' | 'lengthFor'>;

/** The trunks that the reference builds of modules: its counter does not see functions called elsewhere. */
const MODULES = /^(resnet|features)\./;

const BUFFER = /\.(running_mean|running_var|num_batches_tracked)$/;

/** The DFT as two convolutions, which PANNs' checkpoints store and never train. */
const DFT = /(^|\.)stft\.conv_(real|imag)\.weight$/;

/**
 * Parameters and operations of a network for one clip of so many samples.
 *
 * `parameters` and `buffers` are PyTorch's numbers: with tensors that are stored and never used, and
 * without the frozen front-end. `multiplyAdds` follows the counter that made the paper's table: two a
 * multiply-accumulate, one a bias, of convolutions (the spectrogram is two of them) and linear layers
 * (of one row, however many frames they see); two an element of norms; and, only where the reference
 * has them as modules and does not call functions, two an element of ReLU and one a value that a mean
 * pool reads, a pool of one value included. Everything else is free, ReLU6 too.
 *
 * @throws PannsError `ERR_PANNS_SHAPE` for a length that the network does not take
 */
export function modelCost(description: Described, samples: number): ModelCost {
  const layers = layerCosts(description, samples);
  const total = (key: keyof LayerCost) => layers.reduce((sum, layer) => sum + layer[key], 0);
  let parameters = 0;
  let buffers = 0;
  for (const { name, shape, role } of description.stateDict) {
    if (BUFFER.test(name)) buffers += volume(shape);
    else if (role !== 'derived') parameters += volume(shape);
  }
  return {
    parameters,
    buffers,
    macs: total('macs'),
    spectrogramMacs: spectrogramMacs(description, samples),
    multiplyAdds: total('multiplyAdds'),
  };
}

/**
 * The cost of each node of the spec, in its order.
 *
 * @throws PannsError `ERR_PANNS_SHAPE` for a length that the network does not take
 */
export function layerCosts(description: Described, samples: number): readonly LayerCost[] {
  const { spec, values, stateDict, lengthFor } = description;
  const expected = Number.isSafeInteger(samples) ? lengthFor(samples) : lengthFor(1);
  if (samples !== expected) {
    const what = `expected a clip of ${expected} samples, for one, got ${samples}`;
    throw new PannsError('ERR_PANNS_SHAPE', what, { where: spec.name, expected, actual: samples });
  }
  const shapes = new Map(stateDict.map(({ name, shape }) => [name, shape]));
  return spec.nodes.map(({ op, path, inputs, attrs }, i) => {
    const { channels = 0, bins = 0, framesOf = () => 0 } = values[i] ?? {};
    const positions = bins * framesOf(samples);
    const elements = channels * positions;
    const weight = shapes.get(`${path}.weight`) ?? [0];
    const bias = shapes.get(`${path}.bias`) ?? [0];
    const inModule = MODULES.test(path);
    switch (op) {
      case 'conv':
      case 'linear': {
        const [weights, biases] = [volume(weight), volume(bias)];
        // PyTorch's linear layers have matrices, also where they are convolutions here.
        const counted = weight.length === 2 ? 1 : positions;
        return {
          parameters: weights + biases,
          macs: weights * positions,
          multiplyAdds: (2 * weights + biases) * counted,
        };
      }
      case 'batch_norm': {
        // A gap in the modules' numbers is a pool that keeps its input: the builder adds none.
        const source = spec.nodes[Number(inputs[0]?.slice(1))];
        const gap = source?.op === 'conv' && lastNumber(path) - lastNumber(source.path) === 2;
        return {
          parameters: volume(weight) + volume(bias),
          macs: 0,
          multiplyAdds: (inModule && gap ? 3 : 2) * elements,
        };
      }
      case 'relu':
        return free(inModule ? 2 * elements : 0);
      case 'pool':
        // Pools by maximum are function calls in these trunks.
        return free(
          inModule && attrs.kind === 'avg' ? volume(attrs.kernel as number[]) * elements : 0,
        );
      case 'logmel':
        return free(2 * spectrogramMacs(description, samples));
      default:
        return free(0);
    }
  });
}

function free(multiplyAdds: number): LayerCost {
  return { parameters: 0, macs: 0, multiplyAdds };
}

/** Every frame meets both kernels whole; 0 where a checkpoint has none, since its reference has an FFT. */
function spectrogramMacs({ spec, values, stateDict }: Described, samples: number): number {
  const kernels = stateDict.filter(({ name }) => DFT.test(name));
  const frames = values[spec.nodes.findIndex(({ op }) => op === 'logmel')]?.framesOf(samples) ?? 0;
  return frames * kernels.reduce((sum, { shape }) => sum + volume(shape), 0);
}

/** 3 of `features.0.3`; NaN of `bn1`. */
function lastNumber(path: string): number {
  return Number(path.slice(path.lastIndexOf('.') + 1));
}

function volume(shape: readonly number[]): number {
  return shape.reduce((size, n) => size * n, 1);
}
