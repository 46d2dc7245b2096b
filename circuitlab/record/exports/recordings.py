"""What a run file recorded, one `Recording` for each array, in the form that exporters write out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np

from circuitlab.errors import RunFileError, suggestion
from circuitlab.record.reader import Run

BLOCK_BYTES = 16 * 1024 * 1024
"""How much of a recording is in memory at a time, unless one frame is larger."""
ROW_AXES = ("snapshot", "frame", "time", "sample", "point")
"""Axes along which something happens, in the order of an export's rows; all others are columns."""
PLACES = ("activity", "equilibria", "updates", "feedback", "factors", "samples", "diagnosis")
"""Groups of a run file that hold recordings, in the order in which they are exported."""
REAL_TIME = "real time"
_AXES = re.compile(r"\[([^\]]*)\]\s*")
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)


@dataclass(frozen=True, eq=False)
class Recording:
    """One recorded array, which stays in its file until a block of it is asked for.

    Args:
        name: the probe's or trace's name; of other recordings their path, such as `equilibria/free/l23/soma`.
        run, path: where it lies. axes: name of each axis. shape: its size, without frames that are not whole yet.
        about: what it is, in words. units: of the values. variable, symbol, phase, of, every: as the file says,
            empty where it says nothing.
        population, projection: whose neurons or synapses, or None.
        ids: axis -> index of each entry in its population or projection. unit_names: names of the neurons, or None.
        frames: name -> what is known of every frame: step, time (ms). points: of every point of a trajectory:
            time (ms) or iteration. sample_ids: [sample] or [frame, sample], -1 where a frame has no sample, or None.
        labels: [sample], or None.
    """

    name: str
    run: Run
    path: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    about: str
    units: str
    variable: str
    symbol: str
    phase: str
    of: str
    every: str
    population: str | None
    projection: str | None
    ids: Mapping[str, np.ndarray]
    unit_names: tuple[str, ...] | None
    frames: Mapping[str, np.ndarray]
    points: Mapping[str, np.ndarray]
    sample_ids: np.ndarray | None
    labels: np.ndarray | None

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.run.datasets[self.path].dtype

    @property
    def nbytes(self) -> int:
        """Size of the values in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def values(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def real_time(self) -> bool:
        """Whether the frames are moments of a simulation, with their time in ms."""
        return "time" in self.frames

    @cached_property
    def row_axes(self) -> tuple[int, ...]:
        """Axes of the rows of `matrices`, slowest first: frame, sample, point."""
        return tuple(sorted((i for i, a in enumerate(self.axes) if a in ROW_AXES), key=self._rank))

    @cached_property
    def column_axes(self) -> tuple[int, ...]:
        """Axes of the columns of `matrices`."""
        return tuple(i for i in range(len(self.axes)) if i not in self.row_axes)

    @property
    def rows(self) -> int:
        """Number of rows of `matrices`."""
        return int(np.prod([self.shape[i] for i in self.row_axes], dtype=np.int64))

    @property
    def columns(self) -> int:
        """Number of columns of `matrices`."""
        return int(np.prod([self.shape[i] for i in self.column_axes], dtype=np.int64))

    def _rank(self, axis: int) -> int:
        return ROW_AXES.index(self.axes[axis])

    def size(self, axis: str) -> int:
        """Entries along an axis, 1 where the recording has no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def step(self) -> int:
        """Entries of the first axis in a piece, unless another number is asked for."""
        rows = self.shape[0] if self.shape else 1
        step = max(1, BLOCK_BYTES // max(1, self.nbytes // max(1, rows)))
        chunks = self.run.datasets[self.path].chunks
        return step - step % chunks[0] if chunks and step > chunks[0] else step

    def blocks(self, step: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """The values in pieces along the first axis: where each begins, and its values.

        Args:
            step: entries of the first axis in a piece.

        Raises:
            RunFileError: the bytes are damaged.
        """
        if not self.shape:
            yield 0, self._read(())
            return
        rows, step = self.shape[0], step or self.step
        for start in range(0, rows, step):
            yield start, self._read(slice(start, min(start + step, rows)))

    def matrices(self, step: int | None = None) -> Iterator[np.ndarray]:
        """The values in pieces [row, column]; see `row_axes`.

        Raises:
            RunFileError: the bytes are damaged.
        """
        order = (*self.row_axes, *self.column_axes)
        if order and order[0] != 0:  # no row axis comes first: one piece, transposed
            whole = np.concatenate([block for _, block in self.blocks()])
            yield whole.transpose(order).reshape(self.rows, self.columns)
            return
        for _, block in self.blocks(step):
            yield block.transpose(order).reshape(-1, self.columns)

    def _read(self, where: Any) -> np.ndarray:
        try:
            return np.asarray(self.run.datasets[self.path][where])
        except _DAMAGE as error:
            raise RunFileError(f"{self.run.path}: {self.path}: is damaged and cannot be read") from error

    def row_table(self) -> dict[str, np.ndarray]:
        """What each row of `matrices` is: columns by name, shape [row] each.

        `frame`, `sample` and `point` count from 0 within the recording; `step`, `time_ms`, `settling_time_ms`,
        `iteration`, `sample_id` and `label` are what the file says of them.
        """
        sizes = [self.shape[i] for i in self.row_axes]
        grids = np.indices(sizes).reshape(len(sizes), -1) if sizes else np.zeros((0, 1), dtype=np.int64)
        return self.said([self.axes[i] for i in self.row_axes], list(grids))

    def said(self, axes: Sequence[str], index: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What the file says of places along row axes: columns by name.

        Args:
            axes: names of row axes. index: place along each, shapes that broadcast to one.
        """
        at = dict(zip(axes, index, strict=True))
        found: dict[str, np.ndarray] = {}
        for axis in axes:
            found[axis] = at[axis]
            if axis in ("frame", "snapshot"):
                for name, values in self.frames.items():
                    found["time_ms" if name == "time" else name] = values[at[axis]]
            elif axis == "point":
                for name, values in self.points.items():
                    found["settling_time_ms" if name == "time" else name] = values[at[axis]]
            elif axis == "sample":
                if self.sample_ids is not None:
                    by_frame = self.sample_ids.ndim == 2
                    found["sample_id"] = (
                        self.sample_ids[at["frame"], at[axis]] if by_frame else self.sample_ids[at[axis]]
                    )
                if self.labels is not None:
                    found["label"] = self.labels[at[axis]]
        return found

    def row_axes_said(self) -> dict[str, np.ndarray]:
        """Everything that says what rows are: frames, points, samples and labels by name."""
        found = {f"frames {name}": values for name, values in self.frames.items()}
        found |= {f"points {name}": values for name, values in self.points.items()}
        for name, values in (("samples", self.sample_ids), ("labels", self.labels)):
            if values is not None:
                found[name] = values
        return found

    @property
    def step_ms(self) -> float:
        """Step of the simulation in ms, 1 where the file says none."""
        simulation = self.run.file.get("simulation")
        value = None if simulation is None else simulation.attrs.get("dt_ms")
        return float(value) if isinstance(value, float | int | np.number) and float(value) > 0 else 1.0

    def filled(self, start: int, stop: int) -> np.ndarray | None:
        """Which samples of some frames are there, [frame, sample]; None where all are."""
        if self.sample_ids is None or self.sample_ids.ndim != 2:
            return None
        present = self.sample_ids[start:stop] >= 0
        return None if present.all() else present


def step_of(times: np.ndarray, alone: float = 1.0) -> float | None:
    """The step of times that follow each other uniformly; None where they do not.

    Args:
        times: shape [time]. alone: the step of a single time.
    """
    if len(times) < 2:
        return alone
    step = float(f"{(float(times[-1]) - float(times[0])) / (len(times) - 1):.12g}")
    expected = float(times[0]) + step * np.arange(len(times))
    uniform = step > 1e-5 and np.isfinite(times).all() and np.abs(times - expected).max() <= 1e-4 * step
    return step if uniform else None


def unlinked(link: str) -> str:
    """The name that an HDF5 link stands for: what `link_name` quoted."""
    return "" if link == "%" else unquote(link)


def file_name(name: str, taken: set[str]) -> str:
    """A name for a file or object, made from any recording's name, none of those taken; it is added to them."""
    base = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "unnamed"
    found, number = base, 2
    while found.lower() in taken:
        found, number = f"{base}_{number}", number + 1
    taken.add(found.lower())
    return found


def recordings(run: Run) -> tuple[list[Recording], list[str]]:
    """Everything that a run file recorded, and what it holds that is no array with named axes, one line each.

    Raises:
        RunFileError: something beside a recording does not fit it.
    """
    try:
        return _found(run)
    except _DAMAGE as error:
        raise RunFileError(f"{run.path}: what it recorded is damaged: {error!r}") from error


def _found(run: Run) -> tuple[list[Recording], list[str]]:
    found, others = [], []
    populations = _sizes(run, "nodes", "node_id")
    projections = _sizes(run, "edges", "source_node_id")
    for place in PLACES:
        for path in [path for path in run.datasets if path.startswith(f"{place}/")]:
            parts = path.split("/")
            if place == "activity" and (len(parts) != 3 or parts[2] != "data"):
                continue
            if parts[-1] == "sample_ids":
                continue
            item = run.datasets[path]
            axes = _axes(run, path, item)
            if axes is None or item.dtype.kind not in "biuf":
                others.append(f"{path}: has no axes to export it by; `circuitlab inspect` shows it")
                continue
            found.append(_recording(run, path, axes, populations, projections))
    return found, others


def chosen(found: Sequence[Recording], wanted: Sequence[str], path: Any) -> list[Recording]:
    """The recordings that are asked for by name or by a pattern such as `l23_*`; all where nothing is.

    Raises:
        RunFileError: a name that no recording has; the text lists those that there are.
    """
    if not wanted:
        return list(found)
    names = [each.name for each in found]
    picked: list[Recording] = []
    for word in wanted:
        fit = [each for each in found if each.name == word] or [
            each for each in found if fnmatch.fnmatchcase(each.name, word)
        ]
        if not fit:
            raise RunFileError(
                f"{path}: --probe: nothing recorded is called '{word}'; there are {', '.join(names) or 'none'}."
                + suggestion(word, names)
            )
        picked += [each for each in fit if each not in picked]
    return [each for each in found if each in picked]


def _sizes(run: Run, kind: str, dataset: str) -> dict[str, int]:
    """Size of every population or projection by its name."""
    found = {}
    for path, item in run.datasets.items():
        parts = path.split("/")
        if len(parts) == 3 and parts[0] == kind and parts[2] == dataset and item.ndim == 1:
            found[unlinked(parts[1])] = item.shape[0]
    return found


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _axes(run: Run, path: str, item: h5py.Dataset) -> tuple[str, ...] | None:
    """Names of the axes, which begin the description; None where it names none."""
    match = _AXES.match(_text(item.attrs.get("description")))
    if match is None:
        return None
    axes = tuple(word.strip() for word in match[1].split(","))
    if len(axes) != item.ndim or len(set(axes)) != len(axes):
        raise RunFileError(
            f"{run.path}: {path}: is damaged: its axes are [{match[1]}], its shape is {item.shape}"
        )
    return axes


def _recording(
    run: Run,
    path: str,
    axes: tuple[str, ...],
    populations: Mapping[str, int],
    projections: Mapping[str, int],
) -> Recording:
    item = run.datasets[path]
    said = {key: _text(value) for key, value in item.attrs.items() if np.ndim(value) == 0}
    parts = [unlinked(part) for part in path.split("/")]
    group = path.rpartition("/")[0] if parts[0] == "activity" else ""
    about = {key: _text(value) for key, value in run.file[group].attrs.items()} if group else {}
    population, projection, variable = said.get("population"), said.get("projection"), said.get("variable")
    if not group:
        variable = variable or (parts[-1] if parts[0] in ("equilibria", "diagnosis") else parts[0])
        population = population or next((p for p in reversed(parts) if p in populations), None)
        if population is None and parts[-1].removesuffix("_bias") in populations:
            population = parts[-1].removesuffix("_bias")
        if "edge" in axes or "parameter" in axes:
            population, projection = None, projection or next((p for p in parts if p in projections), None)
    frames, points, trimmed = _beside(run, group, axes, item.shape)
    shape = (trimmed, *item.shape[1:]) if trimmed is not None else item.shape
    ids = _ids(run, group, path, axes, shape, population, projection, populations, projections)
    samples = _samples(run, group, parts[0], axes, shape)
    described = _text(item.attrs.get("description"))
    phase = said.get("phase", parts[1] if parts[0] == "equilibria" and len(parts) > 2 else "")
    return Recording(
        name=parts[1] if group else "/".join(parts),
        run=run,
        path=path,
        axes=axes,
        shape=shape,
        about=_AXES.sub("", described, count=1),
        units=said.get("units", ""),
        variable=variable or "",
        symbol=said.get("symbol", ""),
        phase=phase,
        of=about.get("of", ""),
        every=about.get("every", ""),
        population=population,
        projection=projection,
        ids=ids,
        unit_names=_unit_names(run, group, population, ids, shape, axes),
        frames=frames,
        points=points,
        sample_ids=samples,
        labels=_vector(run, f"{group}/labels", shape[axes.index("sample")])
        if group and "sample" in axes and f"{group}/labels" in run.datasets
        else None,
    )


def _beside(
    run: Run, group: str, axes: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int | None]:
    """Steps and times of frames and points, and how many frames are whole."""
    if not group:
        steps = "weights/step" in run.datasets and axes[:1] == ("snapshot",)
        return ({"step": _vector(run, "weights/step", shape[0])} if steps else {}), {}, None
    frames, points = {}, {}
    per_point = "point" in axes
    for name in ("step", "time", "iteration"):
        path = f"{group}/{name}"
        if path not in run.datasets:
            continue
        of_points = per_point and name in ("time", "iteration")
        axis = "point" if of_points else "frame"
        if axis not in axes:
            continue
        if of_points:
            points[name] = _vector(run, path, shape[axes.index("point")])
        else:
            frames[name] = _vector(run, path, None)
    if not axes or axes[0] != "frame":
        return frames, points, None
    counts = [shape[0], *(len(values) for values in frames.values())]
    ids = run.datasets.get(f"{group}/sample_ids")
    if ids is not None and ids.ndim == 2:
        counts.append(len(ids))
    rows = min(counts)
    return {name: values[:rows] for name, values in frames.items()}, points, rows


def _vector(run: Run, path: str, length: int | None) -> np.ndarray:
    values = np.asarray(run.read(path))
    if values.ndim != 1 or values.dtype.kind not in "biuf" or (length is not None and len(values) != length):
        wanted = "" if length is None else f", {length} are needed"
        raise RunFileError(f"{run.path}: {path}: is damaged: shape {values.shape} of {values.dtype}{wanted}")
    return values


def _ids(
    run: Run,
    group: str,
    path: str,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    population: str | None,
    projection: str | None,
    populations: Mapping[str, int],
    projections: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Index of every entry along each column axis."""
    owners = {
        "unit": (population, populations, "population"),
        "edge": (projection, projections, "projection"),
    }
    found = {}
    for axis, size in zip(axes, shape, strict=True):
        if axis in ROW_AXES:
            continue
        beside = f"{group}/{axis.replace(' ', '_')}_ids"
        given = bool(group) and beside in run.datasets
        ids = _vector(run, beside, size) if given else np.arange(size)
        owner, sizes, kind = owners.get(axis, (None, {}, ""))
        if owner is not None and owner not in sizes:
            raise RunFileError(f"{run.path}: {path}: is damaged: there is no {kind} '{owner}'")
        least, most = (int(ids.min()), int(ids.max())) if size else (0, -1)
        if ids.dtype.kind not in "iu" or least < 0 or (owner is not None and most >= sizes[owner]):
            limit = "" if owner is None else f", and {kind} '{owner}' has {sizes[owner]}"
            raise RunFileError(f"{run.path}: {beside if given else path}: is damaged: ids up to {most}{limit}")
        found[axis] = ids.astype(np.int64)
    return found


def _samples(
    run: Run, group: str, place: str, axes: tuple[str, ...], shape: tuple[int, ...]
) -> np.ndarray | None:
    """Number of each sample: beside the recording, or in its whole group, as diagnoses have it."""
    if "sample" not in axes:
        return None
    path = f"{group or place}/sample_ids"
    if path not in run.datasets:
        return None
    values = np.asarray(run.read(path))
    size = shape[axes.index("sample")]
    if values.ndim == 2 and axes[0] == "frame":
        values = values[: shape[0]]
    fits = values.shape in ((size,), (shape[0], size))
    if not fits or values.dtype.kind not in "iu":
        raise RunFileError(f"{run.path}: {path}: is damaged: shape {values.shape}, {size} samples are needed")
    return values.astype(np.int64)


def _unit_names(
    run: Run,
    group: str,
    population: str | None,
    ids: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    axes: tuple[str, ...],
) -> tuple[str, ...] | None:
    if "unit" not in axes:
        return None
    size = shape[axes.index("unit")]
    if group and f"{group}/unit_names" in run.datasets:
        names = np.asarray(run.read(f"{group}/unit_names"))
        if names.shape != (size,):
            raise RunFileError(f"{run.path}: {group}/unit_names: is damaged: shape {names.shape}")
        return tuple(str(name) for name in names)
    if population is None:
        return None
    names = names_of(run, population)
    return None if names is None else tuple(names[i] for i in ids["unit"])


def names_of(run: Run, population: str) -> list[str] | None:
    """Names of all neurons of a population, or None."""
    for path in run.datasets:
        parts = path.split("/")
        if len(parts) == 4 and parts[0] == "nodes" and parts[2:] == ["0", "name"]:
            if unlinked(parts[1]) == population:
                return [str(name) for name in np.asarray(run.read(path)).ravel()]
    return None
