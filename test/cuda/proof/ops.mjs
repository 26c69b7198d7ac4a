// Worker: a recorded call of test/ops on CUDA and on the CPU, in each precision; captured as eager,
// and run again, bit for bit.
//
//   node ops.mjs <package>       a case is {file}
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { deserialize } from 'node:v8';
import { cpu, cuda, error, failure, openPackage, rounded, serve } from './worker.mjs';

const { addon } = await openPackage(process.argv[2]);

/**
 * Largest ||cuda - cpu|| / ||cpu|| of an output. Maps and filters are rounded to the type before
 * both sides compute, so that what is left is the order of sums and the rounding of results.
 */
const TOLERANCE = { fp32: 2e-5, bf16: 1e-2, fp16: 1.5e-3 };
/** In fp16 these carry the loss scale: what that does shows in training.mjs. */
const SCALED = ['bce_backward', 'cross_entropy_backward', 'grad_norm'];

/** What a tensor holds once the device has stored it: maps of one channel stay float. */
function stored(tensor, precision) {
  const narrow =
    (tensor.form === 'map' && tensor.shape[1] !== 1) ||
    (tensor.form === 'filter' && precision !== 'fp32');
  if (!narrow || precision === 'fp32') return tensor;
  return { ...tensor, data: tensor.data.map((x) => rounded(x, precision)) };
}

function sameBits(a, b) {
  const bytes = ({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return a.length === b.length && a.every((tensor, i) => bytes(tensor).equals(bytes(b[i])));
}

async function prove({ op, attrs, inputs, state }, precision) {
  const given = inputs.map((tensor) => stored(tensor, precision));
  // runOp takes attributes out of the object it is given, and throws at once where they are wrong.
  const run = async (device) => addon.runOp(op, { ...attrs }, given, state, device);
  const want = await run(cpu).catch(({ code }) => code);
  try {
    const got = await run({ ...cuda(precision), eager: true });
    if (typeof want === 'string') {
      return { ok: false, message: `CUDA computes what the CPU refuses (${want})` };
    }
    const result = {
      error: Math.max(...want.map(({ data }, i) => error(got[i]?.data ?? [], data))),
      replay: sameBits(await run(cuda(precision)), got),
      again: sameBits(await run({ ...cuda(precision), eager: true }), got),
    };
    return { ...result, ok: result.error <= TOLERANCE[precision] && result.replay && result.again };
  } catch (e) {
    // Calls that no device takes are refused by each for the same reason.
    const unsupported = e.code === 'ERR_PANNS_UNSUPPORTED';
    return { ...failure(e), unsupported, ok: unsupported || e.code === want };
  }
}

await serve(async ({ file }) => {
  const call = deserialize(readFileSync(file));
  const results = [];
  for (const precision of Object.keys(TOLERANCE)) {
    if (precision === 'fp16' && SCALED.includes(call.op)) continue;
    const result = await prove(call, precision).catch(failure);
    const shape = call.inputs[0]?.shape;
    results.push({ op: call.op, name: basename(file), precision, shape, ...result });
  }
  return results;
});
