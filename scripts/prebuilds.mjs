#!/usr/bin/env node
// Makes the binaries that travel in the npm package, and checks them:
//
//   npm run prebuilds [-- --out=<folder>] [--reuse] [--no-sndfile]
//
// <folder>/prebuilds/<platform>-<arch>/ then holds the addon (stripped), the CUDA backend where the
// build made one, and libsndfile with what it needs. --reuse takes the build as it is. PANNS_BUILD
// names another build folder than build/.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import prebuildify from 'prebuildify';
import { root, StepFailed, show } from './steps.mjs';

// Decides nothing for a Node-API addon, but prebuildify wants one: the oldest that is supported.
const oldestNode = '20.19.0';

const option = (name) =>
  process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3);
const out = resolve(option('out') ?? root);
const target = join(out, 'prebuilds', `${process.platform}-${process.arch}`);

function run(script, ...args) {
  if (show(process.execPath, [join(root, 'scripts', script), ...args]) !== 0) {
    throw new StepFailed(script);
  }
}

async function main() {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  const work = mkdtempSync(join(tmpdir(), 'panns-prebuilds-'));
  if (process.argv.includes('--reuse')) process.env.PANNS_PREBUILDS_REUSE = '1';
  try {
    await promisify(prebuildify)({
      ...{ cwd: work, out, name: 'panns', napi: true, targets: [oldestNode] },
      ...{ strip: true, tagLibc: true, nodeGyp: join(root, 'scripts', 'cmake-gyp.mjs') },
    });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  if (process.platform !== 'linux') return;
  if (!process.argv.includes('--no-sndfile')) run('vendor-sndfile.mjs', target);
  run('check-elf.mjs', target);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof StepFailed)) console.error(`prebuilds: ${error.message}`);
  process.exitCode = 1;
}
