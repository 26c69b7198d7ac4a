"""The networks that read the waveform: LeeNet, DaiNet, Res1dNet."""

from functools import partial

import torch.nn.functional as F
from torch import nn

from .parts import Tagger, mixed


def conv(inputs, outputs, dilation=1, stride=1):
    return nn.Conv1d(inputs, outputs, 3, stride, dilation, dilation, bias=False)


class WaveformTagger(Tagger):
    """Samples (N, S) through body, (N, 1, S) to (N, C, T)."""

    def forward(self, waveform, weights=None):
        x = mixed(waveform.to(self.fc1.weight.dtype), weights)
        return self.head(self.body(x[:, None]))


class LeeBlock(nn.Module):
    """One or two convolutions with norm and ReLU; then a maximum over windows that overlap the ends."""

    def __init__(self, inputs, outputs, count, stride, pool):
        super().__init__()
        self.count, self.pool = count, pool
        self.conv1 = conv(inputs, outputs, stride=stride)
        if count == 2:
            self.conv2 = conv(outputs, outputs)
        for i in range(count):
            self.add_module(f"bn{i + 1}", nn.BatchNorm1d(outputs))

    def forward(self, x):
        for i in range(1, self.count + 1):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return F.max_pool1d(x, self.pool, padding=self.pool // 2)


class LeeNet(WaveformTagger):
    def __init__(self, classes, channels, convs, pools, embedding):
        super().__init__()
        for i, (inputs, outputs) in enumerate(zip([1, *channels], channels)):
            block = LeeBlock(inputs, outputs, convs, 3 if i == 0 else 1, pools[i])
            self.add_module(f"conv_block{i + 1}", block)
        self.count = len(channels)
        self.add_head(channels[-1], embedding, classes)

    def body(self, x):
        for i in range(1, self.count + 1):
            x = getattr(self, f"conv_block{i}")(x)
        return x


class DaiBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        for i in range(4):
            self.add_module(f"conv{i + 1}", conv(inputs if i == 0 else outputs, outputs))
        self.downsample = nn.Conv1d(inputs, outputs, 1, bias=False)
        for i in range(4):
            self.add_module(f"bn{i + 1}", nn.BatchNorm1d(outputs))
        self.bn_downsample = nn.BatchNorm1d(outputs)
        self.same = inputs == outputs

    def forward(self, x):
        y = x
        for i in range(1, 5):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < 4 else y
        return F.relu(y + (x if self.same else self.bn_downsample(self.downsample(x))))


class DaiNet(WaveformTagger):
    # The first block keeps its channels, and adds its input as it is.
    dead = ("conv_block1.downsample.", "conv_block1.bn_downsample.")

    def __init__(self, classes):
        super().__init__()
        self.conv0 = nn.Conv1d(1, 64, 80, 4, bias=False)
        self.bn0 = nn.BatchNorm1d(64)
        for i, (inputs, outputs) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)]):
            self.add_module(f"conv_block{i + 1}", DaiBlock(inputs, outputs))
        self.add_head(512, 512, classes)

    def body(self, x):
        x = self.conv_block1(self.bn0(self.conv0(x)))
        for i in range(2, 5):
            x = getattr(self, f"conv_block{i}")(F.max_pool1d(x, 4))
        return x


class Res1dBlock(nn.Module):
    """The main path shrinks by the maximum, the shortcut by the mean."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = conv(inputs, outputs), nn.BatchNorm1d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, dilation=2), nn.BatchNorm1d(outputs)
        self.downsample = nn.Identity()
        if stride > 1 or inputs != outputs:
            project = nn.Conv1d(inputs, outputs, 1, bias=False)
            self.downsample = nn.Sequential(nn.AvgPool1d(stride), project, nn.BatchNorm1d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(F.max_pool1d(x, self.stride))))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Res1dNet(WaveformTagger):
    def __init__(self, classes, depths):
        super().__init__()
        self.conv0 = nn.Conv1d(1, 64, 11, 5, 5, bias=False)
        self.bn0 = nn.BatchNorm1d(64)
        self.resnet = nn.Sequential()
        inputs = 64
        for i, outputs in enumerate([64, 128, 256, 512, 1024, 1024, 2048]):
            layer = nn.Sequential()
            for b in range(depths[i]):
                layer.append(Res1dBlock(inputs, outputs, 4 if i > 0 and b == 0 else 1))
                inputs = outputs
            self.resnet.add_module(f"layer{i + 1}", layer)
        self.add_head(2048, 2048, classes)

    def body(self, x):
        return self.resnet(self.bn0(self.conv0(x)))


LEE11 = [64, 64, 64, 128, 128, 128, 128, 128, 256]
LEE24 = [64, 96, 128, 128, 256, 256, 512, 512, 1024]
ROWS = {
    "LeeNet11": partial(LeeNet, channels=LEE11, convs=1, pools=[1, *[3] * 8], embedding=512),
    "LeeNet24": partial(LeeNet, channels=LEE24, convs=2, pools=[1, *[3] * 7, 1], embedding=1024),
    "DaiNet19": DaiNet,
    "Res1dNet31": partial(Res1dNet, depths=[2] * 7),
    "Res1dNet51": partial(Res1dNet, depths=[2, 3, 4, 6, 4, 3, 2]),
}
