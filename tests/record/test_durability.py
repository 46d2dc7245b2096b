"""Kills, full disks: what was published stays, and the run goes on from there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter


def python(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own, with the path as its argument."""
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def opened(path: Path) -> Any:
    """The file by plain h5py."""
    return h5py.File(path, "r")


WRITER = """
import sys
import numpy as np
from circuitlab.record.run_file import RunWriter

def frame(step):
    return np.full((50, 40), step, "f4")


with RunWriter.resume(sys.argv[1]) as writer:
    from circuitlab.record.reader import open_run
    with open_run(sys.argv[1]) as run:
        step = run.checkpoint().get("step", 0)
    while True:
        writer.append("training/step", step, units="updates", description="[step] number of the update")
        writer.append("activity/a/data", frame(step), units="dimensionless", description="[frame, row, unit]")
        step += 1
        if step % 3 == 0:
            writer.checkpoint({"step": step, "weights": np.full(5000, float(step))})
            writer.publish()
            print(step, flush=True)
"""


def test_kills_at_random_moments_lose_nothing_published(
    create: Callable[..., RunWriter], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    create(path).close()
    chance = random.Random(0)
    published = 0
    for _ in range(10):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = [child.stdout.readline()]
            time.sleep(chance.random() * 0.15)
            child.kill()
            said += child.stdout.readlines()
        assert child.returncode == -signal.SIGKILL
        assert int(said[0]) == published + 3
        published = int(said[-1])
        with opened(
            path
        ) as file:  # by plain h5py, perhaps in the middle of a step that circuitlab's reader finishes
            assert len(file["training/step"]) in (published, published + 3)
        with open_run(path) as run:
            assert run.status == "interrupted"
            state = run.checkpoint()
        assert state["step"] in (published, published + 3)  # killed between publishing and saying so
        published = state["step"]
        assert set(state["weights"]) == {float(published)}
        with opened(path) as file:
            steps = file["training/step"][:]
            np.testing.assert_array_equal(steps, np.arange(published))
            np.testing.assert_array_equal(file["activity/a/data"][:, 49, 39], steps)
    assert published > 30
    with RunWriter.resume(path):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_one_line_and_leaves_the_file_intact(
    create: Callable[..., RunWriter], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    create(path).close()
    program = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from circuitlab.errors import RunFileError
    from circuitlab.record.run_file import RunWriter

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = Path(sys.argv[1])
    noise = np.random.default_rng(0)
    for spare in (0, 100, 5_000, 60_000, 300_000):
        with RunWriter.resume(path) as writer:
            writer.append("training/step", 7, units="updates", description="[step] number of the update")
            writer.checkpoint({"weights": np.ones(100)})
            writer.publish()
            size = 512 * path.stat().st_blocks
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + spare, resource.RLIM_INFINITY))
            try:
                for _ in range(100):
                    value = noise.standard_normal(1000)
                    writer.append("activity/a/data", value, units="mV", description="[frame, unit]")
                writer.checkpoint({"weights": noise.standard_normal(20_000)})
                writer.publish()
            except RunFileError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    """
    done = python(program, path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout.splitlines()
        == [f"{path}: cannot be written: File too large; it keeps what it held before"] * 5
    )
    assert list(tmp_path.iterdir()) == [path]
    with opened(path) as file:
        assert list(file["training/step"]) == [7] * 5
        assert "activity" not in file
    with open_run(path) as run:
        np.testing.assert_array_equal(run.checkpoint()["weights"], np.ones(100))


def test_full_disk_at_the_start_leaves_nothing(tmp_path: Path) -> None:
    program = """
    import resource, signal, sys
    from circuitlab.errors import RunFileError
    from circuitlab.graph.circuit import Circuit
    from circuitlab.record.run_file import RunWriter

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
    try:
        circuit = Circuit("c", "", 0, {}, {})
        RunWriter.create(sys.argv[1], circuit=circuit, circuit_yaml="x" * 9999, experiment_yaml="")
    except RunFileError as error:
        print(error)
    """
    path = tmp_path / "runs" / "run.h5"
    done = python(program, path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == []
