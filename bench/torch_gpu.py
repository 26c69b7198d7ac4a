"""PyTorch's side of bench/gpu.mjs: training steps and inference of the models of test/oracle/models.

    python torch_gpu.py '{"kind": "train", "model": "Cnn14", "precision": "bf16", "batch": 32, ...}'

The networks are the oracle's, on the device: log-mel in float32 there, channels last, dropout and
SpecAugment as the published models have them. The protocol is that of gpu_own.mjs.
"""

import json
import math
import re
import sys
import time
import types
from pathlib import Path

import torch
import torch.nn.functional as F

CLASSES = 527
SPEC_AUGMENT = ((2, 64), (2, 8))  # stripes and frames or bins each, over time and over frequency

work = json.loads(sys.argv[1])
device = torch.device(work.get("device", "cuda"))
training = work["kind"] == "train"


def hz_to_mel(hz):
    """Slaney's scale: linear to 1 kHz, then logarithmic."""
    return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4)


def mel_to_hz(mel):
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def filter_bank(rate, window, bins, fmin, fmax):
    """(window / 2 + 1, bins): triangles of equal area."""
    low, high = hz_to_mel(fmin), hz_to_mel(fmax)
    corners = [mel_to_hz(low + (high - low) * i / (bins + 1)) for i in range(bins + 2)]
    hz = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    bank = []
    for left, top, right in zip(corners, corners[1:], corners[2:]):
        triangle = torch.minimum((hz - left) / (top - left), (right - hz) / (right - top))
        bank.append(triangle.clamp(min=0) * 2 / (right - left))
    return torch.stack(bank, 1).float().to(device)


constants = {}


def logmel(front, waveform):
    """(N, S) to (N, 1, T, F)."""
    key = tuple(sorted(front.items()))
    if key not in constants:
        bank = filter_bank(*(front[k] for k in ("sample_rate", "window_size", "mel_bins", "fmin", "fmax")))
        constants[key] = torch.hann_window(front["window_size"], device=device), bank
    window, bank = constants[key]
    with torch.autocast(device.type, enabled=False):
        spectrum = torch.stft(
            waveform, front["window_size"], front["hop_size"], window=window, return_complex=True
        )
        bands = spectrum.abs().square().transpose(1, 2) @ bank
        return 10 * torch.log10(bands.clamp(min=1e-10))[:, None]


def blank(x):
    """SpecAugment of (N, 1, T, F): zeroed stripes, other ones in each clip."""
    for axis, (count, widest) in zip((2, 3), SPEC_AUGMENT):
        length = x.shape[axis]
        at = torch.arange(length, device=x.device)
        for _ in range(count):
            width = (torch.rand(len(x), 1, device=x.device) * widest).floor()
            first = (torch.rand(len(x), 1, device=x.device) * (length - width)).floor()
            keep = ~((at >= first) & (at < first + width))
            x = x * (keep[:, None, :, None] if axis == 2 else keep[:, None, None, :])
    return x


def load_models():
    """test/oracle/models with the front-end from here: the oracle's is in float64 on the CPU."""
    ops = types.ModuleType("ops")
    ops.logmel = logmel
    sys.modules["ops"] = ops
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test" / "oracle"))
    import models

    return models


def randomise(net):
    """Dropout and SpecAugment, which the oracle's models leave out."""

    def before(name, p):
        module = net.get_submodule(name)
        module.register_forward_pre_hook(lambda m, args: (F.dropout(args[0], p, m.training), *args[1:]))

    def after(name, p):
        net.get_submodule(name).register_forward_hook(lambda m, args, y: F.dropout(y, p, m.training))

    names = [name for name, _ in net.named_modules()]
    before("fc_audioset", 0.5)
    if not hasattr(net, "features"):
        before("fc1", 0.5)
    for name in names:
        if re.fullmatch(r"conv_block(\d|_after1)", name):
            after(name, 0.2)
        elif re.fullmatch(r"resnet\.layer\d\.\d+\.conv2", name):
            before(name, 0.1)
        elif name == "resnet":
            before("conv_block_after1", 0.2)

    # The norm has frequency in the place of channels: (N, F, T, 1).
    def stripes(norm, args, y):
        return blank(y.transpose(1, 3)).transpose(1, 3) if norm.training else y

    net.bn0.register_forward_hook(stripes)


def prepare():
    precision = work["precision"]
    torch.manual_seed(work.get("seed", 0))
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    net = load_models().build(work["model"], CLASSES)
    randomise(net)
    net = net.to(device=device, memory_format=torch.channels_last).train(training)
    forward = torch.compile(net) if work.get("compile") else net
    halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
    cast = torch.autocast(device.type, halves.get(precision, torch.bfloat16), enabled=precision in halves)
    # As a loader hands clips over: in page-locked memory, copied while the device computes.
    clips = torch.randn(work["batch"], work["samples"]) / 4
    target = (torch.rand(work["batch"], CLASSES) < 0.01).float()
    if device.type == "cuda":
        clips, target = clips.pin_memory(), target.pin_memory()

    def infer():
        with torch.inference_mode(), cast:
            return forward(clips.to(device, non_blocking=True))["logits"].float().sigmoid()

    if not training:
        return infer
    fused = {"fused": True} if device.type == "cuda" else {}
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, amsgrad=True, **fused)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def step():
        adam.zero_grad()
        with cast:
            logits = forward(clips.to(device, non_blocking=True))["logits"]
        loss = F.binary_cross_entropy_with_logits(logits.float(), target.to(device, non_blocking=True))
        scaler.scale(loss).backward()
        scaler.step(adam)
        scaler.update()
        return loss

    return step


def wait():
    if device.type == "cuda":
        torch.cuda.synchronize()


def main():
    run = prepare()
    first = run()
    wait()
    about = {"torch": torch.__version__, "loss": first.item() if training else None}
    if device.type == "cuda":
        about["device"] = torch.cuda.get_device_name()
        about["cudnn"] = torch.backends.cudnn.version()
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        began = time.perf_counter()
        for _ in range(work["steps"]):
            run()
        wait()
        print(f"{(time.perf_counter() - began) / work['steps'] * 1e3:.4f}", flush=True)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0
    print(f"{peak:.0f}", flush=True)


if __name__ == "__main__":
    main()
