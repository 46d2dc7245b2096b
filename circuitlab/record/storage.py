"""Writing HDF5 so that a full disk, a kill or Ctrl-C never damages the file a reader sees."""

from __future__ import annotations

import hashlib
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
from h5py import h5a, h5f, h5fd, h5p  # type: ignore[attr-defined]

from circuitlab.errors import RunFileError
from circuitlab.graph.foreign.hdf5_out import SafeFile, failing
from circuitlab.record.chunks import shape_of_chunks

LIBVER = ("v110", "v110")
"""Checksummed metadata, and what HDF5's SWMR mode needs."""
ROOM_FOR_ATTRIBUTES = 256
"""Attributes of the root that lie together in its header, where one write changes them."""
SPARE = "spare"


def _created(raw: SafeFile) -> h5py.File:
    access, creation = h5p.create(h5p.FILE_ACCESS), h5p.create(h5p.FILE_CREATE)
    access.set_fileobj_driver(h5fd.fileobj_driver, raw)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    creation.set_attr_phase_change(ROOM_FOR_ATTRIBUTES, ROOM_FOR_ATTRIBUTES)
    return h5py.File(h5f.create(os.fsencode(raw.name), h5f.ACC_TRUNC, creation, access))


@contextmanager
def open_for_writing(path: Path, *, create: bool) -> Iterator[h5py.File]:
    """An HDF5 file that is on the disk, synced, when the block ends.

    Raises:
        OSError: the disk is full, or another failed write; the file is closed, its content worthless.
    """
    with SafeFile(path, "w+b" if create else "r+b") as raw:
        with (
            failing(raw),
            _created(raw) if create else h5py.File(raw, "r+", libver=LIBVER) as file,
        ):
            yield file
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


def compression(sample: np.ndarray) -> dict[str, Any]:
    """Options of h5py for a dataset like the sample: gzip behind a shuffle where that pays, else none."""
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


def set_status(file: h5py.File, status: str) -> None:
    """Sets the root's attribute `status` so that a reader finds the old text or the new one at every moment.

    The old text stays in the file: a reader that has read where it lies still finds it there. The attribute is
    made beside the old one, in the room of `keep_room`, so that all of it is one write of one block.
    """
    kind = h5py.string_dtype()
    new = b"sta_us"
    if h5a.exists(file.id, new):
        h5a.delete(file.id, new)
    attribute = h5a.create(
        file.id, new, h5py.h5t.py_create(kind, logical=True), h5py.h5s.create(h5py.h5s.SCALAR)
    )
    attribute.write(np.array(status, dtype=kind))
    h5a.delete(file.id, b"status")
    h5a.rename(file.id, new, b"status")


def keep_room(file: h5py.File) -> None:
    """Keeps room in the root's header for `set_status`."""
    file.attrs[SPARE] = np.zeros(64, np.uint8)
    del file.attrs[SPARE]


def _digest(array: np.ndarray) -> str:
    """sha256 of a text, of values, or of several texts with the length of each before it."""
    if array.dtype != object:
        return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    found = hashlib.sha256()
    for item in array.flat:
        text = item if isinstance(item, str) else bytes(item).decode("utf-8", "surrogateescape")
        data = text.encode("utf-8", "surrogateescape")
        found.update(data if array.ndim == 0 else len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def verify(item: h5py.Dataset, value: Any) -> None:
    """Checks what was read of a dataset that HDF5 has no checksum for: text, and single values.

    Args:
        value: all of it, as numpy array or text.
    Raises:
        ValueError: it is not what was written.
    """
    said: Any = item.attrs.get("sha256")
    if said is None:
        return
    said = bytes(said).decode("ascii", "replace") if isinstance(said, bytes | np.bytes_) else said
    if _digest(np.asarray(value, dtype=object if isinstance(value, str) else None)) != said:
        raise ValueError("its checksum does not fit")


def _chunked(array: np.ndarray, compress: bool) -> dict[str, Any]:
    """Chunks of up to a megabyte along the first axis, with checksums."""
    rows = max(1, min(len(array), (1 << 20) // max(1, array[0].nbytes)))
    return {
        "chunks": (rows, *array.shape[1:]),
        "fletcher32": True,
        **(compression(array) if compress else {}),
    }


def same_attributes(item: h5py.Group | h5py.Dataset, attributes: Mapping[str, Any]) -> bool:
    """Whether it has these attributes, as `set_attributes` writes them."""
    for key, value in attributes.items():
        said = item.attrs.get(key)
        wanted = _writable(value or "") if value is None or isinstance(value, str) else value
        if said is None or not np.array_equal(np.asarray(said), np.asarray(wanted)):
            return False
    return True


def store(
    parent: h5py.Group, path: str, array: np.ndarray, attributes: Mapping[str, Any], compress: bool = True
) -> None:
    """Writes a whole dataset, in place of one that is there.

    Numbers lie in chunks with HDF5's checksums; text, single values and empty arrays, which have none, with an
    attribute `sha256`.
    """
    text = array.dtype == object
    if path in parent:
        del parent[path]
    chunked = array.ndim > 0 and array.size > 0 and not text and array[0].nbytes <= 1 << 30
    kind = h5py.string_dtype() if text else array.dtype
    options = _chunked(array, compress) if chunked else {}
    item = parent.create_dataset(path, data=array, dtype=kind, track_times=False, **options)
    set_attributes(item, attributes)
    if not chunked and "sha256" not in attributes:  # a text of the user's brings its own, which is the same
        item.attrs["sha256"] = np.bytes_(_digest(array))


def create_growing(
    file: h5py.File, path: str, first: np.ndarray, attributes: Mapping[str, Any], expected: int | None = None
) -> h5py.Dataset:
    """Makes an empty dataset that grows along axis 0, in chunks with checksums.

    Args:
        first: the dataset's first frame, which decides whether it is compressed.
        expected: rows that there will be, where that is known.
    """
    dataset = file.create_dataset(
        path,
        shape=(0, *first.shape),
        # a chunk needs room even for no synapse
        maxshape=(None, *(size or None for size in first.shape)),
        chunks=shape_of_chunks(first.shape, first.itemsize, expected),
        dtype=first.dtype,
        track_times=False,
        fletcher32=True,
        **compression(first),
    )
    set_attributes(dataset, attributes)
    return dataset


def is_growing(item: Any) -> bool:
    """Whether this is a dataset that `create_growing` made."""
    return isinstance(item, h5py.Dataset) and bool(item.maxshape) and item.maxshape[0] is None
