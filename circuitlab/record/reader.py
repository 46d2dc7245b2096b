"""Reading run files with numpy: checked on opening, refused in one line when damaged or foreign."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from circuitlab.errors import CircuitlabError, RunFileError, suggestion
from circuitlab.record import checkpoint as checkpoints
from circuitlab.record.examine import DAMAGE, FORMAT, FORMAT_VERSION, STATUSES, examine
from circuitlab.record.integrity import SIGNATURE as HDF5_SIGNATURE
from circuitlab.record.integrity import check_bytes, check_chunks
from circuitlab.record.lock import is_held
from circuitlab.record.recovery import recover
from circuitlab.record.storage import verify

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FORMAT", "FORMAT_VERSION", "HDF5_SIGNATURE", "STATUSES", "Run", "Table", "open_run"]

LARGEST_SPEC = 100_000
"""Values in a circuit or experiment file at most."""
TRIES = 5
"""How often a file that is being written is looked at before what seems wrong counts as wrong."""
LARGE = 100 * 1024 * 1024
"""Bytes from which a dataset that is nearly nothing on the disk is not read at once."""


@dataclass(frozen=True)
class Table:
    """One dataset of a run file: where it is, how large, in which units, and what its axes are."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    units: str
    description: str


class Datasets(Mapping[str, h5py.Dataset]):
    """The datasets of a file by their paths without leading slash, in the order of the paths, opened when asked for."""

    def __init__(self, path: Path, file: h5py.File, names: Iterable[str]) -> None:
        self._path, self._file = path, file
        self._items: dict[str, h5py.Dataset | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> h5py.Dataset:
        item = self._items[name]
        if item is None:
            try:
                item = self._file[name]
                assert isinstance(item, h5py.Dataset)
            except DAMAGE as error:
                raise RunFileError(f"{self._path}: {name}: is damaged and cannot be read") from error
            self._items[name] = item
        return item

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Run:
    """An open run file; it shows what was published when it was opened, or last refreshed.

    Args:
        path: the file.
        file: it, opened for reading.
        names: the paths of its datasets.

    Attributes:
        datasets: every dataset by its path without leading slash, in the order of the paths.
    """

    def __init__(self, path: Path, file: h5py.File, names: Iterable[str]) -> None:
        self.path = path
        self.file = file
        self.datasets: Mapping[str, h5py.Dataset] = Datasets(path, file, names)
        self._seen = _state_of(path)

    def refresh(self) -> bool:
        """Brings in what was written since: longer datasets, new ones, and a file put in the place of this one.

        Arrays that were made before keep the length they had, and can still be read.

        Returns:
            Whether there was anything new.
        Raises:
            RunFileError: the file is gone, or damaged.
        """
        seen = _state_of(self.path)
        if seen == self._seen and self.file:
            return False
        self.file.close()  # first: HDF5 opens a file that is open as it knew it
        file, names = _opened(self.path)
        self.file, self.datasets, self._seen = file, Datasets(self.path, file, names), seen
        return True

    @property
    def status(self) -> str:
        """running, complete, interrupted or failed; a run whose writer died is interrupted."""
        status = str(self.file.attrs["status"])
        return "interrupted" if status == "running" and not is_held(Path(self.path).resolve()) else status

    @property
    def attributes(self) -> dict[str, Any]:
        """The root's attributes: command, seed, versions, ..."""
        return {key: _plain(value) for key, value in self.file.attrs.items()}

    @property
    def circuit_yaml(self) -> str:
        """The circuit file with every default written out."""
        return str(self.read("spec/circuit"))

    @property
    def experiment_yaml(self) -> str:
        """The experiment file with every default written out."""
        return str(self.read("spec/experiment"))

    def specification(self, name: str = "circuit") -> dict[str, Any]:
        """The circuit or the experiment file as plain data, with every default.

        Raises:
            RunFileError: its text is damaged.
        """
        from circuitlab.spec.source import read

        text, where = str(self.read(f"spec/{name}")), f"{self.path}: /spec/{name}"
        if sum(map(text.count, "\n,[{")) > LARGEST_SPEC:
            raise RunFileError(f"{where}: is damaged: it holds more than {LARGEST_SPEC} values")
        try:
            data = read(where, text).data
        except CircuitlabError as error:
            raise RunFileError(f"{str(error).splitlines()[0]}") from error
        if not isinstance(data, dict):
            raise RunFileError(f"{where}: is damaged: it is no mapping")
        return data

    def tables(self) -> list[Table]:
        """Every dataset, without those that only `--resume` needs."""
        return [
            Table(
                path,
                item.shape,
                _kind(item),
                str(item.attrs.get("units", "")),
                str(item.attrs.get("description", "")),
            )
            for path, item in self.datasets.items()
            if not path.startswith("checkpoint/")
        ]

    def is_group(self, path: str) -> bool:
        """Whether there is a group of this name, be it one of attributes alone."""
        return isinstance(self.file.get(path), h5py.Group)

    def read(self, path: str) -> Any:
        """A dataset as a numpy array, text as str.

        Raises:
            RunFileError: no such dataset, or its bytes are damaged.
        """
        item = self._find(path)
        try:
            self._refuse_absurd(path, item)
            check_chunks(item)
            if h5py.check_string_dtype(item.dtype) is not None and item.dtype.kind == "O":
                text = item.asstr()[()]
                verify(item, text)
                return text if isinstance(text, str) else np.asarray(text, dtype=object)
            values = np.asarray(item[()])
            verify(item, values)
            return values
        except DAMAGE as error:
            full = "does not fit into the memory; read a part of it (circuitlab.open, array)"
            what = full if isinstance(error, MemoryError) else "is damaged and cannot be read"
            raise RunFileError(f"{self.path}: {path}: {what}") from error

    def _refuse_absurd(self, path: str, item: h5py.Dataset) -> None:
        """A dataset that would fill the memory, though nearly nothing of it is in the file, is not read at once."""
        size, memory = item.nbytes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > memory or (size > LARGE and size > 200 * item.id.get_storage_size()):
            raise RunFileError(
                f"{self.path}: {path}: has {size:.3g} bytes, of which {item.id.get_storage_size():.3g} are in the "
                "file; read a part of it (circuitlab.open, array)"
            )

    def metrics(self) -> list[str]:
        """Names of what was measured during training."""
        series = {
            path: item
            for path, item in self.datasets.items()
            if path.startswith("training/") and item.ndim == 1
        }
        indices = {str(item.attrs.get("index", "")).strip("/") for item in series.values()}
        return [path.removeprefix("training/") for path in series if path not in indices]

    def metric(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A training metric.

        Its attribute `index` names the dataset of its steps or epochs; without one, rows are counted from 0.

        Returns:
            Steps (or epochs) and values, both of shape [row].
        Raises:
            RunFileError: there is no such metric.
        """
        path = f"training/{name}"
        if path not in self.datasets or self.datasets[path].ndim != 1:
            names = self.metrics()
            raise RunFileError(
                f"{self.path}: no metric '{name}'; there are {', '.join(names) or 'none'}."
                + suggestion(name, names)
            )
        values = self.read(path)
        index = self.datasets[path].attrs.get("index")
        steps = np.arange(len(values)) if index is None else self.read(str(index))
        return steps[: len(values)], values

    def checkpoint(self) -> dict[str, Any]:
        """The training state to resume from, empty when none was kept."""
        try:
            state = checkpoints.read(self.file)[0]
            if not isinstance(state, dict):
                raise ValueError("no state")
            return state
        except (*DAMAGE, RecursionError) as error:
            raise RunFileError(f"{self.path}: its checkpoint is damaged; start the run anew") from error

    @property
    def activity(self) -> Mapping[str, xr.DataArray]:
        """Every probe's record by the probe's name, with its coordinates; nothing is read before it is needed.

        Raises:
            MissingLibraryError: xarray is not installed.
        """
        from circuitlab.record.labelled import activity

        return activity(self)

    def population(self, name: str) -> xr.Dataset:
        """Everything recorded of a population's neurons, a variable of the dataset for each variable of theirs.

        Raises:
            RunFileError: no such population, or nothing was recorded of it.
        """
        from circuitlab.record.labelled import population

        return population(self, name)

    @property
    def training(self) -> xr.Dataset:
        """What was measured during training, over `epoch`, `evaluation` (epochs finished) and `step`."""
        from circuitlab.record.labelled import training

        return training(self)

    def weights_of(self, name: str) -> xr.DataArray:
        """Weights of a projection over training, [step, edge], with the neurons that each edge joins.

        Args:
            name: of the projection, or `<population>_bias` for the biases, [step, unit].
        Raises:
            RunFileError: no such projection, or no weights of it.
        """
        from circuitlab.record.labelled import weights_of

        return weights_of(self, name)

    @property
    def equilibria(self) -> Mapping[str, xr.Dataset]:
        """`free` and `controlled`: variables such as `l23_soma` [sample, l23], and what the solver said [sample]."""
        from circuitlab.record.labelled import equilibria

        return equilibria(self)

    def array(self, path: str) -> xr.DataArray:
        """Any dataset; its axes are those that its description names.

        Raises:
            RunFileError: there is none.
        """
        from circuitlab.record.arrays import array

        return array(self, path)

    def _find(self, path: str) -> h5py.Dataset:
        name = path.strip("/")
        if name in self.datasets:
            return self.datasets[name]
        inside = sorted(
            {
                key[len(name) + 1 :].split("/")[0]
                for key in self.datasets
                if not name or key.startswith(name + "/")
            }
        )
        if inside:
            raise RunFileError(f"{self.path}: {path} is a group; it holds {', '.join(inside)}")
        raise RunFileError(f"{self.path}: no dataset '{path}'.{suggestion(name, self.datasets)}")

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _state_of(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced."""
    try:
        said = path.stat()
    except OSError:
        return ()
    return said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _kind(item: h5py.Dataset) -> str:
    return "text" if h5py.check_string_dtype(item.dtype) is not None else str(item.dtype)


def open_run(path: str | Path) -> Run:
    """Opens a run file, also while it is being written.

    Raises:
        RunFileError: there is none, it is damaged, truncated, of another program or a newer format, or points
            outside itself.
    """
    path = Path(path)
    return Run(path, *_opened(path))


def _opened(path: Path) -> tuple[h5py.File, list[str]]:
    """The file and the paths of its datasets; a few tries while a writer is at work."""
    recover(path)
    for attempt in range(TRIES):
        try:
            whole = check_bytes(path)
            names = examine(path)
            file = h5py.File(path, "r", locking=False)
            if not whole and file.attrs["status"] != "running" and str(file.attrs["format_version"]) != "1":
                file.close()
                raise RunFileError(f"{path}: is damaged: bytes follow its end")
            return file, names
        except RunFileError:
            if attempt == TRIES - 1 or not is_held(Path(path).resolve()):
                raise
            time.sleep(0.05)
        except DAMAGE as error:
            raise RunFileError(f"{path}: is truncated or damaged: HDF5 cannot open it") from error
    raise AssertionError
