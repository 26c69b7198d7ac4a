// Runs a network in a process of its own, whose environment says what devices there are:
// `worker.ts '<run as JSON>'` prints what was found as JSON, or the error. Of a list of runs all go on
// at once, and the first one's is printed.
import { loadNative } from '../../../lib/native.js';
import { type Run, runNetwork } from './runs.js';

const runs = [JSON.parse(process.argv[2] ?? '') as Run | Run[]].flat();
const answer = await Promise.all(runs.map(runNetwork)).then(
  ([found = new Map()]) => ({
    found: Object.fromEntries([...found].map(([name, data]) => [name, [...data]])),
  }),
  ({ code, message }: Error & { code?: string }) => ({ code, message }),
);
console.log(JSON.stringify(answer));
loadNative().stop();
