import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { loadAudio } from '../audio/load.js';
import { PannsError } from '../errors.js';
import { FeatureExtractor } from '../features/extractor.js';
import { type Detection, EventDetector } from '../inference/detector.js';
import { type EventFormat, eventFormats, formatEvents } from '../inference/event_text.js';
import type { EventRules } from '../inference/events.js';
import { writeFileAtomic } from '../io/atomic.js';
import { ioError } from '../io/failure.js';
import type { CommandSpec } from './args.js';
import { audioOptions, chosenAudio, noteTruncated } from './audio.js';
import { chosenDevice, type DeviceValues, deviceOptions } from './device.js';
import { formatDuration, formatTable } from './format.js';
import { MODEL_HELP } from './network.js';
import { type Columns, detectionSvg, gatherColumns, MOST_COLUMNS } from './picture.js';
import { createProgress } from './progress.js';
import { audioFiles } from './tag.js';
import { type Context, complain, defineVerb, EXIT, UsageError } from './verb.js';

/** How a detector listens and what it takes for an event: for every verb that has one. */
export const detectorOptions = {
  rules: { type: 'string', value: 'file', help: 'a JSON file of rules, from eval --tune' },
  threshold: { type: 'number', help: 'the score that an event reaches; default 0.3' },
  low: { type: 'number', help: 'the score above which it lasts; default --threshold' },
  thresholds: { type: 'string', value: 'file', help: 'a JSON file {"label": threshold}' },
  median: { type: 'number', min: 0, help: 'seconds of the median filter' },
  shortest: { type: 'number', min: 0, help: 'no events of fewer seconds' },
  gap: { type: 'number', min: 0, help: 'seconds between events that are one' },
  window: { type: 'number', min: 0.01, help: 'seconds scored at once; default 10' },
  overlap: { type: 'number', min: 0, help: 'seconds that windows share; default 1' },
  hop: { type: 'number', min: 0.001, help: 'seconds between scores of a model of clips' },
  ...deviceOptions,
} as const satisfies CommandSpec['options'];

/** The values of {@link detectorOptions}. */
export interface DetectorValues extends DeviceValues {
  readonly rules: string | undefined;
  readonly threshold: number | undefined;
  readonly low: number | undefined;
  readonly thresholds: string | undefined;
  readonly median: number | undefined;
  readonly shortest: number | undefined;
  readonly gap: number | undefined;
  readonly window: number | undefined;
  readonly overlap: number | undefined;
  readonly hop: number | undefined;
}

/**
 * A detector as the options say, and the rules that its calls need beside. What the command line says
 * itself counts before a file of rules.
 */
export async function openDetector(
  model: string,
  values: DetectorValues,
  labels?: readonly string[],
): Promise<{ detector: EventDetector; rules: EventRules }> {
  const { window, overlap, hop, median, shortest, gap, low, threshold } = values;
  const named = values.thresholds === undefined ? {} : await readThresholds(values.thresholds);
  const filed = values.rules === undefined ? {} : await readRules(values.rules);
  const own: EventRules = {
    ...{ labels, medianSeconds: median, minimumSeconds: shortest, maximumGapSeconds: gap },
    ...{ threshold, lowThreshold: low },
  };
  const given = Object.entries(own).filter(([, rule]) => rule !== undefined);
  const detector = await EventDetector.load(model, {
    ...{ windowSeconds: window, overlapSeconds: overlap, hopSeconds: hop },
    ...chosenDevice(values),
    ...filed,
    ...Object.fromEntries(given),
  });
  if (values.thresholds === undefined) return { detector, rules: {} };
  // Classes that the file of thresholds does not name keep their own.
  const { threshold: usual } = detector.rules;
  const others =
    typeof usual === 'number'
      ? Object.fromEntries(detector.labels.map((label) => [label, usual]))
      : usual;
  return { detector, rules: { threshold: { ...others, ...named } } };
}

async function readThresholds(path: string): Promise<Record<string, number>> {
  const expected = 'a JSON object of thresholds by label, such as {"Speech": 0.4}';
  const value = await readObject(path, expected);
  if (Object.values(value).every((number) => typeof number === 'number')) {
    return value as Record<string, number>;
  }
  throw new PannsError('ERR_PANNS_DATA', `expected ${expected}`, { where: path });
}

/** Rules as `panns eval --tune` writes them; what is in them is checked where they are used. */
async function readRules(path: string): Promise<EventRules> {
  return readObject(path, 'a JSON object of rules, such as {"threshold": {"Speech": 0.4}}');
}

async function readObject(path: string, expected: string): Promise<object> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw ioError(error, 'read', path);
  }
  const fault = (cause?: unknown) =>
    new PannsError('ERR_PANNS_DATA', `expected ${expected}`, { where: path, cause });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw fault(cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fault();
  return value;
}

const command = {
  name: 'panns detect',
  summary: 'Say what is heard in audio files, and from when to when',
  positionals: [{ name: 'file', help: 'audio files, or folders of them', many: true }],
  options: {
    model: {
      type: 'string',
      value: 'file',
      required: true,
      short: 'm',
      help: `${MODEL_HELP}, best with a head that scores frames`,
    },
    labels: { type: 'string', value: 'a;b', help: 'only these classes' },
    ...detectorOptions,
    ...audioOptions,
    format: { type: 'string', choices: eventFormats, help: 'print or write events so' },
    out: { type: 'string', value: 'file', short: 'o', help: 'write events there (csv)' },
    picture: { type: 'string', value: 'svg', help: 'draw the spectrogram, scores and events' },
    rows: { type: 'integer', min: 1, max: 100, default: 10, help: 'classes in the picture' },
    json: { type: 'boolean', help: 'print a JSON line a file' },
  },
} as const satisfies CommandSpec;

/** `panns detect`: finds events in files. */
export const detect = defineVerb(command, async (values, positionals, context) => {
  const { labels, format, out, picture, rows, json } = values;
  const { print, messages, signal } = context;
  const files = (await Promise.all(positionals.map(audioFiles))).flat();
  const single = picture !== undefined ? '--picture' : format === 'audacity' && '--format audacity';
  if (single && files.length !== 1) {
    throw new UsageError(command, `${single} takes one file, got ${files.length}`);
  }
  const chosen = labels
    ?.split(';')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const opened = await openDetector(values.model, values, chosen);
  using detector = opened.detector;
  const reading = { signal, ...chosenAudio(values) };
  const found: { file: string; detection: Detection }[] = [];
  let failed = 0;
  for (const [i, file] of files.entries()) {
    const progress = createProgress({
      label: files.length > 1 ? `${i + 1}/${files.length} ${file}` : file,
      unit: 'seconds of audio',
      stream: messages,
      // Without a terminal, progress is worth a line where results go elsewhere.
      silent: json || (messages.isTTY !== true && out === undefined),
    });
    try {
      const scores = gatherColumns(detector.labels.length, MOST_COLUMNS, 'max');
      const detection = await detector.detect(file, {
        ...opened.rules,
        ...reading,
        onScores({ first, frames, scores: block }) {
          progress.update(Math.round((first + frames) * detector.hopSeconds));
          if (picture !== undefined) scores.push(block);
        },
      });
      progress.finish();
      found.push({ file, detection });
      if (json) print(JSON.stringify({ file, ...detection }));
      else if (format === undefined && out === undefined) printTable(file, detection, context);
      if (detection.truncated && !json) noteTruncated(file, context);
      if (picture !== undefined) {
        const svg = await draw(file, detection, scores, detector, rows, reading);
        await writeFileAtomic(picture, [svg]);
      }
    } catch (error) {
      progress.finish();
      if (!(error instanceof PannsError)) throw error;
      failed++;
      const { code, message } = error;
      if (json) print(JSON.stringify({ file, error: { code, message } }));
      else complain(error, context, EXIT.failed);
    }
  }
  const all = found.map(({ file, detection: { events } }) => ({ file, events }));
  const text = () => formatEvents(all, format ?? ('csv' satisfies EventFormat));
  if (out !== undefined) await writeFileAtomic(out, [text()]);
  else if (format !== undefined && !json) print(text().trimEnd());
  return failed > 0 ? EXIT.failed : EXIT.ok;
});

function printTable(file: string, { events, seconds }: Detection, { print }: Context): void {
  print(`${file} (${formatDuration(seconds)})`);
  if (events.length === 0) {
    print('  no class reaches the threshold');
    return;
  }
  const columns = [
    { title: 'onset', align: 'right' },
    { title: 'offset', align: 'right' },
    { title: 'score', align: 'right' },
    { title: 'label' },
  ] as const;
  const rows = events.map(({ onset, offset, score, label }) => {
    return [onset.toFixed(2), offset.toFixed(2), score.toFixed(3), label];
  });
  print(formatTable(columns, rows).replace(/^/gm, '  '));
}

/** Audio that is read at once for the spectrogram, in seconds. */
const PART_SECONDS = 30;

async function draw(
  file: string,
  { events, seconds, hopSeconds }: Detection,
  scores: Columns,
  { labels, model: { sampleRate } }: EventDetector,
  rows: number,
  reading: { readonly signal: AbortSignal; readonly nanToZero?: true },
): Promise<string> {
  using features = new FeatureExtractor({ sampleRate });
  const { melBins, hopSize, windowSize, fmin, fmax } = features.options;
  const logmel = gatherColumns(melBins, MOST_COLUMNS, 'mean');
  for (let start = 0; start < seconds; start += PART_SECONDS) {
    const range = { start, duration: PART_SECONDS, sampleRate, ...reading };
    const { samples } = await loadAudio(file, range);
    const padded = new Float32Array(Math.max(samples.length, windowSize));
    padded.set(samples);
    const { data } = await features.logmel(padded);
    // The last frame of a part is the first of the next.
    logmel.push(data.subarray(0, Math.ceil(samples.length / hopSize) * melBins));
  }
  return detectionSvg({
    ...{ title: basename(file), seconds, logmel, scores, labels, events, rows },
    logmelSeconds: hopSize / sampleRate,
    scoreSeconds: hopSeconds,
    frequencies: [fmin, fmax],
  });
}
