import { join } from 'node:path';
import t from 'tap';
import { root, run } from './consumer.js';

t.test('the API reference: no broken link, nothing used and not described', async (t) => {
  const typedoc = join(root, 'node_modules', 'typedoc', 'bin', 'typedoc');
  const { status, stdout, stderr } = await run(process.execPath, [typedoc, '--emit', 'none'], root);
  t.equal(status, 0, stdout + stderr);
});
