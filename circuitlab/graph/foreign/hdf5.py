"""HDF5 files of other programs: opened, looked into and read with checks, every damage told with file and dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError
from circuitlab.graph.memory import available_memory, gigabytes

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LARGEST_SHARE = 2048
"""How many times a file's own size its datasets may claim: compression reaches a thousand, damage claims more."""
_DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    UnicodeError,
    OverflowError,
    AttributeError,
)
"""What h5py raises on broken bytes."""


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading.

    Raises:
        FormatError: missing, no HDF5 file, truncated; also for whatever h5py finds broken within the block.
    """
    try:
        with path.open("rb") as start:
            signature = start.read(len(SIGNATURE))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    if signature != SIGNATURE:
        raise FormatError(f"{path}: is not an HDF5 file{'' if signature else ': it is empty'}")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except FormatError:
        raise
    except _DAMAGE as error:
        raise FormatError(f"{path}: is truncated or damaged: {' '.join(str(error).split())}") from error


def item(path: Path, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What a group holds under a name, None where it holds nothing.

    Raises:
        FormatError: it lies in another file.
    """
    link = group.get(name, getlink=True)
    where = f"{str(group.name).rstrip('/')}/{name}"
    if isinstance(link, h5py.ExternalLink):
        raise FormatError(
            f"{path}: {where} links to another file, '{link.filename}'; everything must be in one"
        )
    if link is None:
        return None
    found = group.get(name)
    if found is None:
        raise FormatError(f"{path}: {where} links to nothing")
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise FormatError(f"{path}: {where} keeps its data in another file; everything must be in one")
    return found if isinstance(found, h5py.Group | h5py.Dataset) else None


def subgroups(path: Path, group: h5py.Group) -> dict[str, h5py.Group]:
    """The groups in a group, by name, in the file's order."""
    found = {str(name): item(path, group, str(name)) for name in group}
    return {name: each for name, each in found.items() if isinstance(each, h5py.Group)}


def check_sizes(path: Path, datasets: list[h5py.Dataset]) -> None:
    """Refuse datasets that claim more than their file can hold, or than there is memory for, before they are read."""
    claims = [(int(each.size or 0) * max(each.dtype.itemsize, 1), str(each.name)) for each in datasets]
    claimed, size = sum(count for count, _ in claims), path.stat().st_size
    if claimed > LARGEST_SHARE * size:
        raise FormatError(
            f"{path}: {max(claims)[1]} is damaged: it claims {claimed:.3g} bytes in a file of {size}"
        )
    if 2 * claimed > available_memory():
        raise FormatError(
            f"{path}: holds {gigabytes(claimed)}, and reading takes twice that; "
            f"{gigabytes(available_memory())} are available"
        )


def column(path: Path, dataset: Any, rows: int | None = None) -> NDArray:
    """A dataset as an array of shape [row]: numbers as they are, truth values, text as text.

    Args:
        rows: how many there must be, None for any number.

    Raises:
        FormatError: missing, another shape, another length, no numbers or text, damaged.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise FormatError(f"{path}: a dataset is missing")
    if dataset.shape is None or dataset.ndim != 1:
        raise FormatError(
            f"{path}: {dataset.name} has shape {list(dataset.shape or ())}; datasets with one value a row are read"
        )
    if rows is not None and len(dataset) != rows:
        raise FormatError(f"{path}: {dataset.name} has {len(dataset)} rows, but {rows} are needed")
    try:
        if h5py.check_string_dtype(dataset.dtype) is not None:
            text = dataset.asstr()[()]
            return np.array([str(value) for value in text], dtype=np.str_)
        values = np.asarray(dataset[()])
    except _DAMAGE as error:
        raise FormatError(f"{path}: {dataset.name} is damaged and cannot be read") from error
    if values.dtype.kind not in "iufb":
        raise FormatError(f"{path}: {dataset.name} holds {values.dtype}; numbers and text are read")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def whole_numbers(path: Path, group: h5py.Group, name: str, rows: int | None = None) -> NDArray[np.int64]:
    """A dataset of ids or indices, int64 of shape [row], none below zero.

    Raises:
        FormatError: missing, of another kind or length, or a negative number.
    """
    found = item(path, group, name)
    if not isinstance(found, h5py.Dataset):
        raise FormatError(f"{path}: {group.name} has no dataset '{name}'")
    values = column(path, found, rows)
    if values.dtype.kind not in "iu":
        raise FormatError(f"{path}: {found.name} holds {values.dtype}; whole numbers are needed")
    if values.size and (values.min() < 0 or int(values.max()) > np.iinfo(np.int64).max):
        row = int(np.argmax((values < 0) | (values > np.iinfo(np.int64).max)))
        raise FormatError(f"{path}: {found.name} is {values[row]} in row {row}; it counts from 0")
    return values.astype(np.int64)
