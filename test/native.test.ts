import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import t from 'tap';

const root = join(import.meta.dirname, '..');
// Another build than the usual one, with sanitizers for example.
const build = process.env.PANNS_BUILD ?? 'build';
const shared = process.env.PANNS_SHARED ?? join(root, '..', 'shared');
// Real data, where it lies beside the project; without it the programs skip what asks it.
const env = { ...process.env, ...(existsSync(shared) && { PANNS_SHARED: shared }) };

for (const source of readdirSync(join(root, 'test', 'native')).sort()) {
  if (!source.endsWith('.cpp')) continue;
  const name = basename(source, '.cpp');
  const program = join(root, build, 'test', 'native', name);
  if (existsSync(program)) {
    t.spawn(program, [], { cwd: root, env, timeout: 600_000 }, `native ${name}`);
  } else {
    t.fail(`native ${name}: not built; npm test builds it, or: npm run setup -- --tests`);
  }
}
t.end();
