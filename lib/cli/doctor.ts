import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { CudaProblem, CudaStatus } from '../addon.js';
import { PannsError } from '../errors.js';
import type { DeviceChoice } from '../inference/device.js';
import { createModel } from '../inference/model.js';
import { formatBytes } from './format.js';
import { describeMachine, type Machine, machineRows } from './machine.js';
import { type Context, defineVerb, EXIT } from './verb.js';

/** One thing that was looked at. */
interface Finding {
  readonly name: string;
  /** `'note'`: something less works. `'fault'`: what was asked for does not. */
  readonly state: 'ok' | 'note' | 'fault';
  readonly text: string;
  /** What mends it. */
  readonly mend?: string;
}

/** What a machine without a GPU to use has, and need not mend. */
const NO_GPU: readonly (CudaProblem | '')[] = [
  'backend-missing',
  'driver-missing',
  'device-missing',
  'device-old',
];

/** A small network of every kind of layer that tagging needs. */
const TRIAL = { sampleRate: 8000, windowSize: 256, hopSize: 80, fmax: 3900, classes: 16 };

/**
 * Scores lie in 0..1. Between the CPU and a GPU in float only the order of sums differs: a hundred
 * times what the tests see (test/helpers/tolerance.ts), and far from a wrong kernel.
 */
const TRIAL_TOLERANCE = 1e-4;

/** `panns doctor`: whether it works here, what does not, and what mends it. */
export const doctor = defineVerb(
  {
    name: 'panns doctor',
    summary: 'Check that it works here, and say what mends what does not',
    options: {
      cuda: { type: 'boolean', help: 'a GPU that cannot be used is a fault too' },
      json: { type: 'boolean', help: 'print JSON' },
    },
  },
  async ({ cuda, json }, _, context) => {
    const { machine, findings } = await examine(cuda);
    const faults = findings.filter(({ state }) => state === 'fault').length;
    if (json) context.print(JSON.stringify({ ok: faults === 0, machine, findings }));
    else show(findings, context);
    return faults === 0 ? EXIT.ok : EXIT.failed;
  },
);

async function examine(wantsCuda: boolean) {
  let machine: Machine;
  try {
    machine = await describeMachine();
  } catch (error) {
    const findings: Finding[] = [
      { name: 'Node.js', state: 'ok', text: process.versions.node },
      { name: 'addon', state: 'fault', text: wordsOf(error) },
    ];
    return { machine: null, findings };
  }
  const { cuda, audioLibrary, ffmpeg } = machine;
  // CUDA has rows of its own, and `panns info` alone has no judgement.
  const findings: Finding[] = machineRows(machine).map(([name, text]) => ({
    name,
    text,
    state:
      (name === 'audio library' && audioLibrary.error !== '') || (name === 'ffmpeg' && !ffmpeg)
        ? 'note'
        : 'ok',
  }));
  const at = findings.findIndex(({ name }) => name === 'CUDA');
  findings.splice(at, 1, ...cudaFindings(cuda, wantsCuda));
  findings.push(await checkCache(machine.cache), await tryCpu());
  if (cuda.available) findings.push(await tryCuda());
  return { machine, findings };
}

function wordsOf(error: unknown): string {
  if (error instanceof PannsError) return `${error.code}: ${error.message}`;
  return error instanceof Error ? error.message : String(error);
}

/** The whole, then each library and device. */
function cudaFindings(cuda: CudaStatus, wanted: boolean): Finding[] {
  const whole: Finding = cuda.available
    ? { name: 'CUDA', state: 'ok', text: `driver for ${cuda.driver}, built with ${cuda.runtime}` }
    : {
        name: 'CUDA',
        state: wanted ? 'fault' : 'note',
        text: `not used: ${cuda.reason} (${cuda.problem})`,
        ...((wanted || !NO_GPU.includes(cuda.problem)) && { mend: cuda.mend }),
      };
  // What is missing has been told already, with every place, where it is the whole's reason.
  const libraries = cuda.libraries.map(({ name, path, version, reason }): Finding => {
    const text = [version, path && `(${path})`].filter(Boolean).join(' ');
    if (reason === '') return { name: `  ${name}`, state: 'ok', text };
    const told = reason === cuda.reason || reason.startsWith('not found:');
    return { name: `  ${name}`, state: 'note', text: told ? 'not found' : reason };
  });
  const devices = cuda.devices.map(
    ({ index, name, architecture, multiprocessors, memoryBytes, reason }): Finding => ({
      name: `  GPU ${index}`,
      state: reason === '' ? 'ok' : 'note',
      text:
        `${name}, ${formatBytes(memoryBytes)}, compute capability ` +
        `${Math.floor(architecture / 10)}.${architecture % 10}, ${multiprocessors} multiprocessors` +
        (reason === '' ? '' : `: ${reason}`),
    }),
  );
  return [whole, ...libraries, ...devices];
}

/** Whether the cache can be written to, or its nearest folder that is there. */
async function checkCache(folder: string): Promise<Finding> {
  const name = 'cache access';
  for (let path = folder; ; path = dirname(path)) {
    try {
      await access(path, constants.W_OK);
      return { name, state: 'ok', text: path === folder ? 'can be written to' : 'can be made' };
    } catch (error) {
      const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
      if (missing && path !== dirname(path)) continue;
      const text = `${path} cannot be written to`;
      return { name, state: 'note', text, mend: 'set PANNS_CACHE to a folder of your own' };
    }
  }
}

/** Scores of a clip of noise by an untrained network. */
async function trialScores(device: DeviceChoice): Promise<Float32Array> {
  using model = await createModel('Cnn6', { ...TRIAL, ...device, seed: 1 });
  const noise = Float32Array.from({ length: TRIAL.sampleRate }, (_, i) => Math.sin(i * i) / 4);
  const { clipwise_output } = await model.infer(noise, { outputs: ['clipwise_output'] });
  return clipwise_output.data;
}

async function tryCpu(): Promise<Finding> {
  const name = 'CPU trial';
  try {
    const scores = await trialScores({ device: 'cpu' });
    const sound = scores.length === TRIAL.classes && scores.every((x) => x > 0 && x < 1);
    if (!sound) return { name, state: 'fault', text: `expected scores in 0..1, got ${scores}` };
    return { name, state: 'ok', text: 'a small network computes' };
  } catch (error) {
    return { name, state: 'fault', text: wordsOf(error) };
  }
}

async function tryCuda(): Promise<Finding> {
  const name = 'CUDA trial';
  try {
    const [cpu, gpu] = [
      await trialScores({ device: 'cpu' }),
      await trialScores({ device: 'cuda', precision: 'fp32' }),
    ];
    const error = Math.max(...cpu.map((x, i) => Math.abs(x - (gpu[i] ?? Number.NaN))));
    if (error <= TRIAL_TOLERANCE) return { name, state: 'ok', text: 'the GPU agrees with the CPU' };
    return { name, state: 'fault', text: `scores of the GPU differ from the CPU's by ${error}` };
  } catch (error) {
    return { name, state: 'fault', text: wordsOf(error) };
  }
}

function show(findings: readonly Finding[], { print }: Context): void {
  const marks = { ok: ' ', note: '-', fault: '!' } as const;
  const left = Math.max(...findings.map(({ name }) => name.length)) + 2;
  for (const { name, state, text, mend } of findings) {
    const [first = '', ...more] = text.split('\n');
    print(`${marks[state]} ${name.padEnd(left)}${first}`);
    for (const line of more) print(`  ${' '.repeat(left)}${line.trim()}`);
    if (mend) print(`  ${' '.repeat(left)}to mend it: ${mend}`);
  }
  const faults = findings.filter(({ state }) => state === 'fault').length;
  print(faults === 0 ? 'It works.' : `${faults} ${faults === 1 ? 'fault' : 'faults'}.`);
}
