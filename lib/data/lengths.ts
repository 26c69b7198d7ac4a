import { probeAudio } from '../audio/decode.js';
import type { Dataset } from './dataset.js';

/** Files that are opened at once: enough to hide a network disk; opening one is short work. */
const PROBES = 64;

/** How long each clip is, in seconds; NaN where neither the data set nor the file says it. */
export async function clipLengths({ clips }: Dataset): Promise<number[]> {
  // Packed clips know their lengths.
  const files = clips.filter(({ packed }) => packed === undefined);
  const paths = [...new Set(files.map(({ path }) => path))];
  const seconds = new Map<string, number>();
  for (let i = 0; i < paths.length; i += PROBES) {
    await Promise.all(
      paths.slice(i, i + PROBES).map(async (path) => {
        // What cannot be opened is told by the decoder, with the reason.
        const info = await probeAudio(path).catch(() => undefined);
        if (info !== undefined && info.frames >= 0) {
          seconds.set(path, info.frames / info.sampleRate);
        }
      }),
    );
  }
  return clips.map(({ path, start = 0, duration = Infinity }) => {
    const rest = (seconds.get(path) ?? Number.NaN) - start;
    return Number.isNaN(rest) && duration < Infinity ? duration : Math.min(rest, duration);
  });
}
