"""A run file as the parts of a page read it: its specification, its recordings and their axes, in slices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import RunFileError, SpecError, suggestion
from circuitlab.record.reader import Run
from circuitlab.record.storage import link_name
from circuitlab.report.page.choice import Extent, Limits, evenly, fit, take, union
from circuitlab.report.readings import specification

AXES = re.compile(r"\s*\[([^\]]*)\]")
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, OverflowError)
"""What h5py raises on broken bytes."""
MOST_NUMBERS = 4_000_000
"""Of a dataset without choice of places, so many numbers are read; a longer one is thinned."""
KINDS = {
    "training": "training run",
    "simulation": "simulation in real time",
    "diagnosis": "diagnosis",
    "equilibria": "equilibria",
}
"""Groups that say what a run file is, and the word for it."""


@dataclass(frozen=True)
class Axis:
    """What counts the frames (or points) of a recording: its name, as on a plot, and the number of each."""

    name: str
    values: NDArray


@dataclass(frozen=True)
class Recording:
    """One probe: where it is, what it holds along which axes.

    Args:
        dims: names of the axes, from the description. frames: of the frame axis.
        attributes: variable, symbol, population or projection, phase, units, as far as the file says.
    """

    name: str
    path: str
    data: h5py.Dataset
    dims: tuple[str, ...]
    attributes: dict[str, str]

    @property
    def shape(self) -> dict[str, int]:
        """Length of each axis."""
        return dict(zip(self.dims, map(int, self.data.shape), strict=True))

    def said(self, key: str) -> str:
        """An attribute, empty where the file has none."""
        return self.attributes.get(key, "")


@dataclass(eq=False)
class Source:
    """One of the runs of a page.

    Args:
        run: the open file. label: what tells it from the others. most_bytes: of the page, for this run.
        asked: bounds that the user gave. neurons: whom she named, by population.
    """

    run: Run
    label: str
    most_bytes: int
    asked: Limits = field(default_factory=Limits)
    neurons: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """The experiment file's plain data."""
        return _specification(self.run, "experiment")

    @cached_property
    def circuit(self) -> dict[str, Any]:
        """The circuit file's plain data."""
        return _specification(self.run, "circuit")

    @property
    def kind(self) -> str:
        """training, simulation, diagnosis, equilibria, or empty for a run that has only begun."""
        found = [kind for kind in ("simulation", "diagnosis", "equilibria") if kind in self.run.file]
        if found:
            return found[0]
        return "training" if "training" in self.run.file else ""

    @property
    def populations(self) -> list[str]:
        """Names of the populations, in the order of the circuit file."""
        return _names(self.run, "nodes", self.circuit.get("populations"))

    @property
    def projections(self) -> list[str]:
        """Names of the projections, in the order of the circuit file."""
        return _names(self.run, "edges", self.circuit.get("projections"))

    def said(self, path: str) -> dict[str, Any]:
        """Attributes of a group or dataset as plain values; empty where there is none."""
        item = self.run.file.get(path)
        if not isinstance(item, h5py.Group | h5py.Dataset):
            return {}
        try:
            return {key: _plain(value) for key, value in item.attrs.items()}
        except DAMAGE as error:
            raise RunFileError(f"{self.run.path}: {path}: its attributes are damaged") from error

    def about_population(self, name: str) -> dict[str, Any]:
        """Attributes of a population: type, size, activation, ..."""
        return self.said(f"nodes/{link_name(name)}")

    def about_projection(self, name: str) -> dict[str, Any]:
        """Attributes of a projection: source, target, site, ..."""
        return self.said(f"edges/{link_name(name)}")

    def size(self, population: str) -> int:
        """Neurons of a population."""
        item = self.run.datasets.get(f"nodes/{link_name(population)}/node_id")
        return 0 if item is None else int(item.shape[0])

    def edges(self, projection: str) -> int:
        """Edges of a projection."""
        item = self.run.datasets.get(f"edges/{link_name(projection)}/source_node_id")
        return 0 if item is None else int(item.shape[0])

    def ends(self, projection: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source and target of every edge of a projection.

        Raises:
            RunFileError: they name neurons that are not there.
        """
        said, found = self.about_projection(projection), []
        for end in ("source", "target"):
            path = f"edges/{link_name(projection)}/{end}_node_id"
            ids = np.asarray(self.run.read(path))
            size = self.size(str(said.get(end, "")))
            if (
                ids.ndim != 1
                or ids.dtype.kind not in "iu"
                or (ids.size and not 0 <= ids.min() <= ids.max() < size)
            ):
                raise RunFileError(
                    f"{self.run.path}: {path}: is damaged: it names neurons that are not there"
                )
            found.append(ids.astype(np.int64))
        if len(found[0]) != len(found[1]):
            raise RunFileError(f"{self.run.path}: edges/{projection}: is damaged: ends of unequal number")
        return found[0], found[1]

    def short(self, path: str) -> NDArray | None:
        """A dataset of few numbers as a whole; None where there is none or where it is not few."""
        item = self.run.datasets.get(path)
        return None if item is None or int(item.size or 0) > MOST_NUMBERS else np.asarray(self.run.read(path))

    def names_of(self, population: str, units: NDArray) -> list[str]:
        """Names of some neurons, empty texts where the circuit has none."""
        item = self.run.datasets.get(f"nodes/{link_name(population)}/0/name")
        if item is None or not len(units) or int(units.max()) >= len(item):
            return [""] * len(units)
        found = take(item, units, where=f"{self.run.path}: {item.name}")
        return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found]

    @cached_property
    def recordings(self) -> list[Recording]:
        """Every probe of the file, in the order of the names."""
        paths = [path for path in self.run.datasets if re.fullmatch(r"activity/[^/]+/data", path)]
        return [self._recording(path) for path in paths]

    def _recording(self, path: str) -> Recording:
        data = self.run.datasets[path]
        said = {key: str(value) for key, value in self.said(path).items()}
        folder = path.removesuffix("/data")
        said |= {key: str(value) for key, value in self.said(folder).items() if key not in said}
        return Recording(
            unquote(folder.split("/")[1]), folder, data, dims(said.get("description", ""), data.ndim), said
        )

    def frames(self, recording: Recording) -> Axis:
        """What counts a recording's frames: milliseconds, epochs, updates, or their number."""
        count = recording.shape.get("frame", 1)
        if "point" not in recording.dims:
            time = self._beside(recording, "time", count)
            if time is not None:
                return Axis("ms", time)
        epoch, step = self._beside(recording, "epoch", count), self._beside(recording, "step", count)
        if epoch is not None:
            return Axis("epoch", epoch)
        every = recording.said("every")
        if every.endswith(("epoch", "epochs")) and step is not None and count:
            apart = int(every.split()[0])
            return Axis("epoch", apart * (np.arange(count) + int(step[0] > 0)))
        return Axis("frame", np.arange(count)) if step is None else Axis("update", step)

    def points(self, recording: Recording) -> Axis | None:
        """What counts the points of a settling trajectory: milliseconds or iterations; None where there are none.

        Of iterations, those after the last sample came to rest are left out: nothing happens there.
        """
        count = recording.shape.get("point")
        if count is None:
            return None
        for beside, name in (("time", "ms"), ("iteration", "iteration")):
            values = self._beside(recording, beside, count)
            if values is not None:
                return Axis(
                    name, values[: self._moving(recording, values)] if name == "iteration" else values
                )
        return Axis("point", np.arange(count))

    def _moving(self, recording: Recording, iterations: NDArray) -> int:
        """Points of a trajectory until every sample has come to rest, that one among them."""
        made = self.short(f"{recording.path}/iterations")
        if made is None or made.dtype.kind not in "iuf" or not np.isfinite(made).any():
            return len(iterations)
        return min(len(iterations), int(np.searchsorted(iterations, np.nanmax(made))) + 2)

    def _beside(self, recording: Recording, name: str, count: int) -> NDArray | None:
        values = self.short(f"{recording.path}/{name}")
        if values is None or values.ndim != 1 or len(values) < count or values.dtype.kind not in "iuf":
            return None
        return values[:count]

    def unit_ids(self, recording: Recording) -> NDArray[np.int64]:
        """Index of each recorded neuron in its population."""
        count = recording.shape.get("unit", 0)
        ids = self._beside(recording, "unit_ids", count)
        return np.arange(count) if ids is None else ids.astype(np.int64)

    @cached_property
    def activity(self) -> list[Recording]:
        """The probes of neurons at equilibria, along settling, or in time."""
        return [
            r
            for r in self.recordings
            if r.dims in (("frame", "sample", "unit"), ("frame", "point", "sample", "unit"))
            and r.said("population")
            and r.data.dtype.kind in "iufb"
            and r.data.size
        ]

    @cached_property
    def limits(self) -> Limits:
        """The most of each axis of the activity that the page holds of this run."""
        extents = [Extent(self._extent(r), self.frames(r).name == "ms") for r in self.activity]
        extents += [Extent({"sample": s.shape[0], "unit": s.shape[1]}) for s in self.settled.values()]
        return fit(extents, int(0.6 * self.most_bytes), self.asked)

    def _extent(self, recording: Recording) -> dict[str, int]:
        points = self.points(recording)
        return recording.shape | ({} if points is None else {"point": len(points.values)})

    @cached_property
    def settled(self) -> dict[tuple[str, str, str], h5py.Dataset]:
        """Equilibria of the file: (phase, population, variable) -> dataset [sample, unit]."""
        found = {}
        for path, item in self.run.datasets.items():
            match = re.fullmatch(r"equilibria/([^/]+)/([^/]+)/([^/]+)", path)
            if match and item.ndim == 2 and item.size and item.dtype.kind in "iufb":
                phase, population, variable = match.groups()
                if population == "controller":
                    population, variable = variable, "controller"
                if variable in ("soma", "rate", "basal", "apical", "control", "controller"):
                    found[phase, unquote(population), variable] = item
        return found

    def chosen(self, population: str) -> NDArray[np.int64]:
        """The neurons of a population that the page holds, one choice for all that it shows of them."""
        lists = [self.unit_ids(r) for r in self.activity if r.said("population") == population]
        lists += [np.arange(s.shape[1]) for (_, name, _), s in self.settled.items() if name == population]
        wanted = self.neurons.get(population, ())
        if lists:
            return union(lists, self.limits.unit, wanted)
        size = self.size(population)
        most = self.asked.unit or 30
        rest = evenly(size, max(1, most - len(wanted)))
        return np.unique(np.concatenate([np.asarray(wanted, dtype=np.int64), rest]))


def dims(description: str, axes: int) -> tuple[str, ...]:
    """Names of a dataset's axes, from the brackets that its description begins with."""
    match = AXES.match(description)
    names = tuple(part.strip() for part in match[1].split(",")) if match else ()
    if len(names) != axes or len(set(names)) != len(names):
        return tuple(f"axis {number + 1}" for number in range(axes))
    return names


def named(runs: Sequence[Run], asked: Sequence[str]) -> list[dict[str, list[int]]]:
    """Neurons that the user named as POPULATION:NEURON, by index or by name, in each run.

    Raises:
        RunFileError: one that no run has.
    """
    found: list[dict[str, list[int]]] = [{} for _ in runs]
    for text in asked:
        population, _, who = text.rpartition(":")
        problems = []
        for run, neurons in zip(runs, found, strict=True):
            unit = _unit(Source(run, "", 0), population, who)
            if isinstance(unit, int):
                neurons.setdefault(population, []).append(unit)
            else:
                problems.append(f"--neuron {text}: {unit}")
        if len(problems) == len(runs):
            raise RunFileError(problems[0])
    return found


def _unit(source: Source, population: str, who: str) -> int | str:
    """A neuron's index, or what is wrong."""
    if not population or not who:
        return "name a neuron as POPULATION:INDEX or POPULATION:NAME"
    if population not in source.populations:
        allowed = ", ".join(source.populations)
        return (
            f"no population '{population}'; there are {allowed}.{suggestion(population, source.populations)}"
        )
    size = source.size(population)
    if who.isdecimal():
        return int(who) if int(who) < size else f"{population} has neurons 0 to {size - 1}"
    names = source.names_of(population, np.arange(size))
    if who in names:
        return names.index(who)
    return f"{population} has no neuron of this name.{suggestion(who, names)}"


def _specification(run: Run, name: str) -> dict[str, Any]:
    try:
        return specification(str(run.read(f"spec/{name}")))
    except SpecError as error:
        raise RunFileError(f"{run.path}: spec/{name}: is damaged: {error.problems[0].message}") from error


def _names(run: Run, kind: str, order: Any) -> list[str]:
    group = run.file.get(kind)
    links = list(group) if isinstance(group, h5py.Group) else []
    found = ["" if link == "%" else unquote(link) for link in links]
    listed = [name for name in order if name in found] if isinstance(order, dict) else []
    return [*listed, *(name for name in found if name not in listed)]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return (
        value.item()
        if isinstance(value, np.generic)
        else value.tolist()
        if hasattr(value, "tolist")
        else value
    )
