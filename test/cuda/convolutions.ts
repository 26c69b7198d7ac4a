import type { NativeAddon } from '../../lib/addon.js';
import { describeModel } from '../../lib/models/index.js';

/** Clips of a training step. */
const BATCH = 32;
const SECONDS = 10;

/** `%13 = conv(%11, weight)   4x64x1001x64   5x5 pad=2x2 +bias`, after the node's path. */
const LINE = /^([^%]+?)\s*((?:%\d+(?:, )?)+) = (\w+)\(([^)]*)\)\s+(\S+)\s*(.*)$/;

/** Three taps along two bins: what can also be computed over pairs of them. */
const PAIRS = / f=2 .* kernel=\dx3 stride=\dx1 padding=\dx1 dilation=\dx1 groups=1 /;

/**
 * The convolutions and linear layers of a model, in training and at inference, as `cudnn_plans`
 * reads them: one line each, no line twice.
 *
 * They are read off the dumps of the compiled programs, so that they are those that really run. A
 * convolution whose sums a norm takes comes twice, as engines for that are not always there, and so
 * does one that can be computed over pairs of bins. The first convolution of a network is among
 * them: not every norm takes it in.
 */
export async function convolutionsOf(native: NativeAddon, name: string): Promise<string[]> {
  const { spec, config, minimumSamples } = describeModel(name);
  const samples = SECONDS * config.sampleRate;
  const step = native.nullStep(spec, {
    ...{ batch: 1, samples, mixup: false, loss: 'bce', frozen: [] },
    passesOff: ['conv+batch_norm'],
    optimizer: { kind: 'sgd', attrs: {} },
  });
  const model = await native.createModel(spec, { device: 'null', threads: 1 }, minimumSamples);
  // The 2x2 mean is no epilogue of a convolution on CUDA.
  const inference = await model.text(1, samples, ['conv+avg_pool_2x2']);
  model.dispose();
  return [...new Set([...nodes(step.text, BATCH), ...nodes(inference, 1)])];
}

/** Programs are dumped with one clip; `n` is how many there are to be. */
function nodes(dump: string, n: number): string[] {
  const shapes = new Map<string, number[]>();
  const forward = new Map<string, string>();
  const found: string[] = [];
  for (const line of dump.split('\n')) {
    const [, path = '', outputs = '', op = '', inputs = '', shape = '', attrs = ''] =
      LINE.exec(line) ?? [];
    const y = shape.split('x').map(Number);
    shapes.set(outputs.split(', ')[0] ?? '', y);
    if (!/^(conv|linear)/.test(op)) continue;
    if (op === 'conv' || op === 'linear') {
      const x = shapes.get(inputs.split(', ')[0] ?? '') ?? [];
      const sizes = fields(n, x, y, attrs);
      forward.set(path, sizes);
      if (attrs.includes('+statistics')) found.push(`op=${op} ${sizes} statistics=1`);
    }
    // A backward node has its forward's path, and the sizes are those of the forward.
    const described = forward.get(path);
    if (described === undefined) throw new Error(`no forward node for ${line}`);
    found.push(`op=${op} ${described}`);
    if (PAIRS.test(described)) found.push(`op=${op} ${described} paired=1`);
  }
  return found;
}

function fields(n: number, x: readonly number[], y: readonly number[], attrs: string): string {
  const [, c = 0, t = 1, f = 1] = x;
  const [, k = 0] = y;
  const pair = (name: string, otherwise: string) =>
    new RegExp(`${name}=(\\d+x\\d+)`).exec(attrs)?.[1] ?? otherwise;
  const flag = (name: string) => (attrs.includes(`+${name}`) ? 1 : 0);
  const sizes = `n=${n * (x[0] ?? 1)} c=${c} t=${t} f=${f} k=${k}`;
  const window = `kernel=${/^(\d+x\d+)/.exec(attrs)?.[1] ?? '1x1'} stride=${pair('stride', '1x1')}`;
  const edges = `padding=${pair('pad', '0x0')} dilation=${pair('dilation', '1x1')}`;
  const groups = /groups=(\d+)/.exec(attrs)?.[1] ?? '1';
  return `${sizes} ${window} ${edges} groups=${groups} bias=${flag('bias')} relu=${flag('relu')}`;
}
