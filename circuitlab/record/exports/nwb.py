"""A run as an NWB file: a series for every recording, the neurons, the projections and the learning curves as tables.

A series has time first. Simulations have seconds. What was recorded while a circuit learns has the number of updates
in their place, one row for each sample of a frame; a table says what each row is. Where a recording has fewer moments
than neurons it is a table itself, because NWB's tools take the longest axis of a series for its time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuitlab.graph.foreign.hdf5_out import writable
from circuitlab.record.exports.nwb_circuit import SMALL, Circuitry, new_file, packed
from circuitlab.record.exports.nwb_types import (
    NWBHDF5IO,
    ChunkIterator,
    DataChunk,
    DynamicTable,
    H5DataIO,
    TimeSeries,
    VectorData,
)
from circuitlab.record.exports.recordings import ROWS, Recording, file_name, step_of
from circuitlab.record.exports.tidy import MEANING

if TYPE_CHECKING:
    from circuitlab.record.exports import Job

LEAST_RATE = 0.01
"""Rates below this are taken for mistakes by NWB's tools."""


@dataclass(frozen=True)
class Clock:
    """Times of a series: a start and a rate, or a time for each row; and what a second of it stands for."""

    stands_for: str
    start: float | None = None
    rate: float | None = None
    times: Any = None

    @property
    def options(self) -> dict[str, Any]:
        """As TimeSeries takes them."""
        if self.times is not None:
            return {"timestamps": self.times}
        return {"starting_time": self.start, "rate": self.rate}


class Pieces(ChunkIterator):
    """An array that is written piece by piece along its first axis.

    Args:
        pieces: gives the values. shape: of all of them together.
    """

    def __init__(self, pieces: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.pieces, self.shape, self.at = pieces, shape, 0
        self._dtype = dtype

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> Any:
        values = next(self.pieces)
        where = slice(self.at, self.at + len(values))
        self.at += len(values)
        return DataChunk(values, selection=(where, *(slice(0, size) for size in self.shape[1:])))

    def recommended_chunk_shape(self) -> tuple[int, ...] | None:
        """Chunks are left to HDF5."""
        return None

    def recommended_data_shape(self) -> tuple[int, ...]:
        """The shape is known."""
        return self.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self._dtype

    @property
    def maxshape(self) -> tuple[int, ...]:
        """The array does not grow."""
        return self.shape


def write_nwb(job: Job) -> list[str]:
    """Write a run as one NWB file, `<run>.nwb`.

    Returns:
        What was left out, one line each.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nwb = new_file(job.run, job.circuit, job.name, job.about)
        circuitry = Circuitry(nwb, job.circuit)
        if job.network:
            circuitry.add_projections(job.run)
        left_out = Series(nwb, circuitry).add(job.found)
        if job.learning:
            _add_learning(job, nwb)
        path: Path = job.folder / f"{file_name(job.name, set())}.nwb"
        with writable(path) as file, NWBHDF5IO(file=file, mode="w") as io:
            io.write(nwb)
    return left_out


class Series:
    """The recordings of an NWB file.

    Args:
        nwb: the file. circuitry: its neurons.
    """

    def __init__(self, nwb: Any, circuitry: Circuitry) -> None:
        self.nwb, self.circuitry = nwb, circuitry
        self.taken: set[str] = set()

    def add(self, found: Sequence[Recording]) -> list[str]:
        """Add every recording, and a table that says whose neurons its columns are."""
        left_out, listed = [], []
        for each in found:
            if not each.values:
                left_out.append(f"{each.name}: nothing was recorded")
                continue
            listed.append((each, *self._add(each)))
        if listed:
            self.circuitry.add_recordings(listed)
        return left_out

    def _add(self, recording: Recording) -> tuple[str, str]:
        """Add a recording; its name, and that of the table of its rows."""
        name = file_name(recording.name, self.taken)
        columns = tuple(recording.shape[i] for i in recording.column_axes)
        columns = () if columns == (1,) else columns
        if recording.real_time and "point" not in recording.axes:
            samples = recording.size("sample")
            shape = (recording.shape[0], *((samples,) if samples > 1 else ()), *columns)
            clock = _real_time(recording)
            if all(size <= shape[0] for size in shape[1:]):
                rows = ""
                if samples > 1:
                    said = recording.said(["sample"], [np.arange(samples)])
                    columns = [_column(key, values) for key, values in said.items()]
                    rows = self._rows(f"{name}_samples", columns, samples)
                self._put(recording, name, shape, clock)
                return name, rows
        clock, shape = _clock(recording), (recording.rows, *columns)
        slow = clock.rate is not None and clock.rate < LEAST_RATE
        if slow or any(size > shape[0] for size in columns):
            self._put_table(recording, name, shape)
            return name, name
        rows = self._rows(f"{name}_rows", _columns(recording), recording.rows) if _says(recording) else ""
        self._put(recording, name, shape, clock)
        return name, rows

    def _put(self, recording: Recording, name: str, shape: tuple[int, ...], clock: Clock) -> None:
        self.nwb.add_acquisition(
            TimeSeries(
                name=name,
                data=_data(recording, shape),
                unit=recording.units or "dimensionless",
                description=_described(recording),
                comments=clock.stands_for,
                **clock.options,
            )
        )

    def _put_table(self, recording: Recording, name: str, shape: tuple[int, ...]) -> None:
        columns = _columns(recording)
        about = (
            f"[row, ...] values of each row, {recording.units or 'dimensionless'}: {_described(recording)}"
        )
        columns.append(VectorData(name="data", description=about, data=_data(recording, shape)))
        self.nwb.add_acquisition(
            DynamicTable(
                name=name,
                description=f"{_described(recording)}; a row for each moment and sample",
                columns=columns,
                id=np.arange(shape[0]),
            )
        )

    def _rows(self, name: str, columns: list[Any], rows: int) -> str:
        """Add the table that says what the rows of a series are."""
        name = file_name(name, self.taken)
        about = "what the rows of the series are: frame, sample and class, as the columns say"
        table = DynamicTable(name=name, description=about, columns=columns, id=np.arange(rows))
        self.nwb.add_acquisition(table)
        return name


def _says(recording: Recording) -> bool:
    """Whether a table of rows says more than to count samples."""
    axes = [recording.axes[i] for i in recording.row_axes]
    counts = recording.sample_ids is None and recording.labels is None
    return bool(axes) and not (axes == ["sample"] and counts)


def _columns(recording: Recording) -> list[Any]:
    """Columns that say what each row is; of many rows they are written in pieces."""
    if recording.rows <= ROWS:
        return [_column(name, values) for name, values in recording.row_table().items()]
    first = next(recording.row_tables())
    shape = (recording.rows,)
    return [
        _column(name, _compressed(Pieces(_pieces(recording, name, values.dtype), shape, values.dtype)))
        for name, values in first.items()
    ]


def _pieces(recording: Recording, column: str, dtype: np.dtype) -> Iterator[np.ndarray]:
    """A column of the rows' table."""
    return (table[column].astype(dtype, copy=False) for table in recording.row_tables())


def _column(name: str, values: Any) -> Any:
    unit, about = MEANING.get(name, ("", name))
    data = packed(values) if isinstance(values, np.ndarray) else values
    return VectorData(name=name, description=f"{about}, {unit}" if unit else about, data=data)


def _compressed(pieces: Pieces) -> Any:
    return H5DataIO(pieces, compression="gzip", compression_opts=1, shuffle=True, chunks=True)


def _data(recording: Recording, shape: tuple[int, ...]) -> Any:
    """A recording's values in a shape whose first axis is the series' time."""
    dtype = np.dtype(np.uint8) if recording.dtype.kind == "b" else recording.dtype

    def pieces() -> Iterator[np.ndarray]:
        for piece in recording.matrices():
            yield piece.astype(dtype, copy=False).reshape(-1, *shape[1:])

    values = Pieces(pieces(), shape, dtype)
    return _compressed(values) if recording.nbytes > SMALL else H5DataIO(values)


def _described(recording: Recording) -> str:
    """What a recording is, in a sentence."""
    whose = recording.population or recording.projection
    of = f" of {whose}" if whose else ""
    symbol = f" ({recording.symbol})" if recording.symbol else ""
    phase = f", {recording.phase}" if recording.phase else ""
    return f"{recording.variable}{of}{symbol}{phase}: {recording.about or recording.name}"


def _real_time(recording: Recording) -> Clock:
    """Seconds of a simulation."""
    times = recording.frames["time"].astype(np.float64) / 1000
    step = step_of(recording.frames["time"], recording.step_ms)
    if step is None:
        return Clock("time is in seconds since the simulation began", times=times)
    return Clock("time is in seconds since the simulation began", start=float(times[0]), rate=1000 / step)


def _clock(recording: Recording) -> Clock:
    """What stands in the place of time where rows are equilibria, or trajectories one after the other."""
    if "point" in recording.axes:
        step = step_of(recording.points["time"]) if "time" in recording.points else None
        if step is not None:
            words = "one settling trajectory after the other, each in seconds; the table of rows says which"
            return Clock(words, start=0.0, rate=1000 / step)
        return Clock("rows are counted, one a second: points of settling trajectories", start=0.0, rate=1.0)
    steps = recording.frames.get("step")
    if steps is None:
        return Clock("rows are counted, one a second: they are no moments in time", start=0.0, rate=1.0)
    words = "the time of a row is the number of updates made before it, one counted as a second"
    if recording.rows == len(steps):
        return regular(steps.astype(np.float64), words)
    if recording.rows <= ROWS:
        return Clock(words, times=np.repeat(steps, recording.rows // len(steps)).astype(np.float64))
    double = np.dtype(np.float64)
    return Clock(
        words, times=_compressed(Pieces(_pieces(recording, "step", double), (recording.rows,), double))
    )


def regular(times: np.ndarray, words: str) -> Clock:
    """Times as a start and a rate where they follow each other uniformly."""
    if len(times) < 2:
        return Clock(words, start=float(times[0]) if len(times) else 0.0, rate=1.0)
    step = step_of(times)
    return Clock(words, times=times) if step is None else Clock(words, start=float(times[0]), rate=1 / step)


def _add_learning(job: Job, nwb: Any) -> None:
    """Learning curves, a series each."""
    curves: Any = None
    for name in job.run.metrics():
        steps, values = job.run.metric(name)
        if not len(values):
            continue
        if curves is None:
            about = "learning curves; time counts updates or epochs, as each series' comments say"
            curves = nwb.create_processing_module(name="learning", description=about).add
        item = job.run.datasets[f"training/{name}"]
        counted = str(item.attrs.get("index", "rows")).strip("/").removeprefix("training/")
        words = {"step": "updates", "epoch": "epochs", "evaluation": "epochs finished"}.get(counted, counted)
        clock = regular(steps.astype(np.float64), f"time counts {words}, one counted as a second")
        values = values.astype(np.uint8) if values.dtype.kind == "b" else values
        curves(
            TimeSeries(
                name=name,
                data=packed(values),
                unit=str(item.attrs.get("units", "")) or "dimensionless",
                description=str(item.attrs.get("description", "")) or name,
                comments=clock.stands_for,
                **clock.options,
            )
        )
