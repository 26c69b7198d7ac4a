#!/usr/bin/env node
// prebuildify knows node-gyp's command line only, and moves what it finds in build/Release of the
// folder it runs in. This one takes that command line, builds with cmake-js in the clone, and puts
// copies there: the clone keeps its build. scripts/prebuilds.mjs calls it.
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { jobs, packageProgram, root, show } from './steps.mjs';

// cmake-js's --target is a CMake target, and it needs no --devdir; of the rest this is of use.
const words = process.argv.slice(2).filter((word) => word.startsWith('--arch='));
const folder = resolve(root, process.env.PANNS_BUILD ?? 'build');

function build() {
  if (process.env.PANNS_PREBUILDS_REUSE) return 0;
  const [program, cmake] = packageProgram('cmake-js/bin/cmake-js');
  // `build`, though asked to rebuild: CMake knows what is out of date.
  return show(program, [cmake, 'build', '-O', folder, '-p', String(jobs), ...words]);
}

process.exitCode = build();
if (process.exitCode === 0) {
  const release = resolve('build', 'Release');
  mkdirSync(release, { recursive: true });
  for (const name of ['panns.node', 'panns_cuda.so']) {
    const built = join(folder, 'Release', name);
    if (existsSync(built)) copyFileSync(built, join(release, name));
  }
}
