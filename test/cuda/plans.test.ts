import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import t from 'tap';
import { modelNames } from '../../lib/models/index.js';
import { loadNative } from '../../lib/native.js';
import { cudaBuild, libraryEnv, noCudaBuild } from './build.js';
import { convolutionsOf } from './convolutions.js';
import { buildStub, noCompiler } from './stub.js';

/** Every so many plans one is compiled as on the chip itself, which takes a second. */
const BUILD_EVERY = Number(process.env.PANNS_BUILD_PLANS ?? 1000);

interface Listing {
  architecture: number;
  graph: string;
  engines: number;
  runtimeCompiled: number;
  fallback: boolean;
  build: boolean;
  built: boolean;
  seconds: number;
}

const notBuilt = !existsSync(cudaBuild.plans) && 'cudnn_plans is not built: PANNS_TESTS=ON';

t.test(
  'cuDNN has an engine for every convolution of every model',
  {
    skip: noCudaBuild || noCompiler || notBuilt,
    timeout: 600_000,
  },
  async (t) => {
    const native = loadNative();
    const nodes = new Set<string>();
    for (const name of modelNames) {
      for (const node of await convolutionsOf(native, name)) nodes.add(node);
    }
    t.ok(nodes.size > 1000, `${nodes.size} different nodes of ${modelNames.length} models`);
    const program = spawn(cudaBuild.plans, [`--build=${BUILD_EVERY}`], {
      env: libraryEnv(buildStub(t)),
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    program.stdin.end(`${[...nodes].join('\n')}\n`);
    const ended = new Promise<number | null>((resolve) => program.on('close', resolve));
    const [out, err] = await Promise.all([text(program.stdout), text(program.stderr)]);
    const status = await ended;
    t.equal(status, 0, err.slice(0, 2000));
    const listings = out
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Listing);
    const summed = [...nodes].filter((node) => node.endsWith('statistics=1')).length;
    const expected = (nodes.size - summed) * 4 * 3 + summed * 4 * 2;
    t.equal(listings.length, expected, 'four chips, three kinds of arithmetic, two with sums');
    const paired = listings.filter(({ graph }) => graph.endsWith(' paired'));
    t.equal(paired.length, [...nodes].filter((node) => node.endsWith('paired=1')).length * 4 * 3);
    t.ok(paired.length > 100, `${paired.length} lists over pairs of bins`);
    const lacking = listings.filter(({ engines }) => engines === 0);
    const withSums = ({ graph }: Listing) => graph.includes(' statistics');
    t.same(
      lacking.filter((listing) => !withSums(listing)),
      [],
      'none lacks an engine',
    );
    const without = new Set(lacking.filter(withSums).map(({ graph }) => graph));
    t.comment(`${summed} graphs with sums; on some chip without an engine: ${without.size}`);
    for (const graph of [...without].slice(0, 20)) t.comment(graph);
    for (const line of table(listings)) t.comment(line);
  },
);

t.test(
  'plans are chosen, kept and refused',
  {
    skip: noCudaBuild || noCompiler || notBuilt,
  },
  async (t) => {
    const folder = buildStub(t);
    const env = libraryEnv(folder);
    t.spawn(cudaBuild.cache, [folder], { env, timeout: 300_000 }, 'plan_cache');
  },
);

async function text(stream: NodeJS.ReadableStream): Promise<string> {
  const parts: string[] = [];
  for await (const part of stream) parts.push(String(part));
  return parts.join('');
}

/** By chip, pass and arithmetic: how many graphs, their engines, and what was compiled. */
function table(listings: readonly Listing[]): string[] {
  const rows = new Map<string, Listing[]>();
  for (const listing of listings) {
    const [pass, math] = listing.graph.split(' ');
    const key = `sm_${listing.architecture} ${pass} ${math}`;
    rows.set(key, [...(rows.get(key) ?? []), listing]);
  }
  return [...rows].map(([key, list]) => {
    const engines = list.map((one) => one.engines).sort((a, b) => a - b);
    const built = list.filter((one) => one.built);
    const slow = Math.max(0, ...built.map((one) => one.seconds)).toFixed(1);
    return (
      `${key.padEnd(32)} ${list.length} graphs, engines ${engines[0]}..${engines.at(-1)}, ` +
      `${list.filter((one) => one.fallback).length} by fallback engines only, ` +
      `${built.length} compiled (at most ${slow} s)`
    );
  });
}
