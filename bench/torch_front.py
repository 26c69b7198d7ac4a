"""Log-mel and augmentation for PyTorch's side of bench/gpu.mjs, in float32 on the device.

Each in two ways: as PyTorch does it best, and as the published recipe does it.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

SPEC_AUGMENT = ((2, 64), (2, 8))  # stripes and frames or bins each, over time and over frequency


def hz_to_mel(hz):
    """Slaney's scale: linear to 1 kHz, then logarithmic."""
    return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4)


def mel_to_hz(mel):
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def filter_bank(rate, window, bins, fmin, fmax):
    """(window / 2 + 1, bins): triangles of equal area."""
    low, high = hz_to_mel(fmin), hz_to_mel(fmax)
    corners = [mel_to_hz(low + (high - low) * i / (bins + 1)) for i in range(bins + 2)]
    hz = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    bank = []
    for left, top, right in zip(corners, corners[1:], corners[2:]):
        triangle = torch.minimum((hz - left) / (top - left), (right - hz) / (right - top))
        bank.append(triangle.clamp(min=0) * 2 / (right - left))
    return torch.stack(bank, 1).float()


class LogMel(nn.Module):
    """(N, S) to (N, 1, T, F) in dB: by torch.stft, or by two convolutions with the DFT's rows."""

    def __init__(self, front, published):
        super().__init__()
        self.size, self.hop = front["window_size"], front["hop_size"]
        bank = filter_bank(*(front[k] for k in ("sample_rate", "window_size", "mel_bins", "fmin", "fmax")))
        window = torch.hann_window(self.size, dtype=torch.float64)
        self.register_buffer("bank", bank)
        if published:
            angle = torch.outer(torch.arange(self.size // 2 + 1), torch.arange(self.size))
            angle = angle.double() * (2 * math.pi / self.size)
            self.register_buffer("real", (angle.cos() * window).float()[:, None])
            self.register_buffer("imaginary", (-angle.sin() * window).float()[:, None])
            self.power = self.convolved
        else:
            self.register_buffer("window", window.float())
            self.power = self.transformed

    def transformed(self, waves):
        spectrum = torch.stft(waves, self.size, self.hop, window=self.window, return_complex=True)
        return spectrum.abs().square()

    def convolved(self, waves):
        padded = F.pad(waves[:, None], (self.size // 2, self.size // 2), mode="reflect")
        real, imaginary = (F.conv1d(padded, rows, stride=self.hop) for rows in (self.real, self.imaginary))
        return real**2 + imaginary**2

    def forward(self, waves):
        with torch.autocast(waves.device.type, enabled=False):
            bands = self.power(waves.float()).transpose(1, 2) @ self.bank
            return 10 * torch.log10(bands.clamp(min=1e-10))[:, None]


def blank(x):
    """SpecAugment of (N, 1, T, F): zeroed stripes, other ones in each clip."""
    for axis, (count, widest) in zip((2, 3), SPEC_AUGMENT):
        length = x.shape[axis]
        at = torch.arange(length, device=x.device)
        for _ in range(count):
            width = (torch.rand(len(x), 1, device=x.device) * widest).floor()
            first = (torch.rand(len(x), 1, device=x.device) * (length - width)).floor()
            keep = ~((at >= first) & (at < first + width))
            x = x * (keep[:, None, :, None] if axis == 2 else keep[:, None, None, :])
    return x


def blank_in_place(x):
    """The same as it was published: drawn on the host, a write for each stripe of each clip."""
    for row in range(len(x)):
        for axis, (count, widest) in zip((1, 2), SPEC_AUGMENT):
            length = x.shape[axis + 1]
            for _ in range(count):
                width = torch.randint(min(widest, length), ()).item()
                first = torch.randint(length - width, ()).item()
                x[row].narrow(axis, first, width).zero_()
    return x


def mixed(x, weights):
    """(2N, ...) to (N, ...): the rows 2i and 2i + 1 with their weights of (2N)."""
    weights = weights.reshape(-1, *[1] * (x.dim() - 1))
    return x[0::2] * weights[0::2] + x[1::2] * weights[1::2]
