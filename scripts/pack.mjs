#!/usr/bin/env node
// Makes the tarball that is published, in a folder of its own, so that nothing left over in the
// clone gets in:
//
//   node scripts/pack.mjs [--out=build/package] [--reuse]
//
// --reuse takes the native build as it is (scripts/prebuilds.mjs). The last line is the tarball.
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { npm, packageProgram, read, root, StepFailed, step } from './steps.mjs';

// What package.json's "files" and npm's own rules choose from; dist/ and the binaries are made.
const sources = [
  ...['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'CMakeLists.txt'],
  ...['lib', 'native', 'docs', 'prebuilds/README.md'],
];

/** Packs into `out`; returns the path of the tarball and what npm says is in it. */
export function pack({ out = join(root, 'build', 'package'), reuse = false } = {}) {
  const stage = join(out, 'stage');
  rmSync(stage, { recursive: true, force: true });
  mkdirSync(stage, { recursive: true });
  for (const name of sources) cpSync(join(root, name), join(stage, name), { recursive: true });
  rmSync(join(stage, 'docs', 'api'), { recursive: true, force: true });

  const [program, tsc] = packageProgram('typescript/bin/tsc');
  step('tsc', program, [tsc, '-p', '.', '--outDir', join(stage, 'dist')]);
  const prebuilds = [join(root, 'scripts', 'prebuilds.mjs'), `--out=${stage}`];
  step('prebuilds', process.execPath, [...prebuilds, ...(reuse ? ['--reuse'] : [])]);

  const [manager, ...args] = npm();
  const told = read(manager, [
    ...[...args, 'pack', stage, '--json', '--ignore-scripts', '--pack-destination', out],
  ]);
  const [report] = told === undefined ? [] : JSON.parse(told);
  const tarball = report && join(out, report.filename);
  if (!tarball || !existsSync(tarball)) throw new StepFailed('npm pack');
  return { tarball, report };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const option = process.argv.find((word) => word.startsWith('--out='))?.slice('--out='.length);
  try {
    const { tarball, report } = pack({
      ...(option && { out: resolve(option) }),
      reuse: process.argv.includes('--reuse'),
    });
    const mega = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
    console.log(
      `${report.entryCount} files, ${mega(report.size)}, ${mega(report.unpackedSize)} unpacked`,
    );
    console.log(tarball);
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    process.exitCode = 1;
  }
}
