"""The Wavegram networks: features learned from the waveform, alone or beside a log-mel."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .parts import FRONT, Block, Tagger, mixed, normed_logmel


class PreBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=2, dilation=2, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm1d(outputs), nn.BatchNorm1d(outputs)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return F.max_pool1d(F.relu(self.bn2(self.conv2(x))), 4)


class Wavegram(Tagger):
    """Cnn14 over a wavegram of `bins` bins; with a log-mel, their channels stand side by side."""

    GROUPS = 4

    def __init__(self, classes, bins, logmel):
        super().__init__()
        self.bins, self.logmel = bins, logmel
        # The log-mel's layers are stored where nothing uses them, too.
        self.dead = () if logmel else ("bn0.", "conv_block1.")
        # conv_block1 halves the log-mel's.
        self.front = {**FRONT, "mel_bins": 2 * bins}
        self.pre_conv0 = nn.Conv1d(1, 64, 11, 5, 5, bias=False)
        self.pre_bn0 = nn.BatchNorm1d(64)
        for i, (inputs, outputs) in enumerate([(64, 64), (64, 128), (128, self.GROUPS * bins)]):
            self.add_module(f"pre_block{i + 1}", PreBlock(inputs, outputs))
        self.pre_block4 = Block(self.GROUPS, 64, pool=(2, 1))
        self.bn0 = nn.BatchNorm2d(2 * bins)
        self.conv_block1 = Block(1, 64)
        channels = [128 if logmel else 64, 128, 256, 512, 1024, 2048]
        for i in range(5):
            self.add_module(f"conv_block{i + 2}", Block(*channels[i : i + 2], pool=1 if i == 4 else 2))
        self.add_head(2048, 2048, classes)

    def wavegram(self, waveform):
        x = F.relu(self.pre_bn0(self.pre_conv0(waveform.to(self.fc1.weight.dtype)[:, None])))
        for i in range(1, 4):
            x = getattr(self, f"pre_block{i}")(x)
        n, _, frames = x.shape
        return self.pre_block4(x.reshape(n, self.GROUPS, self.bins, frames).transpose(2, 3))

    def forward(self, waveform, weights=None):
        x = mixed(self.wavegram(waveform), weights)
        if self.logmel:
            logmel = mixed(normed_logmel(self.front, self.bn0, waveform), weights)
            x = torch.cat([self.conv_block1(logmel), x], 1)
        for i in range(2, 7):
            x = getattr(self, f"conv_block{i}")(x)
        return self.head(x)


ROWS = {
    "Wavegram_Cnn14": partial(Wavegram, bins=32, logmel=False),
    "Wavegram_Logmel_Cnn14": partial(Wavegram, bins=32, logmel=True),
    "Wavegram_Logmel128_Cnn14": partial(Wavegram, bins=64, logmel=True),
}
