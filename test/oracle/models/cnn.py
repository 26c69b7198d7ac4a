"""Cnn6, Cnn10, Cnn14 and its variants, and the three that detect: Cnn14_DecisionLevel*."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .parts import FRONT, Block, Tagger, mixed, normed_logmel

FOUR = [64, 128, 256, 512]
SIX = [*FOUR, 1024, 2048]


class Trunk(Tagger):
    """Log-mel and blocks; every block halves time and frequency, but for a sixth."""

    def __init__(self, kernel=3, channels=SIX, front=FRONT, mix_waveform=False):
        super().__init__()
        self.front, self.count, self.mix_waveform = front, len(channels), mix_waveform
        self.bn0 = nn.BatchNorm2d(front["mel_bins"])
        for i, (inputs, outputs) in enumerate(zip([1, *channels], channels)):
            self.add_module(f"conv_block{i + 1}", Block(inputs, outputs, kernel, 1 if i == 5 else 2))

    def trunk(self, waveform, weights):
        if self.mix_waveform:
            waveform, weights = mixed(waveform, weights), None
        x = mixed(normed_logmel(self.front, self.bn0, waveform), weights)
        for i in range(1, self.count + 1):
            x = getattr(self, f"conv_block{i}")(x)
        return x


class Cnn(Trunk):
    def __init__(self, classes, embedding=2048, channels=SIX, **trunk):
        super().__init__(channels=channels, **trunk)
        self.add_head(channels[-1], embedding, classes)

    def forward(self, waveform, weights=None):
        return self.head(self.trunk(waveform, weights))


class Attention(nn.Module):
    """Scores weighted over time; the norm is stored and never used."""

    def __init__(self, channels, classes):
        super().__init__()
        self.att = nn.Conv1d(channels, classes, 1)
        self.cla = nn.Conv1d(channels, classes, 1)
        self.bn_att = nn.BatchNorm1d(classes)

    def forward(self, x):
        """(N, C, S) to scores of clips (N, K) and of segments (N, S, K)."""
        weight = torch.softmax(self.att(x).clamp(-10, 10), 2)
        scores = torch.sigmoid(self.cla(x))
        return (weight * scores).sum(2), scores.transpose(1, 2)


class DecisionLevel(Trunk):
    # Frames that a segment stands for: five pools of two.
    RATIO = 32

    def __init__(self, classes, kind):
        super().__init__()
        self.kind = kind
        if kind == "att":
            self.fc1 = nn.Linear(2048, 2048)
            self.att_block = Attention(2048, classes)
            self.dead = ("att_block.bn_att.",)
        else:
            self.add_head(2048, 2048, classes)

    def forward(self, waveform, weights=None):
        x = self.trunk(waveform, weights).mean(3)
        x = F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)
        x = F.relu(self.fc1(x.transpose(1, 2)))
        if self.kind == "att":
            clips, segments = self.att_block(x.transpose(1, 2))
        else:
            segments = torch.sigmoid(self.fc_audioset(x))
            clips = segments.amax(1) if self.kind == "max" else segments.mean(1)
        frames = torch.arange(waveform.shape[1] // self.front["hop_size"] + 1)
        nearest = (frames // self.RATIO).clamp(max=segments.shape[1] - 1)
        return {"framewise_output": segments[:, nearest], "clipwise_output": clips}


def rate(hz):
    """The front-end at another sample rate: the same windows in seconds, up to half the rate."""
    scale = hz / FRONT["sample_rate"]
    sizes = {k: int(FRONT[k] * scale) for k in ("window_size", "hop_size")}
    return {**FRONT, **sizes, "sample_rate": hz, "fmax": hz // 2}


ROWS = {
    "Cnn6": partial(Cnn, channels=FOUR, embedding=512, kernel=5),
    "Cnn10": partial(Cnn, channels=FOUR, embedding=512),
    "Cnn14": Cnn,
    "Cnn14_no_specaug": Cnn,
    "Cnn14_no_dropout": Cnn,
    "Cnn14_mixup_time_domain": partial(Cnn, mix_waveform=True),
    **{f"Cnn14_emb{e}": partial(Cnn, embedding=e) for e in (512, 128, 32)},
    **{f"Cnn14_mel{m}": partial(Cnn, front={**FRONT, "mel_bins": m}) for m in (32, 128)},
    "Cnn14_16k": partial(Cnn, front=rate(16000)),
    "Cnn14_8k": partial(Cnn, front=rate(8000)),
    **{f"Cnn14_DecisionLevel{k.title()}": partial(DecisionLevel, kind=k) for k in ("max", "avg", "att")},
}
