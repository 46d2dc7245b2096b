"""`circuitlab run --from`: the same numbers to the last bit from the file alone, and clear words where not."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from circuitlab.record.compare import compare

ROOT = Path(__file__).parents[2]
CIRCUIT = """
circuit: small
populations:
  x: {type: input, size: 64}
  h: {type: pyramidal, size: 12, activation: tanh}
  y: {type: output, size: 10}
projections:
  x_h: {source: x, target: h, connect: {rule: pairwise_bernoulli, p: 0.5}}
  h_h: {source: h, target: h, connect: {rule: explicit, file: edges.csv}, weights: {init: file, scale: 0.3}}
  h_y: {source: h, target: y}
"""
EXPERIMENT = """
experiment: small
circuit: circuit.yaml
data: {name: digits, limit: 80, validation: 0.1}
loss: {name: function, file: losses.py, function: half_square}
control: {controller: {alpha: 0.5}}
learn: {epochs: 2, batch_size: 24}
record:
  h_control: {population: h, variable: control, every: 2 steps}
"""
LOSS = """
def half_square(y, target):
    return 0.5 * (y - target).square().sum()
"""
OWN_DATA = """
experiment: own
circuit: circuit.yaml
data: {name: file, train: samples.npz, test: 0.25}
learn: {epochs: 1, batch_size: 16}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    chance = np.random.default_rng(0)
    rows = [f"{i},{j},{chance.normal():.17g}" for i in range(12) for j in range(12) if chance.random() < 0.4]
    (made / "edges.csv").write_text("source,target,weight\n" + "\n".join(rows) + "\n")
    (made / "circuit.yaml").write_text(CIRCUIT)
    (made / "exp.yaml").write_text(EXPERIMENT)
    (made / "losses.py").write_text(LOSS)
    (made / "own.yaml").write_text(OWN_DATA)
    x = chance.random((64, 64)).astype("f4")
    np.savez(made / "samples.npz", image=x, label=chance.integers(0, 10, 64))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return main(["run", *arguments, "--quiet"])


def test_a_loss_and_edges_of_ones_own_without_their_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("made/exp.yaml", "-o", "one.h5") == 0
    shutil.rmtree("made")
    capsys.readouterr()
    assert run("--from", "one.h5", "-o", "two.h5") == 0
    assert compare("one.h5", "two.h5") == []
    said = capsys.readouterr().out
    with h5py.File("one.h5") as file:
        digest = file["spec/loss/y"].attrs["sha256"]
    assert (
        f"note: runs the Python code of its loss as the file holds it: losses.py (sha256 {digest[:12]})"
        in said
    )
    assert "the last digits" not in said
    assert run("--from", "two.h5", "-o", "three.h5") == 0
    assert compare("one.h5", "three.h5") == []


def test_changes_and_a_repeat_that_goes_on(folder: Path) -> None:
    assert run("made/exp.yaml", "-o", "one.h5") == 0
    assert run("made/exp.yaml", "--set", "learn.epochs=3", "-o", "expected.h5") == 0
    shutil.rmtree("made")
    assert run("--from", "one.h5", "--set", "learn.epochs=3", "-o", "longer.h5") == 0
    assert compare("expected.h5", "longer.h5") == []
    assert run("--from", "one.h5", "--set", "learn.epochs=3", "-o", "longer.h5", "--resume") == 0
    assert compare("expected.h5", "longer.h5") == []


@pytest.mark.parametrize(
    "experiment",
    ["celegans", pytest.param("mushroom_body", marks=pytest.mark.slow), "ei_balanced_digits"],
)
def test_shipped_experiments(experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("experiments", "topologies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    short = ("--set", "learn.epochs=1", "--set", "data.limit=64", "--set", "learn.batch_size=32")
    assert run(f"experiments/{experiment}.yaml", *short, "-o", "one.h5") == 0
    shutil.rmtree("topologies")
    assert run("--from", "one.h5", "-o", "two.h5") == 0
    assert compare("one.h5", "two.h5") == []


def test_data_of_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("made/own.yaml", "-o", "one.h5") == 0
    shutil.copytree("made", "kept")
    assert run("--from", "one.h5", "-o", "two.h5") == 0
    shutil.move("made", "away")
    capsys.readouterr()
    assert run("--from", "one.h5", "-o", "three.h5") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("one.h5: data.train: samples.npz is not there, looked for in ")
    assert line.endswith("; name it with --set data.train=FILE")
    shutil.copyfile("away/samples.npz", "samples.npz")
    assert run("--from", "one.h5", "-o", "three.h5") == 0
    assert compare("one.h5", "three.h5") == []
    content = dict(np.load("samples.npz"))
    content["image"][0, 0] += 0.5
    np.savez("samples.npz", **content)
    capsys.readouterr()
    assert run("--from", "one.h5", "-o", "four.h5") == 1
    assert "samples.npz is not the file that the run read (its checksum differs)" in capsys.readouterr().err
    assert not Path("four.h5").exists()
    assert run("--from", "one.h5", "--set", "data.train=samples.npz", "-o", "four.h5") == 0
    assert any(line.startswith("/training") or "sha256" in line for line in compare("one.h5", "four.h5"))
    assert run("--from", "one.h5", "--set", "data.train=kept/samples.npz", "-o", "five.h5") == 0


def test_what_cannot_be_repeated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.zeros((1, 64)))
    assert run("made/exp.yaml", "-o", "one.h5") == 0
    equilibrium = ["equilibrium", "made/circuit.yaml", "--input", "x.npy", "-o", "rest.h5"]
    assert main(equilibrium) == 0
    simulate = ["simulate", "made/circuit.yaml", "--input", "x.npy", "--duration", "5 ms", "-o", "time.h5"]
    assert main(simulate) == 0
    capsys.readouterr()
    for arguments, line in (
        (
            ["--from", "rest.h5"],
            "rest.h5: is of equilibria (circuitlab equilibrium); --from repeats the runs of circuitlab run",
        ),
        (
            ["--from", "time.h5"],
            "time.h5: is a simulation (circuitlab simulate); --from repeats the runs of circuitlab run",
        ),
        (
            ["--from", "one.h5", "-o", "one.h5", "--overwrite"],
            "one.h5: is the run to repeat; give another -o",
        ),
        (["--from", "none.h5"], "none.h5: there is no such file"),
        (
            ["--from", "one.h5", "--set", "circuit=other.yaml"],
            "one.h5: --set circuit: --from repeats the circuit of the file; leave it out",
        ),
        (
            ["--from", "one.h5", "--set", "seed=3"],
            "one.h5: --set seed: asks for new draws, and projections.h_h.connect comes from edges.csv, which the run "
            "file holds only as it was used; run the experiment file instead",
        ),
        (["--from", "one.h5", "--set", "learn.epoch=3"], "--set learn.epoch"),
    ):
        assert run(*arguments) == 1
        said = capsys.readouterr().err
        assert said.startswith(line), said
        assert len(said.splitlines()) == 1
    assert main(["run"]) == 2
    assert main(["run", "made/exp.yaml", "--from", "one.h5"]) == 2


def test_what_differs_here_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("made/exp.yaml", "-o", "one.h5") == 0
    with h5py.File("one.h5", "r+") as file:
        file.attrs["torch_version"] = "1.0.0"
        file.attrs["platform"] = "Abacus"
        file["training"].attrs["processes"] = 4
    capsys.readouterr()
    assert run("--from", "one.h5", "-o", "two.h5") == 0
    notes = [
        line
        for line in capsys.readouterr().out.splitlines()
        if "the last digits of numbers may differ" in line
    ]
    assert len(notes) == 2
    assert "made with torch 1.0.0 (here " in notes[0]
    assert "platform Abacus (here " in notes[0]
    assert "made by 4 processes, here are 1" in notes[1]


def test_another_seed_draws_anew_where_nothing_came_from_files(folder: Path) -> None:
    text = (folder / "made/circuit.yaml").read_text()
    plain = text.replace(
        "connect: {rule: explicit, file: edges.csv}, weights: {init: file, scale: 0.3}",
        "weights: {scale: 0.3}",
    )
    assert plain != text
    (folder / "made/circuit.yaml").write_text(plain)
    assert run("made/exp.yaml", "-o", "one.h5") == 0
    assert run("made/exp.yaml", "--set", "seed=5", "-o", "expected.h5") == 0
    assert run("--from", "one.h5", "--set", "seed=5", "-o", "five.h5") == 0
    assert compare("expected.h5", "five.h5") == []
