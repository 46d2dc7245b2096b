"""The run file: one HDF5 file per run, complete and readable at every moment, whatever kills the writer.

Rows, states and the status are written into the file in place, in steps that either hold or do not
(`transaction`). What HDF5 cannot add in place (new datasets and groups) goes into a copy (`<name>.writing`), which
takes the file's place in one step when it is whole and on the disk; that happens a few times, early in a run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from circuitlab.errors import RunFileError
from circuitlab.record import checkpoint as checkpoints
from circuitlab.record.integrity import seal, unseal
from circuitlab.record.journal import make_room, place_in, repair
from circuitlab.record.lock import Lock
from circuitlab.record.place import make_folders, refuse_existing
from circuitlab.record.provenance import provenance
from circuitlab.record.reader import FORMAT, FORMAT_VERSION, STATUSES, open_run
from circuitlab.record.recovery import recover
from circuitlab.record.series import Series
from circuitlab.record.storage import (
    as_array,
    is_growing,
    keep_room,
    open_for_writing,
    replace_durably,
    set_attributes,
    store,
)
from circuitlab.record.structure import write_structure
from circuitlab.record.writing import Publishing

if TYPE_CHECKING:
    from circuitlab.graph.circuit import Circuit

_OWN = ("nodes", "edges", "spec", "checkpoint")


class RunWriter(Publishing):
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
        known = self._series.get(path)
        if known is not None and isinstance(value, np.ndarray) and known.takes(value):
            self._pending += known.append(value)
            return
        plain = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
        frame = value if plain else as_array(value, path)  # copied where it is kept
        self._extend(path, frame[None], units, description, attributes)

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
            expected = self._expected.get(path, self._expected.get(path.rpartition("/")[0]))
            series = self._series[path] = Series(self._encoder, example, described, expected)
        first = series.first
        if frames.shape[1:] != first.shape or not np.can_cast(frames.dtype, first.dtype, "same_kind"):
            raise RunFileError(
                f"{self._shown}: {path}: a frame of shape {frames.shape[1:]} and type {frames.dtype} "
                f"after frames of shape {first.shape} and type {first.dtype}"
            )
        for frame in frames:
            self._pending += series.append(frame)

    def expect(self, path: str, rows: int) -> None:
        """Says how many rows a growing dataset, or each of those in a group, will have: no room is taken for more.

        It may have more all the same.
        """
        self._expected[path.strip("/")] = rows

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
