"""ResNet22, 38 and 54: strides are mean pools before the convolutions."""

from functools import partial

import torch.nn.functional as F
from torch import nn

from .parts import FRONT, Block, Tagger, mixed, normed_logmel


class Residual(nn.Module):
    """A mean pool, then convolutions of the given (outputs, kernel) with norms, around them a shortcut."""

    def __init__(self, inputs, convs, stride):
        super().__init__()
        self.stride, self.count = stride, len(convs)
        outputs, of = convs[-1][0], inputs
        for i, (channels, kernel) in enumerate(convs):
            self.add_module(f"conv{i + 1}", nn.Conv2d(of, channels, kernel, padding=kernel // 2, bias=False))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(channels))
            of = channels
        project = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        if stride > 1:
            self.downsample = nn.Sequential(nn.AvgPool2d(stride), *project)
        elif inputs != outputs:
            self.downsample = nn.Sequential(*project)
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        y = F.avg_pool2d(x, self.stride)
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + self.downsample(x))


def basic(planes):
    return [(planes, 3), (planes, 3)]


def bottleneck(planes):
    return [(planes, 1), (planes, 3), (4 * planes, 1)]


class ResNet(Tagger):
    def __init__(self, classes, depths, block):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(FRONT["mel_bins"])
        self.conv_block1 = Block(1, 64)
        self.resnet = nn.Sequential()
        channels = 64
        for i, depth in enumerate(depths):
            layer = nn.Sequential()
            for b in range(depth):
                convs = block(64 << i)
                layer.append(Residual(channels, convs, 2 if i > 0 and b == 0 else 1))
                channels = convs[-1][0]
            self.resnet.add_module(f"layer{i + 1}", layer)
        self.conv_block_after1 = Block(channels, 2048, pool=1)
        self.add_head(2048, 2048, classes)

    def forward(self, waveform, weights=None):
        x = mixed(normed_logmel(FRONT, self.bn0, waveform), weights)
        x = F.avg_pool2d(self.resnet(self.conv_block1(x)), 2)
        return self.head(self.conv_block_after1(x))


ROWS = {
    "ResNet22": partial(ResNet, depths=[2, 2, 2, 2], block=basic),
    "ResNet38": partial(ResNet, depths=[3, 4, 6, 3], block=basic),
    "ResNet54": partial(ResNet, depths=[3, 4, 6, 3], block=bottleneck),
}
