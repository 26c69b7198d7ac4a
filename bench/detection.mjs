#!/usr/bin/env node
// Sound event detection on real sound: how well, beside a baseline.
//
//   node bench/detection.mjs --weights mn04_as_mAP_432.pt --mix sed_mix --ami sed_ami [--out file] [--save file]
//
// mix: a classifier on a frozen base learns what sounds in the middle of short windows of half of the
// files; how scores become events is tuned by cross-validation within that half; the other half is
// measured once. The baseline takes the same network's tags for events as long as the clip.
// ami: a network trained on AudioSet hears windows around each frame; only speech counts.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  AudioTagger,
  createFeatureStore,
  createModel,
  EventDetector,
  evaluateEvents,
  eventBasedMetrics,
  readStrong,
  segmentBasedMetrics,
  strongClips,
  Trainer,
  tuneEvents,
} from '../dist/index.js';

const { values } = parseArgs({
  options: {
    weights: { type: 'string' },
    mix: { type: 'string' },
    ami: { type: 'string' },
    out: { type: 'string' },
    save: { type: 'string' },
    epochs: { type: 'string', default: '15' },
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

/** An odd number of hops, so that what is learned of a window's middle is what is asked of it. */
const WINDOW = { windowSeconds: 0.7, hopSeconds: 0.1 };
const FOLDS = 3;

async function mixes(folder, weights) {
  const all = await readStrong(join(folder, 'strong.csv'));
  // Neighbours are made alike: every other file.
  const half = (rest) => all.files.filter((_, i) => i % 2 === rest);
  const learn = half(0);
  const test = { ...all, files: half(1) };
  const recipe = {
    ...{ epochs: Number(values.epochs), batchSize: 32, clipSeconds: WINDOW.windowSeconds },
    ...{ freeze: 'base', cacheFeatures: true, loss: 'bce', seed: 1 },
    ...{ optimizer: { kind: 'adam', lr: 1e-3 }, schedule: { kind: 'cosine' } },
  };
  const features = createFeatureStore();
  const began = performance.now();
  const trained = async (files) => {
    const dataset = strongClips({ ...all, files }, { ...WINDOW, labels: 'middle' });
    const model = await createModel('mn04', {
      ...{ classes: all.classes, pretrained: weights, activation: 'sigmoid', seed: 1 },
    });
    let last = 0;
    for await (const { loss } of new Trainer(model, { ...recipe, dataset, features })) last = loss;
    console.log(
      `${dataset.clips.length} windows of ${files.length} files: loss ${last.toFixed(4)}`,
    );
    return model;
  };
  const parts = [];
  // Every third file has the same background: three in a row go together.
  const foldOf = (i) => Math.floor(i / 3) % FOLDS;
  for (let fold = 0; fold < FOLDS; fold++) {
    const model = await trained(learn.filter((_, i) => foldOf(i) !== fold));
    const files = learn.filter((_, i) => foldOf(i) === fold);
    const detector = await EventDetector.load(model, WINDOW);
    parts.push({ detector, dataset: { ...all, files } });
  }
  const { rules, perClass: tuned } = await tuneEvents(parts);
  for (const { detector } of parts) detector.model.dispose();
  const model = await trained(learn);
  const trainingSeconds = Math.round((performance.now() - began) / 1000);
  if (values.save) await model.save(values.save);
  const detector = await EventDetector.load(model, { ...WINDOW, ...rules });
  const found = await evaluateEvents(detector, test);
  const tagger = await AudioTagger.load(model, { ...WINDOW, aggregate: 'max' });
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
    trained: { files: learn.length, ...WINDOW, ...recipe, folds: FOLDS, trainingSeconds },
    tuned: { rules, perClass: tuned.map((row) => ({ ...row, f1: percent(row.f1) })) },
    tested: { files: test.files.length, events: reference.length },
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
