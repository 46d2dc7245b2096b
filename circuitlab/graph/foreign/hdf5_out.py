"""Writing HDF5 files for other programs so that a full disk is an error and no crash."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


class SafeFile(io.FileIO):
    """A file that keeps the first failed write and passes over it and all that follow.

    HDF5 cannot close a file after a failed write, and its library then crashes when the program ends. So it is told
    that all went well, and `failing` raises what was kept when HDF5 is done.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while self.failure is None and len(view):
            try:
                view = view[super().write(view) :]
            except OSError as error:
                self.failure = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


@contextmanager
def failing(raw: SafeFile) -> Iterator[None]:
    """Raises, when HDF5 is done with a file, what was kept of its first failed write.

    Raises:
        OSError: that write's; the file's content is worthless.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError):
        if raw.failure is not None:
            raise raw.failure from None
        raise
    if raw.failure is not None:
        raise raw.failure


@contextmanager
def writable(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to write into, made where it is missing.

    Raises:
        OSError: the disk is full, or another failed write; the file's content is worthless.
    """
    there = path.exists()
    with (
        SafeFile(path, "r+b" if there else "w+b") as raw,
        failing(raw),
        h5py.File(raw, "r+" if there else "w") as file,
    ):
        yield file
