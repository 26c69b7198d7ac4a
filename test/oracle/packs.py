"""Writes HDF5 files as the scripts of audioset_tagging_cnn lay them out, and what numpy says is in them.

    packs.py tree FOLDER SEED LIBVER      a workspace: packs, their indexes, one over all
    packs.py odd FOLDER SEED              packs that are laid out otherwise, one a file

A libver is what h5py calls so; two with a comma are the lower and the upper bound.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np

SAMPLES = 400
CLASSES = 527


def clips(rng, count, missing):
    """Names, samples and labels of clips; those that are missing are all zeros, without a name."""
    names = np.array([f"Y{rng.integers(1e9):011d}.wav" for _ in range(count)], "S20")
    samples = rng.integers(-32768, 32768, (count, SAMPLES)).astype(np.int16)
    target = rng.random((count, CLASSES)) < 4 / CLASSES
    names[missing], samples[missing], target[missing] = b"", 0, False
    return names, samples, target


def write_pack(path, names, samples, target, libver=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver=libver) as file:
        count = len(names)
        file.create_dataset("audio_name", shape=(count,), dtype="S20")
        file.create_dataset("waveform", shape=(count, SAMPLES), dtype=np.int16)
        file.create_dataset("target", shape=(count, CLASSES), dtype=bool)
        file.attrs.create("sample_rate", data=32000, dtype=np.int32)
        for n in range(count):
            # Clips that are missing are never written.
            if names[n]:
                file["audio_name"][n] = names[n]
                file["waveform"][n] = samples[n]
                file["target"][n] = target[n]


def write_index(path, where, names, target, libver):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("audio_name", data=names, dtype="S20")
        file.create_dataset("target", data=target, dtype=bool)
        file.create_dataset("hdf5_path", data=[where.encode()] * len(names), dtype="S200")
        file.create_dataset("index_in_hdf5", data=np.arange(len(names)), dtype=np.int32)


def join_indexes(path, parts, libver):
    """One index over all, of arrays that grow."""
    with h5py.File(path, "w", libver=libver) as file:
        for name, kind, shape in (
            ("audio_name", "S20", ()),
            ("target", bool, (CLASSES,)),
            ("hdf5_path", "S200", ()),
            ("index_in_hdf5", np.int32, ()),
        ):
            file.create_dataset(name, (0, *shape), kind, maxshape=(None, *shape))
        for part in parts:
            with h5py.File(part) as other:
                for name in file:
                    first, more = len(file[name]), other[name][:]
                    file[name].resize(first + len(more), axis=0)
                    file[name][first:] = more


def tree(folder, rng, libver):
    folder /= "hdf5s"
    parts, truth, samples = [], [], []
    for name, count in (("balanced_train", 7), ("unbalanced_train/part00", 1400), ("unbalanced_train/part01", 9)):
        own = clips(rng, count, rng.integers(count, size=1 + count // 10))
        write_pack(folder / "waveforms" / f"{name}.h5", *own, libver)
        parts.append(folder / "indexes" / f"{name}.h5")
        where = f"/machine/of/another/workspace/hdf5s/waveforms/{name}.h5"
        write_index(parts[-1], where, own[0], own[2], libver)
        truth.append([[n.decode(), np.flatnonzero(row).tolist()] for n, row in zip(own[0], own[2])])
        samples.append(own[1])
    join_indexes(folder / "indexes" / "full_train.h5", parts, libver)
    np.concatenate(samples).astype("<i2").tofile(folder / "samples")
    (folder / "truth.json").write_text(json.dumps(truth))


def odd(folder, rng):
    names, samples, target = clips(rng, 6, [])

    def write(name, change=None, libver=None, **more):
        arrays = {"audio_name": names, "waveform": samples, "target": target, **more}
        with h5py.File(folder / f"{name}.h5", "w", libver=libver) as file:
            for key, value in arrays.items():
                if value is not None:
                    file[key] = value
            file.attrs["sample_rate"] = np.int32(32000)
            if change:
                change(file)

    def instead(key, *args, **kwargs):
        def change(file):
            del file[key]
            file.create_dataset(key, *args, **kwargs)
        return change

    write("plain")
    write("gzip", instead("waveform", data=samples, compression="gzip"))
    write("chunks", instead("waveform", data=samples, chunks=(2, 100)))
    write("chunks_latest", instead("target", data=target, chunks=(2, 100), maxshape=(None, None)), "latest")
    write("gzip_names", instead("audio_name", data=names, compression="gzip"))
    write("floats", waveform=samples.astype(np.float32))
    write("big_endian", waveform=samples.astype(">i2"))
    write("unsigned", waveform=samples.astype(np.uint16))
    write("flat", waveform=samples.reshape(-1))
    write("empty", waveform=samples[:0])
    write("fewer", waveform=samples[:5])
    write("fewer_targets", target=target[:5])
    write("nothing", instead("waveform", shape=samples.shape, dtype=np.int16))
    write("no_waveform", waveform=None)
    write("few_classes", target=target[:, :10])
    write("twos", target=target.astype(np.int8) * 2)
    write("doubles", target=target.astype(np.float64))
    write("long_names", audio_name=[n.decode() for n in names])
    write("numbers_as_names", audio_name=np.arange(6))
    write("bytes_as_folds", fold=np.arange(250, 256, dtype=np.uint8))
    write("no_rate", lambda file: file.attrs.clear())
    write("text_rate", lambda file: file.attrs.__setitem__("sample_rate", "32000"))
    write("group", lambda file: (file.move("waveform", "x"), file.create_group("waveform")))
    write("many", lambda file: [file.create_group(f"g{i}") for i in range(20)], ("v108", "v108"))
    write("all_missing", audio_name=np.zeros(6, "S20"))
    write("huge_chunks", instead("audio_name", shape=(10**15,), dtype="S20", chunks=(64,)))
    write("huge_rank", instead("target", shape=(2**40, 2**20), dtype=bool, chunks=(1, 1)))
    write("elsewhere", instead("waveform", samples.shape, np.int16, external=[("/etc/passwd", 0, 2**20)]))
    write("committed", lambda file: (
        file.__delitem__("waveform"),
        file.__setitem__("type", np.dtype("<i2")),
        file.create_dataset("waveform", data=samples, dtype=file["type"]),
    ))
    layout = h5py.VirtualLayout(samples.shape, np.int16)
    layout[:] = h5py.VirtualSource(folder / "plain.h5", "waveform", samples.shape)
    write("virtual", lambda file: (file.__delitem__("waveform"), file.create_virtual_dataset("waveform", layout)))
    # As panns_transfer_to_gtzan packs, and behind a block of the user's own.
    ones = np.eye(10, dtype=np.float32)[rng.integers(10, size=6)]
    write("gtzan", target=ones, fold=np.arange(6, dtype=np.int32) % 2 + 1)
    with h5py.File(folder / "user_block.h5", "w", userblock_size=1024) as file:
        file["audio_name"], file["waveform"], file["target"] = names, samples, target
        file.attrs["sample_rate"] = np.int32(32000)
    samples.astype("<i2").tofile(folder / "samples")
    truth = [[n.decode(), np.flatnonzero(row).tolist()] for n, row in zip(names, target)]
    (folder / "truth.json").write_text(json.dumps([truth, ones.argmax(1).tolist()]))


if __name__ == "__main__":
    what, folder, seed, *rest = sys.argv[1:]
    rng = np.random.default_rng(int(seed))
    if what == "odd":
        odd(Path(folder), rng)
    else:
        libver = rest[0].split(",")
        tree(Path(folder), rng, libver[0] if len(libver) == 1 else tuple(libver))
