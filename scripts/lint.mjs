#!/usr/bin/env node
// Checks the form of the sources; with --write mends what can be mended.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageProgram, read, root, show } from './steps.mjs';

// Each major version breaks lines in its own way: only Debian 12's, the one in use, is asked.
const clangFormatMajor = '14';

const write = process.argv.includes('--write');

function biome() {
  const [program, file] = packageProgram('@biomejs/biome/bin/biome');
  return show(program, [file, 'check', ...(write ? ['--write'] : ['--error-on-warnings']), '.']);
}

function clangFormat() {
  const names = [`clang-format-${clangFormatMajor}`, 'clang-format'];
  const program = names.find((name) =>
    read(name, ['--version'])?.includes(` ${clangFormatMajor}.`),
  );
  if (!program) {
    console.log(`C++ format skipped: clang-format ${clangFormatMajor} is not installed`);
    return 0;
  }
  const sources = ['native', 'test/native'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true })
      .filter((name) => /\.(h|c|cpp|cu|cuh)$/.test(name))
      .map((name) => join(folder, name)),
  );
  return show(program, [...(write ? ['-i'] : ['--dry-run', '--Werror']), ...sources]);
}

process.exitCode = Math.max(biome(), clangFormat());
