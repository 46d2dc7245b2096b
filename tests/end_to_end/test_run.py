"""`circuitlab run`: same seed same contents, resumption to the bit after kill -9, Dale's law and sparsity kept."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from circuitlab.record.compare import compare

ROOT = Path(__file__).parents[2]
DALE = """
circuit: dale
seed: 3
populations:
  retina: {type: input, size: 64}
  e: {type: pyramidal, size: 40, activation: tanh, sign: excitatory}
  i: {type: interneuron, size: 12, activation: relu, sign: inhibitory}
  readout: {type: output, size: 10}
projections:
  retina_e: {source: retina, target: e}
  e_e: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.2}, weights: {scale: 0.5}}
  e_i: {source: e, target: i, connect: {rule: fixed_indegree, indegree: 10}, weights: {scale: 0.5}}
  i_e: {source: i, target: e, site: apical, connect: {rule: pairwise_bernoulli, p: 0.5}}
  e_readout: {source: e, target: readout}
"""
EXPERIMENT = """
experiment: dale_digits
circuit: dale.yaml
data: {name: digits, limit: 320, validation: 0.1}
control: {controller: {alpha: 1.0}}
learn:
  optimizer: {name: adam, lr: 5e-3}
  scheduler: cosine
  epochs: 4
  batch_size: 32
  clip: 1.0
  constrain: {largest_singular_value: 0.9}
record:
  e_control: {population: e, variable: control, units: [0, 3, "10:14"], every: 3 steps}
  e_apical: {population: e, variable: apical, of: test, samples: [0, 5], every: 1 epoch}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    (tmp_path / "dale.yaml").write_text(DALE)
    (tmp_path / "exp.yaml").write_text(EXPERIMENT)
    return tmp_path / "exp.yaml"


def run(experiment: Path, out: str, *options: str) -> Path:
    path = experiment.parent / out
    assert main(["run", str(experiment), "-o", str(path), "--quiet", "--set", "threads=1", *options]) == 0
    return path


def test_factors_learn_and_the_file_holds_their_product(tmp_path: Path) -> None:
    (tmp_path / "dale.yaml").write_text(
        "circuit: thin\nseed: 3\npopulations:\n  x: {type: input, size: 64}\n  e: {type: pyramidal, size: 24}\n"
        "  y: {type: output, size: 10}\nprojections:\n  x_e: {source: x, target: e, rank: 5}\n"
        "  e_e: {source: e, target: e, rank: 3}\n  e_y: {source: e, target: y}\n"
    )
    (tmp_path / "exp.yaml").write_text(EXPERIMENT[: EXPERIMENT.index("record:")])
    with h5py.File(run(tmp_path / "exp.yaml", "thin.h5")) as file:
        assert file["training/test_accuracy"][-1] > file["training/test_accuracy"][0] + 0.2
        for name, rank, shape in (("x_e", 5, (24, 64)), ("e_e", 3, (24, 24))):
            edges, weights = file[f"edges/{name}"], file[f"weights/{name}"][:]
            assert edges.attrs["kernel"] == "low_rank"
            assert edges.attrs["rank"] == rank
            given = edges["0/syn_weight"][:]
            norm = np.linalg.norm(given.reshape(shape), 2)
            scale = min(1.0, 0.9 / norm) if name == "e_e" else 1.0
            assert weights[0] == pytest.approx(scale * given, rel=1e-3, abs=1e-5), (
                "the bound holds from the start"
            )
            assert np.abs(weights[-1] - weights[0]).max() > 1e-2
            assert np.linalg.matrix_rank(weights[-1].reshape(shape), tol=1e-4) == rank
            if name == "e_e":
                assert np.linalg.norm(weights[-1].reshape(shape), 2) <= 0.9 * 1.02


@pytest.mark.parametrize("rule", ["least_control", "recurrent_backprop"])
def test_the_file_says_which_solver_ran_and_why(
    experiment: Path, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: 52 recurrent units, and what share of the minibatches was preconditioned is all or none when asked."""
    (experiment.parent / "dale.yaml").write_text(DALE.replace("relu", "softplus"))
    few = ("--set", "learn.epochs=1", "--set", f"learn.rule={rule}", "--overwrite")
    for asked, share in (("mean_response", 1.0), ("none", 0.0)):
        with h5py.File(run(experiment, "a.h5", "--set", f"solve.preconditioner={asked}", *few)) as file:
            training = file["training"]
            assert training["preconditioned"][:].tolist() == [share]
            assert training["preconditioned"].attrs["index"] == "training/epoch"
            assert float(training["unconverged"][0]) == 0
            reason = training.attrs["solver_reason"]
            assert training.attrs["solver"] == "auto"
            assert reason.startswith("one recurrent group of 52 units: sweeps with Anderson acceleration")
            word = "preconditioned by the group's mean response" if share else "not preconditioned"
            assert f"{word}, as solve.preconditioner says" in reason
            near = "within solve.free_tolerance" in training["step_loss"].attrs["description"]
            assert near == (rule == "least_control")
        assert f"\nsolver: {reason}\n" in capsys.readouterr().out


def test_a_nearer_free_state_takes_more_products_and_learns_the_same(experiment: Path) -> None:
    """Where the controlled equilibrium is looked for from does not move it by more than the tolerance."""
    found = []
    for free_tolerance in ("1", "1e-5"):
        options = (
            "--set",
            f"solve.free_tolerance={free_tolerance}",
            "--set",
            "learn.epochs=1",
            "--overwrite",
        )
        with h5py.File(run(experiment, "a.h5", *options, "--set", "solve.preconditioner=none")) as file:
            found.append((file["training/products"][0], file["training/test_loss"][:]))
    assert found[0][0] < found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-3)


def test_learns_and_keeps_dale_and_sparsity(experiment: Path) -> None:
    with h5py.File(run(experiment, "a.h5")) as file:
        assert file.attrs["status"] == "complete"
        cost = file["training/control_cost"][:]
        assert cost[-1] < cost[0]
        assert file["training/test_accuracy"][-1] > file["training/test_accuracy"][0] + 0.2
        for name, sign in (("e_e", 1), ("e_i", 1), ("e_readout", 1), ("i_e", -1)):
            weights = file[f"weights/{name}"][:]
            assert (sign * weights >= 0).all()
            assert weights.shape == (5, len(file[f"edges/{name}/source_node_id"]))
            assert not np.array_equal(weights[0], weights[-1])
        for name in ("retina_e", "e_readout"):  # outside the recurrent group, which the bound scales at once
            assert np.array_equal(
                file[f"weights/{name}"][0], file[f"edges/{name}/0/syn_weight"][:].astype("f4")
            )
        matrix = np.zeros((52, 52))
        for name, rows, columns in (("e_e", 0, 0), ("e_i", 40, 0), ("i_e", 0, 40)):
            edges = file[f"edges/{name}"]
            i, j = (
                rows + edges["target_node_id"][:].astype(int),
                columns + edges["source_node_id"][:].astype(int),
            )
            matrix[i, j] = file[f"weights/{name}"][-1]
        assert np.linalg.svd(matrix, compute_uv=False)[0] <= 0.9 * 1.01


def test_probes_hold_what_was_asked_for(experiment: Path) -> None:
    with h5py.File(run(experiment, "a.h5")) as file:
        batch, fixed = file["activity/e_control"], file["activity/e_apical"]
        assert batch["data"].shape == (12, 32, 6)
        assert batch["unit_ids"][:].tolist() == [0, 3, 10, 11, 12, 13]
        assert batch["step"][:].tolist() == list(range(1, 37, 3))
        assert np.isfinite(batch["data"][:]).all()
        assert fixed["data"].shape == (5, 2, 40)
        assert fixed["sample_ids"][0].tolist() == [0, 5]
        assert "labels" in fixed


def test_same_seed_same_contents(experiment: Path) -> None:
    assert compare(run(experiment, "a.h5"), run(experiment, "b.h5")) == []
    assert compare(run(experiment, "a.h5", "--overwrite"), run(experiment, "c.h5", "--set", "seed=1")) != []


def test_reordering_and_adding_changes_no_other_projection(experiment: Path) -> None:
    first = run(experiment, "a.h5", "--set", "learn.epochs=1")
    lines = DALE.strip().splitlines()
    head, projections = lines[:9], lines[9:]
    extra = "  e_again: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.1}}"
    (experiment.parent / "dale.yaml").write_text("\n".join([*head, extra, *reversed(projections)]))
    second = run(experiment, "b.h5", "--set", "learn.epochs=1")
    with h5py.File(first) as a, h5py.File(second) as b:
        assert set(b["edges"]) == {*a["edges"], "e_again"}
        for name in a["edges"]:
            for key in ("source_node_id", "target_node_id", "0/syn_weight"):
                assert np.array_equal(a["edges"][name][key][:], b["edges"][name][key][:])


@pytest.mark.parametrize("begins", ["free", "last"])
def test_a_stopped_run_resumes_to_the_bit(experiment: Path, begins: str) -> None:
    """Ctrl-C in the middle of an epoch, several times over; what warm starts remember is taken up with the rest."""
    experiment.write_text(EXPERIMENT + f"solve: {{start: {begins}}}\n")
    whole, part = run(experiment, "whole.h5"), experiment.parent / "part.h5"
    for _ in range(3):
        child = start(experiment, part)
        wait_for(
            part.with_name("part.h5.lock"), child
        )  # held while it trains; before, there is nothing to stop
        time.sleep(random.uniform(0.0, 0.4))
        child.send_signal(signal.SIGINT)
        assert child.wait(60) in (0, 130, -signal.SIGINT)  # the last: it had finished and was leaving
    with h5py.File(part) as file:
        assert file.attrs["status"] in ("interrupted", "complete")
    run(experiment, "part.h5", "--resume")
    assert compare(whole, part) == []


def test_a_killed_run_resumes_to_the_bit(experiment: Path) -> None:
    """kill -9 at random moments; the file opens with plain h5py each time."""
    whole, part = run(experiment, "whole.h5"), experiment.parent / "part.h5"
    for _ in range(4):
        child = start(experiment, part)
        wait_for(part, child)
        time.sleep(random.uniform(0.0, 0.8))
        child.kill()
        child.wait(60)
        with h5py.File(part, "r") as file:
            assert file.attrs["format"] == "circuitlab-run"
    run(experiment, "part.h5", "--resume")
    assert compare(whole, part) == []


def test_resuming_another_experiment_is_refused(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(experiment, "a.h5", "--set", "learn.epochs=1")
    before = path.read_bytes()
    assert main(["run", str(experiment), "-o", str(path), "--resume"]) == 1
    assert "was made by another experiment" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("rule", ["least_control_gated", "recurrent_backprop"])
def test_every_rule_learns(experiment: Path, rule: str) -> None:
    with h5py.File(run(experiment, "a.h5", "--set", f"learn.rule={rule}")) as file:
        assert file["training/test_accuracy"][-1] > file["training/test_accuracy"][0] + 0.2


def test_every_shipped_experiment_runs_in_its_smallest_form(tmp_path: Path) -> None:
    for number, path in enumerate(sorted((ROOT / "experiments").glob("*.yaml"))):
        options = ["--set", "learn.epochs=1", "--set", "data.limit=130", "--set", "data.validation=0.1"]
        assert main(["run", str(path), "-o", str(tmp_path / f"{number}.h5"), "--quiet", *options]) == 0


def start(experiment: Path, path: Path) -> subprocess.Popen[bytes]:
    code = (
        "import circuitlab.record.run_file as r; r.RunWriter.shortest_interval = 0.05; r.RunWriter.share_of_time = 1.0;"
        "import sys; from circuitlab.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    args = ["run", str(experiment), "-o", str(path), "--quiet", "--set", "threads=1", "--resume"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(path: Path, child: subprocess.Popen[bytes]) -> None:
    """Until a file is there: the run file (it appears whole, with the first publication), or its lock."""
    deadline = time.monotonic() + 120
    while not path.exists() and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
