"""Runs the models on a state that the tests give: inference, calibration, steps of training."""

import numpy as np
import torch
import torch.nn.functional as F

import models
import ops

# One at a time: the largest holds a gigabyte.
made = {}


def ours(model, x):
    """Filters (O, I, time, frequency) of a model that has frequency first; and back."""
    return x.transpose(2, 3) if x.dim() == 4 and hasattr(model, "frequency_first") else x


def create(header, arrays):
    """A model of "row" with the state "names": the first of them as in the last model, then as given.

    All but counters and what is dead must be named.
    """
    dtype = getattr(torch, header.get("dtype", "float64"))
    held = made.popitem()[1].state_dict() if made else {}
    with torch.device("meta"):
        model = models.build(header["row"], header["classes"])
    expected = model.state_dict()
    names = header["names"]
    same = names[: len(names) - len(arrays)]
    state = {name: held[name] for name in same}
    held.clear()
    for name, x in zip(names[len(same) :], arrays):
        x = torch.from_numpy(x.astype(header.get("dtype", "float64")))
        state[name] = ours(model, x.reshape(ours(model, expected[name]).shape)).contiguous()
    for name, x in expected.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif models.is_dead(model, name) and name not in state:
            state[name] = torch.full(x.shape, torch.nan, dtype=dtype)
    model.load_state_dict(state, assign=True)
    made[header["row"]] = model
    return {}, []


def tensor(array, rows, dtype=torch.float64):
    return torch.from_numpy(array.copy()).reshape(rows, -1).to(dtype)


def statistics(model):
    """The running statistics by name."""
    found = {k: v for k, v in model.named_buffers() if v.dim() > 0}
    return {k: v.numpy().copy() for k, v in found.items() if not models.is_dead(model, k)}


def infer(header, arrays):
    """Every output by name; scores from logits by "activation" where the model itself gives none."""
    model = made[header["row"]].eval()
    with torch.no_grad():
        out = model(tensor(arrays[0], header["batch"]))
    if "clipwise_output" not in out:
        softmax = header["activation"] == "softmax"
        out["clipwise_output"] = out["logits"].softmax(1) if softmax else out["logits"].sigmoid()
    return {"outputs": list(out)}, [x.numpy() for x in out.values()]


def calibrate(header, arrays):
    """Sets running statistics to those of the clips, moved a little at random; replies with them."""
    model = made[header["row"]].eval()
    random = np.random.default_rng(header["seed"])

    def measure(norm, inputs):
        x = inputs[0].transpose(0, 1).flatten(1)
        var, mean = torch.var_mean(x, 1)
        moved = mean + 0.3 * var.sqrt() * torch.from_numpy(random.standard_normal(len(mean)))
        norm.running_mean.copy_(moved.float())
        norm.running_var.copy_((var * torch.from_numpy(random.uniform(0.5, 1.5, len(var)))).float())

    norms = [m for m in model.modules() if hasattr(m, "running_mean")]
    hooks = [m.register_forward_pre_hook(measure) for m in norms]
    with torch.no_grad():
        model(tensor(arrays[0], header["batch"]))
    for hook in hooks:
        hook.remove()
    found = statistics(model)
    return {"names": list(found)}, list(found.values())


def trainable(header):
    """The model in training, but for what is in "frozen"; its norms evaluate if "frozenNorms" is "eval"."""
    model = made[header["row"]].train()
    frozen = set(header.get("frozen", []))
    for k, p in model.named_parameters():
        p.requires_grad_(k not in frozen)
    if header.get("frozenNorms") == "eval":
        for k, m in model.named_modules():
            if hasattr(m, "running_mean") and f"{k}.weight" in frozen:
                m.eval()
    return model


def margin(header, arrays):
    """How near to a kink of the head a step on (waveform[, lambda]) would come; nothing moves."""
    model = trainable(header)
    clips, dtype = header["clips"], next(model.parameters()).dtype
    weights = tensor(arrays[1], clips, dtype)[:, 0] if header["mixup"] else None
    held = {k: v.clone() for k, v in model.named_buffers()}
    with torch.no_grad():
        model(tensor(arrays[0], clips), weights)
    for k, v in model.named_buffers():
        v.copy_(held[k])
    return {"margin": getattr(model, "margin", None)}, []


def train(header, arrays):
    """Steps on (waveform, target[, lambda]) triples, one after another.

    What trains is as `trainable` says; "rates" scales the learning rate by the beginnings of names.
    Replies with each loss; the gradients of the first step (names in "gradients"), the running statistics
    after it (names in "buffers"), and how far each of "gradients" has moved in the end.
    """
    model = trainable(header)
    live = [
        (k, p) for k, p in model.named_parameters() if p.requires_grad and not models.is_dead(model, k)
    ]
    dtype = live[0][1].dtype
    clips, mixed = header["clips"], header["mixup"]
    rates = header.get("rates", {})

    def rate(name):
        """Of the longest of the beginnings that are named."""
        fits = [k for k in rates if name.startswith(k)]
        return header["lr"] * (rates[max(fits, key=len)] if fits else 1)

    groups = [{"params": [p], "lr": rate(k)} for k, p in live]
    o = ops.optimizer(header["kind"], header["attrs"], groups, header["lr"])
    before = {k: p.detach().clone() for k, p in live}
    losses, first, buffers = [], [], {}
    given = 3 if mixed else 2
    for i in range(0, len(arrays), given):
        target = tensor(arrays[i + 1], clips, dtype)
        weights = tensor(arrays[i + 2], clips, dtype)[:, 0] if mixed else None
        out = model(tensor(arrays[i], clips), weights)
        # float32's lambda and 1 - lambda may add up to a little more than one.
        target = ops.mixup({}, target, weights).clamp(0, 1) if mixed else target
        if header["loss"] == "bce":
            scores = out["logits"].sigmoid() if "logits" in out else out["clipwise_output"]
            loss = F.binary_cross_entropy(scores, target)
        else:
            loss = F.cross_entropy(out["logits"], target)
        o.zero_grad()
        loss.backward()
        if i == 0:
            first = [ours(model, p.grad).numpy().copy() for _, p in live]
            buffers = statistics(model)
        o.step()
        losses.append(loss.item())
    moved = [ours(model, p.detach() - before[k]).numpy() for k, p in live]
    reply = {"losses": losses, "gradients": [k for k, _ in live], "buffers": list(buffers)}
    return reply, first + list(buffers.values()) + moved
