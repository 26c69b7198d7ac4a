// What bench/gpu.mjs measures, in the order of what it tells: a run that is cut off has the first.

/** PyTorch's ways (torch_gpu.py): all of them once, then those that are the fastest there. */
const ALL = ['official', 'eager', 'graph', 'compile', 'compile_graph'];
const FASTEST = ['graph', 'compile_graph'];
/** Where a way does not start, another one of the same kind. */
export const STAND_IN = { compile_graph: 'compile_trees' };
export const PEERS = [...ALL, ...Object.values(STAND_IN)];

/** Our own side in other ways, beside the usual one: what each of the CUDA core's shortcuts gives. */
const WAYS = {
  'conv+batch_norm off': { passesOff: ['conv+batch_norm'] },
  'early_update on': { passesOn: ['early_update'] },
  'clips with their step': { stages: false },
  'one step at a time': { inFlight: false },
  'bn0, stripes, mixup apart': { passesOff: ['batch_norm+spec_augment', 'batch_norm+mixup'] },
  'pairs of bins': { pairBins: 'always' },
  'any order of sums': { deterministic: false },
  'measured plans': { measurePlans: true },
};

/** A Trainer in the session's place, with clips from memory and from files (gpu_trainer.mjs). */
const DATA = {
  'Trainer, ready batches': { data: 'ready' },
  'Trainer, packed file': { data: 'packed' },
  'Trainer, decoded in memory': { data: 'memory' },
  'Trainer, WAV files': { data: 'files' },
};

const train = (model, batch, peers = FASTEST, precision = 'bf16') => {
  return { kind: 'train', model, precision, batch, peers };
};
const infer = (batch) => {
  return { kind: 'infer', model: 'Cnn14', precision: 'bf16', batch, peers: FASTEST };
};

const cases = [
  train('Cnn14', 32, ALL),
  train('Cnn14', 128),
  train('Wavegram_Logmel_Cnn14', 32),
  train('Cnn6', 32),
  train('MobileNetV1', 32),
  { ...train('Cnn14', 32, []), of: 'data', ways: DATA },
  infer(1),
  infer(32),
  infer(256),
  // Of so many log-mels in a row the upload of the clips, which all share, is a small part.
  { kind: 'logmel', precision: 'fp32', batch: 64, copies: 32, peers: ['official', ...FASTEST] },
  { ...train('Cnn14', 32, []), of: 'ways', ways: WAYS },
  ...['Wavegram_Logmel_Cnn14', 'Cnn6', 'MobileNetV1'].map((model) => train(model, 128)),
  ...['tf32', 'fp16', 'fp32'].map((precision) => train('Cnn14', 32, ['graph'], precision)),
  train('ResNet38', 32),
  train('Cnn6', 32, ['eager'], 'fp32'),
];

export const nameOf = ({ kind, model, precision, batch, of }) =>
  [model, kind, precision, `x${batch}`, of].filter(Boolean).join(' ');

/** Cases whose names have all of some words; with `peers`, compared with these. */
export function chooseCases(words, peers) {
  const has = (one) => (word) => nameOf(one).toLowerCase().split(' ').includes(word.toLowerCase());
  const chosen = cases.filter((one) => words.every(has(one)));
  return chosen.map((one) => {
    return { ...one, peers: one.ways === undefined ? (peers ?? one.peers) : [] };
  });
}
