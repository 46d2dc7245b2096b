"""What differs between two run files: the same seed must give the same contents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from circuitlab.record import checkpoint as checkpoints
from circuitlab.record.reader import open_run

IGNORED = ("created", "command", "native", "folder")
"""Root attributes that say when, where and how a run was started, and by which build of the compiled loops: its text
names the OpenMP library that the process had loaded, on which no number depends."""


def _same(first: Any, second: Any) -> bool:
    left, right = np.asarray(first), np.asarray(second)
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind in "fc"))


def _attributes(name: str, first: Any, second: Any, ignored: tuple[str, ...] = ()) -> list[str]:
    keys = sorted((set(first.attrs) | set(second.attrs)) - set(ignored))
    return [
        f"{name}: attribute {key}"
        for key in keys
        if key not in first.attrs or key not in second.attrs or not _same(first.attrs[key], second.attrs[key])
    ]


def compare(first: str | Path, second: str | Path) -> list[str]:
    """Every difference between two run files but when and by which command they were made.

    Returns:
        One line per difference, `training/loss: 3 of 10 values, by at most 1e-07`; empty when there is none.
    Raises:
        RunFileError: one of them is no sound run file.
    """
    with open_run(first) as left, open_run(second) as right:
        differences = _attributes("/", left.file, right.file, IGNORED)
        groups: list[set[str]] = [set(), set()]
        for run, names in zip((left, right), groups, strict=True):
            run.file.visititems(
                lambda name, item, names=names: names.add(name) if isinstance(item, h5py.Group) else None
            )
        for name in sorted(groups[0] & groups[1]):
            differences += _attributes(name, left.file[name], right.file[name])
        for name in sorted(groups[0] ^ groups[1]):
            differences.append(f"{name}: only in {first if name in groups[0] else second}")
        if not checkpoints.same(left.file, right.file):
            differences.append("checkpoint: another state")
        for name in sorted(set(left.datasets) | set(right.datasets)):
            if name.startswith("checkpoint/"):
                continue
            if name not in left.datasets or name not in right.datasets:
                differences.append(f"{name}: only in {first if name in left.datasets else second}")
                continue
            differences += _attributes(name, left.datasets[name], right.datasets[name])
            one, two = np.asarray(left.read(name)), np.asarray(right.read(name))
            if one.shape != two.shape:
                differences.append(f"{name}: shape {one.shape} and {two.shape}")
            elif one.dtype != two.dtype:
                differences.append(f"{name}: type {one.dtype} and {two.dtype}")
            elif not _same(one, two):
                unequal = ~((one == two) | ((one != one) & (two != two)))
                line = f"{name}: {np.count_nonzero(unequal)} of {one.size} values"
                if one.dtype.kind in "iuf":
                    apart = np.abs(one[unequal].astype(float) - two[unequal].astype(float))
                    line += f", by at most {np.max(apart):.3g}"
                differences.append(line)
        return differences
