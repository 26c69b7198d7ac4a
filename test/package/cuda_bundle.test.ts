import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { serialize } from 'node:v8';
import t from 'tap';
import { cudaStatus } from '../../lib/cuda.js';
import { cudaBuild, noCudaBuild } from '../cuda/build.js';
import { openDraws } from '../helpers/random.js';

const root = join(import.meta.dirname, '..', '..');
const MOST_BYTES = 60 * 2 ** 20;
const path = (process.env.PATH ?? '').split(':');
const without = ['tar', 'strip', 'gzip'].filter(
  (name) => !path.some((folder) => existsSync(join(folder, name))),
);
const skip = noCudaBuild || (without.length > 0 && `there is no ${without.join(', ')}`);

t.test('the bundle for GPU hosts, unpacked and run', { skip, timeout: 900_000 }, async (t) => {
  const folder = t.testdir({ cases: {}, out: {}, host: { bin: {} } });
  const { normals } = openDraws(t);
  const x = { shape: [2, 3, 8, 4], form: 'map', data: normals(2 * 3 * 8 * 4) };
  const call = { op: 'relu', attrs: {}, inputs: [x], state: {} };
  writeFileSync(join(folder, 'cases', 'relu-1.case'), serialize(call));
  const script = join(root, 'scripts', 'bundle-gpu.mjs');
  const build = join(dirname(cudaBuild.library), '..');
  const options = [
    `--out=${folder}/out`,
    `--build=${build}`,
    `--cases=${folder}/cases`,
    '--partial',
  ];
  const packed = spawnSync(process.execPath, [script, ...options], { encoding: 'utf8' });
  t.equal(packed.status, 0, packed.stdout + packed.stderr);
  const archive = join(folder, 'out', 'panns-gpu.tar.gz');
  t.comment(`${(statSync(archive).size / 2 ** 20).toFixed(1)} MiB`);
  t.ok(statSync(archive).size <= MOST_BYTES);

  const host = join(folder, 'host');
  t.equal(spawnSync('tar', ['xzf', archive, '-C', host]).status, 0);
  // A machine with a shell and nothing else: no node, no npm, no Python.
  for (const name of ['sh', 'dirname']) {
    const program = path.map((place) => join(place, name)).find(existsSync);
    symlinkSync(program ?? '', join(host, 'bin', name));
  }
  const run = (...words: string[]) =>
    spawnSync(join(host, 'panns-gpu', 'run'), [join(host, 'result.json'), ...words], {
      encoding: 'utf8',
      env: { HOME: host, PATH: join(host, 'bin') },
    });
  const result = () => JSON.parse(readFileSync(join(host, 'result.json'), 'utf8'));
  if (!(await cudaStatus()).available) {
    const none = run();
    t.equal(none.status, 3, none.stderr);
    t.match(none.stdout, /no CUDA device to prove it on: /);
    const libraries = result().doctor.machine.cuda.libraries;
    t.match(
      libraries[0].path,
      join(host, 'panns-gpu', 'app', 'node_modules', 'panns', 'prebuilds'),
    );
    t.equal(libraries[0].reason, '', 'the backend that is shipped loads');
  }
  const rehearsed = run('--rehearse', '--only=ops');
  t.equal(rehearsed.status, 0, rehearsed.stdout + rehearsed.stderr);
  t.match(result(), { outcome: 'all held, in a rehearsal on the CPU', ops: { notReached: 0 } });
});
