"""How much a run will record, and whether the disk can hold it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circuitlab.errors import CircuitError, RunFileError
from circuitlab.record.chunks import shape_of_chunks
from circuitlab.record.probes import Probe

LARGEST_FRAME = 2**30
"""Bytes of one frame, which is put together in memory, at most."""


@dataclass(frozen=True)
class Size:
    """What a run will write, in bytes, before compression, the rest of unfinished chunks included.

    Args:
        probes: by the probe's name.
        weights: snapshots. state: the two places of a checkpoint. metrics: everything under /training.
        structure: nodes and edges. early: all that is in the file when its last dataset is made, and is copied then.
    """

    probes: dict[str, int]
    weights: int = 0
    state: int = 0
    metrics: int = 0
    structure: int = 0
    early: int = 0

    @property
    def total(self) -> int:
        """All that the file will hold."""
        return sum(self.probes.values()) + self.weights + self.state + self.metrics + self.structure


NOTHING = Size({})


def grown(frames: int, shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of a dataset that has grown by so many frames, in whole chunks, before compression.

    Args:
        shape: of a frame. itemsize: bytes of a number.
    """
    rows = shape_of_chunks(shape, itemsize, frames)[0]
    return -(-frames // rows) * rows * max(1, int(np.prod(shape))) * itemsize


def probe_bytes(
    probes: Iterable[Probe], *, steps: int, epochs: int, dtype: str = "float32"
) -> dict[str, int]:
    """Size of what each probe will record, in bytes, before compression.

    Raises:
        CircuitError: one frame is too large to be put together in memory; a line for each such probe.
    """
    item = np.dtype(dtype).itemsize
    found, problems = {}, []
    for probe in probes:
        frame, frames = probe.frame_bytes(item), probe.frames(steps, epochs)
        if frame > LARGEST_FRAME:
            problems.append(
                f"record.{probe.name}: one frame takes {bytes_text(frame)}, at most {bytes_text(LARGEST_FRAME)} are "
                "put together in memory; record fewer neurons, edges, samples or points"
            )
        found[probe.name] = sum(grown(frames, *dataset) for dataset in probe.datasets(item))
    if problems:
        raise CircuitError("\n".join(problems))
    return found


def require_space(path: str | Path, size: int, there: int = 0) -> None:
    """Refuses a recording that the disk cannot hold.

    Args:
        path: the run file, or where it will be.
        size: what will lie on the disk while it is written, in bytes.
        there: what the file holds already.
    Raises:
        RunFileError: the free space is less than is still to be written.
    """
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, size - there
    if needed > free:
        raise RunFileError(
            f"{path}: recording needs about {bytes_text(needed)} while it is written, {folder} has "
            f"{bytes_text(free)} free; record fewer neurons, edges or samples, or less often"
        )


def bytes_text(size: float) -> str:
    """`1.2 GB`, `340 kB`: a size in bytes for people."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 999.5 or unit == "PB":
            return f"{size:,.0f} {unit}" if size >= 99.5 or unit == "B" else f"{size:.2g} {unit}"
        size /= 1000
    raise AssertionError
