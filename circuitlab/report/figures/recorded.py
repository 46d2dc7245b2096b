"""What a run file recorded of neurons and samples, read in slices: a figure never takes a whole dataset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import RunFileError
from circuitlab.record.integrity import part_of
from circuitlab.record.reader import Run
from circuitlab.record.storage import link_name

Index = int | slice | list[int] | NDArray
FRAMES, SAMPLES, UNITS = 1500, 1000, 1000
"""Frames, samples and neurons of one dataset that a figure reads at most, at equal distances."""
SAID = ("variable", "population", "phase", "projection")
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError)


@dataclass(frozen=True, eq=False)
class Recorded:
    """One recorded variable: of neurons, of samples or of synapses.

    Args:
        path: of the data. name: of the probe, or `equilibria/free/l23/soma`.
        dims: names of its axes, such as frame, sample, unit. sizes: of each.
        variable, population, phase, projection: as recorded; empty where not said.
    """

    run: Run = field(repr=False)
    path: str
    name: str
    dims: tuple[str, ...]
    sizes: dict[str, int]
    variable: str
    population: str
    phase: str
    projection: str = ""

    def read(self, **at: Index) -> NDArray:
        """Part of the values; axes that are not named are read whole, one given as a number falls away.

        Args:
            at: by the name of an axis: a number, a slice, or numbers in any order.

        Raises:
            RunFileError: the data are damaged.
        """
        chosen = {dim: _plain(at.get(dim, slice(None))) for dim in self.dims}
        lists = [d for d, index in chosen.items() if not isinstance(index, int | slice)]
        # HDF5 takes one list of numbers at a time: the shortest ones are gone through one by one.
        lists.sort(key=lambda d: len(np.asarray(chosen[d])))
        return _read(self.run, self.path, self.dims, chosen, lists)

    @cached_property
    def folder(self) -> str:
        """The group that the data lie in."""
        return self.path.rsplit("/", 1)[0]

    def beside(self, name: str) -> NDArray | None:
        """A dataset beside the data, or None."""
        path = f"{self.folder}/{name}"
        return np.asarray(self.run.read(path)) if path in self.run.datasets else None

    @cached_property
    def unit_ids(self) -> NDArray:
        """Index of each recorded neuron in its population, [unit]."""
        size = self.sizes.get("unit", 0)
        found = self.beside("unit_ids")
        return np.arange(size) if found is None or found.shape != (size,) else found

    @cached_property
    def unit_names(self) -> list[str] | None:
        """Names of the recorded neurons, or None where they have none."""
        found = self.beside("unit_names")
        if found is None:
            names = names_of(self.run, self.population)
            return None if names is None else [names[i] for i in self.unit_ids if i < len(names)]
        return [str(name) for name in found]

    def neuron_word(self, column: int) -> str:
        """What a neuron is called: its number, and its name where it has one."""
        names, number = self.unit_names, int(self.unit_ids[column])
        name = names[column] if names is not None and column < len(names) else ""
        return f"neuron {number} ({name})" if name and name != str(number) else f"neuron {number}"

    @cached_property
    def fixed(self) -> bool:
        """Whether every frame holds the same samples."""
        ids = self.beside("sample_ids")
        return ids is None or ids.ndim == 1 or not len(ids) or bool((ids == ids[0]).all())

    @cached_property
    def sample_ids(self) -> NDArray:
        """Number of each sample in its split, [sample]; the column where samples change from frame to frame."""
        ids, size = self.beside("sample_ids"), self.sizes.get("sample", 0)
        if ids is not None and ids.ndim == 2 and len(ids) and self.fixed:
            ids = ids[0]
        return ids if ids is not None and ids.shape == (size,) else np.arange(size)

    @cached_property
    def labels(self) -> NDArray | None:
        """Class of each sample, [sample], or None."""
        size = self.sizes.get("sample", 0)
        if self.path.startswith("equilibria/") or self.phase == "real time":
            found = target_classes(self.run)
        else:
            found = self.beside("labels")
            if found is not None and found.ndim == 2 and len(found):
                found = found[0] if bool((found == found[0]).all()) else None
        return found if found is not None and found.shape == (size,) else None

    @cached_property
    def frames(self) -> tuple[str, NDArray]:
        """What counts the frames (ms, epoch, update, frame), and the number of each."""
        count = self.sizes.get("frame", 1)
        if "frame" not in self.dims:
            return "frame", np.arange(1)
        return frame_axis(self.run, self.folder, count, along_frames="point" not in self.dims)

    @cached_property
    def points(self) -> tuple[str, NDArray] | None:
        """What counts the points of a trajectory (ms or iteration), and the number of each; None without one."""
        if self.phase == "real time" and "frame" in self.dims:
            return self.frames
        if "point" not in self.dims:
            return None
        for name, word in (("time", "ms"), ("iteration", "iteration")):
            values = self.beside(name)
            if values is not None and values.shape == (self.sizes["point"],):
                return word, values
        return "point", np.arange(self.sizes["point"])

    def frame_word(self, frame: int) -> str:
        """When a frame was recorded, in words."""
        name, at = self.frames
        value = at[frame]
        if name == "ms":
            return f"at {value:g} ms"
        return "before learning" if value == 0 else f"after {value:,g} {name}{'s' if value != 1 else ''}"


def _plain(index: Index) -> int | slice | NDArray:
    """An index as a number, a slice, or an array, which is a slice where it can be."""
    if isinstance(index, slice):
        return index
    if isinstance(index, int | np.integer):
        return int(index)
    numbers = np.asarray(index, dtype=np.int64)
    ascending = len(numbers) > 0 and bool((np.diff(numbers) > 0).all())
    pieces = _slices(numbers) if ascending else []
    return pieces[0] if len(pieces) == 1 else numbers


def _read(run: Run, path: str, dims: tuple[str, ...], chosen: dict[str, Any], lists: list[str]) -> NDArray:
    if len(lists) > 1:
        first = lists[0]
        parts = [
            _read(run, path, dims, {**chosen, first: int(i)}, lists[1:]) for i in np.asarray(chosen[first])
        ]
        left = [d for d in dims if not isinstance(chosen[d], int)]
        return np.stack(parts, axis=left.index(first)) if parts else np.empty((0,) * len(left))
    if not lists:
        return _part(run, path, tuple(chosen[d] for d in dims))
    dim = lists[0]
    numbers, inverse = np.unique(np.asarray(chosen[dim], dtype=np.int64), return_inverse=True)
    axis = [d for d in dims if d == dim or isinstance(chosen[d], slice)].index(dim)
    parts = [
        _part(run, path, tuple(piece if d == dim else chosen[d] for d in dims)) for piece in _slices(numbers)
    ]
    if not parts:
        return np.empty([0 for d in dims if d == dim or isinstance(chosen[d], slice)])
    return np.take(np.concatenate(parts, axis=axis), np.asarray(inverse).reshape(-1), axis=axis)


def _part(run: Run, path: str, selection: tuple[int | slice, ...]) -> NDArray:
    try:
        return part_of(run.datasets[path], selection)
    except _DAMAGE as error:
        raise RunFileError(f"{run.path}: {path}: is damaged and cannot be read") from error


def _slices(numbers: NDArray) -> list[slice]:
    """Ascending numbers as few slices at equal distances: HDF5 is slow with lists of numbers."""
    found, start = [], 0
    while start < len(numbers):
        stop = start + 1
        if stop < len(numbers):
            step = int(numbers[stop] - numbers[start])
            while stop < len(numbers) and int(numbers[stop] - numbers[stop - 1]) == step:
                stop += 1
        else:
            step = 1
        found.append(slice(int(numbers[start]), int(numbers[stop - 1]) + 1, step))
        start = stop
    return found


def evenly(count: int, most: int) -> NDArray:
    """At most so many numbers below `count`, at equal distances from the first on."""
    return np.arange(0, count, max(1, -(-count // most)))


def with_ends(count: int, most: int) -> NDArray:
    """At most so many numbers below `count`, at equal distances, and the last one."""
    return (
        np.unique(np.append(evenly(count, max(1, most - 1)), count - 1)) if count > most else np.arange(count)
    )


def recordings(run: Run) -> list[Recorded]:
    """Every probe and trace of /activity, and every population's variables of /equilibria, with frames in them."""
    found = []
    for path, item in run.datasets.items():
        parts = path.split("/")
        if parts[0] == "activity" and len(parts) == 3 and parts[2] == "data":
            said = {key: str(item.attrs.get(key, "")) for key in SAID}
            name = unquote(parts[1])
        elif parts[0] == "equilibria" and len(parts) == 4:
            population = unquote(parts[3] if parts[2] == "controller" else parts[2])
            variable = "controller" if parts[2] == "controller" else parts[3]
            said = {"variable": variable, "population": population, "phase": parts[1], "projection": ""}
            name = path
        else:
            continue
        dims = axes_of(item)
        if len(dims) == item.ndim and all(item.shape):
            sizes = dict(zip(dims, item.shape, strict=True))
            found.append(Recorded(run, path, name, dims, sizes, **said))
    return found


def of_neurons(run: Run) -> list[Recorded]:
    """Recordings of neurons' variables in samples: [.., sample, unit]."""
    return [r for r in recordings(run) if r.dims[-2:] == ("sample", "unit")]


def populations(run: Run) -> dict[str, dict[str, Any]]:
    """Attributes of every population of the file, by name."""
    return {
        unquote(n) if n != "%" else "": dict(run.file[f"nodes/{n}"].attrs) for n in _members(run, "nodes")
    }


def projections(run: Run) -> dict[str, dict[str, Any]]:
    """Attributes of every projection of the file, by name."""
    return {
        unquote(n) if n != "%" else "": dict(run.file[f"edges/{n}"].attrs) for n in _members(run, "edges")
    }


def _members(run: Run, group: str) -> Iterable[str]:
    return sorted({path.split("/")[1] for path in run.datasets if path.startswith(group + "/")})


def names_of(run: Run, population: str) -> list[str] | None:
    """Names of a population's neurons, or None."""
    path = f"nodes/{link_name(population)}/0/name"
    return [str(name) for name in run.read(path)] if path in run.datasets else None


def target_classes(run: Run) -> NDArray | None:
    """The class of every sample of an equilibrium or a simulation: its label, or where its target is largest."""
    paths = [path for path in run.datasets if path.startswith("samples/target/")]
    if len(paths) != 1:
        return None
    item = run.datasets[paths[0]]
    if item.ndim == 1:
        return run.read(paths[0])
    if item.ndim != 2 or item.shape[1] < 2 or item.nbytes > 1e8:
        return None
    values = run.read(paths[0])
    one_hot = bool(((values >= 0) & (values <= 1)).all() and np.allclose(values.sum(1), 1, atol=1e-4))
    return values.argmax(1) if one_hot else None


def axes_of(data: h5py.Dataset) -> tuple[str, ...]:
    """The names of a dataset's axes, from the brackets that its description begins with; empty where there are none."""
    text = str(data.attrs.get("description", ""))
    inside, closing, _ = text.removeprefix("[").partition("]")
    return tuple(name.strip() for name in inside.split(",")) if text.startswith("[") and closing else ()


def frame_axis(run: Run, folder: str, frames: int, along_frames: bool = True) -> tuple[str, NDArray]:
    """What counts the frames of a probe, and the number of each: milliseconds of a simulation, else epochs where it was
    recorded by epochs.

    Args:
        folder: the probe's group. along_frames: whether `time` beside the data counts frames, not points of a settling.
    """
    time = _beside(run, f"{folder}/time") if along_frames else None
    if time is not None and len(time) >= frames:
        return "ms", time[:frames]
    every = str(run.file[folder].attrs.get("every", ""))
    epoch, step = _beside(run, f"{folder}/epoch"), _beside(run, f"{folder}/step")
    if epoch is not None and len(epoch) >= frames:
        return "epoch", epoch[:frames]
    if every.endswith(("epoch", "epochs")) and step is not None and len(step):
        apart = int(every.split()[0])
        return "epoch", apart * (np.arange(frames) + (step[0] > 0))
    if step is not None and len(step) >= frames:
        return "update", step[:frames]
    return "frame", np.arange(frames)


def _beside(run: Run, path: str) -> NDArray | None:
    return run.read(path) if path in run.datasets else None
