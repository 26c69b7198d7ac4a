"""The plain convolutional PANNs as PyTorch modules, in float64 unless asked otherwise."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import ops

FRONT = {
    "sample_rate": 32000,
    "window_size": 1024,
    "hop_size": 320,
    "mel_bins": 64,
    "fmin": 50,
    "fmax": 14000,
}


class Block(nn.Module):
    """One 5x5 or two 3x3 convolutions, each with its norm and ReLU; then a mean pool."""

    def __init__(self, inputs, outputs, kernel, pool):
        super().__init__()
        self.pool, self.count = pool, 1 if kernel == 5 else 2
        for i in range(self.count):
            of = inputs if i == 0 else outputs
            self.add_module(f"conv{i + 1}", nn.Conv2d(of, outputs, kernel, padding=kernel // 2, bias=False))
        for i in range(self.count):
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(outputs))

    def forward(self, x):
        for i in range(1, self.count + 1):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return F.avg_pool2d(x, self.pool)


class Cnn(nn.Module):
    def __init__(self, kernel, channels, pools, embedding, classes):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(FRONT["mel_bins"])
        for i, (inputs, outputs) in enumerate(zip([1, *channels], channels)):
            self.add_module(f"conv_block{i + 1}", Block(inputs, outputs, kernel, pools[i]))
        self.blocks = len(channels)
        self.fc1 = nn.Linear(channels[-1], embedding)
        self.fc_audioset = nn.Linear(embedding, classes)

    def forward(self, waveform, weights=None):
        """No dropout and no SpecAugment: those are random."""
        x = ops.logmel(FRONT, waveform).to(self.fc1.weight.dtype)
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        if weights is not None:
            x = ops.mixup({}, x, weights)
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"conv_block{i}")(x)
        x = x.mean(3)
        x = x.amax(2) + x.mean(2)
        embedding = F.relu(self.fc1(x))
        return embedding, self.fc_audioset(embedding)


ROWS = {
    "Cnn6": (5, [64, 128, 256, 512], [2] * 4, 512),
    "Cnn10": (3, [64, 128, 256, 512], [2] * 4, 512),
    "Cnn14": (3, [64, 128, 256, 512, 1024, 2048], [2] * 5 + [1], 2048),
}
made = {}


def create(header, arrays):
    """A model of "row" whose state is given by "names"; every tensor must be named."""
    dtype = getattr(torch, header.get("dtype", "float64"))
    with torch.device("meta"):
        model = Cnn(*ROWS[header["row"]], header["classes"])
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    state = {
        name: torch.from_numpy(x.copy()).reshape(shapes[name]).to(dtype)
        for name, x in zip(header["names"], arrays)
    }
    for name in shapes:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
    model.load_state_dict(state, assign=True)
    made[header["row"]] = model
    return {}, []


def infer(header, arrays):
    model = made[header["row"]].eval()
    waveform = torch.from_numpy(arrays[0].astype(np.float64)).reshape(header["batch"], -1)
    with torch.no_grad():
        embedding, logits = model(waveform)
    scores = logits.softmax(1) if header["activation"] == "softmax" else torch.sigmoid(logits)
    return {}, [embedding.numpy(), logits.numpy(), scores.numpy()]


def train(header, arrays):
    """Steps on (waveform, target[, lambda]) triples, one after another.

    Replies with each loss; the gradients of the first step (names in "gradients"), the running
    statistics after it (names in "buffers"), and the parameters at the end where "final" asks.
    """
    model = made[header["row"]].train()
    dtype = model.fc1.weight.dtype
    clips, mixed = header["clips"], header["mixup"]
    o = ops.optimizer(header["kind"], header["attrs"], model.parameters(), header["lr"])
    losses, first, buffers = [], [], {}
    given = 3 if mixed else 2
    for i in range(0, len(arrays), given):
        waveform = torch.from_numpy(arrays[i].astype(np.float64)).reshape(clips, -1)
        target = torch.from_numpy(arrays[i + 1].copy()).reshape(clips, -1).to(dtype)
        weights = torch.from_numpy(arrays[i + 2].copy()).to(dtype) if mixed else None
        _, logits = model(waveform, weights)
        # float32's lambda and 1 - lambda may add up to a little more than one.
        target = ops.mixup({}, target, weights).clamp(0, 1) if mixed else target
        if header["loss"] == "bce":
            loss = F.binary_cross_entropy(torch.sigmoid(logits), target)
        else:
            loss = F.cross_entropy(logits, target)
        o.zero_grad()
        loss.backward()
        if i == 0:
            first = [p.grad.numpy().copy() for p in model.parameters()]
            buffers = {k: v.numpy().copy() for k, v in model.named_buffers() if v.dim() > 0}
        o.step()
        losses.append(loss.item())
    names = [k for k, _ in model.named_parameters()]
    reply = {"losses": losses, "gradients": names, "buffers": list(buffers)}
    return reply, first + list(buffers.values())
