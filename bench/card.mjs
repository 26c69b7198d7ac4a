// What a GPU says of its own state while it is measured, by nvidia-smi: clocks that differ between two
// runs explain times that do.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { median } from './side.mjs';

const FIELDS = ['name', 'driver_version'];
/** Twice a second, numbers, in MHz, W, degrees C and MiB. */
const SAMPLED = ['clocks.sm', 'clocks.mem', 'power.draw', 'temperature.gpu', 'memory.used'];

/** Starts to watch the first GPU; without nvidia-smi there is nothing to say. */
export function watchCard() {
  const samples = [];
  let card;
  const query = [...FIELDS, ...SAMPLED].join(',');
  const args = ['--id=0', `--query-gpu=${query}`, '--format=csv,noheader,nounits', '-lms', '500'];
  const child = spawn('nvidia-smi', args, { stdio: ['ignore', 'pipe', 'ignore'] });
  child.on('error', () => {});
  createInterface({ input: child.stdout }).on('line', (line) => {
    const words = line.split(',').map((word) => word.trim());
    if (words.length !== FIELDS.length + SAMPLED.length) return;
    card = { name: words[0], driver: words[1] };
    samples.push({ at: performance.now(), values: words.slice(FIELDS.length).map(Number) });
  });
  return {
    /** Name and driver; undefined while nothing was heard. */
    get card() {
      return card;
    },
    /** Least, median and greatest of each number since a time; undefined where none were heard. */
    since(began) {
      const seen = samples.filter(({ at }) => at >= began);
      if (seen.length === 0) return undefined;
      const summary = (i) => {
        const list = seen.map(({ values }) => values[i]);
        return [Math.min(...list), median(list), Math.max(...list)];
      };
      return Object.fromEntries(SAMPLED.map((name, i) => [name, summary(i)]));
    },
    stop() {
      child.kill();
    },
  };
}
