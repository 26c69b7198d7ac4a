import type { Spec, SpecNode } from '../../lib/addon.js';

/** A spec under construction, node by node as the core reads it. */
export interface Draft {
  readonly nodes: SpecNode[];
  /** Appends a node and returns what others name it by. */
  add(
    op: string,
    inputs: string | readonly string[],
    attrs?: SpecNode['attrs'],
    path?: string,
  ): string;
  /** The finished spec; outputs name nodes. */
  spec(outputs: Record<string, string>): Spec;
}

export function draft(name: string): Draft {
  const nodes: SpecNode[] = [];
  return {
    nodes,
    add(op, inputs, attrs = {}, path = '') {
      const list = typeof inputs === 'string' ? [inputs] : [...inputs];
      return `#${nodes.push({ op, path, inputs: list, attrs }) - 1}`;
    },
    spec(outputs) {
      const named = Object.entries(outputs).map(([k, ref]) => [k, Number(ref.slice(1))] as const);
      return { name, nodes, outputs: Object.fromEntries(named) };
    },
  };
}

export const TINY_SAMPLES = 4000;
export const TINY_CLASSES = 5;

/**
 * A network of two blocks on 8 kHz clips, with every training-only op: small enough to be run
 * dozens of times, large enough for each pass to find work. Nodes by name in `refs`.
 */
export function tiny(options: { dropout?: number; channels?: number } = {}): {
  spec: Spec;
  refs: Record<string, string>;
} {
  const { dropout = 0.2, channels = 16 } = options;
  const d = draft('Tiny');
  const refs: Record<string, string> = {};
  const add = (name: string, ...rest: Parameters<Draft['add']>) => {
    refs[name] = d.add(...rest);
    return refs[name];
  };
  const front = {
    sample_rate: 8000,
    window_size: 256,
    hop_size: 80,
    mel_bins: 16,
    fmin: 50,
    fmax: 4000,
  };
  let x = add('logmel', 'logmel', 'waveform', front);
  x = add('bn0', 'batch_norm', x, { axis: 'freq' }, 'bn0');
  x = add('spec_augment', 'spec_augment', x, { time_width: 8, freq_width: 4 });
  x = add('mixup', 'mixup', [x, 'mixup_lambda']);
  for (const i of [1, 2]) {
    const conv = { out_channels: channels, kernel: 3, padding: 1 };
    x = add(`conv${i}`, 'conv', x, conv, `block.conv${i}`);
    x = add(`bn${i}`, 'batch_norm', x, {}, `block.bn${i}`);
    x = add(`relu${i}`, 'relu', x);
    x = add(`pool${i}`, 'pool', x, { kernel: 2 });
    x = add(`dropout${i}`, 'dropout', x, { p: dropout });
  }
  // A bias of its own keeps this one from being folded.
  x = add('conv3', 'conv', x, { out_channels: channels, kernel: 1, bias: true }, 'conv3');
  x = add('relu3', 'relu', x);
  x = add('pool3', 'pool', x, { kernel: 2 });
  x = add('freq', 'reduce', x, { axis: 'freq' });
  x = add('time', 'reduce', x, { axis: 'time', kind: 'max+mean' });
  x = add('fc1', 'linear', x, { out_features: 12 }, 'fc1');
  x = add('relu4', 'relu', x);
  const logits = add('fc2', 'linear', x, { out_features: TINY_CLASSES }, 'fc2');
  const scores = add('sigmoid', 'sigmoid', logits);
  return { spec: d.spec({ logits, clipwise_output: scores }), refs };
}

/** The same spec with more outputs: named nodes then have a reader more, and fuse into nothing. */
export function exposing(spec: Spec, refs: Record<string, string>, names: readonly string[]): Spec {
  const more = names.map((name) => [name, Number(refs[name]?.slice(1))] as const);
  return { ...spec, outputs: { ...spec.outputs, ...Object.fromEntries(more) } };
}
