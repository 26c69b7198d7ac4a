// Runs ops for op.ts in a process of its own: the instruction set and the number of cores are fixed
// for the life of a process.
import type { OpTensor, StepState } from '../../lib/addon.js';
import { loadNative } from '../../lib/native.js';
import { encode, openReader } from './peer.js';

interface Request {
  op: string;
  attrs: Record<string, number>;
  tensors: Omit<OpTensor, 'data'>[];
  state: Partial<Omit<StepState, 'seed'>> & { seed?: string };
}

const native = loadNative();
const read = openReader(process.stdin);

async function answer(request: Request, arrays: Float32Array[]) {
  const inputs = request.tensors.map((tensor, i) => ({
    ...tensor,
    data: arrays[i] ?? new Float32Array(),
  }));
  const { seed, ...state } = request.state;
  const given = { ...state, ...(seed !== undefined && { seed: BigInt(seed) }) };
  const outputs = await native.runOp(request.op, request.attrs, inputs, given);
  const tensors = outputs.map(({ shape, form }) => ({ shape, form }));
  return { header: { tensors }, arrays: outputs.map(({ data }) => data) };
}

for (;;) {
  const message = await read();
  if (message === undefined) break;
  const reply = await answer(message.header as unknown as Request, message.arrays).catch(
    (error: Error) => ({ header: { error: error.message }, arrays: [] }),
  );
  for (const bytes of encode(reply.header, reply.arrays)) process.stdout.write(bytes);
}
native.stop();
