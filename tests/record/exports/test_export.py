"""What is exported, and how: chosen recordings, whole folders, damage, full disks, bounded memory, agreement."""

from __future__ import annotations

import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pynwb
import pytest

import circuitlab
from circuitlab.cli.main import main
from circuitlab.errors import CircuitlabError, MissingLibraryError
from circuitlab.graph.build import build
from circuitlab.record.exports import nwb, tidy
from circuitlab.record.exports.recordings import Recording
from circuitlab.record.run_file import RunWriter
from circuitlab.spec.circuit import load_circuit

FORMATS = ("sonata", "csv", "nwb")


def test_xarray_csv_and_hdf5_agree(everything: Path, tmp_path: Path) -> None:
    circuitlab.export(everything, "csv", tmp_path / "out")
    found = 0
    with h5py.File(everything) as file:
        values_of = {name: file[f"activity/{name}/data"][:] for name in file["activity"]}
    with circuitlab.open(everything) as run:
        for name, array in run.activity.items():
            plain = values_of[name.replace("/", "%2F")]
            np.testing.assert_array_equal(array.values, plain)
            safe = name.replace("/", "_").replace(" ", "_")
            table = pd.read_csv(tmp_path / "out" / "recorded" / "activity" / f"{safe}.csv")
            values = table["value"].to_numpy(plain.dtype)
            np.testing.assert_array_equal(values, plain[np.isfinite(plain)])
            found += 1
        soma = run.activity["cells_soma"]
        table = pd.read_csv(tmp_path / "out" / "recorded" / "activity" / "cells_soma.csv")
        pivot = table.pivot(index=["frame", "sample"], columns="name", values="value")
        expected = soma.sel(unit="right").values.ravel()
        np.testing.assert_array_equal(pivot["right"].to_numpy(np.float32), expected)
    assert found == 12


def test_a_command_says_what_it_wrote_and_what_it_left_out(
    everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(everything), "sonata", str(tmp_path / "a")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("small: 3 populations, ") and "final weights, 12 recordings of " in lines[0]
    assert lines[1:] == [
        "left out: residual: [frame, sample], which are not values of neurons or synapses; csv and nwb hold them"
    ]
    assert main(["export", str(everything), "graphml", str(tmp_path / "b")]) == 0
    assert "left out: 12 recordings: graphml holds a network" in capsys.readouterr().out
    assert circuitlab.load(tmp_path / "b").equals(circuitlab.load(everything))
    command = ["export", str(everything), "csv", str(tmp_path / "c"), "--what", "activity"]
    assert main([*command, "--probe", "cells_*", "--probe", "bias"]) == 0
    assert "small: 4 recordings of 63 values, as csv" in capsys.readouterr().out
    names = {path.stem for path in (tmp_path / "c").rglob("*.csv")}
    assert names == {"cells_soma", "cells_basal", "cells_apical", "bias"}


@pytest.mark.parametrize("kind", FORMATS)
def test_the_network_alone_is_what_it_was(kind: str, everything: Path, tmp_path: Path) -> None:
    circuitlab.export(everything, kind, tmp_path / "out", what="network")
    assert not (tmp_path / "out" / "recorded").exists() and not (tmp_path / "out" / "reports").exists()
    if kind != "nwb":
        assert circuitlab.load(tmp_path / "out").equals(circuitlab.load(everything))


@pytest.mark.parametrize("kind", FORMATS)
def test_only_what_circuitlab_wrote_is_replaced(kind: str, everything: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    circuitlab.export(everything, kind, out, what="activity")
    with pytest.raises(CircuitlabError, match="exists and is not empty"):
        circuitlab.export(everything, kind, out, what="activity")
    (out / "mine.txt").write_text("x")
    circuitlab.export(everything, kind, out, what="activity", force=True)
    assert not (out / "mine.txt").exists()
    (out / "circuitlab_export.json").unlink()
    with pytest.raises(CircuitlabError, match="was not written by circuitlab"):
        circuitlab.export(everything, kind, out, what="activity", force=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_that_the_disk_cannot_hold_is_refused(
    kind: str, everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 500

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(CircuitlabError, match="GB free; export fewer recordings"):
        circuitlab.export(everything, kind, tmp_path / "new" / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run.h5"}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_disk_that_is_full_on_the_way_leaves_nothing_behind(
    kind: str, everything: Path, tmp_path: Path
) -> None:
    """A limit on the size of files: the first write beyond it fails as on a full disk."""
    code = (
        "import resource, sys\n"
        "from circuitlab.cli.main import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (700, {resource.RLIM_INFINITY}))\n"
        f"sys.exit(main(['export', {str(everything)!r}, {kind!r}, {str(tmp_path / 'out')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "run.h5"]


def test_a_run_that_goes_on_is_exported_as_far_as_it_is(
    create: Callable[..., RunWriter], tmp_path: Path
) -> None:
    path = tmp_path / "running.h5"
    with create(path) as writer:
        for frame in range(4):
            writer.append(
                "activity/p/data",
                np.full((1, 3), frame, dtype=np.float32),
                units="dimensionless",
                description="[frame, sample, unit] soma",
                variable="soma",
                population="cells",
            )
            if frame < 3:  # of the last frame only the values are there
                writer.append("activity/p/step", frame, units="updates", description="[frame] update")
        writer.publish()
        for kind in FORMATS:
            done = circuitlab.export(path, kind, tmp_path / kind, what="activity")
            assert (done.recordings, done.values) == (("p",), 9)
    table = pd.read_csv(tmp_path / "csv" / "recorded" / "activity" / "p.csv")
    assert table["value"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_without_pynwb_it_says_what_to_install(
    everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(MissingLibraryError, match=r'pip install "circuitlab\[nwb\]"'):
        circuitlab.export(everything, "nwb", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _damage(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


DAMAGES: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "axes": (
        lambda file: file["activity/cells_soma/data"].attrs.__setitem__("description", "[frame, unit] soma"),
        "activity/cells_soma/data: is damaged: its axes are",
    ),
    "population": (
        lambda file: file["activity/cells_soma/data"].attrs.__setitem__("population", "cellar"),
        "there is no population 'cellar'",
    ),
    "id": (
        lambda file: file["activity/cells_soma/unit_ids"].__setitem__(slice(None), [0, 1, 3]),
        "ids up to 3, and population 'cells' has 3",
    ),
    "negative": (
        lambda file: file["activity/synapses/edge_ids"].__setitem__(slice(None), [0, -1, 3]),
        "activity/synapses/edge_ids: is damaged",
    ),
    "samples": (
        lambda file: (
            file.__delitem__("activity/cells_soma/sample_ids"),
            file["activity/cells_soma"].create_dataset("sample_ids", data=[1, 2, 3]),
        ),
        "activity/cells_soma/sample_ids: is damaged",
    ),
    "names": (
        lambda file: (
            file.__delitem__("activity/cells_soma/unit_names"),
            file["activity/cells_soma"].create_dataset("unit_names", data=["a", "b"]),
        ),
        "activity/cells_soma/unit_names: is damaged",
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line_and_leaves_nothing(
    name: str, kind: str, everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = DAMAGES[name]
    _damage(everything, lambda file: change(file) and None)
    assert main(["export", str(everything), kind, str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    assert message in error
    assert not (tmp_path / "out").exists()


LARGE = """circuit: large
populations:
  eye: {type: input, size: 2}
  cells: {type: unit, size: 250}
  answer: {type: output, size: 2}
projections:
  eye_cells: {source: eye, target: cells, connect: {rule: fixed_indegree, indegree: 1}}
  cells_answer: {source: cells, target: answer}
"""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file with 24 MB of one probe, and 1.2 MB of another."""
    path, rng = tmp_path_factory.mktemp("long") / "long.h5", np.random.default_rng(0)
    circuit = build(load_circuit("large.yaml", text=LARGE), seed=1)
    with RunWriter.create(path, circuit=circuit, circuit_yaml=LARGE, experiment_yaml="seed: 1\n") as writer:
        for name, frames in (("long", 1200), ("short", 60)):
            for frame in range(frames):
                writer.append(
                    f"activity/{name}/data",
                    rng.normal(size=(20, 250)).astype(np.float32),
                    units="dimensionless",
                    description="[frame, sample, unit] soma",
                    variable="soma",
                    population="cells",
                )
                writer.append(f"activity/{name}/step", frame, units="updates", description="[frame] update")
    return path


@pytest.mark.parametrize(("kind", "probe"), [("sonata", "long"), ("nwb", "long"), ("csv", "short")])
def test_memory_does_not_grow_with_the_recording(
    kind: str, probe: str, long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values go by in pieces, as does what is said of their rows: a fraction of them is in memory at a time."""
    monkeypatch.setattr(sys.modules[Recording.__module__], "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr("circuitlab.record.integrity.check_bytes", lambda path: False)
    for place in (sys.modules[Recording.__module__], tidy, nwb):
        monkeypatch.setattr(place, "ROWS", 2000)
    circuitlab.export(long, kind, tmp_path / "warm", what="activity", probes=["short"])
    tracemalloc.start()
    try:
        circuitlab.export(long, kind, tmp_path / "out", what="activity", probes=[probe])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6
    if kind == "nwb":
        with pynwb.NWBHDF5IO(str(tmp_path / "out" / "long.nwb"), "r") as io, h5py.File(long) as file:
            found = io.read().acquisition
            values = file["activity/long/data"][:].reshape(-1, 250)
            np.testing.assert_array_equal(found["long"].data[:], values)
            steps = np.repeat(np.arange(1200), 20)
            np.testing.assert_array_equal(found["long"].timestamps[:], steps)
            np.testing.assert_array_equal(found["long_rows"]["step"].data[:], steps)
            np.testing.assert_array_equal(found["long_rows"]["sample"].data[:], np.tile(np.arange(20), 1200))
