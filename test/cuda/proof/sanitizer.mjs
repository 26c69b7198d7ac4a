// Part of a proof: kernels under NVIDIA's compute-sanitizer, with each of its tools in a process of
// its own: a recorded call of each op, two steps of a training, then calls of all other kinds. What it
// finds in our kernels fails the part; what it finds in those of NVIDIA's libraries is counted apart.
import { spawnSync } from 'node:child_process';
import {
  accessSync,
  constants,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deserialize } from 'node:v8';
import { openWorker, PATIENCE_SECONDS } from './processes.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const PROGRAM = 'compute-sanitizer';
/** Those that find most come first, where not all run at once. */
const TOOLS = ['memcheck', 'racecheck', 'initcheck', 'synccheck'];
const TRAININGS = ['fp32', 'bf16'].map((precision) => ({ train: 'Cnn6', precision }));
/** Reports that a result holds in full, of those in different places, and lines of each. */
const SHOWN = { reports: 5, lines: 12 };
/** For a case that has begun in time, and again for the report: what is killed may not have written it. */
const GRACE_SECONDS = 20;

function findProgram() {
  const { PATH = '', CUDA_PATH, CUDA_HOME } = process.env;
  const toolkits = [CUDA_PATH, CUDA_HOME, '/usr/local/cuda'].filter(Boolean);
  const folders = [
    ...PATH.split(delimiter).filter(Boolean),
    ...toolkits.flatMap((folder) => [join(folder, 'bin'), join(folder, PROGRAM)]),
  ];
  return folders
    .map((folder) => join(folder, PROGRAM))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return statSync(file).isFile();
      } catch {
        return false;
      }
    });
}

/** Op, and the attributes that choose among its kernels: kinds and switches. */
function kindOf({ op, attrs }) {
  const chosen = Object.entries(attrs).filter(
    ([, value]) => typeof value !== 'number' && !Array.isArray(value),
  );
  return { op, kind: JSON.stringify([op, ...chosen.sort(([a], [b]) => (a < b ? -1 : 1))]) };
}

/** Recorded calls by kind, small ones first: a kind of each op, trainings, then all other kinds. */
function casesIn(recorded) {
  const kinds = new Map();
  for (const { file } of recorded) {
    try {
      const { op, kind } = kindOf(deserialize(readFileSync(file)));
      const row = kinds.get(kind) ?? { op, calls: [] };
      row.calls.push({ file, size: statSync(file).size });
      kinds.set(kind, row);
    } catch {
      // A file that holds no call: ops.mjs fails by it.
    }
  }
  for (const { calls } of kinds.values()) calls.sort((a, b) => a.size - b.size);
  const rows = [...kinds.values()].sort((a, b) => a.calls[0].size - b.calls[0].size);
  const first = rows.filter(({ op }, i) => rows.findIndex((row) => row.op === op) === i);
  const files = ({ calls }) => ({ files: calls.map(({ file }) => file) });
  return [
    ...first.map(files),
    ...TRAININGS,
    ...rows.filter((row) => !first.includes(row)).map(files),
  ];
}

/** What a result says of a case. */
const nameOf = ({ files, ...rest }) => (files ? { name: basename(files[0]) } : rest);

/**
 * Whether a report is of a kernel of ours. The kernel's name tells; where there is none, the library
 * that launched it, and where that is not known either it counts as ours.
 */
function isOurs(lines) {
  const isFrame = (line) => /Host Frame|host backtrace/.test(line);
  const places = lines.filter((line) => !isFrame(line));
  if (places.some((line) => line.includes('panns'))) return true;
  const name = /\bat (?:0x[0-9a-f]+ in )?(?!0x|__shared__|__global__|__local__)[A-Za-z_]/;
  if (places.some((line) => name.test(line))) return false;
  const frame = lines.filter(isFrame).find((line) => /panns|cudnn|cublas|nvrtc/.test(line));
  return frame === undefined || frame.includes('panns');
}

/** What compute-sanitizer has written: how much in whose kernels, and the first reports on ours. */
export function readReport(text) {
  const reports = [];
  const found = { finished: false, ours: 0, libraries: 0, warnings: 0, notShown: 0, reports: [] };
  for (const line of text.split(/\r?\n/)) {
    const words = /^={9} ?(.*)$/.exec(line)?.[1];
    if (words === undefined || words.trim() === '' || words === 'COMPUTE-SANITIZER') continue;
    if (/^\s/.test(words)) {
      reports.at(-1)?.push(words);
    } else if (words.includes('SUMMARY')) {
      found.finished = true;
      if (/not (printed|shown|displayed)/.test(words)) {
        found.notShown += Number(/\d+/.exec(words)?.[0] ?? 0);
      }
    } else {
      reports.push([words]);
    }
  }
  const places = new Set();
  for (const lines of reports) {
    if (/^(warning|info)\b/i.test(lines[0])) {
      found.warnings++;
    } else if (!isOurs(lines)) {
      found.libraries++;
    } else {
      found.ours++;
      const place = lines.slice(0, 2).join('\n');
      if (places.has(place) || places.size === SHOWN.reports) continue;
      places.add(place);
      found.reports.push(lines.slice(0, SHOWN.lines).join('\n'));
    }
  }
  return found;
}

/** One tool over the cases, until its deadline. */
async function check(tool, program, cases, options, deadline) {
  const { package: folder, rehearse, graceSeconds = GRACE_SECONDS } = options;
  const logs = mkdtempSync(join(tmpdir(), `panns-${tool}-`));
  const args = [
    ...['--tool', tool, '--log-file', join(logs, '%p.log'), '--print-limit', '1000'],
    // Libraries ask for what may not be there; what our own calls return is looked at.
    ...(tool === 'memcheck' ? ['--report-api-errors', 'no'] : []),
    ...[process.execPath, join(here, 'sanitized.mjs'), folder],
  ];
  const env = rehearse ? { PANNS_REHEARSAL: '1' } : {};
  const worker = openWorker(program, args, { env, group: true });
  const secondsLeft = () => (deadline - performance.now()) / 1000;
  const failed = [];
  let ran = 0;
  let unfinished;
  for (const one of cases) {
    if (secondsLeft() <= 0) break;
    const seconds = Math.min(PATIENCE_SECONDS, secondsLeft() + graceSeconds);
    const { answer, failure, late } = await worker.ask(one, seconds);
    if (late) {
      unfinished = `${JSON.stringify(nameOf(one))}: ${failure}`;
      break;
    }
    ran++;
    const rows = answer ?? [{ ...nameOf(one), ok: false, message: failure }];
    failed.push(...rows.filter(({ ok }) => !ok));
  }
  await worker.end(graceSeconds);
  const texts = readdirSync(logs).map((file) => readFileSync(join(logs, file), 'utf8'));
  rmSync(logs, { recursive: true, force: true });
  const report = readReport(texts.join('\n'));
  const clean = report.ours === 0 && report.notShown === 0 && failed.length === 0;
  return {
    ...{ tool, ok: ran > 0 && report.finished && clean, ran, notReached: cases.length - ran },
    ...report,
    ...(failed.length > 0 && { failed }),
    ...(unfinished !== undefined && { unfinished }),
    ...(!report.finished && { message: 'its report has no end' }),
  };
}

/**
 * All tools until the deadline (performance.now()), or `leftOut`: why none. `recorded` are the cases of
 * ops.mjs; `note` is called with what there is after each tool.
 */
export async function proveSanitized(recorded, options, deadline, note) {
  const program = findProgram();
  if (program === undefined) {
    const leftOut = `there is no ${PROGRAM} on the PATH, in CUDA_PATH or in /usr/local/cuda`;
    console.log(`sanitizer: left out: ${leftOut}`);
    return { leftOut };
  }
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8', timeout: 10_000 });
  const cases = casesIn(recorded);
  const version = stdout?.trim().split('\n').at(-1);
  const waiting = [...TOOLS];
  const found = { program, version, results: [], notReached: waiting.length, passed: 0 };
  const work = async () => {
    while (waiting.length > 0 && performance.now() < deadline) {
      const turns = Math.ceil(waiting.length / options.jobs);
      const until = performance.now() + (deadline - performance.now()) / turns;
      const result = await check(waiting.shift(), program, cases, options, until);
      found.results.push(result);
      found.notReached--;
      found.passed += result.ok ? 1 : 0;
      note(found);
      const { tool, ok, ran, notReached, ours, libraries } = result;
      const words = `${ours} reports on our kernels, ${libraries} on NVIDIA's`;
      console.log(`${tool}: ${ran} cases, ${notReached} were not reached; ${words}`);
      if (!ok) console.log('FAILED', JSON.stringify(result));
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.jobs, TOOLS.length) }, work));
  return found;
}
