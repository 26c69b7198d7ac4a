// Runs a network in a process of its own, whose environment says what devices there are:
// `worker.ts '<run as JSON>'` prints what was found as JSON, or the error.
import { loadNative } from '../../../lib/native.js';
import { type Run, runNetwork } from './runs.js';

const run = JSON.parse(process.argv[2] ?? '') as Run;
const answer = await runNetwork(run).then(
  (found) => ({ found: Object.fromEntries([...found].map(([name, data]) => [name, [...data]])) }),
  ({ code, message }: Error & { code?: string }) => ({ code, message }),
);
console.log(JSON.stringify(answer));
loadNative().stop();
