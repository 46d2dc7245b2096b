"""A file that changes in one step: HDF5 writes into it, and a commit makes all of it hold, or a kill none.

Writes behind the committed end go straight to the disk: nothing refers to them yet. Writes before it wait in
memory. A commit puts the first on the disk, then the second into a journal beside the file, and only then into
the file, in HDF5's own order (its SWMR mode writes what is referred to before what refers to it, so that a reader
finds a sound file at every moment). After a kill or a power cut the journal is either whole, and is written into
the file once more, or is not, and the file has not been touched.
"""

from __future__ import annotations

import io
import os
import secrets
import struct
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from circuitlab.record import superblock
from circuitlab.record.journal import (
    AHEAD,
    EXTENT,
    HEAD,
    RECORD,
    RECORD_AT,
    Disk,
    begin_journal,
    end_at,
    journal_of,
    own_note,
    place_of,
    sync_folder,
)

_PAGE = 4096


class Transaction(io.RawIOBase):
    """The file object that HDF5 writes a run file through, in place.

    The first failed write is kept in `failure`; HDF5 is told of none, as it cannot close a file after one.

    Args:
        path: an existing run file that ends where its superblock says.
        place: offset of the dataset `PLACE` in it.
    Raises:
        OSError: the file or its journal cannot be opened or written.
    """

    sync_after = 8 * 1024 * 1024
    """Bytes behind the end after which the disk is asked to take them, while the run goes on."""

    def __init__(self, path: Path, place: int) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self.free: list[tuple[int, int]] = []
        self._token, self._place = b"", place
        self._pages: dict[int, bytearray] = {}
        self._log: list[tuple[int, bytes]] = []
        self._waiting = 0
        self._applying = False
        self._position = 0
        self._unsynced = 0
        self._syncing: Future[None] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._journal = -1
        try:
            head = os.pread(self._file, superblock.SIZE, 0)
            if not superblock.is_superblock(head):
                raise OSError("its superblock is damaged")
            self._told = head
            self._end = self._room = superblock.end_of_file(head)
            known = end_at(self._file, place)
            if known is not None and superblock.end_of_file(head) == known[2]:
                self._token, self._end, self._room = known
            self._size = self._end
            self._journal = os.open(journal_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if place_of(self._file, os.pread(self._journal, HEAD.size, 0)) != place:
                self._token = secrets.token_bytes(16)
                begin_journal(self._journal, self._token, place)
                sync_folder(path)
                Disk.write(self._file, own_note(self._token, self._end, self._room), place)
        except BaseException:
            self._drop()
            journal_of(path).unlink(missing_ok=True)
            raise

    # What HDF5 calls

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None, /) -> int:
        self._size = self._position if size is None else size
        return self._size

    def flush(self) -> None:
        """HDF5's flush is not yet a commit."""

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        start, size = self._position, len(view)
        self._position += size
        self._size = max(self._size, self._position)
        try:
            inside = min(size, max(0, self._end - start)) if self.failure is None else size
            if inside:
                self._hold(start, bytes(view[:inside]))
            if inside < size:
                self._straight(start + inside, view[inside:])
        except OSError as error:
            self.fail(error)
            self._keep(start, bytes(view))
        return size

    def fail(self, error: OSError) -> None:
        """From now on nothing reaches the disk; what HDF5 still writes is kept for it in memory."""
        self.failure = self.failure or error

    def _straight(self, offset: int, data: memoryview | bytes) -> None:
        Disk.write(self._file, data, offset)
        self._unsynced += len(data)
        if self._unsynced > self.sync_after and (self._syncing is None or self._syncing.done()):
            self._wait()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "circuitlab-sync")
            self._unsynced = 0
            self._syncing = self._pool.submit(Disk.sync, self._file)

    def _wait(self) -> None:
        if self._syncing is not None:
            pending, self._syncing = self._syncing, None
            pending.result()

    def _hold(self, offset: int, data: bytes) -> None:
        for start, end in self.free if self.failure is None else ():
            if start <= offset and offset + len(data) <= end:
                self._straight(offset, data)
                return
        before = self._read(offset, len(data))
        if before == data:
            return
        if len(data) > _PAGE:  # a chunk that got more rows: those alone
            differs = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(data, np.uint8))
            first, last = int(differs[0]), int(differs[-1]) + 1
            offset, data = offset + first, data[first:last]
        self._log.append((offset, data))
        self._waiting += len(data)
        self._keep(offset, data)

    def _keep(self, offset: int, data: bytes) -> None:
        place = 0
        while place < len(data):
            page, inside = divmod(offset + place, _PAGE)
            part = data[place : place + _PAGE - inside]
            if page not in self._pages:
                self._pages[page] = bytearray(os.pread(self._file, _PAGE, page * _PAGE).ljust(_PAGE, b"\0"))
            self._pages[page][inside : inside + len(part)] = part
            place += len(part)

    def _read(self, offset: int, size: int) -> bytes:
        """Bytes as HDF5 has written them, be they on the disk or not."""
        size = max(0, min(size, self._size - offset))
        data = os.pread(self._file, size, offset)
        if offset == 0 and 0 not in self._pages and len(data) >= superblock.SIZE:
            data = superblock.opened_by_nobody(data, self._end) + data[superblock.SIZE :]
        if self._pages and (offset < self._end or self.failure is not None):
            changed = bytearray(data.ljust(size, b"\0"))
            for page in range(offset // _PAGE, (offset + size - 1) // _PAGE + 1):
                if page in self._pages:
                    start = page * _PAGE
                    low, high = max(start, offset), min(start + _PAGE, offset + size)
                    high = high if self.failure is not None else min(high, self._end)
                    if low < high:
                        changed[low - offset : high - offset] = self._pages[page][low - start : high - start]
            data = bytes(changed)
        return data.ljust(size, b"\0")

    # What the writer calls

    @property
    def end(self) -> int:
        """Committed length of the file in bytes."""
        return self._end

    @property
    def waiting(self) -> int:
        """Bytes that wait in memory for the next commit."""
        return self._waiting

    def commit(self, last: bool = False) -> None:
        """Makes all that was written hold; HDF5 has flushed it.

        Args:
            last: HDF5 has closed the file; it is cut to its end, and the journal is removed.
        Raises:
            OSError: nothing of it holds (or, where the file itself failed while it was changed, the journal does).
        """
        self._commit(last)
        if last:
            Disk.sync(self._file)
            Disk.resize(self._file, self._end)
            self._drop()
            journal_of(self._path).unlink(missing_ok=True)

    def _commit(self, last: bool) -> None:
        if self.failure is not None:
            raise self.failure
        head = self._read(0, superblock.SIZE)
        end = superblock.end_of_file(head)
        if not self._log and end == self._end and not (last and self._room != end):
            return
        self._wait()
        room = end if last else self._room
        if not last and room - end < AHEAD // 2:
            room = end + max(AHEAD, end // 4)
        if room > self._room or os.fstat(self._file).st_size < end:
            try:
                Disk.resize(self._file, max(room, self._room))
            except OSError:  # a limit on the length of files: readers are told of nothing more ahead
                room = max(end, self._room)
                Disk.resize(self._file, room)
        Disk.sync(self._file)  # of the last commit, too, whose journal is written over now
        self._unsynced = 0
        told = superblock.opened_by_nobody(head, room)
        extents = [(offset, data) for offset, data in self._log if offset >= superblock.SIZE]
        extents.append((self._place, own_note(self._token, end, room)))
        if told != self._told:
            extents.append((0, told))
        body = b"".join(EXTENT.pack(offset, len(data)) + data for offset, data in extents)
        record = RECORD.pack(len(body), zlib.crc32(body), end, room)
        Disk.write(self._journal, record + struct.pack("<I", zlib.crc32(record)) + body, RECORD_AT)
        Disk.sync(self._journal)
        self._applying = True
        for offset, data in extents:
            Disk.write(self._file, data, offset)
        self._applying = False
        self._told, self._end, self._room = told, end, room
        self._pages, self._log, self._waiting = {}, [], 0

    def abandon(self) -> None:
        """Gives up what was not committed: the file is cut back to its committed end."""
        if self._file < 0:
            return
        self.fail(OSError("abandoned"))
        with suppress(OSError):
            self._wait()
        if (
            not self._applying
        ):  # else the journal is whole, and is written into the file when it is opened next
            with suppress(OSError):
                if self._room != self._end:
                    Disk.write(self._file, superblock.opened_by_nobody(self._told, self._end), 0)
                Disk.resize(self._file, self._end)
                Disk.sync(self._file)
                journal_of(self._path).unlink(missing_ok=True)
        self._drop()

    def _drop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        for descriptor in (self._file, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._journal = -1
