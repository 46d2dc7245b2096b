"""Readers of every kind while a writer is at work: never an error, never fewer rows than before."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter

WRITER = """
import sys
import numpy as np
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter

with open_run(sys.argv[1]) as run:
    step = len(run.datasets["training/step"])
path = sys.argv[1]
while step < int(sys.argv[2]):
    with RunWriter.resume(path) as writer:  # finished and taken up again, several times over
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(min(600, int(sys.argv[2]) - step)):
            row = np.full((20, 40), step, "f4")
            writer.append("training/step", step, units="updates", description="[step] number of the update")
            writer.append("activity/a/data", row, units="dimensionless", description="[frame, sample, unit]")
            step += 1
            if step % 4 == 0:
                writer.checkpoint({"step": step, "weights": np.full(3000, float(step))})
                writer.publish()
        writer.checkpoint({"step": step, "weights": np.full(3000, float(step))})
"""

READERS = {
    "plain": """
        def look():
            with h5py.File(path, "r", locking=False) as file:
                assert file.attrs["status"] in ("running", "complete")
                return file["activity/a/data"][:], file["training/step"][:]
        """,
    "following": """
        file = h5py.File(path, "r", swmr=True, locking=False)
        datasets = file["activity/a/data"], file["training/step"]
        def look():
            # from last to first, as they were written from first to last
            for dataset in reversed(datasets):
                dataset.refresh()
            assert file.attrs["status"] in ("running", "complete")
            return tuple(dataset[:] for dataset in datasets)
        """,
    "circuitlab": """
        from circuitlab.record.reader import open_run
        def look():
            with open_run(path) as run:
                assert run.status in ("running", "complete", "interrupted")
                state = run.checkpoint()
                assert set(state["weights"]) == {float(state["step"])}
                return run.read("activity/a/data"), run.read("training/step")
        """,
}

READER = """
import sys, time
import h5py
import numpy as np

path = sys.argv[1]
LOOK
before, looks = (0, 0), 0
print("ready", flush=True)
while before[1] < int(sys.argv[2]):
    data, steps = look()
    assert len(data) >= before[0] and len(steps) >= before[1], (len(data), len(steps), before)
    assert (data == np.arange(len(data))[:, None, None]).all()
    assert (steps == np.arange(len(steps))).all()
    before, looks = (len(data), len(steps)), looks + 1
print(looks)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("kind", READERS)
def test_readers_never_fail_and_never_go_back(
    create: Callable[..., RunWriter], tmp_path: Path, kind: str
) -> None:
    path, until = tmp_path / "run.h5", 600 if kind == "following" else 1200
    with create(path) as writer:  # with the datasets, so that a reader can follow them from the start
        writer.append("training/step", 0, units="updates", description="[step] number of the update")
        row = np.zeros((20, 40), np.float32)
        writer.append("activity/a/data", row, units="dimensionless", description="[frame, sample, unit]")
        writer.checkpoint({"step": 1, "weights": np.full(3000, 1.0)})
    program = READER.replace("LOOK", textwrap.dedent(READERS[kind]))
    with ExitStack() as stack:
        writing = stack.enter_context(start(WRITER, path, until))
        assert writing.stdout is not None and writing.stdout.readline() == "ready\n"
        readers = [stack.enter_context(start(program, path, until)) for _ in range(2)]
        for reader in readers:
            assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
        for child in (writing, *readers):
            stack.callback(child.kill)
        for child in (writing, *readers):
            said, wrong = child.communicate("\n" * 9 if child is writing else None, timeout=100)
            assert not wrong[-700:]
            assert child is writing or int(said) > 2
    with open_run(path) as run:
        assert run.status == "complete"
        assert run.checkpoint()["step"] == until
