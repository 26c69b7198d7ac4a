"""The other side of a case: PyTorch or soxr. The protocol is that of own.mjs."""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np

work = json.loads(sys.argv[1])
peer = sys.argv[2]
rng = np.random.default_rng(1)


def family(training):
    """A network as the tests construct it (test/oracle/models), without dropout and SpecAugment."""
    import torch
    import torch.nn.functional as F

    sys.path.insert(0, str(Path(__file__).parent.parent / "test" / "oracle"))
    import models
    import ops

    window = torch.hann_window(1024)

    def logmel(front, wave):  # in float, with a product of the same size
        spectrum = torch.stft(wave, 1024, front["hop_size"], window=window, return_complex=True)
        power = spectrum.abs().square().transpose(1, 2)
        mel = torch.ones(513, front["mel_bins"])
        return (10 * torch.log10(torch.clamp(power @ mel, min=1e-10)))[:, None]

    ops.logmel = logmel
    torch.manual_seed(0)
    net = models.build(work["model"], 527).float().train(training)
    if peer.endswith("channels_last"):
        net = net.to(memory_format=torch.channels_last)
    forward = net.forward

    def scores(wave):
        out = forward(wave)
        return out["clipwise_output"] if "clipwise_output" in out else out["logits"].sigmoid()

    net.forward = scores
    return torch, F, net


def torch_model(training):
    import torch
    import torch.nn.functional as F
    from torch import nn

    if work["model"] not in ("Cnn6", "Cnn10", "Cnn14"):
        return family(training)
    rows = {"Cnn6": (5, [64, 128, 256, 512]), "Cnn10": (3, [64, 128, 256, 512]),
            "Cnn14": (3, [64, 128, 256, 512, 1024, 2048])}
    kernel, channels = rows[work["model"]]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn0 = nn.BatchNorm2d(64)
            self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
            previous = 1
            for c in channels:
                for _ in range(1 if kernel == 5 else 2):
                    self.convs.append(nn.Conv2d(previous, c, kernel, padding=kernel // 2, bias=False))
                    self.norms.append(nn.BatchNorm2d(c))
                    previous = c
            self.fc1 = nn.Linear(previous, previous)
            self.fc = nn.Linear(previous, 527)

        def forward(self, wave):
            # The cheaper of PyTorch's two ways to a log-mel, so that only the network is compared.
            spectrum = torch.stft(wave, 1024, 320, window=window, center=True, pad_mode="reflect",
                                  return_complex=True).abs().square()
            x = 10 * torch.log10(torch.clamp(spectrum.transpose(1, 2) @ mel, min=1e-10))
            x = self.bn0(x[:, :, :, None].transpose(1, 2)).transpose(1, 2).permute(0, 3, 1, 2)
            per_block = 1 if kernel == 5 else 2
            for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
                x = F.relu_(norm(conv(x)))
                block, last = divmod(i, per_block)
                if last == per_block - 1:
                    if block < 5:
                        x = F.avg_pool2d(x, 2)
                    x = F.dropout(x, 0.2, self.training)
            x = x.mean(3)
            x = F.dropout(x.amax(2) + x.mean(2), 0.5, self.training)
            return torch.sigmoid(self.fc(F.relu_(self.fc1(x))))

    torch.manual_seed(0)
    window = torch.hann_window(1024)
    mel = torch.rand(513, 64)
    net = Net().train(training)
    if peer.endswith("channels_last"):
        net = net.to(memory_format=torch.channels_last)
    return torch, F, net


def prepare():
    kind = work["kind"]
    if kind in ("infer", "train"):
        torch, F, net = torch_model(kind == "train")
        wave = torch.from_numpy(rng.standard_normal((work["batch"], work["samples"]), dtype=np.float32) / 4)
        if kind == "infer":
            def infer():
                with torch.inference_mode():
                    net(wave)
            return infer
        target = (torch.rand(work["batch"], 527) < 0.01).float()
        adam = torch.optim.Adam(net.parameters(), lr=1e-5, fused=True)

        def step():
            adam.zero_grad()
            F.binary_cross_entropy(net(wave), target).backward()
            adam.step()
        return step
    if kind == "logmel":
        import torch
        import torch.nn.functional as F
        wave = torch.from_numpy(rng.standard_normal(work["samples"], dtype=np.float32) / 4)
        window = torch.hann_window(1024)
        mel = torch.rand(513, 64)
        k, n = np.meshgrid(np.arange(513), np.arange(1024), indexing="ij")
        w = np.exp(-2j * np.pi * k * n / 1024) * window.numpy()
        real = torch.from_numpy(w.real.astype(np.float32))[:, None]
        imag = torch.from_numpy(w.imag.astype(np.float32))[:, None]

        def conv():
            with torch.inference_mode():
                x = F.pad(wave[None, None], (512, 512), mode="reflect")
                p = F.conv1d(x, real, stride=320) ** 2 + F.conv1d(x, imag, stride=320) ** 2
                10 * torch.log10(torch.clamp(p.transpose(1, 2) @ mel, min=1e-10))

        def stft():
            with torch.inference_mode():
                s = torch.stft(wave, 1024, 320, window=window, center=True, pad_mode="reflect",
                               return_complex=True).abs().square()
                10 * torch.log10(torch.clamp(s.T @ mel, min=1e-10))
        return conv if peer.endswith("conv1d") else stft
    import soxr
    wave = rng.standard_normal(work["samples"], dtype=np.float32) / 4
    return lambda: soxr.resample(wave, work["from"], work["to"], "HQ")


run = prepare()
repeat = work.get("repeat", 1)
run()
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    began = time.perf_counter()
    for _ in range(repeat):
        run()
    print(f"{(time.perf_counter() - began) / repeat * 1e3:.4f}", flush=True)
print(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1], flush=True)
