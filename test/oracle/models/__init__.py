"""PANNs and EfficientAT's MobileNetV3 as PyTorch modules, named and ordered as in the published state dicts.

Dropout and SpecAugment are left out: they are random. A model maps samples (N, S), and in training
with mixup one weight a clip, to its named outputs.
"""

from . import cnn, efficientat, mobilenet, resnet, waveform, wavegram

ROWS = {
    name: row
    for module in (cnn, resnet, mobilenet, waveform, wavegram, efficientat)
    for name, row in module.ROWS.items()
}


def build(name, classes):
    """A model with PyTorch's own initial weights; those below one of its `dead` prefixes have no use."""
    return ROWS[name](classes)


def is_dead(model, name):
    return name.startswith(getattr(model, "dead", ()))
