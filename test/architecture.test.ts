import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import t from 'tap';
import ts from 'typescript';

const root = join(import.meta.dirname, '..');
/** Path from the root, with / between folders, to text. */
type Sources = ReadonlyMap<string, string>;

const NATIVE = /\.(h|c|cpp|cu|cuh|inc)$/;
const SCRIPT = /\.(ts|mjs)$/;
const HABIT = 400;
const LIMIT = 600;

/**
 * Which layers of native/ a layer may include beside itself. A backend sees ops, the front-end
 * tables and core; only bindings, which choose the device, see a backend.
 */
const NATIVE_LAYERS: Record<string, readonly string[]> = {
  core: [],
  frontend: ['core', 'ops'],
  audio: ['core'],
  ops: ['core'],
  backends: ['core', 'ops', 'frontend'],
  'backends/null': ['core', 'ops', 'frontend', 'backends'],
  'backends/cpu': ['core', 'ops', 'frontend', 'backends'],
  'backends/cuda': ['core', 'ops', 'frontend', 'backends'],
  graph: ['core', 'ops', 'backends'],
  data: ['core', 'audio'],
  parallel: ['core', 'backends'],
  train: ['core', 'ops', 'graph', 'data', 'parallel', 'backends'],
  compat: [],
};
/** These stand on top and may include every layer. */
const NATIVE_TOP = ['bindings', 'bench'];

/** The base of every *.simd.cpp: what chooses and names an instruction-set tier, for audio too. */
const SIMD_BASE = ['native/backends/cpu/tier.h', 'native/backends/cpu/vec.h'];

/** What only some layers may include or call. */
const NATIVE_RESERVED: readonly { what: string; pattern: RegExp; layers: readonly string[] }[] = [
  {
    what: 'Node-API',
    pattern: /^\s*#\s*include\s*[<"](napi|node_api|js_native_api)[\w-]*\.h[>"]/m,
    layers: ['bindings'],
  },
  {
    what: 'CUDA',
    pattern: /^\s*#\s*include\s*[<"](cuda|cudnn|cublas|cufft|nvrtc|nccl|nvtx|cooperative_groups)/m,
    layers: ['backends/cuda'],
  },
  {
    what: 'SIMD intrinsics',
    pattern: /^\s*#\s*include\s*<(\w*intrin|arm_neon|arm_sve)\.h>|\b_mm\d*_\w+\s*\(/m,
    // A benchmark measures what the machine can do at most.
    layers: ['backends/cpu', 'audio', 'bench'],
  },
];

/** Folders of lib/ from the bottom up: a file imports from its own rank and from those below. */
const LIB_RANKS: readonly (readonly string[])[] = [
  ['errors'],
  ['addon', 'labels', 'native'],
  ['cuda', 'models', 'audio', 'features', 'io', 'metrics'],
  ['inference', 'data', 'train'],
  ['demo', 'index'],
  ['cli'],
];

function nativeLayer(path: string): string {
  const folders = dirname(path).split('/').slice(1);
  return folders[0] === 'backends' ? folders.slice(0, 2).join('/') : (folders[0] ?? '');
}

/** The included names: `quoted` are the project's own. */
function includes(text: string): { name: string; quoted: boolean }[] {
  const found = text.matchAll(/^\s*#\s*include\s*([<"])([^>"]+)[>"]/gm);
  return [...found].map(([, mark, name = '']) => ({ name, quoted: mark === '"' }));
}

/** Where a quoted include lies: from native/ as the compiler is told, or beside the file. */
function resolveInclude(sources: Sources, from: string, name: string): string | undefined {
  const places = [`native/${name}`, normalize(join(dirname(from), name))];
  return places.find((place) => sources.has(place));
}

function nativeFaults(sources: Sources): string[] {
  const faults: string[] = [];
  for (const [path, text] of sources) {
    if (!path.startsWith('native/') || !NATIVE.test(path)) continue;
    const layer = nativeLayer(path);
    for (const { what, pattern, layers } of NATIVE_RESERVED) {
      if (pattern.test(text) && !layers.includes(layer)) faults.push(`${path}: uses ${what}`);
    }
    const below = NATIVE_LAYERS[layer];
    if (NATIVE_TOP.includes(layer)) continue;
    if (below === undefined) {
      faults.push(`${path}: "${layer}" has no place among the layers`);
      continue;
    }
    for (const { name, quoted } of includes(text)) {
      const target = quoted ? resolveInclude(sources, path, name) : undefined;
      if (target === undefined || (layer === 'audio' && SIMD_BASE.includes(target))) continue;
      const other = nativeLayer(target);
      if (other !== layer && !below.includes(other)) faults.push(`${path}: includes ${name}`);
    }
  }
  return faults;
}

/** Headers that define types and macros, and no function that the linker could keep. */
const TYPES_ONLY = ['cstdint', 'cstddef', 'cfloat', 'climits'];

/** C++ headers of the standard library that reach a *.simd.cpp, and by which way (tier.h: why). */
function simdFaults(sources: Sources): string[] {
  const faults: string[] = [];
  const walk = (path: string, way: readonly string[]): void => {
    for (const { name, quoted } of includes(sources.get(path) ?? '')) {
      const target = quoted ? resolveInclude(sources, path, name) : undefined;
      if (target !== undefined) {
        if (!way.includes(target)) walk(target, [...way, target]);
      } else if (!name.endsWith('.h') && !TYPES_ONLY.includes(name)) {
        faults.push(`${way.join(' > ')}: includes <${name}>`);
      }
    }
  };
  for (const path of sources.keys()) if (path.endsWith('.simd.cpp')) walk(path, [path]);
  return faults;
}

/** The files of the project that a file imports, types included. */
function imports(path: string, text: string): string[] {
  const { importedFiles } = ts.preProcessFile(text, true, true);
  return importedFiles
    .filter(({ fileName }) => fileName.startsWith('.'))
    .map(({ fileName }) => normalize(join(dirname(path), fileName)).replace(/\.js$/, '.ts'));
}

/** `models` for lib/models/cnn.ts, `errors` for lib/errors.ts. */
function libFolder(path: string): string {
  return (path.split('/')[1] ?? '').replace(/\.ts$/, '');
}

function libFaults(sources: Sources): string[] {
  const faults: string[] = [];
  const rank = (path: string) => LIB_RANKS.findIndex((row) => row.includes(libFolder(path)));
  const folders = new Map<string, Set<string>>();
  for (const [path, text] of sources) {
    if (!path.startsWith('lib/') || !path.endsWith('.ts')) continue;
    if (rank(path) < 0) faults.push(`${path}: "${libFolder(path)}" has no rank`);
    const used = folders.get(libFolder(path)) ?? new Set();
    folders.set(libFolder(path), used);
    for (const target of imports(path, text)) {
      if (!target.startsWith('lib/')) faults.push(`${path}: imports ${target}, outside lib`);
      else if (rank(target) > rank(path)) faults.push(`${path}: imports ${target}`);
      if (libFolder(target) !== libFolder(path)) used.add(libFolder(target));
    }
  }
  for (const [folder, used] of folders) {
    for (const other of used) {
      if (folder < other && folders.get(other)?.has(folder)) {
        faults.push(`lib/${folder} and lib/${other} import each other`);
      }
    }
  }
  return faults;
}

/** Ways from lib/models to the addon: a model is data, and can be read without a binary. */
function modelFaults(sources: Sources): string[] {
  const faults: string[] = [];
  const walk = (path: string, way: readonly string[]): void => {
    for (const target of imports(path, sources.get(path) ?? '')) {
      if (target === 'lib/native.ts') faults.push([...way, target].join(' > '));
      else if (!way.includes(target)) walk(target, [...way, target]);
    }
  };
  for (const path of sources.keys()) if (path.startsWith('lib/models/')) walk(path, [path]);
  return faults;
}

function textFaults(sources: Sources): string[] {
  const faults: string[] = [];
  for (const [path, text] of sources) {
    const lines = text.split('\n').length - 1;
    if (lines > LIMIT) faults.push(`${path}: ${lines} lines, ${LIMIT} are the most`);
    if (/\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b/.test(text)) faults.push(`${path}: unfinished`);
    if (/(^|\/)utils?(\/|\.)/.test(path)) faults.push(`${path}: name it after what it does`);
  }
  return faults;
}

function readSources(): Sources {
  const sources = new Map<string, string>();
  for (const folder of ['native', 'lib', 'test', 'scripts', 'bench', 'examples']) {
    if (!existsSync(join(root, folder))) continue;
    for (const name of readdirSync(join(root, folder), { recursive: true }) as string[]) {
      const path = `${folder}/${name}`;
      if (NATIVE.test(path) || SCRIPT.test(path)) {
        sources.set(path, readFileSync(join(root, path), 'utf8'));
      }
    }
  }
  return sources;
}

const sources = readSources();
const rules = { nativeFaults, simdFaults, libFaults, modelFaults, textFaults };

for (const [name, rule] of Object.entries(rules)) {
  t.test(`the sources keep the rule: ${name}`, async (t) => {
    t.same(rule(sources), []);
  });
}

t.test('there are sources to look at', async (t) => {
  for (const path of ['native/core/error.h', 'lib/errors.ts', 'test/architecture.test.ts']) {
    t.ok(sources.has(path), path);
  }
  for (const [path, text] of sources) {
    const lines = text.split('\n').length - 1;
    if (lines > HABIT) t.comment(`${path}: ${lines} lines, ${HABIT} are the habit`);
  }
});

t.test('the lock file names no registry', async (t) => {
  t.notMatch(readFileSync(join(root, 'package-lock.json'), 'utf8'), '"resolved"');
});

/** Each rule finds what it is there for: text that breaks it, and what it then says. */
const planted: Record<keyof typeof rules, readonly [Record<string, string>, readonly string[]][]> =
  {
    nativeFaults: [
      [
        {
          'native/graph/plan.cpp': '#include "backends/backend.h"\n#include "backends/cpu/conv.h"',
          'native/backends/backend.h': '',
          'native/backends/cpu/conv.h': '#include "../cuda/handle.h"\n#include "layout.h"',
          'native/backends/cpu/layout.h': '#include "core/error.h"',
          'native/backends/cuda/handle.h': '#include <cuda_runtime.h>',
          'native/core/error.h': '#include <string>',
          'native/bindings/addon.cpp': '#include <napi.h>\n#include "graph/plan.h"',
        },
        [
          'native/graph/plan.cpp: includes backends/cpu/conv.h',
          'native/backends/cpu/conv.h: includes ../cuda/handle.h',
        ],
      ],
      [{ 'native/train/a.cpp': '#include <napi.h>' }, ['native/train/a.cpp: uses Node-API']],
      [{ 'native/ops/a.h': '#include <cudnn.h>' }, ['native/ops/a.h: uses CUDA']],
      [
        {
          'native/ops/a.h': '#include <immintrin.h>',
          'native/data/b.cpp': 'x = _mm256_add_ps(a);',
        },
        ['native/ops/a.h: uses SIMD intrinsics', 'native/data/b.cpp: uses SIMD intrinsics'],
      ],
      [
        {
          'native/audio/a.h': '#include "backends/cpu/tier.h"\n#include "backends/cpu/pool.h"',
          'native/backends/cpu/tier.h': '',
          'native/backends/cpu/pool.h': '',
        },
        ['native/audio/a.h: includes backends/cpu/pool.h'],
      ],
      [{ 'native/extra/a.h': '' }, ['native/extra/a.h: "extra" has no place among the layers']],
    ],
    simdFaults: [
      [
        {
          'native/backends/cpu/a.simd.cpp': '#include "backends/cpu/b.h"\n#include <stdint.h>',
          'native/backends/cpu/b.h': '#include <cstdint>\n#include <vector>',
          'native/backends/cpu/c.simd.cpp': '#include <cmath>',
          'native/backends/cpu/d.cpp': '#include <cmath>',
        },
        [
          'native/backends/cpu/a.simd.cpp > native/backends/cpu/b.h: includes <vector>',
          'native/backends/cpu/c.simd.cpp: includes <cmath>',
        ],
      ],
    ],
    libFaults: [
      [
        {
          'lib/io/a.ts': "import { x } from '../train/b.js';\n// import '../cli/c.js';",
          'lib/train/b.ts': "export { y } from '../io/a.js';\nawait import('../../scripts/s.mjs');",
        },
        [
          'lib/io/a.ts: imports lib/train/b.ts',
          'lib/train/b.ts: imports scripts/s.mjs, outside lib',
          'lib/io and lib/train import each other',
        ],
      ],
      [{ 'lib/extra/a.ts': '' }, ['lib/extra/a.ts: "extra" has no rank']],
    ],
    modelFaults: [
      [
        {
          'lib/models/cnn.ts': "import { a } from '../labels.js';",
          'lib/labels.ts': "import { loadNative } from './native.js';",
        },
        ['lib/models/cnn.ts > lib/labels.ts > lib/native.ts'],
      ],
    ],
    textFaults: [
      [{ 'lib/a.ts': '\n'.repeat(LIMIT + 1) }, ['lib/a.ts: 601 lines, 600 are the most']],
      [{ 'lib/a.ts': '\n'.repeat(LIMIT) }, []],
      [{ 'lib/a.ts': `// TO${'DO'}: later` }, ['lib/a.ts: unfinished']],
      [{ 'lib/utils/a.ts': '' }, ['lib/utils/a.ts: name it after what it does']],
    ],
  };

for (const [name, cases] of Object.entries(planted)) {
  t.test(`planted faults are found: ${name}`, async (t) => {
    for (const [files, faults] of cases) {
      const rule = rules[name as keyof typeof rules];
      t.same(rule(new Map(Object.entries(files))), faults);
    }
  });
}
