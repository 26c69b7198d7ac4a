#!/usr/bin/env node
// Sound event detection on real sound: how well, beside a baseline.
//
//   node bench/detection.mjs --weights mn04_as_mAP_432.pt --mix sed_mix --ami sed_ami [--out file] [--save file]
//
// mix: a network whose head scores frames is trained on half of the files and measured on the others;
// the baseline takes the same network's tags of whole clips for events as long as the clip.
// ami: a network trained on AudioSet hears windows around each frame; only speech counts.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  AudioTagger,
  createModel,
  EventDetector,
  evaluateEvents,
  eventBasedMetrics,
  readStrong,
  segmentBasedMetrics,
  strongClips,
  Trainer,
} from '../dist/index.js';

const { values } = parseArgs({
  options: {
    weights: { type: 'string' },
    mix: { type: 'string' },
    ami: { type: 'string' },
    out: { type: 'string' },
    save: { type: 'string' },
    epochs: { type: 'string', default: '10' },
  },
});

const percent = (value) => Number((100 * value).toFixed(1));

/** What is compared, in percent. */
function figures({ segments, events, onsets, psds1, psds2 }) {
  return {
    segmentF1: percent(segments.overall.f1),
    segmentErrorRate: Number(segments.overall.errorRate.toFixed(3)),
    segmentF1ClassMean: percent(segments.classAverage.f1),
    eventF1: percent(events.overall.f1),
    eventF1ClassMean: percent(events.classAverage.f1),
    ...(onsets && { onsetF1: percent(onsets.overall.f1) }),
    ...(psds1 && { psds1: Number(psds1.value.toFixed(3)), psds2: Number(psds2.value.toFixed(3)) }),
  };
}

function referenceOf({ classes, files }) {
  return files.flatMap(({ id, events }) =>
    events.map(({ label, ...times }) => ({ file: id, ...times, label: classes[label] })),
  );
}

async function mixes(folder, weights) {
  const all = await readStrong(join(folder, 'strong.csv'));
  // Neighbours are made alike: every other file.
  const half = (rest) => ({ ...all, files: all.files.filter((_, i) => i % 2 === rest) });
  const [learn, test] = [half(0), half(1)];
  const windows = strongClips(learn, { windowSeconds: 1, hopSeconds: 0.5 });
  const model = await createModel('mn04', {
    ...{ head: 'max', classes: all.classes, pretrained: weights, seed: 1 },
  });
  const recipe = {
    ...{ epochs: Number(values.epochs), batchSize: 32, clipSeconds: 1, loss: 'bce', seed: 1 },
    ...{ optimizer: { kind: 'adam', lr: 1e-3 } },
  };
  const trainer = new Trainer(model, { dataset: windows, ...recipe });
  for await (const { index, loss, epoch } of trainer) {
    if (index % trainer.stepsPerEpoch === 0) console.log(`epoch ${epoch}: loss ${loss.toFixed(4)}`);
  }
  if (values.save) await model.save(values.save);
  // A third of how long a class lasts on average, where it was learned: rain is not a sneeze.
  const medianSeconds = Object.fromEntries(
    all.classes.map((label, k) => {
      const own = learn.files.flatMap(({ events }) => events.filter((one) => one.label === k));
      const total = own.reduce((sum, { onset, offset }) => sum + (offset - onset), 0);
      return [label, Number((total / own.length / 3).toFixed(2))];
    }),
  );
  const rules = { threshold: 0.5, lowThreshold: 0.3, medianSeconds };
  const detector = await EventDetector.load(model, rules);
  const found = await evaluateEvents(detector, test);
  const tagger = await AudioTagger.load(model);
  const whole = [];
  for (const { id, path, seconds } of test.files) {
    const { labels } = await tagger.tag(path, { topK: all.classes.length, threshold: 0.5 });
    for (const { label } of labels) whole.push({ file: id, onset: 0, offset: seconds, label });
  }
  const reference = referenceOf(test);
  const { classes } = all;
  const baseline = {
    segments: segmentBasedMetrics(reference, whole, { classes }),
    events: eventBasedMetrics(reference, whole, { classes }),
    onsets: eventBasedMetrics(reference, whole, { classes, onsetOnly: true }),
  };
  const perClass = found.segments.perClass.map(({ label, f1 }, k) => {
    const { reference, estimated, f1: eventF1 } = found.events.perClass[k];
    return { label, reference, estimated, segmentF1: percent(f1), eventF1: percent(eventF1) };
  });
  model.dispose();
  return {
    trained: { files: learn.files.length, windows: windows.clips.length, ...recipe },
    tested: { files: test.files.length, events: reference.length, rules },
    detector: figures(found),
    clipTagsAsEvents: figures(baseline),
    perClass,
  };
}

async function meetings(folder, weights) {
  const all = await readStrong(join(folder, 'strong.csv'));
  const model = await createModel('mn04', { pretrained: weights });
  const results = [];
  for (const windowSeconds of [0.5, 1, 2]) {
    const detector = await EventDetector.load(model, { windowSeconds, hopSeconds: 0.2 });
    for (const threshold of [0.3, 0.5]) {
      const found = await evaluateEvents(detector, all, {
        rules: { threshold, minimumSeconds: 0.2, maximumGapSeconds: 0.3 },
        collarSeconds: 0.5,
      });
      results.push({ windowSeconds, hopSeconds: 0.2, threshold, ...figures(found) });
      console.log(JSON.stringify(results.at(-1)));
    }
  }
  model.dispose();
  const classes = all.classes;
  const reference = referenceOf(all);
  const everywhere = all.files.map(({ id, seconds }) => {
    return { file: id, onset: 0, offset: seconds, label: 'Speech' };
  });
  const alwaysSpeech = figures({
    segments: segmentBasedMetrics(reference, everywhere, { classes }),
    events: eventBasedMetrics(reference, everywhere, { classes, collar: 0.5 }),
    onsets: eventBasedMetrics(reference, everywhere, { classes, collar: 0.5, onsetOnly: true }),
  });
  return { files: all.files.length, collarSeconds: 0.5, results, alwaysSpeech };
}

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const results = {
  panns: version,
  node: process.version,
  machine: `${cpus()[0]?.model}, ${cpus().length} cores`,
  command: `node bench/detection.mjs ${process.argv.slice(2).join(' ')}`,
  ...(values.mix && { sed_mix: await mixes(values.mix, values.weights) }),
  ...(values.ami && { sed_ami: await meetings(values.ami, values.weights) }),
};
console.log(JSON.stringify(results, null, 2));
if (values.out) writeFileSync(values.out, `${JSON.stringify(results, null, 2)}\n`);
