"""The journal beside a run file, the file's own note of where it ends, and what is made of both after a kill."""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py

from circuitlab.record import superblock

PLACE = "checkpoint/place"
"""A dataset of the run file for this module's own use: where the file ends, and which journal is its."""
PLACE_SIZE = 64

_MAGIC = b"circuitlab journal 1\n"
HEAD = struct.Struct("<21s16sQI")  # magic, token, place, checksum
RECORD = struct.Struct("<QIQQ")  # bytes that follow, their checksum, end of the file, room told to readers
EXTENT = struct.Struct("<QQ")  # offset, length
_OWN = struct.Struct("<16sQQI")  # token, end, room, checksum
RECORD_AT = 64

AHEAD = 64 * 1024 * 1024
"""Bytes behind the end that readers are told of at least: a plain reader who opened the file reads on in it while it
grows, as HDF5 refuses addresses behind the end that it found. They take no space on the disk."""


class Disk:
    """What reaches the disk, one call each."""

    @staticmethod
    def write(descriptor: int, data: Any, offset: int) -> None:
        """Writes all of the data.

        Raises:
            OSError: the disk is full, a quota is reached, or the device fails.
        """
        view = memoryview(data).cast("B")
        while len(view):
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    @staticmethod
    def sync(descriptor: int) -> None:
        """Waits until what was written is on the disk."""
        os.fdatasync(descriptor)

    @staticmethod
    def resize(descriptor: int, size: int) -> None:
        """Makes the file as long as that."""
        os.ftruncate(descriptor, size)


def journal_of(path: Path) -> Path:
    """The journal beside a run file."""
    return path.with_name(path.name + ".journal")


def own_note(token: bytes, end: int, room: int) -> bytes:
    """What a file says of itself at its place: whose it is, its end, and the end that readers are told."""
    body = token + struct.pack("<QQ", end, room)
    return (body + struct.pack("<I", zlib.crc32(body))).ljust(PLACE_SIZE, b"\0")


def sync_folder(path: Path) -> None:
    """Puts the names in a file's folder on the disk."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def begin_journal(journal: int, token: bytes, place: int) -> None:
    """Empties a journal and names in it the file that it repairs, by its token and the place that holds it."""
    begin = _MAGIC + token + struct.pack("<Q", place)
    Disk.resize(journal, 0)
    Disk.write(journal, begin + struct.pack("<I", zlib.crc32(begin)), 0)
    Disk.sync(journal)


def make_room(copy: Path, path: Path, place: int) -> None:
    """Tells readers of a file that is about to take its place that it will grow, as a `Transaction` does.

    Args:
        copy: the file, whole, which ends where its superblock says. path: where it will be.
    Raises:
        OSError: the disk is full, or another failed write.
    """
    token = secrets.token_bytes(16)
    journal = os.open(journal_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        begin_journal(journal, token, place)
    finally:
        os.close(journal)
    descriptor = os.open(copy, os.O_RDWR | os.O_CLOEXEC)
    try:
        head = os.pread(descriptor, superblock.SIZE, 0)
        end = superblock.end_of_file(head)
        room = end + max(AHEAD, end // 4)
        try:
            Disk.resize(descriptor, room)
        except OSError:
            room = end
        Disk.write(descriptor, own_note(token, end, room), place)
        Disk.write(descriptor, superblock.opened_by_nobody(head, room), 0)
        Disk.sync(descriptor)
    finally:
        os.close(descriptor)


def end_at(descriptor: int, place: int) -> tuple[bytes, int, int] | None:
    """Token, end and room that the file says of itself; None where that is damaged, or was never written."""
    data = os.pread(descriptor, _OWN.size, place)
    if len(data) < _OWN.size or _OWN.unpack(data)[3] != zlib.crc32(data[: _OWN.size - 4]):
        return None
    token, end, room, _ = _OWN.unpack(data)
    return (token, end, room) if end <= room <= os.fstat(descriptor).st_size else None


def repair(path: Path) -> None:
    """Makes a run file whole that its writer left behind: a whole journal is written into it, a torn one dropped.

    The caller holds the file's lock. A file without a journal is left as it is.

    Raises:
        OSError: the file or its folder cannot be written.
    """
    journal = journal_of(path)
    try:
        said = journal.read_bytes()
    except FileNotFoundError:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        place = place_of(descriptor, said)
        if place is not None:
            _replay(descriptor, said)
            _settle(descriptor, place)
            Disk.sync(descriptor)
    finally:
        os.close(descriptor)
    journal.unlink(missing_ok=True)


def place_of(descriptor: int, said: bytes) -> int | None:
    """Where the file keeps its end, or None where the journal is not this file's."""
    if len(said) < HEAD.size:
        return None
    magic, token, place, checksum = struct.unpack_from("<21s16sQI", said)
    body = said[: HEAD.size - 4]
    if magic != _MAGIC or checksum != zlib.crc32(body) or os.pread(descriptor, 16, place) != token:
        return None
    return place


def _replay(descriptor: int, said: bytes) -> None:
    start = RECORD_AT + RECORD.size + 4
    if len(said) < start:
        return
    record = said[RECORD_AT : RECORD_AT + RECORD.size]
    size, checksum, _, room = RECORD.unpack(record)
    body = said[start : start + size]
    if struct.unpack_from("<I", said, start - 4)[0] != zlib.crc32(record):
        return
    if len(body) != size or zlib.crc32(body) != checksum:
        return
    if os.fstat(descriptor).st_size < room:
        Disk.resize(descriptor, room)
    place = 0
    while place < size:
        offset, length = EXTENT.unpack_from(body, place)
        place += EXTENT.size
        Disk.write(descriptor, body[place : place + length], offset)
        place += length
    Disk.sync(descriptor)


def _settle(descriptor: int, place: int) -> None:
    """Cuts the file to its committed end, and says so in its superblock."""
    known, head = end_at(descriptor, place), os.pread(descriptor, superblock.SIZE, 0)
    if known is None or not superblock.is_superblock(head):
        return
    end = known[1]
    if superblock.end_of_file(head) != end:
        Disk.write(descriptor, superblock.opened_by_nobody(head, end), 0)
    Disk.resize(descriptor, end)


def place_in(file: h5py.File) -> int | None:
    """Offset of the dataset `PLACE`; None in a file that has none."""
    item = file.get(PLACE)
    return item.id.get_offset() if isinstance(item, h5py.Dataset) and item.shape == (PLACE_SIZE,) else None
