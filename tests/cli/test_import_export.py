"""`circuitlab import` and `circuitlab export`."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import circuitlab
from circuitlab.cli.main import main
from circuitlab.graph.build import build
from circuitlab.spec.circuit import load_circuit
from tests.oracles.sonata import Found, plain_network

EXPERIMENT = """\
experiment: imported
circuit: circuit/circuit.yaml
data: {name: file, train: train.npz, test: 0.25}
learn: {rule: least_control, epochs: 2, batch_size: 8, optimizer: {name: adam, lr: 0.01}}
seed: 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SONATA network, the circuit of its import with a readout, and a short training run."""
    place = tmp_path_factory.mktemp("place")
    network = plain_network(place / "plain")
    options = ["--readout", "2", "--split", "cells=ei", "--weight-scale", "0.1", "--name", "small"]
    assert main(["import", str(network), "-o", str(place / "circuit"), *options]) == 0
    rng = np.random.default_rng(0)
    np.savez(place / "train.npz", lgn=rng.random((24, 3)), label=rng.integers(0, 2, 24))
    (place / "imported.yaml").write_text(EXPERIMENT)
    assert main(["run", str(place / "imported.yaml"), "-o", str(place / "run.h5"), "--quiet"]) == 0
    return place


@pytest.fixture
def network(place: Path) -> Path:
    """A SONATA network as another program wrote it."""
    return place / "plain"


@pytest.fixture
def circuit(place: Path) -> Path:
    """The circuit file of its import, with a readout."""
    return place / "circuit" / "circuit.yaml"


@pytest.fixture
def run(place: Path) -> Path:
    """A short training run of the imported circuit."""
    return place / "run.h5"


def test_every_command_takes_an_imported_circuit(
    circuit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((5, 3)))
    np.save(tmp_path / "y.npy", np.array([0, 1, 0, 1, 1]))
    assert main(["validate", str(circuit)]) == 0
    assert main(["show", str(circuit)]) == 0
    options = [
        "--input",
        str(tmp_path / "x.npy"),
        "--target",
        str(tmp_path / "y.npy"),
        "-o",
        str(tmp_path / "eq.h5"),
    ]
    assert main(["equilibrium", str(circuit), *options]) == 0
    with h5py.File(tmp_path / "eq.h5") as file:
        assert file["equilibria/controlled/converged"][()].all()
        # Names of SONATA's columns stand beside the neurons in the run file.
        assert file["nodes/cells_i/0/model_name"].asstr()[()].tolist() == ["inh", "inh"]
    assert main(["export", str(tmp_path / "eq.h5"), "sonata", str(tmp_path / "out")]) == 0
    assert "initial weights" in capsys.readouterr().out


def test_the_initial_weights_of_a_run_are_those_that_were_imported(
    run: Path, network: Path, tmp_path: Path
) -> None:
    assert main(["export", str(run), "sonata", str(tmp_path / "out"), "--weights", "initial"]) == 0
    before, after = Found(network), Found(tmp_path / "out")
    for name, columns in before.nodes.items():
        assert after.nodes[name] == columns
    for name, columns in before.edges.items():
        assert after.edges[name] == columns


@pytest.mark.parametrize("weights", ["initial", "final"])
def test_a_run_s_circuit_is_the_circuit_with_the_run_s_weights(
    run: Path, circuit: Path, weights: str, tmp_path: Path
) -> None:
    built = build(load_circuit(circuit), seed=1)
    found = circuitlab.load(run, weights=weights)
    assert found.populations.keys() == built.populations.keys()
    with h5py.File(run) as file:
        for name, p in built.projections.items():
            expected = p.edges.weight if weights == "initial" else file[f"weights/{name}"][-1]
            np.testing.assert_allclose(found.projections[name].edges.weight, expected, rtol=1e-7)
    if weights == "initial":
        assert found.equals(built)
    else:
        changed = [name for name, p in built.projections.items() if not p.equals(found.projections[name])]
        assert "cells_e_readout" in changed
    # Dale's law holds in what is exported, and the export comes back.
    assert main(["export", str(run), "npz", str(tmp_path / "npz"), "--weights", weights]) == 0
    assert circuitlab.load(tmp_path / "npz").equals(found)


def test_the_trained_weights_reach_sonata(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "sonata", str(tmp_path / "out")]) == 0
    edges = Found(tmp_path / "out").edges["lgn_to_cells"]
    assert "0/syn_weight" in edges
    final = circuitlab.load(run)
    back = circuitlab.load(tmp_path / "out")
    for name, p in final.projections.items():
        # The file holds weights before the scale that the import gave; reading it anew gives them without it.
        scale = 1.0 if name.endswith("readout") else 0.1
        np.testing.assert_allclose(
            back.projections[name].edges.weight * scale, p.edges.weight, rtol=1e-6, err_msg=name
        )


def test_without_an_output_it_says_what_is_missing(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "circuit"
    assert main(["import", str(network), "-o", str(folder)]) == 0
    assert "there is no output population" in capsys.readouterr().out
    assert main(["validate", str(folder / "circuit.yaml")]) == 0
    assert main(["show", str(folder / "circuit.yaml")]) == 0
    assert main(["export", str(folder / "circuit.yaml"), "graphml", str(tmp_path / "out")]) == 0
    np.savez(tmp_path / "train.npz", lgn=np.zeros((8, 3)), label=np.zeros(8, int))
    (tmp_path / "imported.yaml").write_text(EXPERIMENT)
    capsys.readouterr()
    assert main(["run", str(tmp_path / "imported.yaml"), "-o", str(tmp_path / "run.h5")]) == 1
    error = capsys.readouterr().err
    assert "imported.yaml:2" in error
    assert "no output population" in error
    assert error.count("\n") == 1


def test_an_output_may_be_one_of_the_populations(network: Path, tmp_path: Path) -> None:
    options = ["--split", "cells=model_name", "--output", "cells_inh", "--type", "cells_exc=pyramidal"]
    assert main(["import", str(network), "-o", str(tmp_path / "circuit"), *options]) == 0
    circuit = circuitlab.load(tmp_path / "circuit")
    assert {name: p.type for name, p in circuit.populations.items()} == {
        "cells_exc": "pyramidal",
        "cells_inh": "output",
        "lgn": "input",
    }


def test_the_summary_as_json(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(network), "-o", str(tmp_path / "circuit"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["source"] == "SONATA"
    assert said["populations"]["cells"] == {"type": "unit", "neurons": 5}
    assert said["projections"]["cells_to_cells"] == {"source": "cells", "target": "cells", "edges": 6}
    assert any("output" in note for note in said["notes"])


def test_nothing_is_overwritten_but_what_circuitlab_wrote(
    circuit: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    out = tmp_path / "out"
    for command in (["import", str(network), "-o"], ["export", str(circuit), "json"]):
        capsys.readouterr()
        assert main([*command, str(mine)]) == 1
        assert "exists and is not empty" in capsys.readouterr().err
        assert main([*command, str(mine), "--force"]) == 1
        assert "was not written by circuitlab and is not replaced" in capsys.readouterr().err
        assert (mine / "thesis.txt").read_text() == "years of work"
        assert main([*command, str(mine / "thesis.txt")]) == 1
        assert main([*command, str(mine / "thesis.txt" / "deeper")]) == 1
    assert main(["export", str(circuit), "json", str(out)]) == 0
    assert main(["export", str(circuit), "graphml", str(out)]) == 1
    assert main(["export", str(circuit), "graphml", str(out), "--force"]) == 0
    assert [path.name for path in out.iterdir()] == ["circuit.graphml"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    out.joinpath("circuit.graphml").unlink()
    assert main(["export", str(circuit), "npz", str(out)]) == 0


def test_wrong_commands_are_told(
    circuit: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    for command, message in (
        (
            ["export", str(circuit), "nwb", out],
            "nwb: holds runs, and circuit 'small' is none; give a run file (.h5)",
        ),
        (
            ["export", str(circuit), "sonta", out],
            "no format 'sonta'; allowed: sonata, graphml, json, csv, npz, nwb. Did you",
        ),
        (
            ["export", str(circuit), "json", out, "--weights", "final"],
            "is a circuit file, whose weights are the initial",
        ),
        (
            ["export", str(run), "json", out, "--weights", "best"],
            "no weights 'best'; allowed: initial, final",
        ),
        (["export", str(run), "json", out, "--seed", "3"], "is a run file, whose circuit is drawn already"),
        (
            ["export", str(run.with_name("train.npz")), "json", out],
            "is neither a run file (.h5) nor a circuit file (.yaml)",
        ),
        (["export", str(tmp_path / "no.h5"), "json", out], "there is no such file"),
        (["export", str(run), "json", out, "--what", "activity"], "json: holds a network and no recordings"),
        (["export", str(run), "csv", out, "--what", "al"], "what: no 'al'; allowed: all, network, activity."),
        (
            ["export", str(run), "csv", out, "--probe", "x"],
            "--probe: nothing recorded is called 'x'; there are",
        ),
        (["export", str(run), "sonata", out, "--what", "activity"], "recorded nothing that sonata holds"),
        (["export", str(circuit), "csv", out, "--probe", "x"], "recordings are a run's, and circuit 'small'"),
        (
            ["import", str(run), "-o", out],
            "is a run file of circuitlab, not a foreign one; take `circuitlab export`",
        ),
        (["import", str(tmp_path / "no.csv"), "-o", out], "there is no such file or folder"),
        (["import", str(run.with_name("imported.yaml")), "-o", out], "imported.yaml"),
        (["import", str(circuit), str(circuit), "-o", out], "are read one at a time"),
        (
            ["import", str(circuit), "-o", out, "--split", "lgn=x"],
            "its populations are a circuit's; only other programs'",
        ),
    ):
        capsys.readouterr()
        assert main(command) == 1, command
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert message in error, error
        assert not Path(out).exists()
