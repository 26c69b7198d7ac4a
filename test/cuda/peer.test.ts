import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';

const root = join(import.meta.dirname, '..', '..');
const python = process.env.PANNS_PYTHON;
const skip = python ? false : 'PANNS_PYTHON names no Python with torch';

/** Of PyTorch's side of bench/gpu.mjs, on the CPU: what it computes beside the oracle's networks. */
const program = `
import json, sys
from pathlib import Path

root = Path(sys.argv[1])
work = {"kind": "train", "device": "cpu", "model": "Cnn6", "precision": "fp32", "batch": 2,
        "samples": 16000, "steps": 1, "seed": int(sys.argv[2])}
sys.argv = ["torch_gpu.py", json.dumps(work)]
sys.path[:0] = [str(root / "bench"), str(root / "test" / "oracle")]
import ops
import torch
import torch_gpu as peer

torch.manual_seed(work["seed"])
front = {"sample_rate": 32000, "window_size": 1024, "hop_size": 320, "mel_bins": 64, "fmin": 50, "fmax": 14000}
wave = torch.randn(2, 16000, dtype=torch.float64) / 4
logmel = (peer.logmel(front, wave.float()) - ops.logmel(front, wave)).abs().max().item()

ones = torch.ones(400, 1, 200, 64)
kept = peer.blank(ones)
rows, columns = kept.amax((1, 3)), kept.amax((1, 2))  # 0 where a whole frame, or bin, is blank
stripes = [(200 - rows.sum(1)).tolist(), (64 - columns.sum(1)).tolist()]

before = {k: v.clone() for k, v in peer.load_models().build("Cnn6", 527).state_dict().items()}
step = peer.prepare()
losses = [step().item() for _ in range(3)]
drops = {}
for name in ("Cnn14", "ResNet38", "MobileNetV1"):
    net = peer.load_models().build(name, 4)
    peer.randomise(net)
    drops[name] = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
print(json.dumps({"logmel": logmel, "stripes": stripes, "losses": losses, "drops": drops, "tensors": len(before)}))
`;

t.test('PyTorch’s side does the same work', { skip, timeout: 600_000 }, async (t) => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.comment(`seed ${seed}`);
  const { status, stdout, stderr } = spawnSync(python ?? '', ['-c', program, root, String(seed)], {
    encoding: 'utf8',
    env: { ...process.env, OMP_NUM_THREADS: '1' },
  });
  t.equal(status, 0, stderr);
  const found = JSON.parse(stdout) as {
    logmel: number;
    stripes: [number[], number[]];
    losses: number[];
    drops: Record<string, number>;
  };
  // float32 against float64, in dB: noise has no bin near the floor of the logarithm.
  t.ok(found.logmel < 1e-3, `log-mel differs from the oracle's by ${found.logmel} dB`);
  const mean = (list: number[]) => list.reduce((a, b) => a + b, 0) / list.length;
  const [frames, bins] = found.stripes;
  // Two stripes of 0..63 frames and of 0..7 bins, of which some overlap.
  t.ok(Math.max(...frames) <= 126 && Math.max(...bins) <= 14);
  t.ok(Math.abs(mean(frames) - 58) < 8, `${mean(frames)} frames are blank on average`);
  t.ok(Math.abs(mean(bins) - 6.8) < 1, `${mean(bins)} bins are blank on average`);
  t.ok(
    found.losses.every((loss) => loss > 0 && loss < 1.5),
    String(found.losses),
  );
  t.ok((found.losses[2] ?? 0) < (found.losses[0] ?? 0), `it learns: ${found.losses}`);
  // Cnn14: six blocks and two of the head; ResNet38: 16 inside, three between, two; each SpecAugment.
  t.same(found.drops, { Cnn14: 9, ResNet38: 22, MobileNetV1: 2 });
});
