"""Files of weights as PyTorch writes and reads them."""

import collections
import hashlib
import io
import os
import pickle
import struct

import numpy as np
import torch

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def content(state):
    """Names, types, shapes and digests of the row-major bytes, in order."""
    rows = []
    for name, tensor in state.items():
        tensor = tensor.detach().contiguous()
        # Through integers: numpy has no bfloat16, and a NaN keeps its bits.
        size = tensor.element_size()
        flat = tensor.reshape(-1).view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size])
        digest = hashlib.sha256(flat.numpy().tobytes()).hexdigest()
        rows.append([name, NAMES[tensor.dtype], list(tensor.shape), digest])
    return rows


def random_bits(dtype, count):
    """Any bit pattern, infinities and NaN too; booleans are 0 and 1."""
    if dtype == torch.bool:
        return torch.randint(0, 2, (count,), dtype=torch.uint8).bool()
    size = torch.empty(0, dtype=dtype).element_size()
    return torch.randint(0, 256, (count * size,), dtype=torch.uint8).view(dtype)


def every_type():
    state = collections.OrderedDict()
    for dtype, name in NAMES.items():
        state[f"{name}.vector"] = random_bits(dtype, 7)
        state[f"{name}.scalar"] = random_bits(dtype, 1).reshape(())
        state[f"{name}.empty"] = torch.empty(0, 3, dtype=dtype)
        state[f"{name}.transposed"] = random_bits(dtype, 30).reshape(2, 3, 5).permute(2, 0, 1)
        state[f"{name}.stepped"] = random_bits(dtype, 40)[3::4]
    return state


def shared():
    base = torch.randn(6, 8)
    return collections.OrderedDict(
        [
            ("whole", base),
            ("row", base[2]),
            ("column", base[:, 5]),
            ("window", base[1:5:2, 2:7:3]),
            ("again", base),
            ("repeated", base[0, :1].expand(4, 3)),
            ("channels_last", torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)),
        ]
    )


def network():
    """A small network's own state dict, with _metadata, and a parameter."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    with torch.no_grad():
        for value in layers.state_dict().values():
            if value.is_floating_point():
                value.normal_()
    state = layers.state_dict()
    state["parameter"] = torch.nn.Parameter(torch.randn(5))
    return state


def sampler():
    """As PANNs' balanced sampler leaves it."""
    return {
        "indexes_per_class": [np.random.permutation(50 + 9 * i) for i in range(20)],
        "queue": [int(i) for i in np.random.permutation(200)],
        "pointers_of_classes": [0] * 20,
        "pace": np.float64(0.5),
    }


class CudaPickler(pickle._Pickler):
    """Names storages as a machine with CUDA does."""

    def save_global(self, obj, name=None):
        if isinstance(obj, type) and issubclass(obj, FakeStorage):
            self.write(b"ctorch.cuda\n" + obj.__name__.encode() + b"\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    def persistent_id(self, obj):
        if not isinstance(obj, torch.storage.TypedStorage):
            return None
        name = obj.pickle_storage_type()
        key = str(obj.untyped()._cdata)
        self.storages[key] = obj
        kind = type(name, (FakeStorage,), {})
        return ("storage", self.kinds.setdefault(name, kind), key, "cuda:0", len(obj), None)


class FakeStorage:
    pass


def legacy_cuda(value):
    """The legacy stream of a machine with CUDA, written without one."""
    out = io.BytesIO()
    sizes = {"short": 2, "int": 4, "long": 4}
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    for part in (0x1950A86A20F9469CFC6C, 1001, machine):
        pickle.dump(part, out, protocol=2)
    pickler = CudaPickler(out, protocol=2)
    pickler.storages, pickler.kinds = {}, {}
    pickler.dump(value)
    keys = sorted(pickler.storages)
    pickle.dump(keys, out, protocol=2)
    for key in keys:
        storage = pickler.storages[key]
        untyped = storage.untyped()
        out.write(struct.pack("<q", len(storage)) + bytes(untyped))
    return out.getvalue()


def python2(value):
    """Arrays of numpy as Python 2 pickles them: bytes as SHORT_BINSTRING and BINSTRING."""

    class Pickler(pickle._Pickler):
        def save_bytes(self, obj):
            if len(obj) < 256:
                self.write(b"U" + struct.pack("<B", len(obj)) + obj)
            else:
                self.write(b"T" + struct.pack("<I", len(obj)) + obj)
            self.memoize(obj)

        dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}

        def persistent_id(self, obj):
            if not isinstance(obj, torch.storage.TypedStorage):
                return None
            kind = getattr(torch, obj.pickle_storage_type())
            key = str(obj.untyped()._cdata)
            self.storages[key] = obj
            return ("storage", kind, key, "cpu", len(obj), None)

    out = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, out, protocol=2)
    pickler = Pickler(out, protocol=2)
    pickler.storages = {}
    pickler.dump(value)
    keys = list(pickler.storages)
    pickle.dump(keys, out, protocol=2)
    for key in keys:
        storage = pickler.storages[key]
        out.write(struct.pack("<q", len(storage)) + bytes(storage.untyped()))
    return out.getvalue()


def write(header, arrays):
    """Writes every kind of file to a folder; what each holds comes back."""
    torch.manual_seed(header["seed"])
    np.random.seed(header["seed"] % 2**32)
    folder = header["folder"]
    files = {}

    def save(name, value, state, **options):
        torch.save(value, os.path.join(folder, name), **options)
        files[name] = content(state)

    legacy = {"_use_new_zipfile_serialization": False}
    for kind, options in (("zip", {}), ("legacy", legacy)):
        for label, state in (("types", every_type()), ("shared", shared()), ("network", network())):
            save(f"{kind}-{label}.pth", state, state, **options)
        state = network()
        for protocol in (3, 4, 5):
            save(f"{kind}-{protocol}.pth", {"model": state}, state, pickle_protocol=protocol, **options)
        whole = {"iteration": 7, "model": state, "sampler": sampler(), "note": "a text"}
        save(f"{kind}-sampler.pth", whole, state, **options)
        lightning = {"epoch": 1, "state_dict": state, "hyper": {"lr": 1e-3}, "callbacks": [None]}
        save(f"{kind}-lightning.pth", lightning, state, **options)
        for prefix in ("module.", "backbone.", "module.base."):
            renamed = {prefix + name: tensor for name, tensor in state.items()}
            save(f"{kind}-{prefix}pth", renamed, state, **options)
    torch.serialization.set_crc32_options(False)
    save("zip-nosum.pth", network_state := network(), network_state)
    torch.serialization.set_crc32_options(True)
    state = network()
    cuda = every_type()
    for name, data, held in (
        ("cuda.pth", legacy_cuda({"model": cuda}), cuda),
        ("python2.pth", python2({"model": state, "sampler": sampler()}), state),
    ):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
        files[name] = content(held)
    return {"files": files}, []


def read(header, arrays):
    """What torch.load makes of a file that may hold nothing but weights."""
    loaded = torch.load(header["path"], weights_only=True, mmap=header.get("mmap", False))
    state = loaded[header["key"]] if header.get("key") else loaded
    beside = {k: v for k, v in loaded.items() if isinstance(v, str)} if header.get("key") else {}
    return {"tensors": content(state), "beside": beside}, []


def rename(header, arrays):
    """Saves the state dict of a file under other names, or in another way."""
    loaded = torch.load(header["path"], weights_only=True)
    state = loaded["model"] if "model" in loaded else loaded
    state = {header.get("prefix", "") + name: tensor for name, tensor in state.items()}
    if "transfer" in header:
        classes, columns = header["transfer"]
        state["fc_transfer.weight"] = torch.randn(classes, columns)
        state["fc_transfer.bias"] = torch.randn(classes)
    for name in header.get("without", []):
        del state[name]
    if header.get("half"):
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    value = {"model": state} if header.get("key") else state
    torch.save(value, header["out"], _use_new_zipfile_serialization=not header.get("legacy"))
    return {"tensors": content(state)}, []
