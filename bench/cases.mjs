// What is compared: the same work for both sides, and the peers it is held against.
const tenSeconds = 320000; // samples at 32 kHz

const peers = ['torch nchw', 'torch channels_last'];

/** One model of a family: a clip through it, and a training step of four. */
function family(model) {
  const work = { model, samples: tenSeconds };
  return {
    [`${model}-infer`]: {
      title: `${model}, inference of one 10 s clip, fp32`,
      work: { kind: 'infer', batch: 1, ...work },
      peers,
    },
    [`${model}-train`]: {
      title: `${model}, training step of four 10 s clips, fp32, Adam`,
      work: { kind: 'train', batch: 4, ...work },
      peers,
    },
  };
}

export const cases = {
  'cnn14-infer': {
    title: 'Cnn14, inference of one 10 s clip, fp32',
    work: { kind: 'infer', model: 'Cnn14', batch: 1, samples: tenSeconds, gflop: 42.2 },
    peers,
    goal: 2,
  },
  'cnn6-infer': {
    title: 'Cnn6, inference of one 10 s clip, fp32',
    work: { kind: 'infer', model: 'Cnn6', batch: 1, samples: tenSeconds, gflop: 22.0 },
    peers,
  },
  'cnn14-train': {
    title: 'Cnn14, training step of four 10 s clips, fp32, Adam',
    work: { kind: 'train', model: 'Cnn14', batch: 4, samples: tenSeconds, gflop: 4 * 126 },
    peers,
    goal: 1.5,
  },
  'cnn6-train': {
    title: 'Cnn6, training step of four 10 s clips, fp32, Adam',
    work: { kind: 'train', model: 'Cnn6', batch: 4, samples: tenSeconds, gflop: 4 * 65 },
    peers,
  },
  ...family('ResNet38'),
  ...family('MobileNetV1'),
  ...family('MobileNetV2'),
  ...family('mn10'),
  ...family('Wavegram_Logmel_Cnn14'),
  ...family('LeeNet24'),
  ...family('Res1dNet31'),
  ...family('DaiNet19'),
  logmel: {
    title: 'log-mel of 10 s at 32 kHz',
    work: { kind: 'logmel', samples: tenSeconds, repeat: 10 },
    peers: ['torch conv1d', 'torch stft'],
    goal: 10,
  },
  resample: {
    title: 'resampling 10 s from 44.1 to 32 kHz, one thread',
    work: { kind: 'resample', samples: 441000, from: 44100, to: 32000, repeat: 10 },
    peers: ['soxr HQ'],
    goal: 1,
  },
};
