"""What each op means, in PyTorch and float64."""

import librosa
import numpy as np
import torch
import torch.nn.functional as F


def pair(v):
    return tuple(v) if isinstance(v, list) else (v, v)


def epilogue(a, y):
    if a.get("relu"):
        y = F.relu(y)
    return F.avg_pool2d(y, 2) if a.get("avg_pool_2x2") else y


def filter_bank(rate, window, bins, fmin, fmax):
    """(window / 2 + 1, bins): triangles on Slaney's mel scale, of equal area."""
    mel = librosa.filters.mel(
        sr=rate, n_fft=window, n_mels=bins, fmin=fmin, fmax=fmax, dtype=np.float64
    )
    return torch.from_numpy(mel.T)


def kaldi_filter_bank(rate, window, bins, fmin, fmax):
    """(window / 2 + 1, bins): triangles over mel, of height one; none holds the last bin."""

    def kaldi_mel(hz):
        return 1127 * np.log(1 + hz / 700)

    corners = np.linspace(kaldi_mel(fmin), kaldi_mel(fmax), bins + 2)
    at = kaldi_mel(np.arange(window // 2) * rate / window)[:, None]
    rise = (at - corners[:-2]) / np.diff(corners)[:-1]
    fall = (corners[2:] - at) / np.diff(corners)[1:]
    weights = np.maximum(0, np.minimum(rise, fall))
    return torch.from_numpy(np.vstack([weights, np.zeros(bins)]))


def logmel(a, x):
    """(N, S) to (N, 1, T, F): PANNs' front-end, or that of EfficientAT's MobileNetV3."""
    window = a["window_size"]
    length = a.get("window_length", window)
    if a.get("preemphasis"):
        x = x[:, 1:] - a["preemphasis"] * x[:, :-1]
    hann = torch.hann_window(length, periodic=a.get("periodic", True), dtype=torch.float64)
    spectrum = torch.stft(x, window, a["hop_size"], length, hann, center=True, return_complex=True)
    power = spectrum.abs().transpose(1, 2) ** 2
    bank = kaldi_filter_bank if a.get("mel_scale") == "kaldi" else filter_bank
    bands = power @ bank(a["sample_rate"], window, a["mel_bins"], a["fmin"], a["fmax"])
    natural = a.get("log") == "natural"
    y = torch.log(bands + 1e-5) if natural else 10 * torch.log10(bands.clamp(min=1e-10))
    return ((y + a.get("shift", 0)) * a.get("scale", 1))[:, None]


def batch_norm(a, x, gamma, beta, mean, var):
    freq, eps = a.get("axis") == "freq", a.get("eps", 1e-5)
    x = x.transpose(1, 3) if freq else x
    mean, var = mean.clone(), var.clone()
    y = F.batch_norm(x, mean, var, gamma, beta, a.get("training", False), a.get("momentum", 0.1), eps)
    y = epilogue(a, y.transpose(1, 3) if freq else y)
    if not a.get("training"):
        return y
    over = x.detach().transpose(0, 1).flatten(1)
    invstd = 1 / torch.sqrt(over.var(1, unbiased=False) + eps)
    return y, over.mean(1), invstd, mean, var


def fold_batch_norm(a, w, gamma, beta, mean, var):
    scale = gamma / torch.sqrt(var + a.get("eps", 1e-5))
    return w * scale[:, None, None, None], beta - mean * scale


def conv(a, x, w, bias=None):
    y = F.conv2d(
        x,
        w,
        bias,
        pair(a.get("stride", 1)),
        pair(a.get("padding", 0)),
        pair(a.get("dilation", 1)),
        a.get("groups", 1),
    )
    return epilogue(a, y)


def pool(a, x):
    kernel = pair(a["kernel"])
    stride, padding = pair(a.get("stride", a["kernel"])), pair(a.get("padding", 0))
    mean = F.avg_pool2d(x, kernel, stride, padding)
    largest = F.max_pool2d(x, kernel, stride, padding)
    return {"avg": mean, "max": largest, "avg+max": mean + largest}[a["kind"]]


def reduce(a, x):
    if a["axis"] == "freq":
        return x.mean(3, keepdim=True)
    x = x[..., 0]
    # The gradient goes to the first of equal values; amax divides it.
    largest = x.max(2).values
    return {"mean": x.mean(2), "max": largest, "max+mean": largest + x.mean(2)}[a["kind"]]


def fold(a, x):
    n, c, t, _ = x.shape
    return x.reshape(n, c // a["bins"], a["bins"], t).transpose(2, 3)


def attention_pool(a, attention, x):
    weights = F.softmax(attention.clamp(-10, 10), 2)
    return (weights * x).sum((2, 3))


def upsample(a, x, like):
    frames = like.shape[2]
    y = x[..., 0].repeat_interleave(a["ratio"], 2)
    rest = max(frames - y.shape[2], 0)
    return torch.cat([y, y[..., -1:].expand(-1, -1, rest)], 2)[..., :frames].transpose(1, 2)


def linear(a, x, w, bias=None):
    return epilogue(a, F.linear(x, w, bias))


def mixup(a, x, weights):
    w = weights.reshape(-1, *[1] * (x.dim() - 1))
    return x[0::2] * w[0::2] + x[1::2] * w[1::2]


OPS = {
    "logmel": logmel,
    "batch_norm": batch_norm,
    "fold_batch_norm": fold_batch_norm,
    "conv": conv,
    "pool": pool,
    "reduce": reduce,
    "linear": linear,
    "mixup": mixup,
    "fold": fold,
    "attention_pool": attention_pool,
    "upsample": upsample,
    "relu": lambda a, x: F.relu(x),
    "relu6": lambda a, x: F.relu6(x),
    "hard_swish": lambda a, x: F.hardswish(x),
    "concat": lambda a, x, y: torch.cat([x, y], 1),
    "scale": lambda a, x, s: x * s[..., None, None],
    "unsqueeze": lambda a, x: x[:, None, :, None],
    "add": lambda a, x, y: x + y,
    "sigmoid": lambda a, x: torch.sigmoid(x),
    "softmax": lambda a, x: F.softmax(x, -1),
    "bce": lambda a, p, y: F.binary_cross_entropy(p, y)[None],
    "cross_entropy": lambda a, z, y: F.cross_entropy(z, y)[None],
}


def tensors(shapes, arrays):
    pairs = zip(arrays, shapes)
    return [torch.from_numpy(x.astype(np.float64)).reshape(s) for x, s in pairs]


def evaluate(header, inputs):
    out = OPS[header["op"]](header["attrs"], *inputs)
    return out if isinstance(out, tuple) else (out,)


def forward(header, arrays):
    out = evaluate(header, tensors(header["shapes"], arrays))
    return {"shapes": [list(y.shape) for y in out]}, [y.numpy() for y in out]


def quotient(loss, middle, flat, k, step, size):
    """The central difference in element k, or None where a kink lies within the step.

    Halving the step moves the odd part of a smooth function by its square and the even part, taken
    four times, by its third power; a kink moves one of the two by a seventh of its jump or more.
    """
    center = flat[k].item()

    def at(shift):
        flat[k] = center + shift
        return loss().item()

    parts = []
    for h in (step, step / 2):
        high, low = at(h), at(-h)
        parts.append(((high - low) / (2 * h), (high + low - 2 * middle) / step))
    flat[k] = center
    (odd, even), (odd_half, even_half) = parts
    return odd if abs(odd - odd_half) + abs(even - 4 * even_half) < 1e-6 * size else None


def gradient(header, arrays):
    """Of sum(dy * y) in each input of "wants": by autograd, and probed by central differences.

    dy comes last. The reply gives, for each such input, the gradient; then, if there is a "seed", for
    some elements (their indices in "probes") the difference quotients. "sizes" are magnitudes that
    such gradients have, of which differences are exact to a millionth.
    """
    inputs = tensors(header["shapes"], arrays[:-1])
    dy = torch.from_numpy(arrays[-1].astype(np.float64))
    for i in header["wants"]:
        inputs[i].requires_grad_()

    def loss():
        return (evaluate(header, inputs)[0].flatten() * dy).sum()

    grads = torch.autograd.grad(loss(), [inputs[i] for i in header["wants"]])
    if "seed" not in header:
        return {}, [g.numpy() for g in grads]
    random = np.random.default_rng(header["seed"])
    probes, quotients = [], []
    with torch.no_grad():
        middle = loss().item()
        for i, size, grad in zip(header["wants"], header["sizes"], grads):
            flat = inputs[i].view(-1)
            size = max(size, grad.abs().max().item())
            found = {}
            for k in random.permutation(flat.numel()):
                center = flat[k].item()
                # The cube root of float64's precision balances truncation and rounding.
                step = 6e-6 * max(1.0, abs(center))
                if header["op"] == "bce":
                    # The logarithm bends within the distance to 0 or 1.
                    step = min(step, 1e-3 * min(center, 1 - center))
                slope = quotient(loss, middle, flat, k, step, size)
                if slope is not None:
                    found[int(k)] = slope
                if len(found) == 8:
                    break
            if not found:
                raise ValueError(f"input {i}: kinks beside every element")
            probes.append(list(found))
            quotients.append(np.array(list(found.values())))
    return {"probes": probes}, [g.numpy() for g in grads] + quotients


def optimizer(kind, attrs, parameters, lr):
    a = dict(attrs)
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=lr, **a)
    betas = (a.pop("beta1", 0.9), a.pop("beta2", 0.999))
    cls = torch.optim.AdamW if a.pop("decoupled", False) else torch.optim.Adam
    a.setdefault("weight_decay", 0)  # AdamW's own default is 0.01
    return cls(parameters, lr=lr, betas=betas, **a)


def optimize(header, arrays):
    """One parameter, then a gradient a step, to the parameter after each step and the last state."""
    p = torch.nn.Parameter(torch.from_numpy(arrays[0].astype(np.float64)))
    o = optimizer(header["kind"], header["attrs"], [p], header["lr"])
    after = []
    for g in arrays[1:]:
        p.grad = torch.from_numpy(g.astype(np.float64))
        o.step()
        after.append(p.detach().numpy().copy())
    state = {k: v for k, v in o.state[p].items() if torch.is_tensor(v) and v.dim() > 0}
    return {"slots": list(state)}, after + [v.numpy() for v in state.values()]


def clip(header, arrays):
    parameters = []
    for g in arrays:
        p = torch.nn.Parameter(torch.zeros(g.size, dtype=torch.float64))
        p.grad = torch.from_numpy(g.astype(np.float64))
        parameters.append(p)
    before = parameters[0].grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters, header["max_norm"])
    nonzero = before.abs().argmax()
    return {"norm": norm.item(), "scale": (parameters[0].grad[nonzero] / before[nonzero]).item()}, []


def mel(header, arrays):
    """The filter bank as librosa makes it: float64 inside, float32 at the end."""
    bank = filter_bank(*(header[k] for k in ("rate", "window", "bins", "fmin", "fmax")))
    return {"shape": list(bank.shape)}, [bank.numpy()]
