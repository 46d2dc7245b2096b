"""Whether a run file's bytes are what its writer wrote: checked before HDF5 touches them.

A file whose writer has finished ends with a seal of 56 bytes behind HDF5's own end: a mark, the length, and the SHA-256
of everything before. HDF5 ignores it, and takes it away when another program changes the file. Larger files than
`LARGEST` have none: there, HDF5's checksums of metadata and of each chunk must do.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record import superblock

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LARGEST = 64 * 1024 * 1024
"""Bytes of a file that is sealed at most: its SHA-256 takes less than a tenth of a second."""
_SEAL = struct.Struct("<16sQ32s")
_MAGIC = b"circuitlab seal\n"
_OLD_VERSIONS = (0, 1, 2)
_CHECKED_CHUNK = 64 * 1024
"""Stored bytes of a chunk from which it is unpacked once more, to bound what it unpacks to (1032 times at most)."""


def seal(path: Path) -> None:
    """Puts the seal at the end of a finished file; nothing is done where the file is large.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        size = _without_seal(file)
        if size > LARGEST:
            return
        file.seek(0)
        digest = hashlib.sha256(file.read(size)).digest()
        file.seek(size)
        file.write(_SEAL.pack(_MAGIC, size, digest))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def unseal(path: Path) -> None:
    """Takes the seal away before a file is written to again; harmless where there is none.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        end = _without_seal(file)
        if end != file.seek(0, os.SEEK_END):
            file.truncate(end)
            os.fsync(file.fileno())


def _without_seal(file: BinaryIO) -> int:
    """Length of a file in bytes, its seal not counted."""
    end = file.seek(0, os.SEEK_END)
    if end < _SEAL.size:
        return end
    file.seek(end - _SEAL.size)
    magic, length, _ = _SEAL.unpack(file.read(_SEAL.size))
    return length if magic == _MAGIC and length == end - _SEAL.size else end


def check_bytes(path: Path) -> bool:
    """Refuses what is no whole run file, without HDF5: by its first bytes, its length and its seal.

    Returns:
        Whether the file ends where it says, or with its seal: one that does not is still being written.
    Raises:
        RunFileError: one line.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise RunFileError(f"{path}: is not a regular file; a run file is wanted")
        with path.open("rb") as file:
            return _check(path, file)
    except IsADirectoryError as error:
        raise RunFileError(f"{path}: is a folder; give the name of a run file in it") from error
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise RunFileError(
            f"{path}: {'there is no such file' if missing else f'cannot be read: {error}'}"
        ) from error


def _check(path: Path, file: BinaryIO) -> bool:
    head = file.read(superblock.SIZE)
    if not head.startswith(SIGNATURE):
        raise RunFileError(f"{path}: is not a run file: it is {'no HDF5 file' if head else 'empty'}")
    if len(head) > 8 and head[8] in _OLD_VERSIONS:
        raise RunFileError(
            f"{path}: is an HDF5 file of another program, not a run file (format 'circuitlab-run')"
        )
    if not superblock.is_superblock(head):
        raise RunFileError(f"{path}: is truncated or damaged: its first bytes are not those of a run file")
    size, end = file.seek(0, os.SEEK_END), superblock.end_of_file(head)
    if size < end:
        raise RunFileError(f"{path}: is truncated: {size} bytes are left of {end}")
    if size != end + _SEAL.size or size > LARGEST + _SEAL.size:
        return size == end
    file.seek(end)
    magic, length, digest = _SEAL.unpack(file.read(_SEAL.size))
    if magic != _MAGIC or length != end:
        return False
    file.seek(0)
    if hashlib.sha256(file.read(end)).digest() != digest:
        raise RunFileError(
            f"{path}: is damaged: its bytes are not those that were written (their checksum differs)"
        )
    return True


def part_of(item: h5py.Dataset, index: tuple[int | slice, ...]) -> np.ndarray:
    """A part of a dataset, its chunks checked before they are unpacked.

    Args:
        index: numbers and slices without negative steps, one for each of the first axes.
    Raises:
        ValueError, OSError: damaged chunks.
    """
    box = []
    for axis, side in enumerate(item.shape):
        place = index[axis] if axis < len(index) else slice(None)
        start, stop, _ = (place if isinstance(place, slice) else slice(place, place + 1)).indices(side)
        box.append(slice(start, stop))
    check_chunks(item, tuple(box))
    return np.asarray(item[index])


def check_chunks(item: h5py.Dataset, box: tuple[slice, ...] | None = None) -> None:
    """Refuses chunks that unpack to more than a chunk holds.

    Args:
        box: the part that will be read, a slice with start and stop for each axis; everything where None.
    Raises:
        ValueError: such a chunk.
    """
    sides: tuple[int, ...] | None = item.chunks
    if sides is None or not item.compression or not item.size:
        return
    nominal = item.dtype.itemsize
    for side in sides:
        nominal *= side
    if item.id.get_storage_size() <= _CHECKED_CHUNK:
        return
    suspects: list[tuple[int, ...]] = []

    def look(chunk: h5py.h5d.StoreInfo) -> None:
        if chunk.size > _CHECKED_CHUNK and _inside(chunk.chunk_offset, sides, box):
            suspects.append(chunk.chunk_offset)

    item.id.chunk_iter(look)
    for offset in suspects:
        skipped, packed = item.id.read_direct_chunk(offset)
        if skipped:
            continue
        unpacking = zlib.decompressobj()
        try:
            size = len(unpacking.decompress(packed, nominal + 1))
        except zlib.error as error:
            raise ValueError("a chunk cannot be unpacked") from error
        if size != nominal:
            raise ValueError("a chunk unpacks to another size than it has")


def _inside(offset: tuple[int, ...], sides: tuple[int, ...], box: tuple[slice, ...] | None) -> bool:
    return box is None or all(
        start < part.stop and start + side > part.start
        for start, side, part in zip(offset, sides, box, strict=True)
    )
