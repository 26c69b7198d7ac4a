import type { SpecNode } from '../../addon.js';

// A spec's attributes with the defaults of native/ops/attrs.h. The core has read the same spec when
// the model was made, so their types hold.

type Pair = readonly [time: number, frequency: number];

export function number(node: SpecNode, name: string, fallback: number): number {
  return (node.attrs[name] as number | undefined) ?? fallback;
}

export function flag(node: SpecNode, name: string, fallback: boolean): boolean {
  return (node.attrs[name] as boolean | undefined) ?? fallback;
}

export function choice(node: SpecNode, name: string, fallback: string): string {
  return (node.attrs[name] as string | undefined) ?? fallback;
}

/** One number means both. */
export function pair(node: SpecNode, name: string, fallback: Pair): Pair {
  const value = node.attrs[name] as number | number[] | undefined;
  if (value === undefined) return fallback;
  return typeof value === 'number' ? [value, value] : [value[0] ?? 0, value[1] ?? 0];
}

/** Pads of (time, frequency) as ONNX has them: all beginnings, then all ends. */
export function pads([time, frequency]: Pair): number[] {
  return [time, frequency, time, frequency];
}
