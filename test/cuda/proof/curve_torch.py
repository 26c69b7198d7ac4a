"""PyTorch's side of curve.mjs: gradients of first steps, and the losses of some hundred.

Each line of stdin is a case in JSON, each line of stdout its answer. Weights, clips, targets, the order
of the clips and mixup's weights come in the file of ours that a case names; the networks are those of
test/oracle/models, which have neither dropout nor SpecAugment.
"""

import json
import math
import os
import sys
import time
import types
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The largest relative error of one rounding.
ROUNDOFF = {"fp32": 2**-24, "bf16": 2**-8, "fp16": 2**-11}
FIRST_LOSS_SCALE = 65536

bank = None  # (frequencies, bins) of the file


def logmel(front, waveform):
    """(N, S) to (N, 1, T, F), in the samples' own precision."""
    window = torch.hann_window(front["window_size"], dtype=waveform.dtype, device=waveform.device)
    with torch.autocast(waveform.device.type, enabled=False):
        spectrum = torch.stft(
            waveform, front["window_size"], front["hop_size"], window=window, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        bands = power.transpose(1, 2) @ bank.to(waveform.dtype)
        return 10 * torch.log10(bands.clamp(min=1e-10))[:, None]


def mixup(attrs, x, weights):
    w = weights.reshape(-1, *[1] * (x.dim() - 1))
    return x[0::2] * w[0::2] + x[1::2] * w[1::2]


def load_models():
    """test/oracle/models over the front-end from here: the oracle's own needs librosa and a CPU."""
    ops = types.ModuleType("ops")
    ops.logmel, ops.mixup = logmel, mixup
    sys.modules["ops"] = ops
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "oracle"))
    import models

    return models


class Case:
    def __init__(self, case, device):
        global bank
        self.precision, self.lr, self.device = case["precision"], case["lr"], device
        self.name, self.classes = case["model"], case["classes"]
        state = load_file(case["start"], device=str(device))
        run = {k: state.pop(f"run.{k}") for k in ("clips", "targets", "order", "lambda")}
        bank = state.pop("logmel_extractor.melW")
        self.state, self.clips, self.targets = state, run["clips"], run["targets"]
        self.order, self.weights = run["order"].long(), run["lambda"]

    def build(self, dtype=torch.float32):
        net = load_models().build(self.name, self.classes)
        missing, unexpected = net.load_state_dict(self.state, strict=False)
        missing = [k for k in missing if not k.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise ValueError(f"missing {missing}, unexpected {unexpected}")
        channels_last = self.device.type == "cuda"
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return net.to(device=self.device, dtype=dtype, memory_format=layout).train()

    def loss(self, net, rows, weights, half=None):
        """Of the mixture of pairs of clips; BCE of float scores, as PANNs has it."""
        dtype = net.fc1.weight.dtype
        weights = weights.to(dtype)
        waveform = self.clips[rows].to(dtype) / 32767
        with torch.autocast(self.device.type, half, enabled=half is not None):
            logits = net(waveform, weights)["logits"]
        # float32's lambda and 1 - lambda may add up to a little more than one.
        target = mixup({}, self.targets[rows].to(dtype), weights).clamp(0, 1)
        return F.binary_cross_entropy(logits.to(dtype).sigmoid(), target)

    def gradient(self, step, dtype=torch.float32, half=None):
        """By name, in float64; in float16 with a loss scale that does not overflow."""
        scale = FIRST_LOSS_SCALE if half == torch.float16 else 1
        while True:
            net = self.build(dtype)
            (scale * self.loss(net, self.order[step], self.weights[step], half)).backward()
            found = {k: p.grad.double() / scale for k, p in net.named_parameters()}
            if scale == 1 or all(g.isfinite().all() for g in found.values()):
                return found
            scale /= 2

    def train(self, seed):
        """Losses of all steps, and how many of them were left out; with a seed, of a rerun.

        A rerun is as right, and rounds otherwise: channels and examples are in another order, in which
        sums are added up, and weights are moved by no more than rounding them to the precision may.
        """
        half = HALVES.get(self.precision)
        net, order, weights = self.build(), self.order, self.weights
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            reorder_channels(net, generator)
            move_weights(net, ROUNDOFF[self.precision], generator)
            pairs = torch.randperm(order.shape[1] // 2, generator=generator)
            order, weights = (x.view(len(x), -1, 2)[:, pairs].flatten(1) for x in (order, weights))
        adam = torch.optim.Adam(net.parameters(), lr=self.lr, amsgrad=True)
        scaled = self.precision == "fp16"
        scaler = torch.amp.GradScaler(
            self.device.type, init_scale=FIRST_LOSS_SCALE, growth_interval=2000, enabled=scaled
        )
        losses = []
        for rows, lambdas in zip(order, weights):
            adam.zero_grad()
            loss = self.loss(net, rows, lambdas, half)
            scaler.scale(loss).backward()
            scaler.step(adam)
            scaler.update()
            losses.append(loss.detach())
        left_out = round(math.log2(FIRST_LOSS_SCALE / scaler.get_scale())) if scaled else 0
        return torch.stack(losses).tolist(), left_out


def reorder_channels(net, generator):
    """Another order of the channels between layers, in which the network computes the same."""

    def pick(tensor, *index):
        tensor.data = tensor.data[index].contiguous()

    order = None
    for name, conv in net.named_modules():
        if not isinstance(conv, torch.nn.Conv2d):
            continue
        if order is not None:
            pick(conv.weight, slice(None), order)
        order = torch.randperm(len(conv.weight), generator=generator).to(conv.weight.device)
        norm = net.get_submodule(f"{name[:-5]}bn{name[-1]}")  # of conv1: bn1
        for tensor in (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            pick(tensor, order)
    pick(net.fc1.weight, slice(None), order)
    order = torch.randperm(len(net.fc1.weight), generator=generator).to(order.device)
    for tensor in (net.fc1.weight, net.fc1.bias):
        pick(tensor, order)
    pick(net.fc_audioset.weight, slice(None), order)


def move_weights(net, by, generator):
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            w = module.weight.data
            moved = 2 * torch.rand(w.shape, generator=generator) - 1
            w *= 1 + by * moved.to(w.device)


def difference(got, want):
    """||got - want|| / ||want||, and the cosine between them, over all parameters at once."""
    inner = sum((got[k] * want[k]).sum() for k in want).item()
    ours, theirs = (sum(x[k].square().sum() for k in want).sqrt().item() for x in (got, want))
    apart = sum((got[k] - want[k]).square().sum() for k in want).sqrt().item()
    return {"error": apart / theirs, "cosine": inner / (ours * theirs)}


def compare_gradients(case, file):
    """Of ours, "<step>/<name>" in a file, and of PyTorch's, from those in float64."""
    found, rows = load_file(file, device=str(case.device)), []
    for step in sorted({int(k.split("/")[0]) for k in found}):
        truth = case.gradient(step, torch.float64)
        ours = {k: found[f"{step}/{k}"].double().reshape(g.shape) for k, g in truth.items()}
        theirs = case.gradient(step, half=HALVES.get(case.precision))
        rows.append({"own": difference(ours, truth), "torch": difference(theirs, truth)})
    return rows


def answer(request):
    device = torch.device(request["device"])
    if request["do"] == "hello":
        available = device.type == "cpu" or torch.cuda.is_available()
        about = {"torch": torch.__version__, "cuda": torch.version.cuda}
        return {**about, "missing": None if available else "this PyTorch sees no GPU"}
    case = Case(request, device)
    gradients = compare_gradients(case, request["gradients"])
    began = time.perf_counter()
    runs = [case.train(seed) for seed in (None, *request["reruns"])]
    return {
        "gradients": gradients,
        "losses": [losses for losses, _ in runs],
        "leftOut": [count for _, count in runs],
        "seconds": time.perf_counter() - began,
    }


def plain(value):
    """With null where JSON knows no number."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main():
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    # float32 stays float32, as ours does.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for line in sys.stdin:
        print(json.dumps(plain(answer(json.loads(line)))), file=sink, flush=True)


if __name__ == "__main__":
    main()
