"""Kills, torn writes and a full disk at every single write of a run that is written in place."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from circuitlab.errors import RunFileError
from circuitlab.record.compare import compare
from circuitlab.record.journal import Disk
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter
from tests.oracles.disks import resized, small_disk

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


EVERY = pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.slow)])


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


def _tell(pipe: int, step: int) -> None:
    os.write(pipe, step.to_bytes(4, "little"))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("kills", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_at_random_moments(create: Callable[..., RunWriter], folder: Path, kills: int) -> None:
    """A run that is killed, and taken up again, over and over; structure is added on the way, too."""
    path, rng = folder / "run.h5", random.Random(1)
    create(path).close()
    published = 0
    for kill in range(kills):
        reader, said = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with RunWriter.resume(path) as writer:
                    if kill % 4 == 3:
                        writer.append(f"training/{kill}", kill, units="none", description="[step] begun late")
                    go_on(writer, published, 10**6, partial(_tell, said))
            finally:
                os._exit(1)
        os.close(said)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read(4)  # it has begun to publish
            time.sleep(rng.random() * 0.05)
            os.kill(child, signal.SIGKILL)
            told += pipe.read()
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        flushed = int.from_bytes(told[-4:], "little")
        with h5py.File(path, "r") as file:
            steps: Any = file["training/step"]
            assert len(steps) >= flushed
        with open_run(path) as run:
            assert run.status == "interrupted"
            count = len(run.datasets["training/step"])
            assert count in (flushed, flushed + EACH)
            np.testing.assert_array_equal(run.datasets["training/step"], np.arange(count))
            np.testing.assert_array_equal(run.datasets["activity/a/data"][count - 1], frame(count - 1))
            assert run.checkpoint()["step"] == count
        published = count
    whole = folder / "whole.h5"
    with create(whole) as writer:
        go_on(writer, 0, published + EACH)
    with RunWriter.resume(path) as writer:
        go_on(writer, published, published + EACH)
    different = [line for line in compare(path, whole) if "only in" not in line]
    assert different in ([], ["checkpoint: another state"])  # which counts the rows of what began late, too
    with open_run(path) as one, open_run(whole) as two:
        np.testing.assert_array_equal(one.checkpoint()["weights"], two.checkpoint()["weights"])


@pytest.mark.mounts
def test_a_full_disk_of_its_own(create: Callable[..., RunWriter], tmp_path: Path) -> None:
    """A real one, four megabytes large."""
    published = [0]
    with small_disk(tmp_path / "disk", "4m") as disk:
        path = disk / "run.h5"
        with pytest.raises(RunFileError) as failed, create(path) as writer:
            go_on(writer, 0, 10_000, published.append)
        reason = "cannot be written: No space left on device; it keeps what it held before"
        assert str(failed.value) == f"{path}: {reason}"
        assert [item.name for item in disk.iterdir()] == ["run.h5"]
        assert published[-1] > 8
        with open_run(path) as run:
            assert run.status == "interrupted"
            assert run.checkpoint()["step"] == len(run.datasets["training/step"]) == published[-1]
            np.testing.assert_array_equal(run.datasets["activity/a/data"][-1], frame(published[-1] - 1))
        with h5py.File(path, "r") as file:
            steps: Any = file["training/step"]
            assert len(steps) == published[-1]
        resized(disk, "32m")
        with RunWriter.resume(path) as writer:  # the user made room
            go_on(writer, published[-1], published[-1] + EACH)
        with open_run(path) as run:
            assert run.status == "complete"
            assert run.checkpoint()["step"] == published[-1] + EACH
