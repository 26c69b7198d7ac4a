"""What the models share: the front-end, the convolution block, mixup, the tagging head."""

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


def mixed(x, weights):
    return x if weights is None else ops.mixup({}, x, weights)


def normed_logmel(front, bn0, waveform):
    """(N, S) to (N, 1, T, F), each bin of which has its own norm."""
    x = ops.logmel(front, waveform).to(bn0.weight.dtype)
    return bn0(x.transpose(1, 3)).transpose(1, 3)


class Block(nn.Module):
    """One 5x5 or two 3x3 convolutions, each with its norm and ReLU; then a mean pool."""

    def __init__(self, inputs, outputs, kernel=3, pool=2):
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


class Tagger(nn.Module):
    """A network that ends in fc1 and fc_audioset; those are added last, as in the state dicts."""

    # How near to a kink of its head the last clips came, in standard deviations of what has it.
    margin = None

    def add_head(self, channels, embedding, classes):
        self.fc1 = nn.Linear(channels, embedding)
        self.fc_audioset = nn.Linear(embedding, classes)

    def head(self, x):
        """(N, C, T) or (N, C, T, F) to an embedding and logits."""
        x = x.mean(3) if x.dim() == 4 else x
        inner = self.fc1(x.amax(2) + x.mean(2))
        self.margin = (inner.abs().min() / inner.std()).item()
        if x.shape[2] > 1:
            top = x.detach().topk(2, 2).values
            gap = top[..., 0] - top[..., 1]
            # Equals are what a ReLU has cut off, and have no gradient.
            gap[gap == 0] = torch.inf
            self.margin = min(self.margin, (gap.min() / x.std()).item())
        embedding = F.relu(inner)
        return {"embedding": embedding, "logits": self.fc_audioset(embedding)}
