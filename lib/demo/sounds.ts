import { cosineOfTurns, exp2, fromDecibels, sineOfTurns } from '../data/exact_math.js';
import type { Random } from '../data/random.js';
import { addEvent, bandPass, decayFactor, gate, hump, inBand, lowPass, noise } from './synth.js';

/** Renders one example of a class into `out`, at any level: pitch, tempo and onset are drawn. */
export type Sound = (out: Float64Array, rate: number, random: Random) => void;

/** The classes of the demo, by name. Each is a caricature made from a formula, not a recording. */
export const SOUNDS: ReadonlyMap<string, Sound> = new Map<string, Sound>([
  ['bark', bark],
  ['beeps', beeps],
  ['birdsong', birdsong],
  ['engine', engine],
  ['footsteps', footsteps],
  ['knocks', knocks],
  ['rain', rain],
  ['siren', siren],
]);

/** A hoarse pulse train and noise through two formants, in two to six bursts. */
function bark(out: Float64Array, rate: number, random: Random): void {
  const throat = random.between(160, 420);
  const first = bandPass(random.between(450, 900), 3, rate);
  const second = bandPass(random.between(1100, 1900), 4, rate);
  const hoarse = random.between(0.3, 0.9);
  const bursts = 2 + random.integer(5);
  let start = onset(out, rate, random);
  for (let n = 0; n < bursts; n++) {
    const seconds = random.between(0.09, 0.2);
    const bend = random.between(0.7, 0.95);
    let phase = 0;
    addEvent(out, start, seconds, rate, (i) => {
      const position = i / (seconds * rate);
      phase += (throat * (1 - (1 - bend) * position)) / rate;
      const pulse = 1 - 2 * (phase - Math.floor(phase));
      const source = (1 - hoarse) * pulse + hoarse * noise(random);
      return hump(Math.sqrt(position)) * (first(source) + 0.7 * second(source));
    });
    start += seconds + random.between(0.12, 0.45);
  }
}

/** A steady tone switched on and off. */
function beeps(out: Float64Array, rate: number, random: Random): void {
  const frequency = inBand(random.between(700, 3200), rate);
  const seconds = random.between(0.06, 0.25);
  const period = seconds * random.between(1.6, 3);
  const edge = random.between(0, 0.25);
  const end = out.length / rate;
  for (let start = onset(out, rate, random); start < end; start += period) {
    addEvent(out, start, seconds, rate, (i) => {
      const turns = (frequency * i) / rate;
      // The third harmonic squares the tone a little, where the rate leaves room for it.
      const third = 3 * frequency < 0.45 * rate ? edge * sineOfTurns(3 * turns) : 0;
      return gate(i / rate, seconds, 0.004) * (sineOfTurns(turns) + third);
    });
  }
}

/** Short whistles that glide up or down between 1.8 and 6 kHz, in phrases. */
function birdsong(out: Float64Array, rate: number, random: Random): void {
  const low = inBand(random.between(1800, 3200), rate * 0.7);
  const high = inBand(low * random.between(1.2, 1.9), rate);
  const end = out.length / rate;
  let start = onset(out, rate, random);
  while (start < end) {
    const seconds = random.between(0.04, 0.13);
    const rising = random.integer(2) === 1;
    const syllables = 2 + random.integer(5);
    const gap = random.between(0.02, 0.08);
    for (let n = 0; n < syllables; n++) {
      let phase = 0;
      addEvent(out, start, seconds, rate, (i) => {
        const position = i / (seconds * rate);
        const way = rising ? position : 1 - position;
        phase += (low + (high - low) * way * way) / rate;
        return hump(position) * sineOfTurns(phase);
      });
      start += seconds + gap;
    }
    start += random.between(0.15, 0.6);
  }
}

/** Harmonics of a slowly wandering low tone, over a rumble. */
function engine(out: Float64Array, rate: number, random: Random): void {
  const base = random.between(38, 110);
  const levels = Float64Array.from({ length: 16 }, (_, k) => random.between(0.3, 1) / (k + 1));
  const wander = lowPass(1.5, rate);
  const rumble = lowPass(random.between(150, 400), rate);
  const roughness = random.between(0.2, 0.8);
  let phase = 0;
  for (let i = 0; i < out.length; i++) {
    phase += (base * (1 + 10 * wander(noise(random)))) / rate;
    let sum = roughness * 3 * rumble(noise(random));
    // sin((k + 1) x) = 2 cos(x) sin(k x) - sin((k - 1) x): two sines a sample instead of sixteen.
    const twice = 2 * cosineOfTurns(phase);
    let before = 0;
    let harmonic = sineOfTurns(phase);
    for (const level of levels) {
      sum += level * harmonic;
      const next = twice * harmonic - before;
      before = harmonic;
      harmonic = next;
    }
    out[i] = sum;
  }
}

/** A low thump and a scuff after it, at walking pace. */
function footsteps(out: Float64Array, rate: number, random: Random): void {
  const period = 1 / random.between(1.4, 2.7);
  const heel = bandPass(random.between(80, 240), 1.5, rate);
  const sole = bandPass(random.between(1500, 3800), 1, rate);
  const scuff = random.between(0.15, 0.6);
  const fade = decayFactor(random.between(0.012, 0.03), rate);
  const end = out.length / rate;
  let start = onset(out, rate, random) * 0.5;
  while (start < end) {
    let level = random.between(2, 3.5);
    addEvent(out, start, 0.15, rate, () => {
      level *= fade;
      return level * heel(noise(random));
    });
    const slide = random.between(0.05, 0.12);
    addEvent(out, start + random.between(0.02, 0.06), slide, rate, (i) => {
      return scuff * hump(i / (slide * rate)) * sole(noise(random));
    });
    start += period * random.between(0.92, 1.08);
  }
}

/** Groups of fast, woody hits: two damped tones with a click. */
function knocks(out: Float64Array, rate: number, random: Random): void {
  const wood = random.between(180, 480);
  const overtone = wood * random.between(2.1, 2.8);
  const fade = decayFactor(random.between(0.008, 0.022), rate);
  const period = 1 / random.between(4.5, 8);
  const end = out.length / rate;
  let start = onset(out, rate, random);
  while (start < end) {
    const hits = 2 + random.integer(4);
    for (let n = 0; n < hits; n++) {
      let level = random.between(0.7, 1);
      addEvent(out, start, 0.2, rate, (i) => {
        level *= fade;
        const time = i / rate;
        const click = i < 0.002 * rate ? 0.5 * noise(random) : 0;
        return level * (sineOfTurns(wood * time) + 0.5 * sineOfTurns(overtone * time) + click);
      });
      start += period * random.between(0.93, 1.07);
    }
    start += random.between(0.4, 0.9);
  }
}

/** A bright hiss with single drops in it. */
function rain(out: Float64Array, rate: number, random: Random): void {
  const dark = lowPass(random.between(600, 2000), rate);
  const dropsASecond = random.between(15, 80);
  const drop = bandPass(random.between(2000, 5000), 5, rate);
  const weight = random.between(4, 10);
  for (let i = 0; i < out.length; i++) {
    const white = noise(random);
    const hit = random.uniform() < dropsASecond / rate ? weight : 0;
    out[i] = 0.4 * (white - dark(white)) + drop(hit);
  }
}

/** A tone with harmonics that sweeps up and down, slowly (wail) or fast (yelp). */
function siren(out: Float64Array, rate: number, random: Random): void {
  const base = random.between(420, 800);
  const octaves = random.between(0.5, 1.2);
  const sweeps = random.integer(2) === 1 ? random.between(0.35, 1.2) : random.between(2, 4.5);
  const offset = random.uniform();
  const second = random.between(0.1, 0.5);
  let phase = 0;
  for (let i = 0; i < out.length; i++) {
    const swing = 0.5 + 0.5 * sineOfTurns(offset + (sweeps * i) / rate);
    phase += (base * exp2(octaves * swing)) / rate;
    out[i] = sineOfTurns(phase) + second * sineOfTurns(2 * phase);
  }
  const swell = fromDecibels(random.between(-9, 0));
  for (let i = 0; i < out.length; i++) {
    out[i] = (out[i] ?? 0) * (swell + ((1 - swell) * i) / out.length);
  }
}

/** When the first event begins: somewhere in the first third. */
function onset(out: Float64Array, rate: number, random: Random): number {
  return (random.uniform() * out.length) / rate / 3;
}
