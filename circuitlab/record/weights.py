"""Weights over training: snapshots read the same way whether they are stored whole or by what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from circuitlab.errors import RunFileError, suggestion
from circuitlab.record.integrity import part_of
from circuitlab.record.storage import link_name

if TYPE_CHECKING:
    from circuitlab.record.reader import Run
    from circuitlab.record.run_file import RunWriter

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
            return part_of(run.datasets[path], (row,))
        base, end = (part_of(run.datasets[f"{path}/{key}"], (slice(row + 1),)) for key in ("base", "end"))
        values = np.array(part_of(run.datasets[f"{path}/whole"], (int(base[row]),)))
        first = int(np.searchsorted(base, base[row]))
        changes = slice(int(end[first]), int(end[row]))
        # in the order of the snapshots: an edge that changed several times ends with its last value
        edges, new = (part_of(run.datasets[f"{path}/{key}"], (changes,)) for key in ("edge", "value"))
        values[edges] = new
        return values
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise RunFileError(f"{run.path}: {path}: is damaged and cannot be read") from error


class Snapshots:
    """Writes snapshots of weights: whole, or what changed since the last one where that is much smaller.

    Args:
        writer: of the run file.
    """

    worth = 64 * 1024
    """Bytes that a difference must save in a snapshot: below, groups and chunks of their own cost more."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._last: dict[str, np.ndarray] = {}
        self._since: dict[str, int] = {}

    def add(self, name: str, values: np.ndarray, axis: str, words: str) -> None:
        """Adds a snapshot.

        Args:
            name: of the projection, or `<population>_bias`.
            values: all of its weights, shape [edge], [unit] or [parameter]; not changed afterwards.
            axis: edge, unit or parameter. words: what they are.
        """
        path = f"weights/{link_name(name)}"
        divided = self._writer.rows(f"{path}/base") > 0
        count = self._writer.rows(f"{path}/base") if divided else self._writer.rows(path)
        before = self._before(name) if count else None
        changed = None if before is None else np.flatnonzero(before != values)
        self._last[name] = values
        if changed is None or not self._saves(name, changed, values):
            self._since[name] = 0
            if not divided:
                self._write(path, values[None], f"[snapshot, {axis}] {words}")
                return
            changed, whole = np.zeros(0, np.int64), True
        else:
            self._since[name] = self._since.get(name, 0) + len(changed)
            whole = False
        if not divided:
            self._divide(path, count, values)
        if whole:
            self._write(f"{path}/whole", values[None], f"[whole snapshot, {axis}] {words}")
        base = self._writer.rows(f"{path}/whole") - 1
        self._write(f"{path}/edge", changed, f"[change] number of the {axis} that changed")
        self._write(f"{path}/value", values[changed], f"[change] its new value: {words}")
        self._write(f"{path}/base", np.array([base]), "[snapshot] row of whole that it starts from")
        end = self._writer.rows(f"{path}/edge")
        self._write(
            f"{path}/end", np.array([end]), "[snapshot] changes up to it, all snapshots before included"
        )

    def _saves(self, name: str, changed: np.ndarray, values: np.ndarray) -> bool:
        """Whether the difference is worth it; what was stored as differences since the last whole one is bounded."""
        size = len(changed) * (values.itemsize + 8)
        long = self._since.get(name, 0) + len(changed) > 4 * len(values)
        return not long and 2 * size < values.nbytes and values.nbytes - size >= self.worth

    def _before(self, name: str) -> np.ndarray:
        if name not in self._last:  # the run was taken up again
            from circuitlab.record.reader import open_run

            with open_run(self._writer.path) as run:
                self._last[name] = weights_at(run, name)
                path = f"weights/{link_name(name)}"
                if f"{path}/base" in run.datasets:
                    base, end = (np.asarray(run.datasets[f"{path}/{key}"][:]) for key in ("base", "end"))
                    self._since[name] = int(end[-1] - end[np.searchsorted(base, base[-1])])
        return self._last[name]

    def _divide(self, path: str, count: int, values: np.ndarray) -> None:
        """What is there becomes the whole snapshots of a group."""
        self._writer.move(path, f"{path}/whole")
        self._write(f"{path}/edge", np.zeros(0, np.int64), "[change] number of the edge that changed")
        self._write(f"{path}/value", values[:0], "[change] its new value")
        self._write(f"{path}/base", np.arange(count), "[snapshot] row of whole that it starts from")
        zeros = np.zeros(count, np.int64)
        self._write(f"{path}/end", zeros, "[snapshot] changes up to it, all snapshots before included")

    def _write(self, path: str, rows: np.ndarray, description: str) -> None:
        units = "dimensionless"
        self._writer.extend(path, rows, units=units, description=description)
