import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { SessionOptions, Spec } from '../../lib/addon.js';
import { createRandom } from '../../lib/data/random.js';
import { buildGraph } from '../../lib/models/graph.js';
import { describeModel } from '../../lib/models/index.js';
import type { GraphDescription } from '../../lib/models/tensor.js';
import { packageRoot } from '../../lib/native.js';

const require = createRequire(import.meta.url);

/** One second at the small model's rate. */
export const SECOND = 8000;
export const CLASSES = 5;

/** Two convolutions on 16 mel bins: compiles and runs in milliseconds, and has every kind of op. */
export function smallModel(channels = 16): GraphDescription {
  return buildGraph('Small', (b, waveform) => {
    const front = {
      sampleRate: 8000,
      windowSize: 256,
      hopSize: 80,
      melBins: 16,
      fmin: 50,
      fmax: 4000,
    };
    let x = b.batchNorm('bn0', b.logmel(waveform, front), { over: 'freq' });
    x = b.mixup(b.specAugment(x, { timeWidth: 8, freqWidth: 4 }));
    for (const name of ['block1', 'block2']) {
      x = b.conv(`${name}.conv`, x, { channels, kernel: 3, padding: 1 });
      x = b.dropout(b.pool(b.relu(b.batchNorm(`${name}.bn`, x)), 'avg', 2), 0.2);
    }
    const pooled = b.reduceTime(b.meanOverFrequency(x), 'max+mean');
    const embedding = b.relu(b.linear('fc1', pooled, 2 * channels));
    const logits = b.linear('fc_audioset', embedding, CLASSES);
    return { embedding, logits, clipwise_output: b.sigmoid(logits) };
  });
}

/** The ops that the small model does not have, on waveform and log-mel together. */
export function wideModel(channels = 16): GraphDescription {
  return buildGraph('Wide', (b, waveform) => {
    const mixed = b.mixup(waveform);
    const front = {
      sampleRate: 8000,
      windowSize: 256,
      hopSize: 80,
      melBins: 16,
      fmin: 0,
      fmax: 4000,
    };
    const logmel = b.logmel(mixed, {
      ...front,
      preemphasis: 0.97,
      melScale: 'kaldi',
      log: 'natural',
    });
    const two = b.conv('two', logmel, {
      channels,
      kernel: 3,
      stride: 2,
      padding: 1,
      init: 'kaiming',
    });
    const groups = channels;
    const deep = b.conv('deep', two, {
      channels,
      kernel: 5,
      padding: 2,
      groups,
      order: 'freq-time',
    });
    const wave = b.conv1d('wave', b.unsqueeze(mixed), {
      channels,
      kernel: 11,
      stride: 10,
      padding: 5,
    });
    const slow = b.pool(b.relu6(b.batchNorm('bn', wave)), 'max', [16, 1]);
    const both = b.concat(b.hardSwish(deep), b.fold(slow, 8));
    const mean = b.reduceTime(b.meanOverFrequency(both), 'mean');
    const scaled = b.scale(both, b.sigmoid(b.linear('gate', mean, both.channels)));
    const frames = b.pool(b.meanOverFrequency(scaled), 'avg+max', [3, 1], {
      stride: 1,
      padding: [1, 0],
    });
    const attention = b.conv1d('att', frames, { channels: CLASSES, kernel: 1, bias: true });
    const segments = b.sigmoid(b.linear('cla', frames, CLASSES));
    return {
      framewise_output: b.upsample(segments, logmel),
      clipwise_output: b.attentionPool(attention, segments),
    };
  });
}

/** A model whose training step on 4 clips of 10 s takes seconds on any machine of today. */
export function heavySpec(): Spec {
  return describeModel('Cnn6', { classes: CLASSES }).spec;
}
/** Ten seconds at the heavy model's rate. */
export const HEAVY_SAMPLES = 320_000;

export function sessionOptions(batch: number, samples: number): SessionOptions {
  return {
    ...{ batch, samples, mixup: false, loss: 'bce' },
    optimizer: { kind: 'adam', attrs: {} },
    ...{ frozen: [], passesOff: [] },
  };
}

/** Uniform noise in [-1, 1), and a target with about a third of the classes in each clip. */
export function randomBatch(seed: number, clips: number, samples: number) {
  const random = createRandom(seed);
  const waveform = new Float32Array(clips * samples).map(() => 2 * random.uniform() - 1);
  const target = new Float32Array(clips * CLASSES).map(() => (random.uniform() < 1 / 3 ? 1 : 0));
  return { waveform, target };
}

/** What `job.mjs` is told to do; see there. */
export interface JobRequest {
  readonly job: string;
  readonly spec?: Spec;
  readonly batch?: number;
  readonly samples?: number;
  readonly threads?: number;
  readonly seed?: number;
  readonly [more: string]: unknown;
}

const script = join(import.meta.dirname, 'job.mjs');

/** The addon in use, for threads and processes that run without TypeScript. */
export function bindingPath(): string {
  const finder = require('node-gyp-build') as { resolve(root: string): string };
  return process.env.PANNS_BINDING ?? finder.resolve(packageRoot());
}

/** Runs `job.mjs` as a worker thread. */
export function startWorker(request: JobRequest): Worker {
  return new Worker(script, { workerData: { ...request, binding: bindingPath() }, execArgv: [] });
}

/** What a child process did. */
export interface ChildResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Milliseconds from its line `leaving` to its end; NaN without that line. */
  readonly leaving: number;
  readonly milliseconds: number;
}

/** Runs `job.mjs` as a process; it is killed after `limit` milliseconds. */
export function runChild(
  request: JobRequest,
  { limit = 60_000, args = [] as string[], shell = '' } = {},
): Promise<ChildResult> {
  const input = JSON.stringify({ ...request, binding: bindingPath() });
  return runProgram(process.execPath, [...args, script], { input, limit, shell });
}

/** Runs a program; `shell` is a command that sets limits before it. */
export function runProgram(
  program: string,
  args: readonly string[],
  { input = '', limit = 60_000, shell = '' } = {},
): Promise<ChildResult> {
  const command =
    shell === ''
      ? [program, ...args]
      : ['bash', '-c', `${shell}; exec "$@"`, 'sh', program, ...args];
  return new Promise((resolve, reject) => {
    const begin = performance.now();
    let left = Number.NaN;
    const out = { stdout: '', stderr: '' };
    const child = spawn(command[0] ?? program, command.slice(1), {
      timeout: limit,
      killSignal: 'SIGKILL',
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    // A program that ends early does not read it all.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    child.stdout.on('data', (text: Buffer) => {
      out.stdout += text;
      if (Number.isNaN(left) && out.stdout.includes('leaving\n')) left = performance.now();
    });
    child.stderr.on('data', (text: Buffer) => {
      out.stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      const end = performance.now();
      resolve({ ...out, code, signal, leaving: end - left, milliseconds: end - begin });
    });
  });
}

/** The lines of a child that are JSON. */
export function reports(result: ChildResult): Record<string, unknown>[] {
  return result.stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** The value at a share of the sorted list; 0.99 for the 99th percentile. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

export function testPath(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}
