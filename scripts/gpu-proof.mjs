#!/usr/bin/env node
// Packs all that the proof on a GPU needs into one folder, for a machine that has a GPU and need
// have nothing else: no network, no Node.js, no compiler. There:
//
//   sh <folder>/run.sh <result.json>
//
// Here, after `npm run setup:cuda`:
//
//   node scripts/gpu-proof.mjs [--out=build-gpu-proof] [--build=build]
//
// The folder holds this program's own Node.js, the addon, the CUDA backend, the compiled library
// and the calls of test/ops, recorded while those tests run. cuDNN and NVRTC are the machine's:
// PyTorch brings them.
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { packageProgram, root, StepFailed, show, step } from './steps.mjs';

const option = (name, otherwise) =>
  process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise;
const folder = resolve(root, option('out', 'build-gpu-proof'));
const release = join(resolve(root, option('build', 'build')), 'Release');

/** Where Python's packages of NVIDIA lie is asked of the machine's own Python. */
const runner = `#!/bin/sh
# Runs the proof; the result is written to the first argument.
cd "$(dirname "$0")" || exit 1
[ -x node ] || { xz -dk node.xz && chmod +x node; } || exit 1
: "\${VIRTUAL_ENV:=$(python3 -c 'import sys; print(sys.prefix)' 2>/dev/null)}"
export VIRTUAL_ENV
here=$PWD
cd - >/dev/null || exit 1
exec "$here/node" "$here/gpu.mjs" "$@"
`;

function main() {
  for (const name of ['panns.node', 'panns_cuda.so']) {
    if (existsSync(join(release, name))) continue;
    console.log(`there is no ${join(release, name)}: npm run setup:cuda builds it`);
    throw new StepFailed(name);
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const cases = join(folder, 'cases');
  const [tap, run] = packageProgram('tap/dist/esm/run.mjs');
  const tests = [run, 'run', '--disable-coverage', '--reporter=silent', 'test/ops'];
  const recorded = show(tap, tests, {
    env: { PANNS_RECORD_OPS: cases, PANNS_BINDING: join(release, 'panns.node') },
  });
  if (recorded !== 0) throw new StepFailed('test/ops');
  const [program, tsc] = packageProgram('typescript/bin/tsc');
  step('tsc', program, [tsc, '-p', '.', '--outDir', join(folder, 'dist')]);
  for (const name of ['panns.node', 'panns_cuda.so']) {
    copyFileSync(join(release, name), join(folder, name));
  }
  cpSync(join(root, 'package.json'), join(folder, 'package.json'));
  cpSync(join(root, 'bench', 'gpu.mjs'), join(folder, 'gpu.mjs'));
  copyFileSync(process.execPath, join(folder, 'node'));
  step('xz node', 'xz', ['-f', '-3', join(folder, 'node')]);
  writeFileSync(join(folder, 'run.sh'), runner);
  chmodSync(join(folder, 'run.sh'), 0o755);
  console.log(`${folder}: sh ${join(folder, 'run.sh')} result.json`);
}

try {
  main();
} catch (error) {
  if (!(error instanceof StepFailed)) throw error;
  process.exitCode = 1;
}
