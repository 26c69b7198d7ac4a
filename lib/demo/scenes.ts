import { fromDecibels } from '../data/exact_math.js';
import { createRandom, permutation, type Random } from '../data/random.js';
import { checkOptions, nearest, optionCheck } from '../errors.js';
import { SOUNDS } from './sounds.js';
import { lowPass, noise, peakOf, rmsOf } from './synth.js';

const check = optionCheck('generateScenes');

/** The names of all demo classes, sorted. */
export const SCENE_CLASSES: readonly string[] = [...SOUNDS.keys()];

/** Options of {@link generateScenes}. */
export interface SceneOptions {
  count: number;
  /** A whole number >= 0; equal seeds give equal scenes on every platform. */
  seed: number;
  /** In Hz, 8000 to 192000. */
  sampleRate: number;
  /** Length of each scene, 0.5 to 60. */
  seconds: number;
  /** Which of {@link SCENE_CLASSES} take part, at least two; default all. */
  classes?: readonly string[] | undefined;
}

/** A rendered scene. */
export interface Scene {
  /** Mono, within [-1, 1]. */
  readonly samples: Float32Array;
  /** The one or two classes that sound in it, ascending. */
  readonly labels: readonly number[];
}

/** Labelled scenes; `labels` index `classes`. */
export interface Scenes {
  readonly classes: readonly string[];
  readonly clips: readonly Scene[];
}

/** Streams of the seed. */
const STREAM = { order: 1, scene: 2 };

/** How often a scene has a second class. */
const PAIR_SHARE = 0.4;

/**
 * Synthetic sound scenes with exact labels, for `panns demo`: no data set, no download.
 *
 * One or two classes sound together, each with its own pitch, tempo, onset and level, over coloured
 * noise 3 to 30 dB below them. First classes are drawn evenly. These are formulas, not recordings: a
 * model that tells them apart has shown that training works, nothing about real sounds. Scene i does
 * not depend on `count`, and uses no function that engines may round differently.
 *
 * @throws PannsError `ERR_PANNS_OPTION`
 */
export function generateScenes(options: SceneOptions): Scenes {
  checkOptions(options, ['count', 'seed', 'sampleRate', 'seconds', 'classes'], 'generateScenes');
  const { count, seed, sampleRate, seconds, classes = SCENE_CLASSES } = options;
  check('count', count, Number.isSafeInteger(count) && count >= 1, 'a whole number >= 1');
  const rateFits = Number.isInteger(sampleRate) && sampleRate >= 8000 && sampleRate <= 192000;
  check('sampleRate', sampleRate, rateFits, 'a whole number of Hz in 8000..192000');
  check('seconds', seconds, seconds >= 0.5 && seconds <= 60, 'a number in 0.5..60');
  checkClasses(classes);
  const length = Math.round(seconds * sampleRate);
  const clips = Array.from({ length: count }, (_, i) => {
    const round = Math.floor(i / classes.length);
    const order = permutation(classes.length, seed, STREAM.order, round);
    const first = order[i % classes.length] ?? 0;
    const random = createRandom(seed, STREAM.scene, i);
    const labels = [first];
    if (random.uniform() < PAIR_SHARE) {
      labels.push((first + 1 + random.integer(classes.length - 1)) % classes.length);
    }
    const samples = mix(labels, classes, length, sampleRate, random);
    return { samples, labels: labels.sort((a, b) => a - b) };
  });
  return { classes, clips };
}

function mix(
  labels: readonly number[],
  classes: readonly string[],
  length: number,
  rate: number,
  random: Random,
): Float32Array {
  const scene = new Float64Array(length);
  for (const label of labels) {
    const sound = new Float64Array(length);
    SOUNDS.get(classes[label] ?? '')?.(sound, rate, random);
    const gain = fromDecibels(random.between(-8, 0)) / peakOf(sound);
    for (let i = 0; i < length; i++) scene[i] = (scene[i] ?? 0) + gain * (sound[i] ?? 0);
  }
  const background = colouredNoise(length, rate, random);
  const ratio = fromDecibels(-random.between(3, 30));
  const noiseGain = (ratio * rmsOf(scene)) / rmsOf(background);
  for (let i = 0; i < length; i++) scene[i] = (scene[i] ?? 0) + noiseGain * (background[i] ?? 0);
  const level = fromDecibels(random.between(-20, -1)) / peakOf(scene);
  const samples = new Float32Array(length);
  for (let i = 0; i < length; i++) samples[i] = level * (scene[i] ?? 0);
  return samples;
}

/** Between white and dull: a blend of noise and low-passed noise. */
function colouredNoise(length: number, rate: number, random: Random): Float64Array {
  const dull = lowPass(random.between(100, 3000), rate);
  const blend = random.uniform();
  const out = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    const white = noise(random);
    out[i] = blend * white + (1 - blend) * 3 * dull(white);
  }
  return out;
}

function checkClasses(classes: readonly string[]): void {
  const names = new Set(classes);
  const enough = names.size === classes.length && classes.length >= 2;
  check('classes', classes.join(', '), enough, 'two or more different names');
  const unknown = classes.find((name) => !SOUNDS.has(name));
  if (unknown === undefined) return;
  const guess = nearest(unknown, SCENE_CLASSES);
  check('classes', unknown, false, `some of ${SCENE_CLASSES.join(', ')}; did you mean "${guess}"?`);
}
