import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import t from 'tap';
import { cudaBuild, noCudaBuild } from './build.js';

const root = join(import.meta.dirname, '..', '..');

t.test(
  'the library names none of NVIDIA’s and shows one symbol',
  { skip: noCudaBuild },
  async (t) => {
    const check = join(root, 'scripts', 'check-elf.mjs');
    const { status, stdout } = spawnSync(process.execPath, [check, cudaBuild.library], {
      encoding: 'utf8',
    });
    t.equal(status, 0, stdout);
  },
);

t.test('no kernel spills registers or uses a stack', { skip: noCudaBuild }, async (t) => {
  const sources = readdirSync(join(root, 'native', 'backends', 'cuda')).filter((name) =>
    name.endsWith('.cu'),
  );
  for (const source of sources) {
    const report = readFileSync(
      join(cudaBuild.reports, `${basename(source, '.cu')}.ptxas`),
      'utf8',
    );
    const uses = [...report.matchAll(/(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)/g)];
    const registers = [...report.matchAll(/Used (\d+) registers/g)].map(([, n]) => Number(n));
    t.ok(uses.length > 0 && uses.length === registers.length, `${source}: a report a kernel`);
    t.same(
      uses.filter(([, ...numbers]) => numbers.some((n) => n !== '0')).map(([line]) => line),
      [],
      `${source}: ${uses.length} kernels, at most ${Math.max(...registers)} registers`,
    );
  }
});
