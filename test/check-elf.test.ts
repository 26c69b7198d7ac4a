import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';

const root = join(import.meta.dirname, '..');
const compiler = process.env.CXX ?? 'c++';
const tools = [compiler, 'readelf'].every((tool) => spawnSync(tool, ['--version']).status === 0);
const skip = process.platform !== 'linux' || !tools ? 'needs Linux, c++ and readelf' : false;

const entries = `
  extern "C" void napi_register_module_v1() {}
  extern "C" void node_api_module_get_api_version_v1() {}`;
const script = `-Wl,--version-script=${join(root, 'native', 'bindings', 'exports.map')}`;

for (const { name, source, options, says } of [
  { name: 'a good one', source: entries, options: [script], says: [] },
  {
    name: 'no version script',
    source: `${entries} void stray() {}`,
    options: [],
    says: ['exports _Z5strayv'],
  },
  {
    name: 'no entry',
    source: 'void inner() {}',
    options: [script],
    says: [
      'does not export napi_register_module_v1',
      'does not export node_api_module_get_api_version_v1',
    ],
  },
  {
    name: "the system's libstdc++",
    source: `#include <stdexcept>\n${entries} void fail() { throw std::runtime_error("no"); }`,
    options: [script],
    says: ['needs libstdc++.so.6', "from the system's libstdc++"],
  },
  {
    name: 'memory that Electron refuses',
    source: `${entries}
      extern "C" int napi_create_external_arraybuffer();
      int (*use)() = napi_create_external_arraybuffer;`,
    options: [script],
    says: ['calls napi_create_external_arraybuffer, which Electron refuses'],
  },
  {
    name: 'a newer glibc',
    // As a program linked on a newer system would ask for it.
    source: `${entries}
      extern "C" int newer();
      __asm__(".symver newer, arc4random@GLIBC_2.36");
      int (*use)() = newer;`,
    options: [script],
    says: ['takes arc4random from GLIBC_2.36; the floor is 2.34'],
  },
]) {
  t.test(name, { skip }, async (t) => {
    const folder = t.testdir({ 'a.cpp': source });
    const file = join(folder, 'a.node');
    const args = ['-shared', '-fPIC', '-o', file, join(folder, 'a.cpp'), '-Wl,--as-needed'];
    const built = spawnSync(compiler, [...args, ...options], { encoding: 'utf8' });
    t.equal(built.status, 0, built.stderr);
    const checked = spawnSync(process.execPath, [join(root, 'scripts/check-elf.mjs'), file], {
      encoding: 'utf8',
    });
    t.equal(checked.status, says.length === 0 ? 0 : 1, checked.stdout);
    for (const text of says) t.match(checked.stdout, text);
  });
}
