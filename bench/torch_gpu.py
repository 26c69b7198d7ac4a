"""PyTorch's side of bench/gpu.mjs: training steps, inference and log-mel, in one of several ways.

    python torch_gpu.py '{"kind": "train", "variant": "graph", "model": "Cnn14", "precision": "bf16", ...}'

The networks are those of test/oracle/models, with dropout and SpecAugment. All ways do the work that
our side does: clips of 16 bits go up each time, and become floats, log-mel and what follows on the
device; pairs of clips are mixed behind SpecAugment. The protocol is that of gpu_own.mjs.
"""

import json
import os
import re
import sys
import time
import types
from pathlib import Path

work = json.loads(sys.argv[1])
training = work["kind"] == "train"

# published: the recipe of the paper's code: float32 (convolutions in TF32, PyTorch's default), NCHW,
# the DFT as convolutions, Adam by lists of tensors. mode: of torch.compile. capture: all of a step is one
# CUDA graph. Where CUDA graphs are captured by torch.compile itself, the optimizer stays outside.
VARIANTS = {
    "official": {"published": True},
    "eager": {},
    "graph": {"capture": True},
    "compile": {"mode": "default"},
    "compile_graph": {"mode": "max-autotune-no-cudagraphs", "capture": True},
    "compile_trees": {"mode": "max-autotune"},
}
variant = {"published": False, "mode": None, "capture": False, **VARIANTS[work["variant"]]}
if work.get("device", "cuda") == "cpu" and (variant["capture"] or variant["mode"] == "max-autotune"):
    sys.exit(f"{work['variant']} captures CUDA graphs, and this is the CPU")
# Read when torch is imported. Templates of convolutions are tried for many minutes, and seldom chosen.
os.environ.setdefault("TORCHINDUCTOR_MAX_AUTOTUNE_CONV_BACKENDS", "ATEN")
if variant["capture"] and variant["mode"] and not training:
    os.environ.setdefault("TORCHINDUCTOR_FREEZING", "1")  # norms go into the filters

import torch
import torch.nn.functional as F
from torch_front import LogMel, blank, blank_in_place, mixed

CLASSES = 527
FULL_SCALE = 32767  # of a clip's 16 bits
# Before a capture: lazy buffers are made, and cuDNN's engines timed.
WARMING_STEPS = 3
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
device = torch.device(work.get("device", "cuda"))


def load_models(published=False):
    """test/oracle/models with the front-end from here: the oracle's is in float64 on the CPU."""
    made = {}

    def logmel(front, waves):
        key = tuple(front.values())
        if key not in made:
            made[key] = LogMel(front, published).to(device)
        return made[key](waves)

    ops = types.ModuleType("ops")
    ops.logmel, ops.mixup = logmel, lambda attrs, x, weights: mixed(x, weights)
    sys.modules["ops"] = ops
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test" / "oracle"))
    import models
    from models.parts import FRONT

    # That of most models, as torch.compile makes no module while it traces one.
    made[tuple(FRONT.values())] = LogMel(FRONT, published).to(device)
    return models


def randomise(net, stripes=blank):
    """Dropout and SpecAugment, which the oracle's models leave out."""

    def before(name, p):
        module = net.get_submodule(name)
        module.register_forward_pre_hook(lambda m, args: (F.dropout(args[0], p, m.training), *args[1:]))

    def after(name, p):
        net.get_submodule(name).register_forward_hook(lambda m, args, y: F.dropout(y, p, m.training))

    before("fc_audioset", 0.5)
    if not hasattr(net, "features"):
        before("fc1", 0.5)
    for name, _ in list(net.named_modules()):
        if name == "conv_block1" and hasattr(net, "pre_block4"):
            before("conv_block2", 0.2)  # which reads a wavegram too
        elif re.fullmatch(r"conv_block(\d|_after1)", name):
            after(name, 0.2)
        elif re.fullmatch(r"resnet\.layer\d\.\d+\.conv2", name):
            before(name, 0.1)
        elif name == "resnet":
            before("conv_block_after1", 0.2)

    # The norm has frequency in the place of channels: (N, F, T, 1).
    def augmented(norm, args, y):
        return stripes(y.transpose(1, 3)).transpose(1, 3) if norm.training else y

    net.bn0.register_forward_hook(augmented)


def initialise(net):
    """As the paper does, and our side: Xavier, biases of 0."""
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)


class Feed:
    """What a step reads, in fixed places on the device.

    With `ahead`, as our side does it, the next step's goes up on a stream of its own while one
    computes, into a second place, and is moved over where its step begins.
    """

    def __init__(self, tensors, ahead):
        on_gpu = device.type == "cuda"
        self.host = [t.pin_memory() for t in tensors] if on_gpu else tensors
        self.places = [t.to(device) for t in tensors]
        self.ahead = ahead and on_gpu
        if self.ahead:
            self.stages = [t.clone() for t in self.places]
            self.uploads = torch.cuda.Stream()
            self.arrived, self.taken = torch.cuda.Event(), torch.cuda.Event()
            torch.cuda.synchronize()

    def next(self):
        if not self.ahead:
            for place, values in zip(self.places, self.host):
                place.copy_(values, non_blocking=True)
            return
        stream = torch.cuda.current_stream()
        stream.wait_event(self.arrived)
        for place, values in zip(self.places, self.stages):
            place.copy_(values)
        self.taken.record(stream)
        with torch.cuda.stream(self.uploads):
            self.uploads.wait_event(self.taken)
            for stage, values in zip(self.stages, self.host):
                stage.copy_(values, non_blocking=True)
            self.arrived.record(self.uploads)


def waves(clips):
    return clips.float() / FULL_SCALE


def draw_weights(batch):
    """Of Beta(1, 1): (2N), one of each pair and what is left of 1."""
    first = torch.rand(batch, device=device)
    return torch.stack([first, 1 - first], 1).flatten()


def compiled(function):
    return torch.compile(function, mode=variant["mode"], dynamic=False) if variant["mode"] else function


def captured(step):
    """A function that replays one step as a CUDA graph. Nothing may have run on the usual stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMING_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay():
        graph.replay()
        return result

    return replay


def train_step(net, places, mixup):
    precision = "fp32" if variant["published"] else work["precision"]
    cast = torch.autocast(device.type, HALVES.get(precision, torch.bfloat16), enabled=precision in HALVES)
    options = {"foreach": True} if variant["published"] else {}
    if device.type == "cuda" and not variant["published"]:
        options = {"fused": True, "capturable": True}
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, amsgrad=True, **options)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def objective(clips, target):
        weights = draw_weights(len(clips) // 2) if mixup else None
        logits = net(waves(clips), weights)["logits"].float()
        wanted = target if weights is None else mixed(target, weights)
        if variant["published"]:
            return F.binary_cross_entropy(logits.sigmoid(), wanted)
        return F.binary_cross_entropy_with_logits(logits, wanted)

    objective = compiled(objective)

    def step():
        adam.zero_grad()
        with cast:
            loss = objective(*places)
        scaler.scale(loss).backward()
        scaler.step(adam)
        scaler.update()
        return loss.detach()

    return step


def infer_step(net, places):
    half = None if variant["published"] else HALVES.get(work["precision"])
    if half is not None:  # without a copy of the weights for each call, as autocast makes it
        net.to(half).bn0.float()
        net.bn0.register_forward_hook(lambda norm, args, y: y.to(half))
    scores = compiled(lambda clips: net(waves(clips))["logits"].float().sigmoid())

    def step():
        with torch.no_grad():
            return scores(*places)

    return step


def logmel_step(front, places):
    """Log-mel several times over, of which one number a clip comes back."""

    def numbers(samples):
        means = front(samples).mean(3)
        return means.amax(2) + means.mean(2)

    numbers = compiled(numbers)

    def step():
        with torch.no_grad():
            samples = waves(*places)
            return torch.cat([numbers(samples) for _ in range(work["copies"])], 1)

    return step


def prepare():
    """A function that does the work once; of training it gives the loss."""
    published = variant["published"]
    torch.manual_seed(work.get("seed", 0))
    if not published:
        torch.backends.cudnn.benchmark = True
        exact = work["precision"] == "fp32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
    mixup = training and work.get("mixup", True)
    rows = work["batch"] * (2 if mixup else 1)
    noise = torch.randn(rows, work["samples"]) * (FULL_SCALE / 4)
    tensors = [noise.clamp(-FULL_SCALE, FULL_SCALE).to(torch.int16)]
    if training:
        tensors.append((torch.rand(rows, CLASSES) < 0.01).float())
    feed = Feed(tensors, ahead=training and not published)
    models = load_models(published)
    if work["kind"] == "logmel":
        from models.parts import FRONT

        step = logmel_step(LogMel(FRONT, published).to(device), feed.places)
    else:
        net = models.build(work["model"], CLASSES)
        initialise(net)
        randomise(net, blank_in_place if published else blank)
        layout = torch.contiguous_format if published else torch.channels_last
        net = net.to(device=device, memory_format=layout).train(training)
        step = train_step(net, feed.places, mixup) if training else infer_step(net, feed.places)
    if variant["capture"] and not work.get("compileOnly"):
        step = captured(step)

    def run():
        feed.next()
        result = step()
        # Losses are left on the device: reading each would wait for it.
        return result if training else result.cpu()

    return run


def wait():
    if device.type == "cuda":
        torch.cuda.synchronize()


def main():
    compile_only = work.get("compileOnly", False)
    if compile_only:  # Choices made while others use the device are made again.
        from torch._inductor import config

        config.autotune_local_cache = False
    run = prepare()
    first = run()
    wait()
    if compile_only:
        print("{}", flush=True)
        return
    about = {"torch": torch.__version__, "loss": first.item() if training else None}
    if device.type == "cuda":
        about["device"] = torch.cuda.get_device_name()
        about["cudnn"] = torch.backends.cudnn.version()
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        order, *count = line.split()
        if order == "end":
            break
        steps = int(count[0])
        began = time.perf_counter()
        for _ in range(steps):
            run()
        wait()
        print(f"{(time.perf_counter() - began) / steps * 1e3:.4f}", flush=True)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0
    print(f"{peak:.0f}", flush=True)


if __name__ == "__main__":
    main()
