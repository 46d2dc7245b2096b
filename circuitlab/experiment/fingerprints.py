"""Checksums of what a run learned from, so that a run that repeats it can tell whether it is the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from circuitlab.data.datasets import DataSet
from circuitlab.spec.experiment import ExperimentSpec


def named_files(spec: ExperimentSpec) -> dict[str, str]:
    """Files that an experiment itself names, without Python files, by their key: `data.train`, `control.file`."""
    data, control = spec.data, spec.control
    found = {
        "data.train": data.train if data is not None else None,
        "data.test": data.test if data is not None else None,
        "control.file": control.file,
    }
    return {key: name for key, name in found.items() if isinstance(name, str)}


def fingerprints(dataset: DataSet, spec: ExperimentSpec) -> dict[str, str]:
    """What the run file's /training says of its data: SHA-256 of all samples, and of each file by its key."""
    own = {
        f"sha256_{key.replace('.', '_')}": file_digest(spec.folder / name)
        for key, name in named_files(spec).items()
    }
    return {"sha256_samples": samples_digest(dataset), **own}


def samples_digest(dataset: DataSet) -> str:
    """SHA-256 of every sample of a data set as it is learned from and tested on: numbers, types, shapes, order."""
    digest = hashlib.sha256()
    for name in ("train", "validation", "test"):
        split = dataset.split(name)
        for key, array in sorted({**split.arrays, "": split.ids}.items()):
            array = np.ascontiguousarray(array)
            digest.update(f"{name} {key} {array.dtype.str} {array.shape}".encode())
            digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
