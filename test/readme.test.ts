import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { test } from 'tap';
import ts from 'typescript';
import { encodeWav16 } from '../lib/audio/wav.js';
import { generateScenes } from '../lib/demo/scenes.js';
import { packageRoot } from '../lib/native.js';

const run = promisify(execFile);
const root = packageRoot();

/** Inside the package, so that a snippet's `import 'panns'` finds the package itself. */
const folder = join(root, 'build', 'readme');

/** Two classes of six short clips, and a recording. */
async function prepare(): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  const sampleRate = 32000;
  const scenes = generateScenes({
    count: 13,
    seed: 1,
    sampleRate,
    seconds: 1,
    classes: ['bark', 'siren'],
  });
  for (const [i, { samples }] of scenes.clips.entries()) {
    const place = i === 12 ? '' : join('sounds', i % 2 ? 'bark' : 'siren');
    await mkdir(join(folder, place), { recursive: true });
    const name = i === 12 ? 'recording.wav' : `${i}.wav`;
    await writeFile(join(folder, place, name), encodeWav16(samples, sampleRate));
  }
}

function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))].map(
    ([, code]) => code ?? '',
  );
}

test('the snippets of the README run', async (t) => {
  const readme = await readFile(join(root, 'README.md'), 'utf8');
  await prepare();
  const snippets = blocks(readme, 'ts');
  t.ok(snippets.length >= 3);
  // The first one loads the model that the second one saves.
  const [tag = '', train = '', ...others] = snippets;
  for (const [i, code] of [train, tag, ...others].entries()) {
    const { outputText } = ts.transpileModule(code, {
      compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
    });
    const file = join(folder, `snippet-${i}.mjs`);
    await writeFile(file, outputText);
    const { stdout } = await run(process.execPath, [file], { cwd: folder });
    t.ok(stdout.length > 0, `snippet ${i} printed`);
  }
  const [, commands = ''] = blocks(readme, 'sh');
  for (const line of commands.trim().split('\n')) {
    const [program, ...words] = line.split(' ');
    t.equal(program, 'panns');
    const { stdout } = await run(process.execPath, [join(root, 'dist/cli/main.js'), ...words], {
      cwd: folder,
    });
    t.ok(stdout.length > 0, line);
  }
});
