"""The contents of a run file as labelled arrays of xarray, read from the file when they are needed.

Each dataset's description begins with its axes, `[frame, sample, unit]`: they are the dimensions. An array holds the
file's name, not its bytes: slicing reads the chunks that the slice touches, and files larger than memory need no more
than what is asked for.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

import h5py
import numpy as np

from circuitlab.errors import RunFileError, needs, suggestion
from circuitlab.record.examine import DAMAGE
from circuitlab.record.integrity import check_chunks
from circuitlab.record.weights import snapshot_count, weights_at

if TYPE_CHECKING:
    import xarray as xr
    from xarray import backends
    from xarray.core import indexing

    from circuitlab.record.reader import Run
else:
    xr = needs("xarray", extra="analysis", what="circuitlab.open")
    indexing = needs("xarray.core.indexing", extra="analysis", what="circuitlab.open")
    backends = needs("xarray.backends", extra="analysis", what="circuitlab.open")

_AXES = re.compile(r"\[([^\[\]]*)\]")
KEPT = (
    "units",
    "description",
    "variable",
    "symbol",
    "population",
    "projection",
    "phase",
    "every",
    "of",
    "index",
)
"""Attributes that an array takes over from its dataset and its group."""
_LOCK = threading.RLock()


class Stored(backends.BackendArray):
    """A dataset of a run, as xarray's lazily indexed arrays ask for it."""

    def __init__(self, run: Run, path: str) -> None:
        item = run.datasets[path]
        self.run, self.path = run, path
        self.shape, self.dtype = item.shape, np.dtype(item.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getitem__(self, key: Any) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        order: list[Any] = []
        sorted_key: list[Any] = []
        for part in key:
            if isinstance(part, np.ndarray):  # HDF5 wants rising numbers, each once
                unique, back = np.unique(part, return_inverse=True)
                sorted_key.append(unique)
                order.append(back)
            elif isinstance(part, slice) and (part.step or 1) < 0:
                numbers = np.arange(*part.indices(self.shape[len(sorted_key)]))
                last, first = (numbers[0], numbers[-1]) if len(numbers) else (-1, 0)
                sorted_key.append(slice(int(first), int(last) + 1, -part.step))
                order.append(slice(None, None, -1))
            else:
                sorted_key.append(part)
                if isinstance(part, slice):
                    order.append(slice(None))
        try:
            with _LOCK:
                item = self.run.datasets[self.path]
                box = tuple(
                    _bounds(part, side, now)
                    for part, side, now in zip(sorted_key, self.shape, item.shape, strict=True)
                )
                check_chunks(item, box)
                values = np.asarray(item[tuple(sorted_key)])
        except (RunFileError, *DAMAGE) as error:
            if isinstance(error, RunFileError):
                raise
            what = "is damaged and cannot be read"
            if not self.run.file:
                what = "the run was closed; read before closing it"
            elif isinstance(error, MemoryError):
                what = "this does not fit into the memory; take a part of it at a time (isel, sel)"
            raise RunFileError(f"{self.run.path}: {self.path}: {what}") from error
        for axis, back in enumerate(order):
            if not (isinstance(back, slice) and back == slice(None)):
                values = values[(slice(None),) * axis + (back,)]
        return values


def _bounds(part: Any, side: int, now: int) -> slice:
    """First and last index of a selection along an axis, as a slice."""
    if now < side:
        raise ValueError("the dataset is shorter than it was")
    if isinstance(part, slice):
        start, stop, _ = part.indices(side)
        return slice(start, max(start, stop))
    if isinstance(part, np.ndarray):
        return slice(int(part.min()), int(part.max()) + 1) if part.size else slice(0, 0)
    return slice(int(part), int(part) + 1)


def axes(run: Run, path: str) -> tuple[str, ...]:
    """Names of a dataset's axes, from its description; `axis_0`, ... where it names none."""
    item = run.datasets[path]
    found = _AXES.match(str(item.attrs.get("description", "")))
    names = [re.sub(r"\W+", "_", name.strip()) for name in found[1].split(",")] if found and found[1] else []
    if len(names) != item.ndim or len(set(names)) != len(names):
        return tuple(f"axis_{number}" for number in range(item.ndim))
    return tuple(names)


def variable(run: Run, path: str, dims: tuple[str, ...] | None = None) -> xr.Variable:
    """A dataset as a variable of xarray: numbers stay in the file, texts are read."""
    item = run.datasets[path]
    attrs = {key: plain(value) for key, value in item.attrs.items() if key in KEPT}
    if h5py.check_string_dtype(item.dtype) is not None:
        texts = run.read(path)
        data: Any = (
            texts if isinstance(texts, str) else np.asarray(texts.tolist(), dtype=np.str_).reshape(item.shape)
        )
    else:
        data = indexing.LazilyIndexedArray(Stored(run, path))
    return xr.Variable(axes(run, path) if dims is None else dims, data, attrs)


def array(run: Run, path: str) -> xr.DataArray:
    """Any dataset; its axes are those that its description names."""
    item = run._find(path)
    name = str(item.name).strip("/")
    return xr.DataArray(variable(run, name), name=name.rsplit("/", 1)[-1])


def plain(value: Any) -> Any:
    """A number of numpy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def name_of(link: str) -> str:
    """The name that a link of the file stands for."""
    return "" if link == "%" else unquote(link)


def missing(run: Run, what: str, name: str, known: list[str]) -> RunFileError:
    """The error for a name that is not there."""
    return RunFileError(
        f"{run.path}: no {what} '{name}'; there are {', '.join(known) or 'none'}.{suggestion(name, known)}"
    )


class Lazily(Mapping[str, Any]):
    """Arrays by their names, each made when it is asked for.

    Args:
        what: what one of them is, for messages.
    """

    def __init__(self, run: Run, what: str, names: list[str], make: Callable[[str], Any]) -> None:
        self._run, self._what, self._names, self._make = run, what, names, make

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise missing(self._run, self._what, name, self._names)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"{self._what}s: {', '.join(self._names) or 'none'}"


class Snapshots(backends.BackendArray):
    """Weights [snapshot, edge], however the file stores them: one snapshot is read at a time."""

    def __init__(self, run: Run, name: str) -> None:
        first = weights_at(run, name, 0)
        self.run, self.name = run, name
        self.shape, self.dtype = (snapshot_count(run, name), *first.shape), first.dtype

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getitem__(self, key: Any) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        rows, rest = key[0], tuple(key[1:])

        def row(number: int) -> np.ndarray:
            values = weights_at(self.run, self.name, number)
            for axis, part in reversed(list(enumerate(rest))):
                values = values[(slice(None),) * axis + (part,)]
            return values

        with _LOCK:
            if isinstance(rows, int | np.integer):
                return row(int(rows))
            numbers = np.arange(self.shape[0])[rows]
            empty = np.empty((0, *self.shape[1:]), self.dtype)
            found = [row(int(number)) for number in numbers]
            return np.stack(found) if found else empty[(slice(None), *rest)]
