import { callNativeSync } from '../native/call.js';
import { loadNative } from '../native.js';
import { resample } from './decode.js';

/** Converts the rate of samples that come in pieces. */
export interface StreamResampler {
  /** What can be computed from the samples so far, in the order of the stream; maybe nothing. */
  push(piece: Float32Array): Promise<Float32Array>;
  /** The rest, as if silence followed. */
  end(): Promise<Float32Array>;
}

/** Samples are held back for about as long, beside what the filter has to see ahead. */
const BLOCK_SECONDS = 0.02;

/**
 * {@link resample} for a stream: the pieces of the result, joined, are what it makes of the whole, bit
 * for bit. It holds a block and both sides of the filter, however long the stream is.
 *
 * @throws PannsError `ERR_PANNS_UNSUPPORTED` for rates that are too far apart
 */
export function createStreamResampler(from: number, to: number): StreamResampler {
  if (from === to) {
    return { push: async (piece) => piece, end: async () => new Float32Array(0) };
  }
  const { taps } = callNativeSync('resample', () => loadNative().resamplerInfo(from, to));
  // Outputs fall on inputs every `period` of these: there a block may begin in the filter's first phase.
  const common = greatestCommonDivisor(from, to);
  const [period, outputs] = [from / common, to / common];
  const whole = (samples: number) => Math.ceil(samples / period) * period;
  const block = whole(BLOCK_SECONDS * from);
  const sight = whole(taps);

  // The samples from `base` on, of which those before `next` are there for the filter alone.
  let held: Float32Array = new Float32Array(0);
  let base = 0;
  let next = 0;
  const convert = async (until: number, seen: number): Promise<Float32Array> => {
    const before = ((next - base) / period) * outputs;
    const made = await resample(held.subarray(0, seen - base), from, to);
    const kept = Math.max(base, until - sight);
    held = held.slice(kept - base);
    const after = before + ((until - next) / period) * outputs;
    [base, next] = [kept, until];
    return made.subarray(before, after);
  };
  return {
    async push(piece) {
      const joined = new Float32Array(held.length + piece.length);
      joined.set(held);
      joined.set(piece, held.length);
      held = joined;
      const ready = base + held.length - sight - next;
      const blocks = Math.floor(ready / block);
      if (blocks < 1) return new Float32Array(0);
      const until = next + blocks * block;
      return convert(until, until + sight);
    },
    async end() {
      const all = base + held.length;
      return all === next ? new Float32Array(0) : convert(next + whole(all - next), all);
    },
  };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
