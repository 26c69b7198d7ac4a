"""PyTorch's side of loader.mjs: a DataLoader over the same clips. The protocol is that of own.mjs."""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

work = json.loads(sys.argv[1])
workers = int(sys.argv[2])
folder = Path(work["folder"])


class Packed(Dataset):
    """Rows of an array: mapped, or read into memory."""

    def __init__(self, mapped):
        path = folder / "packed" / "clips.npy"
        self.rows = np.load(path, mmap_mode="r" if mapped else None)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return np.asarray(self.rows[index]), index % 10


class Files(Dataset):
    """WAV files, decoded each time."""

    def __init__(self):
        self.paths = sorted((folder / "files").rglob("*.wav"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        import soundfile

        return soundfile.read(self.paths[index], dtype="int16")[0], index % 10


def rows():
    """A batch as a training step would take it: int16 (B, S), and the classes."""
    dataset = Files() if work["source"] == "files" else Packed(work["source"] == "packed")
    # default_collate copies the rows into one tensor; workers fill it in memory that is shared.
    loader = DataLoader(dataset, batch_size=work["rows"], shuffle=True, num_workers=workers,
                        persistent_workers=workers > 0, drop_last=True)
    while True:
        yield from loader


torch.set_num_threads(2)
batches = rows()
for _ in range(8):
    next(batches)
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    began = time.perf_counter()
    for _ in range(work["batches"]):
        next(batches)
    print((time.perf_counter() - began) * 1000 / work["batches"], flush=True)
print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1], flush=True)
