"""Kills, torn writes and a full disk at every single write of a run that is written in place."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from circuitlab.errors import RunFileError
from circuitlab.record.compare import compare
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter
from circuitlab.record.transaction import Disk

EACH, LAST = 4, 16
"""Rows between two publications, and at the end."""


def frame(step: int) -> np.ndarray:
    """Ten of these fill a chunk; noise, so that no write leaves bytes as they were."""
    return np.random.default_rng(step).random((64, 200), dtype=np.float32)


def go_on(writer: RunWriter, step: int, until: int, say: Callable[[int], object] = lambda step: None) -> None:
    """Records from a step on, publishing with a checkpoint now and then."""
    while step < until:
        writer.append("training/step", step, units="updates", description="[step] number of the update")
        writer.append(
            "activity/a/data", frame(step), units="dimensionless", description="[frame, sample, unit]"
        )
        step += 1
        if step % EACH == 0:
            writer.checkpoint({"step": step, "weights": np.full(30_000 if step < 9 else 90_000, float(step))})
            writer.publish()
            say(step)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be had: what is tested is not how long a disk takes."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture
def begun(create: Callable[..., RunWriter], folder: Path) -> Path:
    """A run that was interrupted after its first publication."""
    path = folder / "begun.h5"
    writer = create(path)
    go_on(writer, 0, EACH)
    writer.finish("interrupted")
    return path


@pytest.fixture
def whole(begun: Path, folder: Path) -> Path:
    """The same run, never interrupted again."""
    path = folder / "whole.h5"
    shutil.copy(begun, path)
    with RunWriter.resume(path) as writer:
        go_on(writer, EACH, LAST)
    return path


EVERY = pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])


class Counted:
    """Counts what reaches the disk, and does something else at the n-th write."""

    def __init__(self, at: int, instead: Callable[[int, Any, int], None]) -> None:
        self.count, self.at, self.instead = 0, at, instead
        self.plain = Disk.write

    def __call__(self, descriptor: int, data: Any, offset: int) -> None:
        self.count += 1
        if self.count == self.at:
            self.instead(descriptor, data, offset)
        self.plain(descriptor, data, offset)


def die(descriptor: int, data: Any, offset: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tear(descriptor: int, data: Any, offset: int) -> None:
    """Half of the bytes reach the disk before the power is cut."""
    os.pwrite(descriptor, bytes(data)[: len(bytes(data)) // 2], offset)
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[Callable[[int], object]], None]) -> tuple[int, list[int]]:
    """Does it in a process of its own; how that ended, and the steps it said were published."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(lambda step: os.write(writer, bytes([step])))
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        steps = list(said.read())
    return os.waitpid(child, 0)[1], steps


def every_write(
    path: Path, begun: Path, every: int, instead: Callable[[int, Any, int], None]
) -> Iterator[int]:
    """Dies at the first write, at the second (every second, third), and so on, until a run does not come to die.

    Yields:
        The rows that were published.
    """
    for at in range(1, 10_000, every):
        shutil.copy(begun, path)

        def work(say: Callable[[int], object], at: int = at) -> None:
            Disk.write = staticmethod(Counted(at, instead))  # type: ignore[method-assign]
            with RunWriter.resume(path) as writer:
                go_on(writer, EACH, LAST, say)
            os._exit(0)

        status, steps = in_child(work)
        if status == 0:
            assert at > 40
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield max(steps, default=EACH)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@EVERY
@pytest.mark.parametrize("instead", [die, tear])
def test_a_kill_at_any_write(
    begun: Path, whole: Path, folder: Path, every: int, instead: Callable[[int, Any, int], None]
) -> None:
    path = folder / "run.h5"
    for published in every_write(path, begun, every, instead):
        if instead is die:
            with h5py.File(path, "r") as file:  # plain h5py, before anything was repaired
                steps: Any = file["training/step"]
                assert len(steps) >= published
                np.testing.assert_array_equal(steps, np.arange(len(steps)))
                data: Any = file["activity/a/data"]
                np.testing.assert_array_equal(data[published - 1], frame(published - 1))
        with open_run(path) as run:
            assert run.status in ("interrupted", "complete" if published == LAST else "interrupted")
            count = len(run.datasets["training/step"])
            assert count in (published, published + EACH)
            assert run.checkpoint()["step"] == count
            for step in range(count):
                np.testing.assert_array_equal(run.datasets["activity/a/data"][step], frame(step))
        assert path.stat().st_size < 2 * whole.stat().st_size
        with RunWriter.resume(path) as writer:
            go_on(writer, count, LAST)
        assert compare(path, whole) == []
        assert not list(folder.glob("run.h5.*"))


@EVERY
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_at_any_write(
    begun: Path, whole: Path, folder: Path, every: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path, plain = folder / "run.h5", Disk.write

    def fail(descriptor: int, data: Any, offset: int) -> None:
        raise OSError(number, os.strerror(number))

    for at in range(1, 10_000, every):
        shutil.copy(begun, path)
        published = [EACH]
        monkeypatch.setattr(Disk, "write", staticmethod(Counted(at, fail)))
        try:
            with RunWriter.resume(path) as writer:
                go_on(writer, EACH, LAST, published.append)
            assert at > 40
            break
        except RunFileError as error:
            line = f"{path}: cannot be written: {os.strerror(number)}; it keeps what it held before"
            assert str(error) == line
        finally:
            monkeypatch.setattr(Disk, "write", staticmethod(plain))
        with h5py.File(path, "r") as file:
            steps: Any = file["training/step"]
            assert len(steps) >= published[-1]
        with open_run(path) as run:
            count = len(run.datasets["training/step"])
            assert count in (published[-1], published[-1] + EACH)
            assert run.checkpoint()["step"] == count
        assert not list(folder.glob("run.h5.*"))
        with RunWriter.resume(path) as writer:
            go_on(writer, count, LAST)
        assert compare(path, whole) == []
