"""The run file: one HDF5 file per run, complete and readable at every moment, whatever kills the writer.

Rows, states and the status are written into the file in place, in steps that either hold or do not
(`transaction`). What HDF5 cannot add in place (new datasets and groups) goes into a copy (`<name>.writing`), which
takes the file's place in one step when it is whole and on the disk; that happens a few times, early in a run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record import checkpoint as checkpoints
from circuitlab.record.integrity import seal, unseal
from circuitlab.record.lock import Lock
from circuitlab.record.place import make_folders, refuse_existing
from circuitlab.record.provenance import provenance
from circuitlab.record.reader import FORMAT, FORMAT_VERSION, STATUSES, open_run
from circuitlab.record.recovery import recover
from circuitlab.record.series import Encoder, Series
from circuitlab.record.storage import (
    LIBVER,
    as_array,
    copy_file,
    create_growing,
    is_growing,
    keep_room,
    open_for_writing,
    replace_durably,
    same_attributes,
    set_attributes,
    set_status,
    store,
    uninterrupted,
)
from circuitlab.record.structure import write_structure
from circuitlab.record.transaction import PLACE, Transaction, make_room, place_in, repair

if TYPE_CHECKING:
    from circuitlab.graph.circuit import Circuit

_OWN = ("nodes", "edges", "spec", "checkpoint")


class RunWriter:
    """Writes a run file; make one with `create` or `resume`, and use it as a context manager.

    Leaving the block without `finish` says `complete`, after Ctrl-C `interrupted`,
    after another error `failed`.
    """

    shortest_interval = 2.0
    """Seconds between two publications at least."""
    share_of_time = 1 / 100
    """Publishing rows takes at most this share of the run's time, and keeping states as much again."""
    memory = 64 * 1024 * 1024
    """Bytes that wait in memory at most."""
    copied = 256 * 1024 * 1024
    """Bytes of a file up to which it is taken up again in a copy, though it could be in place."""

    def __init__(self, path: Path, shown: str, lock: Lock) -> None:
        self.path = path
        self._shown = shown
        self._lock = lock
        self._working = path.with_name(path.name + ".writing")
        self._open = True
        self._encoder = Encoder()
        self._session: tuple[Transaction, h5py.File] | None = None
        self._series: dict[str, Series] = {}
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

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        circuit: Circuit,
        circuit_yaml: str,
        experiment_yaml: str,
        code: Mapping[str, tuple[str, dict[str, str]]] | None = None,
        attributes: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> RunWriter:
        """Starts a run file that holds the specification, nodes, edges, and the status `running`.

        Args:
            code: texts of the user's Python files by their name below `/spec`, and their attributes.
            attributes: of the root: command, device, seed, git_commit; time, versions and platform are
                filled in.
        Raises:
            RunFileError: the path cannot be written, exists, or has a writer; nothing is left behind.
        """
        real = Path(os.path.realpath(path))
        refuse_existing(real, str(path), overwrite)
        made = make_folders(real.parent, str(path))
        try:
            writer = cls(real, str(path), Lock(real))
            try:
                refuse_existing(real, str(path), overwrite)
                writer._working.unlink(missing_ok=True)
                with writer._write():
                    repair(real)
                root = {"device": "", "seed": 0, **provenance(), **(attributes or {})}
                with writer._write(), open_for_writing(writer._working, create=True) as file:
                    set_attributes(
                        file, root | {"format": FORMAT, "format_version": FORMAT_VERSION, "status": "running"}
                    )
                    for name, text in (("circuit", circuit_yaml), ("experiment", experiment_yaml)):
                        described = {
                            "units": "none",
                            "description": f"the {name} file with every default written out, as YAML",
                        }
                        store(file, f"spec/{name}", np.array(text, dtype=object), described)
                    for name, (text, about) in (code or {}).items():
                        described = {"units": "none", "description": "a Python file of the user", **about}
                        store(file, f"spec/{name}", np.array(text, dtype=object), described)
                    write_structure(file, circuit)
                    checkpoints.prepare(file, 0)
                    keep_room(file)
                    file.flush()
                    writer._place = place_in(file)
                with writer._write():
                    if writer._place is not None:
                        make_room(writer._working, real, writer._place)
                    replace_durably(writer._working, real)
                writer._published = writer._kept = time.monotonic()
            except BaseException:
                writer.close()
                raise
        except BaseException:
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()
            raise
        return writer

    @classmethod
    def resume(cls, path: str | Path) -> RunWriter:
        """Continues a run file from its last checkpoint: rows recorded after it are taken back.

        Raises:
            RunFileError: there is no such file, it is not a sound run file, or it has a writer.
        """
        real = Path(os.path.realpath(path))
        recover(real)
        with open_run(path):
            pass
        writer = cls(real, str(path), Lock(real))
        try:
            writer._working.unlink(missing_ok=True)
            with writer._write():
                repair(real)
                unseal(real)
            with open_run(path) as run:
                _, lengths = checkpoints.read(run.file)
                writer._states = checkpoints.has_places(run.file)
                writer._place = place_in(run.file)
                writer._back = [
                    name for name in lengths if name not in run.datasets and f"{name}/whole" in run.datasets
                ]
                for name, item in run.datasets.items():
                    if is_growing(item) and not name.startswith(_OWN):
                        writer._take_up(name, item, lengths)
                if run.attributes["format_version"] != FORMAT_VERSION:
                    writer.attributes("/", format_version=FORMAT_VERSION)
            writer._resumed = True
            # who opened the file when it was finished was told of no room behind its end, and would fail in it
            writer._anew = real.stat().st_size <= cls.copied
            writer._status = "running"
            writer.publish()
        except BaseException:
            writer.close()
            raise
        return writer

    def _take_up(self, name: str, item: h5py.Dataset, lengths: dict[str, int]) -> None:
        """A growing dataset of a resumed file: rows that its checkpoint does not count are to be taken back."""
        stem, _, last = name.rpartition("/")
        known = stem if stem in self._back and last == "whole" else name
        rows = lengths.get(known)
        if rows is None:  # begun after the checkpoint
            self._cut[name] = None
            return
        if rows > len(item):
            counted = f"{name} has {len(item)} rows, its checkpoint counts {rows}"
            raise RunFileError(f"{self._shown}: is damaged: {counted}")
        first = np.asarray(item[0]) if rows else np.zeros(item.shape[1:], item.dtype)
        series = self._series[known] = Series(self._encoder, first, {})
        if rows != len(item):
            self._cut[name] = rows
        else:
            series.attach(item)

    def append(self, path: str, value: Any, *, units: str, description: str, **attributes: Any) -> None:
        """Adds one frame to the end of a dataset; it waits for the next publication.

        Args:
            path: without leading slash, `training/loss`.
            value: scalar or array, of the same shape every time; shape [...], the dataset's is [frame, ...].
            description: what it is, beginning with its axes.
        Raises:
            RunFileError: shape or type differ from the first frame's.
        """
        self._extend(path, as_array(value, path)[None], units, description, attributes)

    def extend(self, path: str, rows: Any, *, units: str, description: str, **attributes: Any) -> None:
        """Adds several frames to the end of a dataset, shape [frame, ...]; otherwise as `append`."""
        self._extend(path, as_array(rows, path), units, description, attributes)

    def _extend(
        self, path: str, frames: np.ndarray, units: str, description: str, attributes: dict[str, Any]
    ) -> None:
        path = path.strip("/")
        series = self._series.get(path)
        if series is None:
            self._refuse_own(path)
            example = frames[0] if len(frames) else np.zeros(frames.shape[1:], frames.dtype)
            described = {"units": units, "description": description, **attributes}
            series = self._series[path] = Series(self._encoder, example, described)
        first = series.first
        if frames.shape[1:] != first.shape or not np.can_cast(frames.dtype, first.dtype, "same_kind"):
            raise RunFileError(
                f"{self._shown}: {path}: a frame of shape {frames.shape[1:]} and type {frames.dtype} "
                f"after frames of shape {first.shape} and type {first.dtype}"
            )
        for frame in frames:
            self._pending += series.append(frame)

    def rows(self, path: str) -> int:
        """How many rows a growing dataset has, those that wait included; 0 where there is none."""
        series = self._series.get(path.strip("/"))
        return 0 if series is None else series.rows

    def put(self, path: str, array: Any, *, units: str, description: str, **attributes: Any) -> None:
        """Writes a whole dataset, in place of one that is there; text is allowed."""
        path = path.strip("/")
        self._refuse_own(path)
        value = as_array(array, path)
        described = {"units": units, "description": description, **attributes}
        if not self._is_there(path, value, described):
            self._whole[path] = (value, described)
            self._pending += value.nbytes + 64

    def attributes(self, group: str, **attributes: Any) -> None:
        """Sets attributes of a group, made where missing; `/` is the file itself."""
        name = group.strip("/") or "/"
        if not self._is_there(name, None, attributes):
            self._attributes.setdefault(name, {}).update(attributes)

    def move(self, path: str, new: str) -> None:
        """Gives a growing dataset another name; the old one may then be a group."""
        series = self._series[new] = self._series.pop(path)
        if series.stored:
            self._moves.append((path, new))

    def checkpoint(self, tree: dict[str, Any]) -> None:
        """Keeps the state from which `resume` continues; it is in the file from the next publication on.

        Args:
            tree: nested dicts, lists and tuples of numpy arrays, numbers, text, bool, None; copied here.
        """
        lengths = {path: series.rows for path, series in self._series.items()}
        self._state = checkpoints.pack(tree, lengths)

    def _is_there(self, path: str, value: np.ndarray | None, attributes: Mapping[str, Any]) -> bool:
        """Whether a resumed file holds just this: what holds for all of a run is told again at each resumption."""
        if not self._resumed or path in self._whole or path in self._attributes:
            return False
        with self.path.open("rb") as raw, h5py.File(raw, "r") as file:
            item = file.get(path)
            if not isinstance(item, h5py.Group if value is None else h5py.Dataset):
                return False
            if not same_attributes(item, attributes):
                return False
            if value is None:
                return True
            text = value.dtype == object
            if item.shape != value.shape or (h5py.check_string_dtype(item.dtype) is not None) != text:
                return False
            held = item.asstr()[()] if text else item[()]
            return bool(np.array_equal(held, value)) and (text or item.dtype == value.dtype)

    @property
    def due(self) -> bool:
        """Whether the last publication is long enough ago."""
        return self._is_due(self._published, self._cost)

    def _is_due(self, last: float, cost: float) -> bool:
        return time.monotonic() - last >= max(self.shortest_interval, cost / self.share_of_time)

    def publish_if_due(self, state: Callable[[], dict[str, Any]] | None = None) -> bool:
        """Publishes when it is time to, and bounds what waits in memory; call it between two training steps.

        Args:
            state: gives the tree for `checkpoint`; asked for only when publishing, and not more often than its
                cost allows.
        Returns:
            Whether it published.
        """
        held = 0 if self._session is None else self._session[0].waiting
        if self.due or self._pending > self.memory or held > self.memory // 4:
            if state is not None and self._is_due(self._kept, self._state_cost):
                begun = time.monotonic()
                self.checkpoint(state())
                self._state_cost = time.monotonic() - begun
            self.publish()
            return True
        if any(series.ready for series in self._series.values()):
            self._write_blocks()
        return False

    def publish(self) -> None:
        """Puts everything recorded so far into the file that readers see.

        Raises:
            RunFileError: the disk is full or the folder is gone; the file keeps what it held before.
        """
        self._publish(last=False)

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
                        create_growing(file, path, series.first, series.attributes)
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

    def _refuse_own(self, path: str) -> None:
        if path.split("/")[0] in _OWN:
            raise RunFileError(f"{self._shown}: {path}: the writer itself keeps {', '.join(_OWN)}")

    def finish(self, status: str = "complete") -> None:
        """Publishes the last of it with a status (complete, interrupted, failed) and gives the file free."""
        if status not in STATUSES or status == "running":
            raise RunFileError(
                f"{self._shown}: no status '{status}'; there are complete, interrupted, failed"
            )
        self._status = status
        try:
            self._publish(last=True)
            with suppress(OSError):  # a file without a seal is whole, too
                seal(self.path)
        finally:
            self.close()

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

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return
        if error is None:
            self.finish("complete")
            return
        try:
            self.finish("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        except RunFileError as second:
            error.add_note(str(second))
