"""The run file: one HDF5 file per run, complete and readable at every moment, whatever kills the writer.

The file a reader sees is never written to. New content goes to a working copy beside it (`<name>.writing`),
which takes the file's place in one step when it is whole and on the disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record import checkpoint as checkpoints
from circuitlab.record.integrity import seal
from circuitlab.record.lock import Lock
from circuitlab.record.place import make_folders, refuse_existing
from circuitlab.record.provenance import provenance
from circuitlab.record.reader import FORMAT, FORMAT_VERSION, STATUSES, open_run
from circuitlab.record.storage import (
    as_array,
    copy_file,
    grow,
    is_growing,
    open_for_writing,
    replace_durably,
    set_attributes,
    store,
    uninterrupted,
)
from circuitlab.record.structure import write_structure

if TYPE_CHECKING:
    from circuitlab.graph.circuit import Circuit

_OWN = ("nodes", "edges", "spec", "checkpoint")


@dataclass
class _Series:
    """A growing dataset: rows already written, frames that wait, and what its first frame looks like."""

    rows: int
    first: np.ndarray
    attributes: dict[str, Any]
    waiting: list[np.ndarray] = field(default_factory=list)


class RunWriter:
    """Writes a run file; make one with `create` or `resume`, and use it as a context manager.

    Leaving the block without `finish` says `complete`, after Ctrl-C `interrupted`,
    after another error `failed`.
    """

    shortest_interval = 15.0
    """Seconds between two publications at least."""
    share_of_time = 1 / 20
    """Publishing takes at most this share of the run's time."""
    memory = 64 * 1024 * 1024
    """Bytes that wait in memory at most; beyond, they go to the working copy."""

    def __init__(self, path: Path, shown: str, lock: Lock) -> None:
        self.path = path
        self._shown = shown
        self._lock = lock
        self._working = path.with_name(path.name + ".writing")
        self._open = True
        self._spilled = False
        self._series: dict[str, _Series] = {}
        self._whole: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._state: tuple[str, dict[str, np.ndarray], dict[str, int]] | None = None
        self._cut: dict[str, int] = {}
        self._pending = 0
        self._cost = 0.0
        self._spent = 0.0
        self._published = time.monotonic()

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
                writer._spilled = True
                writer.publish()
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
        with open_run(path):
            pass
        writer = cls(real, str(path), Lock(real))
        try:
            writer._working.unlink(missing_ok=True)
            with open_run(path) as run:
                _, lengths = checkpoints.read(run.file)
                for name, item in run.datasets.items():
                    if is_growing(item) and not name.startswith(_OWN):
                        rows = lengths.get(name, 0)
                        if rows > len(item):
                            counted = f"{name} has {len(item)} rows, its checkpoint counts {rows}"
                            raise RunFileError(f"{path}: is damaged: {counted}")
                        writer._cut[name] = rows
                        if len(item) and rows:
                            writer._series[name] = _Series(rows, np.asarray(item[0]), {})
            writer.attributes("/", status="running")
            writer.publish()
        except BaseException:
            writer.close()
            raise
        return writer

    def append(self, path: str, value: Any, *, units: str, description: str, **attributes: Any) -> None:
        """Adds one frame to the end of a dataset; it waits for the next publication.

        Args:
            path: without leading slash, `training/loss`.
            value: scalar or array, of the same shape every time; shape [...], the dataset's is [frame, ...].
            description: what it is, beginning with its axes.
        Raises:
            RunFileError: shape or type differ from the first frame's.
        """
        path = path.strip("/")
        frame = as_array(value, path)
        series = self._series.get(path)
        if series is None:
            self._refuse_own(path)
            series = self._series[path] = _Series(
                0, frame, {"units": units, "description": description, **attributes}
            )
        if frame.shape != series.first.shape or not np.can_cast(frame.dtype, series.first.dtype, "same_kind"):
            raise RunFileError(
                f"{self._shown}: {path}: a frame of shape {frame.shape} and type {frame.dtype} "
                f"after frames of shape {series.first.shape} and type {series.first.dtype}"
            )
        series.waiting.append(frame.astype(series.first.dtype, copy=False))
        self._pending += frame.nbytes + 64

    def put(self, path: str, array: Any, *, units: str, description: str, **attributes: Any) -> None:
        """Writes a whole dataset, in place of one that is there; text is allowed."""
        path = path.strip("/")
        self._refuse_own(path)
        value = as_array(array, path)
        self._whole[path] = (value, {"units": units, "description": description, **attributes})
        self._pending += value.nbytes + 64

    def attributes(self, group: str, **attributes: Any) -> None:
        """Sets attributes of a group, made where missing; `/` is the file itself."""
        self._attributes.setdefault(group.strip("/") or "/", {}).update(attributes)

    def checkpoint(self, tree: dict[str, Any]) -> None:
        """Keeps the state from which `resume` continues; it is in the file from the next publication on.

        Args:
            tree: nested dicts, lists and tuples of numpy arrays, numbers, text, bool, None; copied here.
        """
        text, arrays = checkpoints.freeze(tree)
        lengths = dict(self._cut) | {
            path: series.rows + len(series.waiting) for path, series in self._series.items()
        }
        self._state = (text, arrays, lengths)

    @property
    def due(self) -> bool:
        """Whether the last publication is long enough ago."""
        return time.monotonic() - self._published >= max(
            self.shortest_interval, self._cost / self.share_of_time
        )

    def publish_if_due(self, state: Callable[[], dict[str, Any]] | None = None) -> bool:
        """Publishes when it is time to, and bounds what waits in memory; call it between two training steps.

        Args:
            state: gives the tree for `checkpoint`; asked for only when publishing.
        Returns:
            Whether it published.
        """
        if self.due:
            if state is not None:
                self.checkpoint(state())
            self.publish()
            return True
        if self._pending > self.memory:
            self._spill()
        return False

    def publish(self) -> None:
        """Puts everything recorded so far into the file that readers see.

        Raises:
            RunFileError: the disk is full or the folder is gone; the file keeps what it held before.
        """
        self._spill()
        with self._write():
            replace_durably(self._working, self.path)
            self._spilled = False
            self._published = time.monotonic()
            self._cost, self._spent = self._spent, 0.0

    def _spill(self) -> None:
        with self._write():
            if not self._spilled:
                copy_file(self.path, self._working)
                self._spilled = True
            if self._pending or self._attributes or self._state or self._cut:
                with open_for_writing(self._working, create=False) as file:
                    self._apply(file)
            for series in self._series.values():
                series.rows += len(series.waiting)
                series.waiting = []
            self._whole, self._attributes, self._state, self._cut, self._pending = {}, {}, None, {}, 0

    def _apply(self, file: h5py.File) -> None:
        for path, rows in self._cut.items():
            if rows:
                file[path].resize(rows, axis=0)  # type: ignore[union-attr]
            else:
                del file[path]
        for path, series in self._series.items():
            if series.waiting:
                grow(file, path, series.rows, np.stack(series.waiting), series.first, series.attributes)
        for path, (array, attributes) in self._whole.items():
            store(file, path, array, attributes)
        for path, attributes in self._attributes.items():
            set_attributes(file.require_group(path), attributes)
        if self._state is not None:
            checkpoints.write(file, *self._state)

    @contextmanager
    def _write(self) -> Iterator[None]:
        """One write to the disk: timed, not interrupted; its failure is one line and closes the writer."""
        if not self._open:
            raise RunFileError(f"{self._shown}: its writer is closed")
        start = time.monotonic()
        with uninterrupted():
            try:
                yield
            except (OSError, RuntimeError) as error:
                self.close()
                reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[
                    0
                ]
                kept = "; it keeps what it held before" if self.path.exists() else ""
                raise RunFileError(f"{self._shown}: cannot be written: {reason}{kept}") from error
            except BaseException:
                self.close()
                raise
            self._spent += time.monotonic() - start

    def _refuse_own(self, path: str) -> None:
        if path.split("/")[0] in _OWN:
            raise RunFileError(f"{self._shown}: {path}: the writer itself keeps {', '.join(_OWN)}")

    def finish(self, status: str = "complete") -> None:
        """Publishes the last of it with a status (complete, interrupted, failed) and gives the file free."""
        if status not in STATUSES or status == "running":
            raise RunFileError(
                f"{self._shown}: no status '{status}'; there are complete, interrupted, failed"
            )
        self.attributes("/", status=status)
        try:
            self.publish()
            with suppress(OSError):  # a file without a seal is whole, too
                seal(self.path)
        finally:
            self.close()

    def close(self) -> None:
        """Gives the file free without publishing; harmless when done before."""
        if self._open:
            self._open = False
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
