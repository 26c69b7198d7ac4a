// The proof's part that runs kernels under compute-sanitizer, with a stand-in for that program: it
// runs what it is given, and writes reports as the real one does.
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { serialize } from 'node:v8';
import t, { type Test } from 'tap';
import { openDraws } from '../helpers/random.js';

const root = join(import.meta.dirname, '..', '..');
/** The proof runs what is built, as it will on the machine it is for. */
const skip = existsSync(join(root, 'dist', 'cli', 'doctor.js')) ? false : 'dist/ is not built';

interface ToolResult {
  tool: string;
  ok: boolean;
  ran: number;
  notReached: number;
  finished: boolean;
  ours: number;
  libraries: number;
  warnings: number;
  notShown: number;
  reports: string[];
  failed?: { message: string }[];
  unfinished?: string;
  message?: string;
}

interface Part {
  leftOut?: string;
  program: string;
  version: string;
  results: ToolResult[];
  passed: number;
}

const file = join(import.meta.dirname, 'proof', 'sanitizer.mjs');
const { proveSanitized, readReport } = (await import(pathToFileURL(file).href)) as {
  proveSanitized(
    recorded: { file: string }[],
    options: { package: string; rehearse: boolean; jobs: number; graceSeconds: number },
    deadline: number,
    note: (found: Part) => void,
  ): Promise<Part>;
  readReport(text: string): Omit<ToolResult, 'tool' | 'ok' | 'ran' | 'notReached'>;
};

const OURS = `
========= Invalid __global__ write of size 4 bytes
=========     at void panns::cuda::<unnamed>::relu_kernel<float>(long, const T1 *, T1 *)+0x160
=========     by thread (THREAD,0,0) in block (0,0,0)
=========     Address 0x7f1e8ba00200 is out of bounds
=========     Saved host backtrace up to driver entry point at kernel launch time
=========         Host Frame: cuLaunchKernelExC [0x2774ec] in libcuda.so.1
=========         Host Frame: cudaLaunchKernelExC [0x4a2] in panns_cuda.so
=========
`;
/** Launched by a graph of ours: the kernel's name counts. */
const NVIDIA = `
========= Uninitialized __global__ memory read of size 2 bytes
=========     at void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16>(Params)+0x3d0
=========     by thread (31,0,0) in block (2,0,0)
=========     Saved host backtrace up to driver entry point at kernel launch time
=========         Host Frame: cudaGraphLaunch [0x5c1] in panns_cuda.so
=========
`;
/** Of a kernel without a name, the library that launched it. */
const NAMELESS = `
========= Barrier error detected. Divergent thread(s) in block
=========     by thread (0,0,0) in block (0,0,0)
=========         Host Frame: [0x2774ec] in libcuda.so.1
=========         Host Frame: [0x18f2] in libcudnn_engines_precompiled.so.9
=========         Host Frame: [0x4a2] in panns_cuda.so
`;
const RACES = `
========= Error: Race reported between Write access at panns::cuda::block_sum(float *)+0x90
=========     and Read access at panns::cuda::block_sum(float *)+0x120 [12 hazards]
=========
========= Warning: Race reported between Write access at panns::cuda::block_sum(float *)+0x90
=========     and Write access at panns::cuda::block_sum(float *)+0x98 [4 hazards]
=========
========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)
`;
const clean = (count: number) => `========= ERROR SUMMARY: ${count} errors\n`;
const head = '========= COMPUTE-SANITIZER\n';

t.test('reports', async (t) => {
  const many = Array.from({ length: 64 }, (_, i) => OURS.replace('THREAD', String(i))).join('');
  const found = readReport(head + many + NVIDIA + NAMELESS + clean(66));
  t.match(found, { finished: true, ours: 64, libraries: 2, warnings: 0, notShown: 0 });
  t.equal(found.reports.length, 1, 'one place is shown once');
  t.match(found.reports[0], /^Invalid __global__ write of size 4 bytes\n.*relu_kernel/);
  t.match(readReport(head + RACES), { finished: true, ours: 1, libraries: 0, warnings: 1 });
  t.match(readReport(head + OURS), { finished: false, ours: 1 });
  t.match(readReport(head + clean(0)), { finished: true, ours: 0, libraries: 0, reports: [] });
  const early =
    '========= Error: Target application terminated before first instrumented API call\n';
  t.match(readReport(head + early + clean(1)), { ours: 1 }, 'what names no kernel counts as ours');
  const rest = '========= ERROR SUMMARY: 250 errors were not printed. Use --print-limit option\n';
  t.match(readReport(head + OURS + clean(251) + rest), { ours: 1, notShown: 250 });
});

/** A compute-sanitizer on the PATH that, under a tool, does what `modes` says of it. */
function standIn(t: Test, modes: Partial<Record<string, string>>): string {
  const folder = t.testdir({ bin: {} });
  const texts = { ours: OURS + clean(1), libraries: NVIDIA + NAMELESS + clean(2) };
  const program = `#!${process.execPath}
const { spawn } = require('node:child_process');
const { createWriteStream, writeFileSync } = require('node:fs');
const args = process.argv.slice(2);
if (args[0] === '--version') {
  console.log('NVIDIA (R) Compute Sanitizer\\nVersion 2025.3.1.0');
  process.exit();
}
const of = (name) => args[args.indexOf(name) + 1];
const mode = ${JSON.stringify(modes)}[of('--tool')] ?? 'clean';
const log = of('--log-file').replace('%p', process.pid);
const texts = ${JSON.stringify(texts)};
writeFileSync(log, ${JSON.stringify(head)});
if (mode === 'hangs') {
  const child = spawn('sleep', ['600']);
  writeFileSync(${JSON.stringify(join(folder, 'sleeps'))}, String(child.pid));
} else if (mode === 'crashes') {
  process.kill(process.pid, 'SIGSEGV');
} else {
  const app = args.slice(args.indexOf(process.execPath));
  const child = spawn(app[0], app.slice(1), { stdio: ['inherit', 'pipe', 'inherit'] });
  child.stdout.pipe(process.stdout);
  child.stdout.pipe(createWriteStream(${JSON.stringify(join(folder, 'answers'))}, { flags: 'a' }));
  child.on('close', (code) => {
    const text = texts[mode] ?? ${JSON.stringify(clean(0))};
    if (mode !== 'endless') writeFileSync(log, ${JSON.stringify(head)} + text);
    process.exit(code);
  });
}
`;
  const path = join(folder, 'bin', 'compute-sanitizer');
  writeFileSync(path, program);
  chmodSync(path, 0o755);
  const { PATH } = process.env;
  process.env.PATH = [join(folder, 'bin'), PATH].join(delimiter);
  t.teardown(() => {
    process.env.PATH = PATH;
  });
  return folder;
}

/** Calls of one op, of which the second smallest is to be taken, as no device takes the smallest. */
function recordCalls(t: Test, folder: string): { file: string }[] {
  const { uniforms } = openDraws(t);
  const cases = join(folder, 'cases');
  mkdirSync(cases);
  return [8, 2, 1].map((rows) => {
    const x = { shape: [rows, 3, 8, 4], form: 'map', data: uniforms(rows * 3 * 8 * 4) };
    const attrs = { kind: 'avg', kernel: [rows === 1 ? 0 : 2, 2] };
    const file = join(cases, `pool-${rows}.case`);
    writeFileSync(file, serialize({ op: 'pool', attrs, inputs: [x], state: {} }));
    return { file };
  });
}

async function prove(t: Test, modes: Partial<Record<string, string>>, seconds = 600, jobs = 2) {
  const folder = standIn(t, modes);
  const recorded = recordCalls(t, folder);
  const options = { package: root, rehearse: true, jobs, graceSeconds: 2 };
  let noted = 0;
  const deadline = performance.now() + 1000 * seconds;
  const found = await proveSanitized(recorded, options, deadline, () => noted++);
  t.equal(noted, found.results.length, 'each tool is noted');
  const of = (tool: string) => found.results.find((one) => one.tool === tool);
  return { folder, found, of };
}

t.test('clean, ours, a library’s, and a report without an end', { skip }, async (t) => {
  const modes = { racecheck: 'ours', initcheck: 'libraries', synccheck: 'endless' };
  const { folder, found, of } = await prove(t, modes);
  t.match(found, { version: 'Version 2025.3.1.0', passed: 2 });
  t.match(of('memcheck'), { ok: true, ran: 3, notReached: 0, ours: 0, finished: true });
  t.match(of('racecheck'), { ok: false, ran: 3, ours: 1, reports: [/relu_kernel/] });
  t.match(of('initcheck'), { ok: true, ran: 3, ours: 0, libraries: 2, reports: [] });
  t.match(of('synccheck'), { ok: false, message: 'its report has no end' });
  const answers = readFileSync(join(folder, 'answers'), 'utf8').trim().split('\n');
  const calls = answers.flatMap((line) => JSON.parse(line) as object[]);
  t.equal(calls.length, 4 * 4, 'a call in two precisions and two trainings, under four tools');
  t.equal(calls.filter((call) => 'name' in call && call.name === 'pool-2.case').length, 4 * 2);
});

t.test('one that crashes, one that hangs', { skip }, async (t) => {
  const crashes = { memcheck: 'crashes', initcheck: 'crashes', synccheck: 'crashes' };
  const { folder, found, of } = await prove(t, { ...crashes, racecheck: 'hangs' }, 8, 4);
  t.equal(found.passed, 0);
  for (const tool of Object.keys(crashes)) {
    t.match(of(tool), {
      ok: false,
      finished: false,
      failed: [{ message: /^it ended \(SIGSEGV\)/ }],
    });
  }
  t.match(of('racecheck'), { ok: false, ran: 0, notReached: 3, unfinished: /pool-1.*no answer/ });
  const words = `/proc/${readFileSync(join(folder, 'sleeps'), 'utf8')}/cmdline`;
  // What is killed may take a moment; its entry may stay, without words, until it is asked for.
  const lives = () => existsSync(words) && readFileSync(words, 'utf8') !== '';
  for (let i = 0; i < 100 && lives(); i++) await sleep(100);
  t.notOk(lives(), 'what it started has ended too');
});

t.test('time that has run out', { skip }, async (t) => {
  const { found } = await prove(t, {}, 0);
  t.match(found, { results: [], notReached: 4, passed: 0 });
});

t.test('none', async (t) => {
  const { PATH, CUDA_PATH } = process.env;
  t.teardown(() => Object.assign(process.env, { PATH, ...(CUDA_PATH && { CUDA_PATH }) }));
  // The stand-in of a toolkit that CUDA_PATH names is no program.
  const folder = t.testdir({ bin: { 'compute-sanitizer': {} } });
  process.env.PATH = '';
  process.env.CUDA_PATH = folder;
  if (existsSync('/usr/local/cuda/bin/compute-sanitizer')) return t.comment('there is a real one');
  const options = { package: root, rehearse: true, jobs: 2, graceSeconds: 2 };
  const found = await proveSanitized([], options, performance.now() + 1000, () => {});
  t.match(found, { leftOut: /there is no compute-sanitizer/ });
});
