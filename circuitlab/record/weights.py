"""Weights over training: snapshots read the same way whether they are stored whole or by what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from circuitlab.errors import RunFileError, suggestion
from circuitlab.record.storage import link_name

if TYPE_CHECKING:
    from circuitlab.record.reader import Run

BY_DIFFERENCE = ("base", "end", "whole", "edge", "value")
"""Datasets of a group /weights/NAME whose snapshots are stored by difference."""


def _place(run: Run, name: str) -> str:
    """Where the snapshots of a projection or a bias lie: a dataset, or a group of differences."""
    for path in (f"weights/{link_name(name)}", f"weights/{name}"):
        if path in run.datasets or f"{path}/whole" in run.datasets:
            return path
    known = recorded(run)
    raise RunFileError(
        f"{run.path}: no weights of '{name}'; there are {', '.join(known) or 'none'}.{suggestion(name, known)}"
    )


def recorded(run: Run) -> list[str]:
    """Names of what has snapshots in /weights: projections, and `<population>_bias`; as links of the file."""
    names: dict[str, None] = {}
    for path in run.datasets:
        if path.startswith("weights/") and path != "weights/step":
            inside = path.removeprefix("weights/")
            stem, _, last = inside.rpartition("/")
            names[stem if stem and last in BY_DIFFERENCE else inside] = None
    return list(names)


def snapshot_count(run: Run, name: str) -> int:
    """How many snapshots of a projection's or a bias's weights a run file holds.

    Args:
        name: of the projection, or `<population>_bias`.
    Raises:
        RunFileError: there are no weights of that name.
    """
    path = _place(run, name)
    return len(run.datasets[path] if path in run.datasets else run.datasets[f"{path}/base"])


def weights_at(run: Run, name: str, snapshot: int = -1) -> np.ndarray:
    """A projection's or a bias's weights at a snapshot, however they are stored.

    Args:
        name: of the projection, or `<population>_bias`.
        snapshot: counted from 0, the first before learning; -1 is the last.
    Returns:
        Shape [edge], in the order of /edges/<projection>; [unit] of a bias, [parameter] where weights are shared.
    Raises:
        RunFileError: there are no such weights, no such snapshot, or their bytes are damaged.
    """
    path, count = _place(run, name), snapshot_count(run, name)
    if not -count <= snapshot < count:
        allowed = f"allowed: 0 to {count - 1}, or -1 for the last" if count else "there is none yet"
        raise RunFileError(f"{run.path}: weights of '{name}' have no snapshot {snapshot}; {allowed}")
    row = snapshot % count
    try:
        if path in run.datasets:
            return np.asarray(run.datasets[path][row])
        base, end = (np.asarray(run.datasets[f"{path}/{key}"][: row + 1]) for key in ("base", "end"))
        values = np.array(run.datasets[f"{path}/whole"][int(base[row])])
        first = int(np.searchsorted(base, base[row]))
        changes = slice(int(end[first]), int(end[row]))
        # in the order of the snapshots: an edge that changed several times ends with its last value
        values[run.datasets[f"{path}/edge"][changes]] = run.datasets[f"{path}/value"][changes]
        return values
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise RunFileError(f"{run.path}: {path}: is damaged and cannot be read") from error
