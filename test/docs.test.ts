import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { test } from 'tap';
import ts from 'typescript';
import { encodeWav16 } from '../lib/audio/wav.js';
import { generateScenes } from '../lib/demo/scenes.js';
import { createModel } from '../lib/index.js';
import { packageRoot } from '../lib/native.js';
import { writePack } from './helpers/hdf5.js';
import { sharedFile } from './helpers/shared.js';

const run = promisify(execFile);
const root = packageRoot();

interface Page {
  readonly page: string;
  /** How many blocks of TypeScript it has, and the order they run in where it is another. */
  readonly snippets: number;
  readonly order?: readonly number[];
  /** Which blocks of commands run. */
  readonly commands?: readonly number[];
  /** Whether it fetches mn04: from a mirror that is the shared data's folder. */
  readonly published?: true;
}

const pages: readonly Page[] = [
  // The second block saves what the third one loads.
  { page: 'README.md', snippets: 5, commands: [1], published: true },
  { page: 'docs/migrating.md', snippets: 2 },
  { page: 'docs/training.md', snippets: 1 },
  { page: 'docs/weights.md', snippets: 1, commands: [0] },
  { page: 'docs/onnx.md', snippets: 1 },
  { page: 'docs/profiling.md', snippets: 1 },
  { page: 'docs/transfer.md', snippets: 1, published: true },
  // The first two blocks load what the third one saves.
  { page: 'docs/detection.md', snippets: 5, order: [3, 0, 1, 2, 4], published: true },
  { page: 'docs/published-weights.md', snippets: 1, published: true },
];

/** Pages whose snippets need what is not here, and what that is. */
const elsewhere: Readonly<Record<string, string>> = {
  'docs/cuda.md': 'a GPU',
  'docs/distributed.md': 'mpirun',
};

/** A folder inside the package, so that a snippet's `import 'panns'` finds the package itself. */
async function prepare(page: string): Promise<string> {
  const folder = join(root, 'build', 'docs', page.replaceAll(/\W/g, '-'));
  await rm(folder, { recursive: true, force: true });
  const sampleRate = 32000;
  const classes = ['bark', 'siren'];
  const scenes = generateScenes({ count: 13, seed: 1, sampleRate, seconds: 1, classes });
  await mkdir(join(folder, 'sounds', 'bark'), { recursive: true });
  await mkdir(join(folder, 'sounds', 'siren'));
  for (const [i, { samples }] of scenes.clips.entries()) {
    const wav = encodeWav16(samples, sampleRate);
    if (i < 12) await writeFile(join(folder, 'sounds', i % 2 ? 'bark' : 'siren', `${i}.wav`), wav);
    else
      for (const name of ['recording.wav', 'street.ogg']) await writeFile(join(folder, name), wav);
  }
  const rows = Array.from({ length: 6 }, (_, i) => `sounds/siren/${2 * i}.wav,0.2,0.9,siren`);
  const events = ['filename,onset,offset,event_label', ...rows, 'sounds/bark/1.wav,0,0.5,bark'];
  await writeFile(join(folder, 'strong.csv'), `${events.join('\n')}\n`);
  const waveforms = join(folder, 'hdf5s', 'waveforms');
  await mkdir(waveforms, { recursive: true });
  const clips = scenes.clips.slice(0, 4).map(({ samples }, i) => {
    return { name: `Y${i}.wav`, labels: [i, 500], samples: samples.map((x) => 32767 * x) };
  });
  await writeFile(join(waveforms, 'balanced_train.h5'), writePack(clips, sampleRate, 527));
  using model = await createModel('Cnn6', { classes: ['bark', 'siren'] });
  await model.save(join(folder, 'model.safetensors'));
  return folder;
}

function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))].map(
    ([, code]) => code ?? '',
  );
}

for (const { page, snippets, order, commands = [], published } of pages) {
  const weights = sharedFile('data', 'efficientat_mn04_as');
  const skip = published ? weights.skip : false;
  test(`what ${page} shows runs`, { skip }, async (t) => {
    const text = await readFile(join(root, page), 'utf8');
    const folder = await prepare(page);
    const env = { ...process.env, PANNS_CACHE: join(folder, 'cache'), PANNS_MIRROR: weights.path };
    const found = blocks(text, 'ts');
    t.equal(found.length, snippets, 'snippets');
    for (const i of order ?? found.keys()) {
      const { outputText } = ts.transpileModule(found[i] ?? '', {
        compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
      });
      const file = join(folder, `snippet-${i}.mjs`);
      await writeFile(file, outputText);
      const running = run(process.execPath, [file], { cwd: folder, env });
      // For those that listen: three seconds of 16 kHz. Others leave it.
      running.child.stdin?.on('error', () => undefined).end(new Uint8Array(96_000));
      await t.resolves(running, `snippet ${i}`);
    }
    for (const i of commands) {
      for (const line of (blocks(text, 'sh')[i] ?? '').trim().split('\n')) {
        const [program, ...words] = line.replace(/ #.*/, '').trim().split(/\s+/);
        t.equal(program, 'panns');
        const main = join(root, 'dist/cli/main.js');
        const { stdout } = await run(process.execPath, [main, ...words], { cwd: folder, env });
        t.ok(stdout.length > 0, line);
      }
    }
  });
}

test('every page with a snippet is in one of the lists', async (t) => {
  const docs = (await readdir(join(root, 'docs'))).filter((name) => name.endsWith('.md'));
  for (const page of ['README.md', ...docs.map((name) => `docs/${name}`)]) {
    const text = await readFile(join(root, page), 'utf8');
    if (blocks(text, 'ts').length === 0) continue;
    const known = page in elsewhere || pages.some((candidate) => candidate.page === page);
    t.ok(known, page);
  }
});
