"""MobileNetV1 and V2, whose strides are mean pools after the convolution and before its norm."""

from torch import nn

from .parts import FRONT, Tagger, mixed, normed_logmel


def conv(inputs, outputs, kernel=3, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


def pooled(inputs, outputs, stride, activation, groups=1):
    """3x3 convolution, pool, norm, activation."""
    layers = [conv(inputs, outputs, groups=groups), nn.AvgPool2d(stride)]
    return [*layers, nn.BatchNorm2d(outputs), activation()]


def pointwise(inputs, outputs, *activation):
    return [conv(inputs, outputs, 1), nn.BatchNorm2d(outputs), *activation]


class MobileNet(Tagger):
    def __init__(self, features, channels, classes):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(FRONT["mel_bins"])
        self.features = nn.Sequential(*features)
        self.add_head(channels, 1024, classes)

    def forward(self, waveform, weights=None):
        return self.head(self.features(mixed(normed_logmel(FRONT, self.bn0, waveform), weights)))


def v1(classes):
    features, inputs = [nn.Sequential(*pooled(1, 32, 2, nn.ReLU))], 32
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for outputs, stride in rows:
        depthwise = pooled(inputs, inputs, stride, nn.ReLU, groups=inputs)
        features.append(nn.Sequential(*depthwise, *pointwise(inputs, outputs, nn.ReLU())))
        inputs = outputs
    return MobileNet(features, 1024, classes)


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, expansion, stride):
        super().__init__()
        inside = inputs * expansion
        expand = pointwise(inputs, inside, nn.ReLU6()) if expansion > 1 else []
        depthwise = pooled(inside, inside, stride, nn.ReLU6, groups=inside)
        self.conv = nn.Sequential(*expand, *depthwise, *pointwise(inside, outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        return self.conv(x) + x if self.shortcut else self.conv(x)


def v2(classes):
    features, inputs = [nn.Sequential(*pooled(1, 32, 2, nn.ReLU6))], 32
    rows = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 2),
        (6, 160, 3, 1),
        (6, 320, 1, 1),
    ]
    for expansion, outputs, count, stride in rows:
        for i in range(count):
            features.append(Inverted(inputs, outputs, expansion, stride if i == 0 else 1))
            inputs = outputs
    features.append(nn.Sequential(*pointwise(inputs, 1280, nn.ReLU6())))
    return MobileNet(features, 1280, classes)


ROWS = {"MobileNetV1": v1, "MobileNetV2": v2}
