import { nearest, PannsError } from '../errors.js';
import { classifierParameters, parametersUpTo } from '../models/parts.js';
import type { GraphDescription } from '../models/tensor.js';

/**
 * What does not train: nothing; all but the classifier and the layers that `classifierLayers` adds;
 * every layer up to and including one, in the network's order; or parameters by the beginnings of their
 * names.
 */
export type Freeze = 'none' | 'base' | { readonly upTo: string } | readonly string[];

/**
 * The names of the parameters that a choice freezes, in the state dict's order.
 *
 * @throws PannsError `ERR_PANNS_OPTION` for a layer or name that the model does not have, and when
 *   nothing would train
 */
export function frozenParameters(
  freeze: Freeze,
  graph: Pick<GraphDescription, 'spec' | 'stateDict' | 'values'>,
): string[] {
  const names = graph.stateDict.flatMap(({ name, role }) => (role === 'parameter' ? [name] : []));
  const isFrozen = chooser(freeze, graph, names);
  const frozen = names.filter(isFrozen);
  if (frozen.length < names.length) return frozen;
  throw freezeError('it leaves nothing to train', freeze);
}

function chooser(
  freeze: Freeze,
  graph: Pick<GraphDescription, 'spec' | 'stateDict' | 'values'>,
  names: readonly string[],
): (name: string) => boolean {
  if (freeze === 'none') return () => false;
  if (freeze === 'base') {
    const classifier = new Set(classifierParameters(graph));
    return (name) => !classifier.has(name);
  }
  if (Array.isArray(freeze)) {
    checkPrefixes('freeze', freeze, names);
    return (name) => freeze.some((prefix) => name.startsWith(prefix));
  }
  const { upTo } = (freeze ?? {}) as { upTo?: string };
  if (typeof upTo !== 'string') {
    throw freezeError('expected "none", "base", { upTo: layer } or a list of names', freeze);
  }
  const chosen = new Set(parametersUpTo(graph, upTo));
  return (name) => chosen.has(name);
}

/** @throws PannsError `ERR_PANNS_OPTION` naming the nearest parameter where a prefix begins none */
export function checkPrefixes(
  option: string,
  prefixes: readonly string[],
  parameters: readonly string[],
): void {
  for (const prefix of prefixes) {
    if (parameters.some((name) => name.startsWith(prefix))) continue;
    const guess = nearest(String(prefix), parameters);
    const what = `expected ${option} to hold the beginnings of parameters' names, such as "${guess}", got "${prefix}"`;
    throw new PannsError('ERR_PANNS_OPTION', what, { where: 'Trainer', actual: prefix });
  }
}

function freezeError(what: string, freeze: unknown): PannsError {
  const given = JSON.stringify(freeze);
  return new PannsError('ERR_PANNS_OPTION', `freeze ${given}: ${what}`, { where: 'Trainer' });
}
