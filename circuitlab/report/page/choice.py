"""Which frames, samples and neurons of a recording a page holds, and reading them without reading the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import RunFileError
from circuitlab.record.integrity import check_chunks
from circuitlab.report.page.pack import packed_bytes

MOST_AT_ONCE = 16_000_000
"""Bytes of a dataset that are read in one piece."""
AXES = ("frame", "point", "sample", "unit")
ENOUGH = {"frame": 30, "point": 100, "sample": 60, "unit": 30}
"""What one would like to see of each axis; beyond it the axis gives way first when the page has to be smaller."""
OVER_TIME = 300
"""The same, of frames that are moments of a simulation."""


@dataclass(frozen=True)
class Limits:
    """The most of each axis that a page holds; None where there is no bound."""

    frame: int | None = None
    point: int | None = None
    sample: int | None = None
    unit: int | None = None


@dataclass(frozen=True)
class Extent:
    """A recording's axes and their lengths.

    Args:
        lengths: by axis, of those it has. over_time: whether its frames are moments of a simulation.
    """

    lengths: dict[str, int]
    over_time: bool = False

    def kept(self, limits: Limits) -> int:
        """Numbers that remain under such limits."""
        return int(np.prod([_least(length, getattr(limits, axis)) for axis, length in self.lengths.items()]))

    def enough(self, axis: str) -> int:
        """What one would like to see of an axis."""
        return OVER_TIME if axis == "frame" and self.over_time else ENOUGH[axis]


def _least(length: int, most: int | None) -> int:
    return length if most is None else min(length, most)


def evenly(count: int, most: int | None) -> NDArray[np.int64]:
    """At most so many of `count` places at equal distances, the first and the last among them."""
    if most is None or count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, max(1, most)).round().astype(np.int64))


def fit(extents: Sequence[Extent], most_bytes: int, asked: Limits) -> Limits:
    """Limits, at most those asked for, under which recordings take at most so many bytes of a page.

    The axis that is longest beside what one would like to see of it is cut by a fifth until all fits.
    """
    limits = asked
    longest = {axis: max((e.lengths.get(axis, 0) for e in extents), default=0) for axis in AXES}
    now = {axis: _least(longest[axis], getattr(limits, axis)) for axis in AXES}
    wish = {axis: max((e.enough(axis) for e in extents if axis in e.lengths), default=1) for axis in AXES}
    while packed_bytes(sum(e.kept(limits) for e in extents)) > most_bytes:
        axis = max(AXES, key=lambda name: now[name] / wish[name] if now[name] > 1 else 0.0)
        if now[axis] <= 1:
            break
        now[axis] = max(1, min(now[axis] - 1, int(0.8 * now[axis])))
        limits = replace(limits, **{axis: now[axis]})
    return limits


def take(data: h5py.Dataset, *places: NDArray[np.int64], where: str) -> NDArray:
    """The chosen places of each axis; of the rest no more than `MOST_AT_ONCE` bytes are ever held.

    Args:
        places: ascending, one array for each axis of the dataset.
        where: file and dataset, for the message.

    Raises:
        RunFileError: the bytes are damaged.
    """
    out = np.empty([len(kept) for kept in places], dtype=data.dtype)
    try:
        if out.size:
            _take(data, (), places, out)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise RunFileError(f"{where}: is damaged and cannot be read") from error
    return out


def _take(data: h5py.Dataset, at: tuple[slice, ...], places: Sequence[NDArray], out: NDArray) -> None:
    spans = [slice(int(kept[0]), int(kept[-1]) + 1) for kept in places]
    bytes_ = data.dtype.itemsize * np.prod([float(span.stop - span.start) for span in spans])
    if bytes_ <= MOST_AT_ONCE or not places:
        check_chunks(data, (*at, *spans))
        block = data[(*at, *spans)]
        inner = [kept - kept[0] for kept in places]
        out[...] = block.reshape([span.stop - span.start for span in spans])[np.ix_(*inner)]
        return
    if len(places) == 1:
        step = max(1, MOST_AT_ONCE // data.dtype.itemsize)
        kept = places[0]
        for low in range(int(kept[0]), int(kept[-1]) + 1, step):
            inside = (kept >= low) & (kept < low + step)
            if inside.any():
                part = slice(low, min(low + step, data.shape[-1]))
                check_chunks(data, (*at, part))
                out[inside] = data[(*at, part)].ravel()[kept[inside] - low]
        return
    for row, place in enumerate(places[0].tolist()):
        _take(data, (*at, slice(place, place + 1)), places[1:], out[row])


def union(
    chosen: Iterable[NDArray[np.int64]], most: int | None, wanted: Sequence[int] = ()
) -> NDArray[np.int64]:
    """At most so many neurons of those that several recordings hold.

    First those wanted by name, then those that most recordings share, evenly spaced.
    """
    lists = [np.unique(ids) for ids in chosen]
    if not lists:
        return np.asarray(sorted(set(wanted)), dtype=np.int64)
    ids, counts = np.unique(np.concatenate(lists), return_counts=True)
    kept = [unit for unit in dict.fromkeys(wanted) if unit in ids]
    for count in sorted(set(counts.tolist()), reverse=True):
        room = None if most is None else most - len(kept)
        if room is not None and room <= 0:
            break
        some = np.setdiff1d(ids[counts == count], kept)
        kept += some[evenly(len(some), room)].tolist()
    return np.asarray(sorted(kept), dtype=np.int64)
