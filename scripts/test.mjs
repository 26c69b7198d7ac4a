#!/usr/bin/env node
// Everything that must hold: types, form, and all tests. Its last line counts the assertions.
//
//   npm test [-- --cuda] [-- test/one.test.ts ...]      npm run test:sanitize
//
// --cuda also builds the CUDA backend for all chips, so that test/cuda has something to look at. It
// needs no GPU; where the compiler can neither be found nor fetched it is skipped.
//
// Inputs are random. Their seed follows from the sources, so that each change draws anew and what
// fails on one machine fails on another; PANNS_TEST_SEED is another, and tap alone takes a fresh one.
import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { setup } from './setup.mjs';
import { buildCuda, cudaTools } from './setup-cuda.mjs';
import { packageProgram, read, root, StepFailed, show } from './steps.mjs';

const sanitize = process.argv.includes('--sanitize');
const cuda = process.argv.includes('--cuda');
const files = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const report = join(root, 'build', 'test.tap');
const summary = join(root, 'build', 'test-summary.txt');

/** The environment that puts the sanitizers' run-time libraries first, before node itself. */
function sanitizerEnv(folder) {
  const libraries = ['libasan.so', 'libubsan.so'].map((name) =>
    read(process.env.CXX ?? 'c++', [`-print-file-name=${name}`])?.trim(),
  );
  return {
    LD_PRELOAD: libraries.join(':'),
    // node itself never frees what lives as long as the process.
    ASAN_OPTIONS: 'detect_leaks=0',
    UBSAN_OPTIONS: 'print_stacktrace=1',
    PANNS_BINDING: join(root, folder, 'Release', 'panns.node'),
    PANNS_BUILD: folder,
  };
}

/**
 * Assertions by outcome, with a word on the skipped and the failed ones; those that close a subtest
 * are not counted again.
 */
async function count(path) {
  const { Parser } = await import(
    pathToFileURL(join(root, 'node_modules/tap-parser/dist/esm/index.js')).href
  );
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const total = () => counts.passed + counts.failed + counts.skipped;
  const watch = (parser) => {
    let before;
    let failedBefore = 0;
    parser.on('child', (child) => {
      before = total();
      failedBefore = counts.failed;
      watch(child);
    });
    parser.on('assert', ({ ok, skip, todo, fullname, diag }) => {
      const closesSubtest = before !== undefined && total() > before;
      // A subtest that timed out or crashed fails with no failed assertion inside.
      const explained = ok || counts.failed > failedBefore;
      before = undefined;
      if (closesSubtest && explained) return;
      if (skip || todo) {
        counts.skipped++;
        console.log(`skipped: ${fullname}: ${skip || todo}`);
      } else if (ok) counts.passed++;
      else {
        counts.failed++;
        const { at, diff, ...rest } = diag ?? {};
        const place = at?.fileName ? ` (${at.fileName}:${at.lineNumber})` : '';
        console.log(`FAILED: ${fullname}${place}`);
        console.log(diff ?? inspect(rest, { breakLength: 100 }));
      }
    });
  };
  const parser = new Parser();
  watch(parser);
  const finished = new Promise((resolve) => parser.on('complete', resolve));
  createReadStream(path).pipe(parser);
  await finished;
  return counts;
}

/** A number below 2^31 that any change of what is tested, or of a test, changes. */
function seedOfSources() {
  const hash = createHash('sha256');
  for (const folder of ['lib', 'native', 'test']) {
    const files = readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.name.endsWith('.pyc'))
      .map((entry) => join(entry.parentPath, entry.name));
    for (const file of files.sort()) hash.update(readFileSync(file));
  }
  return hash.digest().readUInt32BE() >>> 1;
}

/** Compiles and links the CUDA backend; test/cuda then reads its reports and loads it. */
function compileCuda(counts) {
  let tools;
  try {
    tools = cudaTools();
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    counts.skipped++;
    console.log('skipped: the CUDA build: its compiler was neither found nor fetched');
    return;
  }
  buildCuda(tools, { folder: join(root, 'build'), emulator: true });
  counts.passed++;
}

function tap(env) {
  const [program, file] = packageProgram('tap/dist/esm/run.mjs');
  const args = [file, 'run', `--output-file=${report}`, ...files];
  if (process.stdout.isTTY) return show(program, args, { env });
  console.log('tap run (its whole output: build/test.tap)');
  // count() says what a log needs; tap's other reporters move the cursor or show every assertion.
  return show(program, [...args, '--reporter=silent'], { env });
}

async function main() {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  let env = {};
  mkdirSync(join(root, 'build'), { recursive: true });
  rmSync(report, { force: true });
  rmSync(summary, { force: true });
  try {
    const folder = sanitize ? 'build-asan' : 'build';
    const options = sanitize ? ['--CDPANNS_SANITIZE=address;undefined'] : [];
    const python = setup({ tests: true, folder, options });
    if (cuda && !sanitize) compileCuda(counts);
    const seed = process.env.PANNS_TEST_SEED ?? String(seedOfSources());
    console.log(`PANNS_TEST_SEED=${seed}`);
    env = {
      PANNS_TEST_SEED: seed,
      ...(python && { PANNS_PYTHON: python }),
      ...(sanitize && sanitizerEnv(folder)),
    };
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    return { ...counts, failed: 1 };
  }
  if (!sanitize && files.length === 0) {
    const checks = {
      types: ['typescript/bin/tsc', '-p', 'test', '--noEmit'],
      form: ['../scripts/lint.mjs'],
    };
    for (const [name, [file, ...args]] of Object.entries(checks)) {
      const [program, script] = packageProgram(file);
      const ok = show(program, [script, ...args]) === 0;
      counts[ok ? 'passed' : 'failed']++;
      console.log(`${name}: ${ok ? 'ok' : 'failed'}`);
    }
  }
  const status = tap(env);
  if (existsSync(report)) {
    for (const [outcome, n] of Object.entries(await count(report))) counts[outcome] += n;
  }
  if (status !== 0 && counts.failed === 0) counts.failed = 1;
  return counts;
}

const { passed, failed, skipped } = await main();
const line = `${passed} passed, ${failed} failed, ${skipped} skipped`;
writeFileSync(summary, `${line}\n`);
console.log(`\n${line}`);
process.exitCode = failed === 0 ? 0 : 1;
