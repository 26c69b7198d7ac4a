// What the workers of a proof share: a worker is a process that answers each line of stdin, a case
// in JSON, with one line of JSON. A GPU that has failed once fails every later call of the process,
// so that a worker ends after a failure of the device; run.mjs starts another.
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

/** A module of the package in a folder. */
export const loadFrom = (folder, file) => import(pathToFileURL(`${folder}/dist/${file}`).href);

/** The addon and the models of the package in a folder. */
export async function openPackage(folder) {
  const [{ loadNative }, { describeModel }] = await Promise.all([
    loadFrom(folder, 'native.js'),
    loadFrom(folder, 'models/index.js'),
  ]);
  return { addon: loadNative(), describeModel };
}

/** Answers with what `prove` gives for a case: objects with `ok`, and `message` for a failure. */
export async function serve(prove) {
  for await (const line of createInterface({ input: process.stdin })) {
    const results = await prove(JSON.parse(line));
    process.stdout.write(`${JSON.stringify(results)}\n`);
    if (results.some(({ code }) => code === 'ERR_PANNS_DEVICE')) break;
  }
  process.exit(0);
}

/** `code` and `message` of what was thrown. */
export function failure(error) {
  return { ok: false, code: error.code, message: `${error.code ?? error.name}: ${error.message}` };
}

const bits = new DataView(new ArrayBuffer(4));

/** The nearest number of the type, ties to even. */
export function rounded(x, precision) {
  if (precision === 'bf16') {
    bits.setFloat32(0, x);
    const word = bits.getUint32(0);
    const up = word + 0x7fff + ((word >>> 16) & 1);
    bits.setUint32(0, up & 0xffff0000);
    return bits.getFloat32(0);
  }
  if (precision === 'fp16') {
    const magnitude = Math.abs(x);
    if (magnitude === 0) return x;
    const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
    const unit = 2 ** (exponent - 10);
    const steps = magnitude / unit;
    const below = Math.floor(steps);
    const rest = steps - below;
    const up = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? 1 : 0;
    return Math.sign(x) * (below + up) * unit;
  }
  return x;
}

const norm = (values) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));

/**
 * ||got - want|| / ||want|| of the finite values; where one side is not finite the other must be
 * the same.
 */
export function error(got, want) {
  if (got.length !== want.length) return Number.POSITIVE_INFINITY;
  const finite = (x, i) => Number.isFinite(x) && Number.isFinite(want[i]);
  if (got.some((x, i) => !finite(x, i) && !Object.is(x, want[i]))) return Number.POSITIVE_INFINITY;
  const difference = norm(got.map((x, i) => (finite(x, i) ? x - want[i] : 0)));
  return difference / Math.max(norm(want.filter(Number.isFinite)), 1e-12);
}

/** Numbers in -1..1 that are the same everywhere. */
export function noise(count) {
  const values = new Float32Array(count);
  let x = 12345;
  for (let i = 0; i < count; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    values[i] = x / 2 ** 31 - 1;
  }
  return values;
}

export const cpu = { device: 'cpu', threads: 0 };
/** In a rehearsal the CPU stands in for the GPU. */
export const cuda = (precision) =>
  process.env.PANNS_REHEARSAL ? cpu : { device: 'cuda', threads: 0, precision };
