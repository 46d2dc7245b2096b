"""What a run file recorded, one `Recording` for each array, in the form that exporters write out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record.examine import DAMAGE
from circuitlab.record.integrity import check_chunks
from circuitlab.record.reader import Run

BLOCK_BYTES = 16 * 1024 * 1024
"""How much of a recording is in memory at a time, unless one frame is larger."""
ROWS = 100_000
"""Rows of a table that are made at a time."""
ROW_AXES = ("snapshot", "frame", "time", "sample", "point")
"""Axes along which something happens, in the order of an export's rows; all others are columns."""


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
            yield 0, self._read(0, 0)
            return
        rows, step = self.shape[0], step or self.step
        for start in range(0, rows, step):
            yield start, self._read(start, min(start + step, rows))

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

    def _read(self, start: int, stop: int) -> np.ndarray:
        item = self.run.datasets[self.path]
        try:
            if not self.shape:
                return np.asarray(item[()])
            check_chunks(item, (slice(start, stop), *(slice(0, size) for size in item.shape[1:])))
            return np.asarray(item[start:stop])
        except (*DAMAGE, MemoryError) as error:
            raise RunFileError(f"{self.run.path}: {self.path}: is damaged and cannot be read") from error

    def row_table(self) -> dict[str, np.ndarray]:
        """What each row of `matrices` is: columns by name, shape [row] each; see `said`."""
        tables = list(self.row_tables())
        return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}

    def row_tables(self) -> Iterator[dict[str, np.ndarray]]:
        """The same in pieces of about ROWS rows."""
        axes = [self.axes[i] for i in self.row_axes]
        sizes = [self.shape[i] for i in self.row_axes]
        if not axes:
            yield {}
            return
        step = max(1, ROWS // max(1, self.rows // max(1, sizes[0])))
        for start in range(0, sizes[0], step):
            index = np.indices([min(step, sizes[0] - start), *sizes[1:]]).reshape(len(sizes), -1)
            index[0] += start
            yield self.said(axes, list(index))

    def said(self, axes: Sequence[str], index: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What the file says of places along row axes: columns by name.

        `frame`, `snapshot`, `time` and `point` count from 0 within the recording. `step` and `time_ms` are the
        frame's, `iteration` and `settling_time_ms` the point's. `sample` is the sample's number in the data that it
        comes from, -1 where a frame has none, and its place in the recording where the file gives no number.

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
                    found[axis] = (
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
        value = self.run.file["simulation"].attrs.get("dt_ms") if self.run.is_group("simulation") else None
        return float(value) if isinstance(value, float | int | np.number) and float(value) > 0 else 1.0


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
