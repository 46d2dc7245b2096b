"""Reading run files with numpy: checked on opening, refused in one line when damaged or foreign."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import h5py
import numpy as np

from circuitlab.errors import RunFileError, suggestion
from circuitlab.record import checkpoint as checkpoints
from circuitlab.record.lock import is_held
from circuitlab.record.recovery import recover

FORMAT = "circuitlab-run"
FORMAT_VERSION = 2
STATUSES = ("running", "complete", "interrupted", "failed")
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    UnicodeError,
    AttributeError,
    OverflowError,
)
"""What h5py raises on broken bytes."""


@dataclass(frozen=True)
class Table:
    """One dataset of a run file: where it is, how large, in which units, and what its axes are."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    units: str
    description: str


class Run:
    """An open run file; it shows what was published when it was opened.

    Args:
        path: the file.
        file: it, opened for reading.
        datasets: every dataset by its path without leading slash, in the order of the paths.
    """

    def __init__(self, path: Path, file: h5py.File, datasets: dict[str, h5py.Dataset]) -> None:
        self.path = path
        self.file = file
        self.datasets = datasets

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
            if h5py.check_string_dtype(item.dtype) is not None and item.dtype.kind == "O":
                text = item.asstr()[()]
                return text if isinstance(text, str) else np.asarray(text, dtype=object)
            return np.asarray(item[()])
        except (*_DAMAGE, MemoryError) as error:
            raise RunFileError(f"{self.path}: {path}: is damaged and cannot be read") from error

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
            return checkpoints.read(self.file)[0]
        except _DAMAGE as error:
            raise RunFileError(f"{self.path}: its checkpoint is damaged; start the run anew") from error

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
    recover(path)
    try:
        with path.open("rb") as start:
            signature = start.read(len(HDF5_SIGNATURE))
    except IsADirectoryError as error:
        raise RunFileError(f"{path}: is a folder; give the name of a run file in it") from error
    except (OSError, ValueError) as error:
        reason = (
            "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        )
        raise RunFileError(f"{path}: {reason}") from error
    if signature != HDF5_SIGNATURE:
        raise RunFileError(f"{path}: is not a run file: it is {'no HDF5 file' if signature else 'empty'}")
    try:
        file = h5py.File(path, "r", locking=False)
    except _DAMAGE as error:
        raise RunFileError(f"{path}: is truncated or damaged: HDF5 cannot open it") from error
    try:
        _check_root(path, file)
        run = Run(path, file, _datasets(path, file))
        for name in ("spec/circuit", "spec/experiment"):
            if name not in run.datasets:
                raise RunFileError(f"{path}: is damaged: /{name} is missing")
        return run
    except RunFileError:
        file.close()
        raise
    except _DAMAGE as error:
        file.close()
        raise RunFileError(f"{path}: is damaged: its contents cannot be listed") from error


def _check_root(path: Path, file: h5py.File) -> None:
    kind, version = file.attrs.get("format"), file.attrs.get("format_version")
    if kind != FORMAT:
        raise RunFileError(f"{path}: is an HDF5 file of another program, not a run file (format '{FORMAT}')")
    if not isinstance(version, int | np.integer) or version < 1:
        raise RunFileError(f"{path}: is damaged: format version {version!r}")
    if version > FORMAT_VERSION:
        raise RunFileError(
            f"{path}: has format version {version}, this circuitlab reads up to {FORMAT_VERSION}; "
            "install a newer circuitlab"
        )
    if file.attrs.get("status") not in STATUSES:
        raise RunFileError(f"{path}: is damaged: status {file.attrs.get('status')!r}")


def _datasets(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    seen: set[Any] = {file.id}
    size = path.stat().st_size

    def refuse(name: str, why: str) -> NoReturn:
        raise RunFileError(f"{path}: {name}: {why}; a run file holds everything itself")

    def walk(group: h5py.Group, prefix: str) -> None:
        for key in sorted(group):
            name = prefix + key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                refuse(name, "is a link to another place")
            item = group[key]
            if item.id in seen:
                refuse(name, "is a second name of another object")
            seen.add(item.id)
            if isinstance(item, h5py.Group):
                walk(item, name + "/")
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    refuse(name, "keeps its data in another file")
                if item.nbytes > 2048 * size:
                    raise RunFileError(
                        f"{path}: {name}: is damaged: it claims {item.nbytes:.3g} bytes in a file of {size}"
                    )
                found[name] = item
            else:
                refuse(name, "is neither group nor dataset")

    walk(file, "")
    return found
