import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { describeModel } from '../../lib/models/index.js';
import { loadNative } from '../../lib/native.js';
import { freshSeed } from '../data/fresh_seed.js';
import { tolerances } from '../helpers/tolerance.js';
import { withoutDropout } from '../helpers/training.js';

const root = join(import.meta.dirname, '..', '..');
const python = process.env.PANNS_PYTHON;
const skip = python ? false : 'PANNS_PYTHON names no Python with torch';

/** Of PyTorch's side of bench/gpu.mjs, on the CPU: what it computes beside the oracle's networks. */
const program = `
import json, sys
from pathlib import Path

root, folder = Path(sys.argv[1]), Path(sys.argv[2])
work = {"kind": "train", "variant": "eager", "device": "cpu", "model": "Cnn6", "precision": "fp32",
        "batch": 2, "samples": 16000, "seed": int(sys.argv[3])}
sys.argv = ["torch_gpu.py", json.dumps(work)]
sys.path[:0] = [str(root / "bench"), str(root / "test" / "oracle")]
import ops
import torch
import torch_front as front
import torch_gpu as peer

torch.manual_seed(work["seed"])
sizes = {"sample_rate": 32000, "window_size": 1024, "hop_size": 320, "mel_bins": 64, "fmin": 50, "fmax": 14000}
wave = torch.randn(2, 16000, dtype=torch.float64) / 4
truth = ops.logmel(sizes, wave)
logmel = [(front.LogMel(sizes, way)(wave.float()) - truth).abs().max().item() for way in (False, True)]

stripes = []
for blank in (front.blank, front.blank_in_place):
    kept = blank(torch.ones(400, 1, 200, 64))
    rows, columns = kept.amax((1, 3)), kept.amax((1, 2))  # 0 where a whole frame, or bin, is blank
    stripes.append([(200 - rows.sum(1)).tolist(), (64 - columns.sum(1)).tolist()])

# Steps without chance, in both ways, for our side to follow.
net = peer.load_models().build("Cnn6", peer.CLASSES)
peer.initialise(net)
start = {k: v.clone() for k, v in net.state_dict().items()}
weights = peer.draw_weights(2)
peer.draw_weights = lambda batch: weights
clips = (torch.randn(4, 16000) * 8000).to(torch.int16)
target = (torch.rand(4, peer.CLASSES) < 0.1).float()

def choose(name):
    peer.variant = {"published": False, "mode": None, "capture": False, **peer.VARIANTS[name]}
    peer.load_models(peer.variant["published"])
    sys.modules["models.parts"].ops = sys.modules["ops"]  # which was imported with the first choice

followed = {}
for name in ("eager", "official"):
    choose(name)
    net.load_state_dict(start)
    step = peer.train_step(net.train(), [clips, target], True)
    followed[name] = [step().item() for _ in range(3)]
names = [k for k, v in start.items() if v.is_floating_point()]
for name, tensor in {**{k: start[k] for k in names}, "clips": clips, "target": target, "weights": weights}.items():
    tensor.numpy().tofile(folder / name)

learnt = {}
for name in ("eager", "official"):
    choose(name)
    run = peer.prepare()
    learnt[name] = [run().item() for _ in range(3)]
drops = {}
for name in ("Cnn14", "ResNet38", "MobileNetV1", "Wavegram_Logmel_Cnn14"):
    net = peer.load_models().build(name, 4)
    peer.randomise(net)
    drops[name] = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
print(json.dumps({"logmel": logmel, "stripes": stripes, "names": names, "followed": followed,
                  "learnt": learnt, "drops": drops}))
`;

interface Found {
  logmel: number[];
  stripes: [number[], number[]][];
  names: string[];
  followed: Record<string, number[]>;
  learnt: Record<string, number[]>;
  drops: Record<string, number>;
}

/** Losses of our own steps from the same weights, clips and mixup. */
async function follow(t: Test, folder: string, names: readonly string[], steps: number) {
  const bytes = (name: string) => new Uint8Array(readFileSync(join(folder, name))).buffer;
  const floats = (name: string) => new Float32Array(bytes(name));
  const { spec: whole, minimumSamples } = describeModel('Cnn6', { specAugment: false });
  const spec = withoutDropout(whole);
  const addon = loadNative();
  const model = await addon.createModel(spec, { device: 'cpu', threads: 1 }, minimumSamples);
  t.teardown(() => model.dispose());
  for (const name of names) await model.set(name, floats(name));
  const session = await addon.createSession(model, spec, {
    ...{ batch: 2, samples: 16000, mixup: true, loss: 'bce', frozen: [], passesOff: [] },
    optimizer: { kind: 'adam', attrs: { amsgrad: true } },
  });
  t.teardown(() => session.dispose());
  const clips = new Int16Array(bytes('clips'));
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const state = { seed: 1n, step, lr: 1e-4, maxNorm: 0, update: true };
    losses.push((await session.step(clips, floats('target'), floats('weights'), state)).loss);
  }
  return losses;
}

t.test('PyTorch’s side does the same work', { skip, timeout: 600_000 }, async (t) => {
  const seed = freshSeed(t);
  const folder = t.testdir();
  const args = ['-c', program, root, folder, String(seed)];
  const { status, stdout, stderr } = spawnSync(python ?? '', args, {
    encoding: 'utf8',
    env: { ...process.env, OMP_NUM_THREADS: '1' },
  });
  t.equal(status, 0, stderr);
  const found = JSON.parse(stdout) as Found;
  for (const error of found.logmel) {
    // float32 against float64, in dB: noise has no bin near the floor of the logarithm.
    t.ok(error < 1e-3, `log-mel differs from the oracle's by ${error} dB`);
  }
  const mean = (list: number[]) => list.reduce((a, b) => a + b, 0) / list.length;
  for (const [frames, bins] of found.stripes) {
    // Two stripes of 0..63 frames and of 0..7 bins, of which some overlap.
    t.ok(Math.max(...frames) <= 126 && Math.max(...bins) <= 14);
    t.ok(Math.abs(mean(frames) - 58) < 8, `${mean(frames)} frames are blank on average`);
    t.ok(Math.abs(mean(bins) - 6.8) < 1, `${mean(bins)} bins are blank on average`);
  }
  const own = await follow(t, folder, found.names, 3);
  for (const [way, losses] of Object.entries(found.followed)) {
    t.ok((losses[2] ?? 0) < (losses[0] ?? 0), `${way} learns: ${losses}`);
    const far = Math.max(...losses.map((loss, i) => Math.abs((own[i] ?? 0) / loss - 1)));
    t.ok(far <= tolerances.f32.network.rtol, `${way}: our losses differ by ${far}`);
  }
  for (const [way, losses] of Object.entries(found.learnt)) {
    // With dropout, and other stripes and mixtures each time.
    t.ok(Math.min(...losses) > 0.3 && Math.max(...losses) < 2, `${way}: ${losses}`);
  }
  // Cnn14: six blocks and two of the head; ResNet38: 16 inside, three between, two; each SpecAugment.
  const drops = { Cnn14: 9, ResNet38: 22, MobileNetV1: 2, Wavegram_Logmel_Cnn14: 9 };
  t.same(found.drops, drops);
});
