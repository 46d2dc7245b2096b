"""How a run file is written: in place, in steps that hold or do not, and in a copy where HDF5 must add structure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record import checkpoint as checkpoints
from circuitlab.record.journal import PLACE, make_room, place_in, repair
from circuitlab.record.lock import Lock
from circuitlab.record.series import Encoder, Series
from circuitlab.record.storage import (
    LIBVER,
    copy_file,
    create_growing,
    open_for_writing,
    replace_durably,
    same_attributes,
    set_attributes,
    set_status,
    store,
    uninterrupted,
)
from circuitlab.record.transaction import Transaction

_OWN = ("nodes", "edges", "spec", "checkpoint")


class Publishing:
    """A run file that is being written, and what waits to be: `RunWriter` says what, this puts it on the disk.

    Args:
        path: of the run file, without links. shown: as the user wrote it. lock: held for it.
    """

    def __init__(self, path: Path, shown: str, lock: Lock) -> None:
        self.path = path
        self._shown = shown
        self._lock = lock
        self._working = path.with_name(path.name + ".writing")
        self._open = True
        self._encoder = Encoder()
        self._session: tuple[Transaction, h5py.File] | None = None
        self._series: dict[str, Series] = {}
        self._expected: dict[str, int] = {}
        self._whole: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._status: str | None = None
        self._moves: list[tuple[str, str]] = []
        self._state: bytearray | None = None
        self._states = False  # whether the file has places for states
        self._resumed = self._anew = False
        self._place: int | None = None  # where the file has its place for repairs
        self._cut: dict[str, int | None] = {}
        self._back: list[str] = []
        self._pending = 0
        self._published = self._kept = time.monotonic()
        self._cost = self._state_cost = 0.0

    def _publish(self, last: bool) -> None:
        begun = time.monotonic()
        with self._write():
            if self._needs_copy():
                self._end_session()
                self._in_copy(last)
            else:
                self._in_place(last)
            if last and self._session is not None:
                self._end_session()
            self._whole, self._attributes, self._cut = {}, {}, {}
            self._moves, self._status, self._pending, self._anew = [], None, 0, False
        self._published = time.monotonic()
        self._cost = self._published - begun

    def _needs_copy(self) -> bool:
        new = any(not series.stored for series in self._series.values())
        places = self._state is not None and not self._states
        other = self._whole or self._attributes or self._moves or self._cut or self._back
        return new or places or self._place is None or self._anew or bool(other)

    def _writing(self) -> tuple[Transaction, h5py.File]:
        """The file, opened to be written in place."""
        if self._session is None:
            assert self._place is not None
            transaction = Transaction(self.path, self._place)
            try:
                file = h5py.File(transaction, "r+", libver=LIBVER)
                self._session = transaction, file
                file.swmr_mode = True
            except BaseException:
                if self._session is None:
                    transaction.abandon()
                raise
        return self._session

    def _write_blocks(self) -> None:
        """Hands full chunks to HDF5 before the next publication; readers do not see them yet."""
        with self._write():
            transaction, file = self._writing()
            for path, series in self._series.items():
                if series.ready:
                    self._pending -= series.write(file[path], blocks_only=True)  # type: ignore[arg-type]
            if transaction.failure is not None:
                raise transaction.failure

    def _in_place(self, last: bool) -> None:
        transaction, file = self._writing()
        for path, series in self._series.items():
            if series.waits or (last and series.stored):
                series.write(file[path], last=last)  # type: ignore[arg-type]
        if self._status is not None:
            set_status(file, self._status)
        if self._state is not None:
            begun = time.monotonic()
            checkpoints.write(file, self._state, transaction.free)
            self._state_kept(begun)
        if not last:
            file.flush()
            transaction.commit()

    def _in_copy(self, last: bool) -> None:
        copy_file(self.path, self._working)
        with open_for_writing(self._working, create=False) as file:
            self._cut_back(file)
            checkpoints.prepare(file, 0)
            file[PLACE][...] = 0  # type: ignore[index]
            for old, new in self._moves:
                file.move(old, "moved")
                file.move("moved", new)
            for path, series in self._series.items():
                if not series.stored:
                    if path not in file:
                        create_growing(file, path, series.first, series.attributes, series.expected)
                    series.attach(file[path])  # type: ignore[arg-type]
                if series.waits or (last and series.stored):
                    series.write(file[path], last=last)  # type: ignore[arg-type]
            for path, (array, attributes) in self._whole.items():
                store(file, path, array, attributes)
            for path, attributes in self._attributes.items():
                set_attributes(file.require_group(path), attributes)
            if self._status is not None:
                set_status(file, self._status)
            if self._state is not None:
                begun = time.monotonic()
                checkpoints.prepare(file, len(self._state))
                checkpoints.write(file, self._state)
                self._state_kept(begun)
            file.flush()
            self._place = place_in(file)
        if not last and self._place is not None:
            make_room(self._working, self.path, self._place)
        replace_durably(self._working, self.path)

    def _cut_back(self, file: h5py.File) -> None:
        """Takes back rows behind the checkpoint, and what was moved since."""
        for path, rows in self._cut.items():
            if rows is None:
                del file[path]
                group = path.rpartition("/")[0]
                if group.startswith("weights/") and not len(file[group]):  # type: ignore[arg-type]
                    del file[group]
            else:
                file[path].resize(rows, axis=0)  # type: ignore[union-attr]
        for path in self._back:
            file.move(f"{path}/whole", "moved")
            del file[path]
            file.move("moved", path)
        self._back = []

    def _state_kept(self, begun: float) -> None:
        self._state, self._states = None, True
        self._kept = time.monotonic()
        self._state_cost += self._kept - begun

    @contextmanager
    def _write(self) -> Iterator[None]:
        """One write to the disk: not interrupted; its failure is one line and closes the writer."""
        if not self._open:
            raise RunFileError(f"{self._shown}: its writer is closed")
        with uninterrupted():
            try:
                yield
            except (OSError, RuntimeError) as error:
                first = (self._session[0].failure if self._session is not None else None) or error
                self.close()
                reason = (first.strerror if isinstance(first, OSError) else None) or str(first)
                kept = "; it keeps what it held before" if self.path.exists() else ""
                line = f"{self._shown}: cannot be written: {reason.splitlines()[0]}{kept}"
                raise RunFileError(line) from error
            except BaseException:
                self.close()
                raise

    def _end_session(self) -> None:
        """Closes the file, whole and cut to its end; chunks that were written and not published hold then."""
        if self._session is not None:
            transaction, file = self._session
            file.close()
            transaction.commit(last=True)
            self._session = None
        else:
            repair(self.path)

    def _is_there(self, path: str, value: np.ndarray | None, attributes: Mapping[str, Any]) -> bool:
        """Whether a resumed file holds just this: what holds for all of a run is told again at each resumption."""
        if not self._resumed or path in self._whole or path in self._attributes:
            return False
        with self.path.open("rb") as raw, h5py.File(raw, "r") as file:
            item: Any = file.get(path)
            if not isinstance(item, h5py.Group if value is None else h5py.Dataset):
                return False
            if not same_attributes(item, attributes):
                return False
            if value is None or not isinstance(item, h5py.Dataset):
                return True
            text = value.dtype == object
            if item.shape != value.shape or (h5py.check_string_dtype(item.dtype) is not None) != text:
                return False
            held: Any = item.asstr()[()] if text else item[()]
            return bool(np.array_equal(held, value)) and (text or item.dtype == value.dtype)

    def close(self) -> None:
        """Gives the file free without publishing; harmless when done before."""
        if self._open:
            self._open = False
            if self._session is not None:
                transaction, file = self._session
                self._session = None
                transaction.fail(OSError("closed"))
                with suppress(OSError, RuntimeError):
                    file.close()
                transaction.abandon()
            else:
                with suppress(OSError):
                    repair(self.path)
            self._encoder.close()
            self._working.unlink(missing_ok=True)
            self._lock.release()
