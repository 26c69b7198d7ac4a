import type { Spec } from '../addon.js';
import { nearest, PannsError } from '../errors.js';
import type { GraphDescription } from './tensor.js';

/** What the questions below are asked of. */
type Graph = Pick<GraphDescription, 'spec' | 'stateDict' | 'values'>;

/** The names of what trains, by the number of the node that owns it, in the order of the graph. */
export function parametersByNode({ spec, stateDict }: Graph): ReadonlyMap<number, string[]> {
  const byPath = new Map<string, string[]>();
  for (const { name, role } of stateDict) {
    if (role !== 'parameter') continue;
    const path = name.slice(0, name.lastIndexOf('.'));
    byPath.set(path, [...(byPath.get(path) ?? []), name]);
  }
  return new Map(
    spec.nodes.flatMap(({ path }, i) => {
      const names = byPath.get(path);
      return names === undefined ? [] : [[i, names] as const];
    }),
  );
}

/**
 * The parameters of a network's classifier: those that its embedding does not depend on. In a network
 * without an embedding, those after which no other parameters come.
 */
export function classifierParameters(graph: Graph): string[] {
  const { spec } = graph;
  const owners = parametersByNode(graph);
  const { embedding } = spec.outputs;
  const base =
    embedding === undefined
      ? ancestors(spec, [...owners.keys()], false)
      : ancestors(spec, [embedding], true);
  const names = [...owners].flatMap(([node, own]) => (base.has(node) ? [] : own));
  // A network whose scores are its embedding has no base that could be told from the rest.
  return embedding !== undefined && names.length === 0
    ? classifierParameters({ ...graph, spec: { ...spec, outputs: {} } })
    : names;
}

/**
 * The parameters of all layers up to and including `layer`, a module's name such as `conv_block4`, in
 * the order in which the network computes.
 *
 * @throws PannsError `ERR_PANNS_OPTION` naming the nearest layer
 */
export function parametersUpTo(graph: Graph, layer: string): string[] {
  const owners = [...parametersByNode(graph)];
  const paths = owners.map(([node]) => graph.spec.nodes[node]?.path ?? '');
  const last = paths.findLastIndex((path) => path === layer || path.startsWith(`${layer}.`));
  if (last >= 0) return owners.slice(0, last + 1).flatMap(([, names]) => names);
  const modules = paths.flatMap((path) =>
    path.split('.').map((_, i, parts) => parts.slice(0, i + 1).join('.')),
  );
  const guess = nearest(String(layer), [...new Set(modules)]);
  const what = `there is no layer "${layer}" with parameters; did you mean "${guess}"?`;
  throw new PannsError('ERR_PANNS_OPTION', what, { where: 'freeze', actual: layer });
}

/** Where a network can be cut in two. */
export interface Cut {
  /** The node whose results, (N, columns), are all that the second part reads. */
  readonly node: number;
  readonly columns: number;
}

/**
 * The last place before all parameters that train, if all that comes after reads one vector a clip
 * there: what was computed up to it need not be computed again.
 *
 * @throws PannsError `ERR_PANNS_OPTION` when training reaches further
 */
export function cutBeforeTraining(graph: Graph, frozen: ReadonlySet<string>): Cut {
  const { spec, values } = graph;
  const owners = parametersByNode(graph);
  const live = new Set<number>();
  const read = new Set<number>();
  for (const [i, { inputs }] of spec.nodes.entries()) {
    const from = inputs.flatMap((ref) => (ref.startsWith('#') ? [Number(ref.slice(1))] : []));
    const trains = owners.get(i)?.some((name) => !frozen.has(name)) ?? false;
    if (!trains && !from.some((node) => live.has(node))) continue;
    live.add(i);
    // What reads the waveform itself cannot be cut from it.
    if (from.length < inputs.length) read.add(-1);
    for (const node of from) if (!live.has(node)) read.add(beforeDropout(spec, node));
  }
  const [node = -1] = read;
  const value = values[node];
  if (read.size === 1 && value?.kind === 'vector') return { node, columns: value.channels };
  const what =
    live.size === 0
      ? 'nothing is left to train'
      : 'features can only be computed once where all before the head is frozen, and the head reads one vector a clip: use freeze: "base" and a head for clips';
  throw new PannsError('ERR_PANNS_OPTION', what, { where: 'cacheFeatures' });
}

/** What a dropout reads, as the head's own dropouts are to be drawn at every step. */
function beforeDropout(spec: Spec, node: number): number {
  const { op, inputs: [ref = ''] = [] } = spec.nodes[node] ?? {};
  return op === 'dropout' ? beforeDropout(spec, Number(ref.slice(1))) : node;
}

/** The nodes that lead to `nodes`, themselves `included` or not. */
export function ancestors(spec: Spec, nodes: readonly number[], included: boolean): Set<number> {
  const found = new Set<number>(included ? nodes : []);
  const wanted = new Set(nodes);
  for (let i = spec.nodes.length - 1; i >= 0; i--) {
    if (!wanted.has(i)) continue;
    for (const ref of spec.nodes[i]?.inputs ?? []) {
      if (!ref.startsWith('#')) continue;
      const node = Number(ref.slice(1));
      wanted.add(node);
      found.add(node);
    }
  }
  return found;
}
