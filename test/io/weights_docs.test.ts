import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import ts from 'typescript';
import { packageRoot } from '../../lib/native.js';

const run = promisify(execFile);
const root = packageRoot();
/** Inside the package, so that `import 'panns'` finds it. */
const folder = join(root, 'build', 'weights-docs');

t.test('the snippets of docs/weights.md run', async (t) => {
  const text = await readFile(join(root, 'docs', 'weights.md'), 'utf8');
  const block = (language: string) =>
    new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'ms').exec(text)?.[1] ?? '';
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const { outputText } = ts.transpileModule(block('ts'), {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  });
  await writeFile(join(folder, 'snippet.mjs'), outputText);
  const { stdout } = await run(process.execPath, ['snippet.mjs'], { cwd: folder });
  t.match(stdout, /Cnn6[\s\S]*3[\s\S]*pth 36/);
  const lines = block('sh').trim().split('\n');
  t.equal(lines.length, 2);
  for (const line of lines) {
    const words = line.split(' ').slice(1);
    const printed = await run(process.execPath, [join(root, 'dist/cli/main.js'), ...words], {
      cwd: folder,
    });
    t.ok(printed.stdout.length > 0, line);
  }
});
