"""PyTorch's side of loader.mjs: a DataLoader over the same clips. The protocol is that of own.mjs.

"pack FOLDER" writes the packed clips as audioset_tagging_cnn lays them out instead.
"""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

if sys.argv[1] == "pack":
    import h5py

    rows = np.load(Path(sys.argv[2]) / "packed" / "clips.npy", mmap_mode="r")
    with h5py.File(Path(sys.argv[2]) / "pack.h5", "w") as file:
        file["audio_name"] = np.array([f"Y{i:011d}.wav" for i in range(len(rows))], "S20")
        file.create_dataset("waveform", shape=rows.shape, dtype=np.int16)
        for i, row in enumerate(rows):
            file["waveform"][i] = row
        file["target"] = np.eye(527, dtype=bool)[np.arange(len(rows)) % 527]
        file.attrs.create("sample_rate", 32000, dtype=np.int32)
    sys.exit()

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


class Hdf5(Dataset):
    """Clips of a pack as the original reads them: the file is opened for each, and samples become floats."""

    def __init__(self):
        import h5py

        self.path = folder / "pack.h5"
        with h5py.File(self.path) as file:
            self.count = len(file["audio_name"])

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        import h5py

        with h5py.File(self.path, "r") as file:
            name = file["audio_name"][index].decode()
            waveform = (file["waveform"][index] / 32767.0).astype(np.float32)
            return name, waveform, file["target"][index].astype(np.float32)


def rows():
    """A batch as a training step would take it: int16 (B, S), and the classes."""
    makers = {"files": Files, "hdf5": Hdf5, "packed": lambda: Packed(True), "memory": lambda: Packed(False)}
    dataset = makers[work["source"]]()
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
