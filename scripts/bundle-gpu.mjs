#!/usr/bin/env node
// Packs one archive that proves the package on a machine with a GPU. That machine needs Linux on
// x64, NVIDIA's driver and libraries (PyTorch's will do), tar and sh: no network, no Node.js, no
// compiler. Here, after `npm run setup:cuda`:
//
//   npm run bundle:gpu [-- --out=build-gpu] [--build=build] [--cases=<folder>] [--partial]
//
// There:
//
//   tar xzf panns-gpu.tar.gz && ./panns-gpu/run result.json --seconds=540
//
// In it are the tarball that is published, installed; the calls of test/ops, recorded while those
// tests run here (--cases takes a folder of calls that were recorded before); test/cuda/proof; the
// benchmarks with PyTorch's side; and this program's own Node.js. --partial packs a library for some
// chips only.
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { pack } from './pack.mjs';
import { packageProgram, root, StepFailed, show, step } from './steps.mjs';

/** What a working tree may weigh that is carried to a GPU host, with room for the rest. */
const MOST_BYTES = 60 * 2 ** 20;
const proofFile = (name) => `test/cuda/proof/${name}.mjs`;
/** All that runs there beside the package, at its place in the clone. */
const files = [
  ...['run', 'processes', 'worker', 'ops', 'training', 'curve', 'curve_own'].map(proofFile),
  ...['sanitizer', 'sanitized'].map(proofFile),
  'test/cuda/proof/curve_torch.py',
  ...[
    'gpu.mjs',
    'gpu_cases.mjs',
    'gpu_own.mjs',
    'gpu_table.mjs',
    'gpu_trainer.mjs',
    'card.mjs',
  ].map((name) => `bench/${name}`),
  ...['side.mjs', 'torch_front.py', 'torch_gpu.py'].map((name) => `bench/${name}`),
  'test/oracle/models',
];

const runner = `#!/bin/sh
# Proves the package in app/ on this machine's GPU: run [result.json] [options]. All options:
# test/cuda/proof/run.mjs. Libraries of NVIDIA's that lie elsewhere: PANNS_CUDA_LIB_DIRS.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
exec "$here/node" "$here/test/cuda/proof/run.mjs" "$@"
`;

const option = (name, otherwise) =>
  process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise;
const out = resolve(root, option('out', 'build-gpu'));
const build = resolve(root, option('build', 'build'));

/** The packages that one needs, found as Node.js finds them, into a folder's node_modules. */
function copyDependencies(manifest, from, target) {
  for (const name of Object.keys(manifest.dependencies ?? {})) {
    const places = createRequire(join(from, 'package.json')).resolve.paths(name) ?? [];
    const source = places.map((place) => join(place, name)).find(existsSync);
    if (source === undefined) {
      console.log(`${name} is not installed here: npm ci`);
      throw new StepFailed(name);
    }
    const copy = join(target, 'node_modules', name);
    if (existsSync(copy)) continue;
    cpSync(source, copy, { recursive: true, dereference: true });
    const own = JSON.parse(readFileSync(join(source, 'package.json'), 'utf8'));
    copyDependencies(own, source, target);
  }
}

/** The published package in app/node_modules/panns, as npm would put it there. */
function installPackage(folder) {
  process.env.PANNS_BUILD = build;
  const { tarball } = pack({ out: join(out, 'package'), reuse: true });
  const app = join(folder, 'app');
  const target = join(app, 'node_modules', 'panns');
  mkdirSync(target, { recursive: true });
  writeFileSync(join(app, 'package.json'), '{ "private": true, "type": "module" }\n');
  step('unpack', 'tar', ['xzf', tarball, '-C', target, '--strip-components=1']);
  const manifest = JSON.parse(readFileSync(join(target, 'package.json'), 'utf8'));
  copyDependencies(manifest, root, app);
  if (!readdirSync(join(target, 'prebuilds', 'linux-x64')).includes('panns_cuda.so')) {
    console.log('the package has no panns_cuda.so');
    throw new StepFailed('package');
  }
}

function recordCases(target) {
  const given = option('cases');
  if (given !== undefined) return cpSync(resolve(given), target, { recursive: true });
  const [tap, run] = packageProgram('tap/dist/esm/run.mjs');
  const tests = [run, 'run', '--disable-coverage', '--reporter=silent', 'test/ops'];
  const env = { PANNS_RECORD_OPS: target, PANNS_BINDING: join(build, 'Release', 'panns.node') };
  console.log('recording the calls of test/ops');
  if (show(tap, tests, { env }) !== 0) throw new StepFailed('test/ops');
}

function main() {
  for (const name of ['panns.node', 'panns_cuda.so']) {
    if (existsSync(join(build, 'Release', name))) continue;
    console.log(`there is no ${join(build, 'Release', name)}: npm run setup:cuda builds it`);
    throw new StepFailed(name);
  }
  const chips = readFileSync(join(build, 'Release', 'panns_cuda.chips'), 'utf8').trim();
  if (chips !== 'all' && !process.argv.includes('--partial')) {
    console.log(`panns_cuda.so is for ${chips} only: npm run setup:cuda, or --partial`);
    throw new StepFailed('chips');
  }
  const folder = join(out, 'panns-gpu');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  installPackage(folder);
  for (const name of files) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    const plain = (path) => !path.includes('__pycache__');
    cpSync(join(root, name), join(folder, name), { recursive: true, filter: plain });
  }
  recordCases(join(folder, 'test', 'cuda', 'proof', 'cases'));
  // 32 MB in the archive, without its symbol table.
  copyFileSync(process.execPath, join(folder, 'node'));
  step('strip node', 'strip', [join(folder, 'node')]);
  writeFileSync(join(folder, 'run'), runner);
  chmodSync(join(folder, 'run'), 0o755);
  const archive = join(out, 'panns-gpu.tar.gz');
  const numeric = ['--owner=0', '--group=0', '--numeric-owner', '--sort=name'];
  step('tar', 'tar', ['czf', `${archive}.part`, ...numeric, '-C', out, 'panns-gpu']);
  const { size } = statSync(`${archive}.part`);
  if (size > MOST_BYTES) {
    console.log(`the archive has ${size} bytes; at most ${MOST_BYTES} are wanted`);
    throw new StepFailed('size');
  }
  renameSync(`${archive}.part`, archive);
  console.log(`${archive}: ${(size / 2 ** 20).toFixed(1)} MiB`);
}

try {
  main();
} catch (error) {
  if (!(error instanceof StepFailed)) throw error;
  process.exitCode = 1;
}
