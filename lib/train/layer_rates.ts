import { parametersByNode } from '../models/parts.js';
import type { GraphDescription } from '../models/tensor.js';
import type { Recipe } from './recipe.js';

/**
 * What multiplies the learning rate of parameters: by the beginnings of names as `lrScale` has them, or
 * with `layerDecay` by their full names.
 *
 * The deeper a layer lies below the scores, the less it moves (Howard and Ruder, *Universal Language
 * Model Fine-tuning for Text Classification*, 2018): the last layer has `layerDecay` to the power of 0,
 * the one before it 1, and so on, in the order of computation. A layer is a numbered module, as
 * `conv_block3`, `features.7` or `resnet.layer2`, else one by the first part of its name, as `bn0`.
 */
export function parameterRates(
  { lrScale, layerDecay }: Pick<Recipe, 'lrScale' | 'layerDecay'>,
  graph: Pick<GraphDescription, 'spec' | 'stateDict' | 'values'>,
): Record<string, number> {
  if (layerDecay === 1) return { ...lrScale };
  const names = [...parametersByNode(graph).values()].flat();
  const layers = [...new Set(names.map(layerOf))];
  return Object.fromEntries(
    names.map((name) => {
      const depth = layers.length - 1 - layers.indexOf(layerOf(name));
      const prefixes = Object.keys(lrScale).filter((prefix) => name.startsWith(prefix));
      const longest = prefixes.sort((a, b) => b.length - a.length)[0];
      const scale = longest === undefined ? 1 : (lrScale[longest] ?? 1);
      return [name, scale * layerDecay ** depth];
    }),
  );
}

/** `conv_block3` of `conv_block3.conv1.weight`. */
function layerOf(name: string): string {
  const modules = name.split('.').slice(0, -1);
  const numbered = modules.findIndex((module) => /\d$/.test(module));
  return modules.slice(0, Math.max(0, numbered) + 1).join('.');
}
