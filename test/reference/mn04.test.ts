import { readFileSync } from 'node:fs';
import t from 'tap';
import { fromCsv } from '../../lib/data/csv.js';
import { loadModel } from '../../lib/inference/model_file.js';
import { AudioTagger } from '../../lib/inference/tagger.js';
import { audiosetLabels } from '../../lib/labels.js';
import { sharedFile } from '../helpers/shared.js';

// Real weights of AudioSet's classes, on real sound.
const weights = sharedFile('data', 'efficientat_mn04_as', 'mn04_as_mAP_432.pt');
const clip = sharedFile('data', 'audioset', 'R9_ZSCveAHg_7s.wav');
const esc = sharedFile('data', 'esc10', 'meta.csv');

t.test(
  'the scores of the published mn04 on the PANNs clip',
  {
    skip: weights.skip || clip.skip,
  },
  async (t) => {
    using tagger = await AudioTagger.load(weights.path);
    t.equal(tagger.model.name, 'mn04');
    t.same(tagger.model.classes, audiosetLabels);
    const { labels } = await tagger.tag(clip.path);
    const { path } = sharedFile('data', 'efficientat_mn04_as', 'R9_ZSCveAHg_7s.top10.json');
    const { top10 } = JSON.parse(readFileSync(path, 'utf8')) as { top10: [string, number][] };
    t.same(
      labels.map(({ label }) => label),
      top10.map(([label]) => label),
    );
    for (const [i, { label, score }] of labels.entries()) {
      const expected = top10[i]?.[1] ?? Number.NaN;
      // The figures were rounded to four decimals.
      t.ok(Math.abs(score - expected) < 5e-4, `${label}: ${score} for ${expected}`);
    }
  },
);

t.test(
  'ESC-10 without training, through the classes of AudioSet',
  {
    skip: weights.skip || esc.skip,
  },
  async (t) => {
    const { path } = sharedFile('data', 'audioset', 'esc50_to_audioset.json');
    const { map } = JSON.parse(readFileSync(path, 'utf8')) as {
      map: Record<string, { audioset: string[] }>;
    };
    const { clips, classes } = await fromCsv(esc.path);
    const columns = classes.map((name) =>
      (map[name]?.audioset ?? []).map((label) => audiosetLabels.indexOf(label)),
    );
    t.ok(columns.flat().every((column) => column >= 0));
    using tagger = new AudioTagger(await loadModel(weights.path), {}, true);
    let hits = 0;
    for (const { path: file, labels } of clips) {
      const { scores } = await tagger.tag(file);
      const best = columns.map((own) => Math.max(...own.map((column) => scores[column] ?? 0)));
      if (best.indexOf(Math.max(...best)) === labels[0]) hits++;
    }
    t.comment(`${hits} of ${clips.length}`);
    t.equal(clips.length, 320);
    t.ok(hits / clips.length >= 0.96, `${hits} of ${clips.length}`);
  },
);
