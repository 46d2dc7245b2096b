"""What the reader shows, and what it refuses in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.errors import RunFileError
from circuitlab.record.reader import open_run


def test_tables_metrics_and_values(finished: Path) -> None:
    with open_run(finished) as run:
        tables = {table.path: table for table in run.tables()}
        assert tables["training/loss"].shape == (5,)
        assert tables["training/loss"].units == "nats"
        assert tables["training/loss"].description == "[step] loss"
        assert tables["nodes/cells/0/name"].dtype == "text"
        assert not any(path.startswith("checkpoint") for path in tables)
        assert run.metrics() == ["loss"]
        steps, values = run.metric("loss")
        np.testing.assert_array_equal(steps, np.arange(5))
        np.testing.assert_array_equal(values, 1 / np.arange(1, 6))
        assert run.read("/nodes/cells/0/name").tolist() == ["left", "middle", "right"]
        assert run.experiment_yaml == "seed: 1\n"
        assert run.attributes["seed"] == 1
        with pytest.raises(RunFileError, match=r"no metric 'los'; there are loss\. Did you mean 'loss'\?"):
            run.metric("los")
        with pytest.raises(RunFileError, match=r"training is a group; it holds loss, step"):
            run.read("training")
        with pytest.raises(RunFileError, match=r"no dataset 'training/lss'\. Did you mean 'training/loss'\?"):
            run.read("training/lss")


def _write(path: Path, edit: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        edit(file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda f: f.attrs.pop("format"),
            "is an HDF5 file of another program, not a run file (format 'circuitlab-run')",
        ),
        (
            lambda f: f.attrs.__setitem__("format_version", 3),
            "has format version 3, this circuitlab reads up to 2; install a newer circuitlab",
        ),
        (lambda f: f.attrs.__setitem__("format_version", "x"), "is damaged: format version 'x'"),
        (lambda f: f.attrs.__setitem__("status", "x"), "is damaged: status 'x'"),
        (lambda f: f.pop("spec/circuit"), "is damaged: /spec/circuit is missing"),
        (
            lambda f: f.__setitem__("training/x", h5py.ExternalLink("other.h5", "/")),
            "training/x: is a link to another place; a run file holds everything itself",
        ),
        (
            lambda f: f.__setitem__("training/x", h5py.SoftLink("/nodes")),
            "training/x: is a link to another place; a run file holds everything itself",
        ),
        (
            lambda f: f.__setitem__("training/x", f["/"]),
            "training/x: is a second name of another object; a run file holds everything itself",
        ),
        (
            lambda f: f.create_dataset("training/x", (8,), "f8", external=[("/etc/hostname", 0, 64)]),
            "training/x: keeps its data in another file; a run file holds everything itself",
        ),
        (
            lambda f: f.create_virtual_dataset("training/x", h5py.VirtualLayout((3,), "f8")),
            "training/x: keeps its data in another file; a run file holds everything itself",
        ),
        (
            lambda f: f.__setitem__("training/x", np.dtype("f8")),
            "training/x: is neither group nor dataset; a run file holds everything itself",
        ),
    ],
)
def test_foreign_and_dangerous_files(
    finished: Path, edit: Callable[[h5py.File], object], message: str
) -> None:
    _write(finished, edit)
    with pytest.raises(RunFileError) as refused:
        open_run(finished)
    assert str(refused.value) == f"{finished}: {message}"


def test_absurd_sizes(finished: Path) -> None:
    _write(finished, lambda f: f.create_dataset("training/x", (10**12,), "f8", chunks=(1000,)))
    with pytest.raises(RunFileError, match=r"training/x: is damaged: it claims 8e\+12 bytes in a file of "):
        open_run(finished)


def test_other_kinds_of_file(tmp_path: Path, finished: Path) -> None:
    text, empty, short = tmp_path / "a.yaml", tmp_path / "empty.h5", tmp_path / "short.h5"
    text.write_text("experiment: x\n")
    empty.touch()
    short.write_bytes(finished.read_bytes()[: finished.stat().st_size // 2])
    for path, message in (
        (text, "is not a run file: it is no HDF5 file"),
        (empty, "is not a run file: it is empty"),
        (short, f"is truncated: {short.stat().st_size} bytes are left of {finished.stat().st_size - 56}"),
        (tmp_path, "is a folder; give the name of a run file in it"),
        (tmp_path / "none.h5", "there is no such file"),
    ):
        with pytest.raises(RunFileError) as refused:
            open_run(path)
        assert str(refused.value) == f"{path}: {message}"


def test_damaged_bytes_never_give_another_error(finished: Path) -> None:
    program = """
import random, sys
from pathlib import Path
from circuitlab.errors import RunFileError
from circuitlab.record.reader import open_run

path = Path(sys.argv[1])
whole, chance = path.read_bytes(), random.Random(0)
refused = 0
for case in range(60):
    damaged = bytearray(whole)
    if case % 3 == 0:
        del damaged[chance.randrange(8, len(whole)):]
    else:
        for _ in range(200 if case % 3 == 1 else 3):
            damaged[chance.randrange(8, len(whole))] ^= 1 << chance.randrange(8)
    path.write_bytes(damaged)
    try:
        with open_run(path) as run:
            run.tables(), run.checkpoint(), run.status
            for name in run.datasets:
                run.read(name)
    except RunFileError as error:
        assert "\\n" not in str(error)
        refused += 1
assert refused > 30, refused
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(finished)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
