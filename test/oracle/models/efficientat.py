"""EfficientAT's MobileNetV3, mn01 to mn40: the number is ten times the width."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import ops

from .parts import mixed

FRONT = {
    "sample_rate": 32000,
    "window_size": 1024,
    "window_length": 800,
    "periodic": False,
    "hop_size": 320,
    "preemphasis": 0.97,
    "mel_bins": 128,
    "mel_scale": "kaldi",
    "fmin": 0,
    "fmax": 15000,
    "log": "natural",
    "shift": 4.5,
    "scale": 0.2,
}

# Kernel, channels inside, channels out, whether channels are weighted, activation, stride.
BLOCKS = [
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
]


def eights(count):
    """The nearest multiple of 8 that is not more than a tenth below."""
    nearest = max(8, int(count + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * count else nearest


def layer(inputs, outputs, kernel, activation=None, stride=1, groups=1):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    return nn.Sequential(conv, norm, *([activation()] if activation else []))


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        fewer = eights(channels // 4)
        self.fc1, self.fc2 = nn.Linear(channels, fewer), nn.Linear(fewer, channels)

    def forward(self, x):
        weight = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x * weight[:, :, None, None]


class Squeezes(nn.Module):
    """One, as published: the name allows for others over time and frequency."""

    def __init__(self, channels):
        super().__init__()
        self.conc_se_layers = nn.ModuleList([Squeeze(channels)])

    def forward(self, x):
        return self.conc_se_layers[0](x)


class Inverted(nn.Module):
    def __init__(self, inputs, kernel, inside, outputs, squeeze, activation, stride):
        super().__init__()
        self.block = nn.Sequential()
        if inside != inputs:
            self.block.append(layer(inputs, inside, 1, activation))
        self.block.append(layer(inside, inside, kernel, activation, stride, groups=inside))
        if squeeze:
            self.block.append(Squeezes(inside))
        self.block.append(layer(inside, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        return self.block(x) + x if self.shortcut else self.block(x)


class MobileNetV3(nn.Module):
    # PyTorch's height is frequency here, and so it is in the weights.
    frequency_first = True

    def __init__(self, classes, width):
        super().__init__()
        inputs = eights(16 * width)
        self.features = nn.Sequential(layer(1, inputs, 3, nn.Hardswish, 2))
        for kernel, inside, outputs, *rest in BLOCKS:
            self.features.append(Inverted(inputs, kernel, eights(inside * width), eights(outputs * width), *rest))
            inputs = eights(outputs * width)
        self.features.append(layer(inputs, 6 * inputs, 1, nn.Hardswish))
        hidden = eights(1280 * width)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6 * inputs, hidden),
            nn.Hardswish(),
            nn.Identity(),
            nn.Linear(hidden, classes),
        )

    def forward(self, waveform, weights=None):
        x = mixed(ops.logmel(FRONT, waveform), weights).to(self.classifier[2].weight.dtype)
        x = self.features(x.transpose(2, 3))
        return {"embedding": x.mean((2, 3)), "logits": self.classifier(x)}


ROWS = {
    f"mn{ten:02d}": partial(MobileNetV3, width=ten / 10)
    for ten in (1, 2, 4, 5, 6, 8, 10, 12, 14, 16, 20, 30, 40)
}
