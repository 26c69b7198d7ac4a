#!/usr/bin/env node
// All that a release is, in one command; nothing is published without being asked for:
//
//   npm run release -- --dry-run      checks, tests, binaries, gates, the tarball
//   npm run release -- --publish      the same, and then `npm publish` of that very tarball
//
// For a dry run that is soon done: --skip-tests, and --reuse for the native build as it is.
//
// Provenance, a signed word on which commit and which workflow made the tarball, npm gives only to
// builds on a public CI service: there --publish adds --provenance, elsewhere it says that there is
// none.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pack } from './pack.mjs';
import { npm, read, root, StepFailed, show } from './steps.mjs';

// npm refuses tarballs of somewhat above 200 MB; ours has no reason to come near.
const mostBytes = 40e6;

const publish = process.argv.includes('--publish');
const dryRun = process.argv.includes('--dry-run');
const skipTests = process.argv.includes('--skip-tests');
const reuse = process.argv.includes('--reuse');

function must(title, program, args) {
  console.log(`\n== ${title}`);
  if (show(program, args) !== 0) throw new StepFailed(title);
}

function refuse(reason) {
  console.error(`release: ${reason}`);
  throw new StepFailed(reason);
}

/** What has to be true of a release before any work is worth doing. */
function checkState({ version }) {
  const changes = readFileSync(join(root, 'CHANGELOG.md'), 'utf8');
  const title = changes.split('\n').find((line) => line.startsWith(`## [${version}]`));
  if (!title) refuse(`CHANGELOG.md has no section [${version}]`);
  const problems = [];
  if (/unreleased/i.test(title)) problems.push(`CHANGELOG.md: [${version}] is without its date`);
  if (read('git', ['status', '--porcelain']) !== '') problems.push('the clone has changes');
  if (read('git', ['tag', '--points-at', 'HEAD'])?.trim() !== `v${version}`) {
    problems.push(`the commit has no tag v${version}`);
  }
  if (publish && problems.length > 0) refuse(problems.join('; '));
  for (const problem of problems) console.log(`before publishing: ${problem}`);
}

/** Users have every chip: a CUDA backend that was built for one would fail on the others. */
function checkChips() {
  const file = join(root, 'build', 'Release', 'panns_cuda.chips');
  const chips = existsSync(file) ? readFileSync(file, 'utf8').trim() : 'no chip';
  if (chips === 'all') return;
  const problem = `the CUDA backend is built for ${chips}: npm run setup:cuda builds it for all`;
  if (publish) refuse(problem);
  console.log(`before publishing: ${problem}`);
}

function main() {
  if (publish === dryRun) refuse('expected --dry-run or --publish');
  if (publish && (skipTests || reuse)) refuse('--publish takes no --skip-tests and no --reuse');
  const { name, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  checkState({ version });
  const node = process.execPath;
  const script = (file) => join(root, 'scripts', file);
  if (skipTests) must('form', node, [script('lint.mjs')]);
  else must('types, form and tests', node, [script('test.mjs')]);
  must('API reference', node, [join(root, 'node_modules/typedoc/bin/typedoc')]);

  console.log('\n== the tarball');
  checkChips();
  const { tarball, report } = pack({ reuse });
  const { size } = statSync(tarball);
  if (size > mostBytes) refuse(`${tarball} has ${size} bytes, ${mostBytes} are the most`);
  console.log(`${report.entryCount} files, ${(size / 1e6).toFixed(1)} MB: ${tarball}`);
  console.log(report.integrity);

  const provenance = Boolean(process.env.CI && process.env.ACTIONS_ID_TOKEN_REQUEST_URL);
  if (!provenance) console.log('no provenance: this is no public CI service');
  const args = ['publish', tarball, '--access=public', ...(provenance ? ['--provenance'] : [])];
  if (!publish) {
    console.log(`\n${name} ${version} is ready; not published. --publish would run:`);
    console.log(`  npm ${args.join(' ')}`);
    return;
  }
  const [program, ...first] = npm();
  must(`npm publish ${version}`, program, [...first, ...args]);
}

try {
  main();
} catch (error) {
  if (!(error instanceof StepFailed)) throw error;
  process.exitCode = 1;
}
