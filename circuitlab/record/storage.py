"""Writing HDF5 so that a full disk, a kill or Ctrl-C never damages the file a reader sees."""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import numpy as np

from circuitlab.errors import RunFileError

CHUNK_BYTES = 256 * 1024
"""Size of a chunk of a growing dataset, before compression."""

LAYOUT: dict[str, Any] = {"libver": ("v110", "v110"), "fs_strategy": "fsm", "fs_persist": True}
"""Checksummed metadata, and space freed by one publish reused by the next."""


class _SafeFile(io.FileIO):
    """A file that remembers the first failed write and swallows it and all that follow.

    HDF5 cannot close a file after a failed write (its library then crashes at exit), so the failure is kept
    here and raised by `open_for_writing` once HDF5 is done.
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
def open_for_writing(path: Path, *, create: bool) -> Iterator[h5py.File]:
    """An HDF5 file that is on the disk, synced, when the block ends.

    Raises:
        OSError: the disk is full, or another failed write; the file is closed, its content worthless.
    """
    with _SafeFile(path, "w+b" if create else "r+b") as raw:
        try:
            with (
                h5py.File(raw, "w", **LAYOUT)
                if create
                else h5py.File(raw, "r+", libver=LAYOUT["libver"]) as file
            ):
                yield file
        except (OSError, RuntimeError, KeyError, ValueError):
            if raw.failure is not None:
                raise raw.failure from None
            raise
        if raw.failure is not None:
            raise raw.failure
        os.fsync(raw.fileno())


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the block has ended, so that no half-written state comes of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def copy_file(source: Path, target: Path) -> None:
    """Copies bytes inside the kernel, sharing blocks where the file system can."""
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                pass
        except OSError:
            reader.seek(0)
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)


def replace_durably(source: Path, target: Path) -> None:
    """Puts a synced file in the place of another in one step, also across a power cut."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def link_name(name: str) -> str:
    """A name that HDF5 takes as one step of a path: `/` and `%` are quoted as in addresses."""
    text = (
        quote(name, safe="".join(chr(code) for code in range(32, 127) if chr(code) not in "/%"))
        if name
        else "%"
    )
    return text.replace(".", "%2E") if set(text) == {"."} else text


def _shrinks(sample: np.ndarray) -> bool:
    """Whether compressing is worth its time: 60 MB/s against 1 GB/s; noise loses a seventh at best."""
    if sample.nbytes < 4096 or sample.dtype.kind not in "biufc":
        return False
    data = (
        np.ascontiguousarray(sample)
        .reshape(-1)
        .view(np.uint8)
        .reshape(-1, sample.itemsize)
        .T.tobytes()[: 1 << 20]
    )
    return len(zlib.compress(data, 1)) < 0.7 * len(data)


def _compression(sample: np.ndarray) -> dict[str, Any]:
    return {"compression": "gzip", "compression_opts": 1, "shuffle": True} if _shrinks(sample) else {}


def _writable(text: str) -> str:
    """Text without what HDF5 cannot hold: zero bytes, and bytes of a command line that are no utf-8."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def as_array(value: Any, path: str) -> np.ndarray:
    """The value as an array HDF5 can hold; text becomes an object array of str.

    Raises:
        RunFileError: objects, dates, ragged lists.
    """
    try:
        array = np.array(value)
    except ValueError as error:
        raise RunFileError(f"{path}: rows of unequal length cannot be recorded") from error
    if array.dtype.kind in "OU" and all(isinstance(item, str) for item in array.flat):
        return np.array([_writable(item) for item in array.flat], dtype=object).reshape(array.shape)
    if array.dtype.kind not in "biufc":
        raise RunFileError(
            f"{path}: a value of type {type(value).__name__} ({array.dtype}) cannot be recorded"
        )
    return array


def set_attributes(item: h5py.Group | h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    """Sets attributes in the order of their names; None is written as empty text."""
    for key in sorted(attributes):
        value = attributes[key]
        item.attrs[key] = _writable(value or "") if value is None or isinstance(value, str) else value


def store(
    parent: h5py.Group, path: str, array: np.ndarray, attributes: Mapping[str, Any], compress: bool = True
) -> None:
    """Writes a whole dataset, in place where shape and type are as before."""
    text = array.dtype == object
    kind = h5py.string_dtype() if text else array.dtype
    old = parent.get(path)
    if (
        isinstance(old, h5py.Dataset)
        and old.shape == array.shape
        and old.dtype == kind
        and old.maxshape == array.shape
    ):
        old[...] = array
    else:
        if old is not None:
            del parent[path]
        options = _compression(array) if compress and not text else {}
        old = parent.create_dataset(path, data=array, dtype=kind, track_times=False, **options)
    set_attributes(old, attributes)


def grow(
    file: h5py.File,
    path: str,
    start: int,
    frames: np.ndarray,
    first: np.ndarray,
    attributes: Mapping[str, Any],
) -> None:
    """Puts frames at rows `start` and on of a dataset that grows along axis 0; doing it twice does no harm.

    Args:
        frames: the new frames, shape [frame, ...].
        first: the dataset's first frame, which decides whether it is compressed.
    """
    if path not in file:
        rows = min(1024, max(1, CHUNK_BYTES // max(1, first.nbytes)))
        chunk = (rows, *(max(1, size) for size in first.shape))
        while np.prod(chunk[1:]) * first.itemsize > 16 * CHUNK_BYTES:
            widest = 1 + int(np.argmax(chunk[1:]))
            chunk = (*chunk[:widest], -(-chunk[widest] // 2), *chunk[widest + 1 :])
        dataset = file.create_dataset(
            path,
            shape=(0, *first.shape),
            maxshape=(
                None,
                *(size or None for size in first.shape),
            ),  # a chunk needs room even for no synapse
            chunks=chunk,
            dtype=frames.dtype,
            track_times=False,
            **_compression(first),
        )
        set_attributes(dataset, attributes)
    dataset = file[path]
    assert isinstance(dataset, h5py.Dataset)
    dataset.resize(start + len(frames), axis=0)
    dataset[start:] = frames


def is_growing(item: Any) -> bool:
    """Whether this is a dataset that `grow` made."""
    return isinstance(item, h5py.Dataset) and bool(item.maxshape) and item.maxshape[0] is None
