"""`circuitlab run` with the options that keep learning settled: what the run file and the terminal say of them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from circuitlab.record.compare import compare
from circuitlab.record.reader import open_run

CIRCUIT = """
circuit: dale
seed: 3
populations:
  retina: {type: input, size: 64}
  e: {type: pyramidal, size: 20, activation: tanh, sign: excitatory}
  i: {type: interneuron, size: 6, activation: softplus, sign: inhibitory}
  readout: {type: output, size: 10}
projections:
  retina_e: {source: retina, target: e}
  e_e: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.3}}
  e_i: {source: e, target: i, connect: {rule: fixed_indegree, indegree: 10}}
  i_e: {source: i, target: e, connect: {rule: pairwise_bernoulli, p: 0.5}}
  e_readout: {source: e, target: readout}
"""
EXPERIMENT = """
experiment: settled
circuit: dale.yaml
data: {name: digits, limit: 100, validation: 0.1}
learn: {epochs: 4, batch_size: 30, optimizer: {name: adam, lr: 1e-2}}
threads: 1
"""
ALL = (
    "control.controller.alpha={from: 6.4, to: 0.5}",
    "solve.check_energy={every: 2 steps, samples: 3}",
    "learn.presynaptic=free",
    "learn.weighting=error",
    "learn.penalty.jacobian=1e-3",
    "learn.constrain={largest_singular_value: 0.9, largest_symmetric_eigenvalue: 0.5}",
)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    (tmp_path / "dale.yaml").write_text(CIRCUIT)
    (tmp_path / "exp.yaml").write_text(EXPERIMENT)
    return tmp_path / "exp.yaml"


def run(experiment: Path, out: str, *options: str) -> Path:
    path = experiment.parent / out
    sets = [word for option in options for word in ("--set", option)]
    assert main(["run", str(experiment), "-o", str(path), "--quiet", *sets]) == 0
    return path


def recurrent(file: h5py.File) -> np.ndarray:
    """The recurrent weights of the last snapshot."""
    matrix = np.zeros((26, 26))
    for name, rows, columns in (("e_e", 0, 0), ("e_i", 20, 0), ("i_e", 0, 20)):
        edges = file[f"edges/{name}"]
        target, source = (edges[f"{side}_node_id"][:].astype(int) for side in ("target", "source"))
        matrix[rows + target, columns + source] = file[f"weights/{name}"][-1]
    return matrix


def test_everything_together(experiment: Path) -> None:
    """Metrics as they were set, both bounds and Dale's law at the end, and the same file from the same seed."""
    first = run(experiment, "a.h5", *ALL)
    with h5py.File(first) as file:
        alpha = file["training/alpha"][:]
        steps = 12
        expected = [6.4 * (0.5 / 6.4) ** min(1, (3 * k - 1) / (0.7 * steps)) for k in range(1, 5)]
        assert alpha == pytest.approx(expected, rel=1e-6)
        assert file["training/energy_checked"][:].tolist() == [3, 6, 3, 6], "every second of three"
        lowered = file["training/energy_lowered"][:]
        assert ((lowered >= 0) & (lowered <= 6)).all()
        w = recurrent(file)
        assert np.linalg.svd(w, compute_uv=False)[0] <= 0.9 * (1 + 1e-3)
        assert np.linalg.eigvalsh((w + w.T) / 2)[-1] <= 0.5 * (1 + 1e-3)
        assert (w[:, :20] >= 0).all() and (w[:, 20:] <= 0).all()
        assert file["training/train_loss"][-1] < file["training/train_loss"][0]
    assert compare(first, run(experiment, "b.h5", *ALL)) == []


def test_a_recurrent_circuit_is_bounded_by_default_and_says_so(experiment: Path) -> None:
    for rule in ("least_control", "recurrent_backprop"):
        path = run(experiment, f"{rule}.h5", f"learn.rule={rule}", "learn.epochs=2")
        with open_run(path) as opened:
            assert "largest_singular_value: 0.5" in opened.experiment_yaml
        with h5py.File(path) as file:
            assert np.linalg.svd(recurrent(file), compute_uv=False)[0] <= 0.7 * (1 + 1e-3)
    path = run(experiment, "free.h5", "learn.constrain.largest_singular_value=none", "learn.epochs=1")
    with h5py.File(path) as file:
        assert np.linalg.svd(recurrent(file), compute_uv=False)[0] > 1
        assert "alpha" not in file["training"] and "energy_checked" not in file["training"]


def test_the_default_bound_makes_way_for_frozen_weights(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says so; the weights are those without a bound. A bound that is asked for is refused as before."""
    frozen = CIRCUIT.replace("p: 0.3}}", "p: 0.3}, plastic: false, weights: {scale: 5}}")
    (experiment.parent / "dale.yaml").write_text(frozen)
    left = run(experiment, "a.h5", "learn.epochs=1")
    said = capsys.readouterr().out
    line = (
        "note: learn.constrain.largest_singular_value: no bound is kept on the recurrent group of the frozen"
    )
    assert [text.startswith(line) for text in said.splitlines()].count(True) == 1
    none = run(experiment, "b.h5", "learn.epochs=1", "learn.constrain.largest_singular_value=none")
    assert "note:" not in capsys.readouterr().out
    with h5py.File(left) as a, h5py.File(none) as b:
        assert np.array_equal(recurrent(a), recurrent(b))
    sets = ["--set", "learn.constrain.largest_singular_value=0.7"]
    assert main(["run", str(experiment), "-o", str(experiment.parent / "c.h5"), *sets]) == 1


def test_an_equilibrium_is_found_at_the_leak_of_the_end(experiment: Path) -> None:
    np.save(experiment.parent / "x.npy", np.random.default_rng(0).random((3, 64)))
    np.save(experiment.parent / "y.npy", np.array([1, 5, 9]))
    folder = experiment.parent
    for number, alpha in enumerate(("{from: 6.4, to: 0.5}", "0.5", "6.4")):
        command = ["equilibrium", str(folder / "dale.yaml"), "--input", str(folder / "x.npy")]
        command += ["--target", str(folder / "y.npy"), "-o", str(folder / f"eq{number}.h5")]
        assert main([*command, "--set", f"control.controller.alpha={alpha}"]) == 0
    files = [h5py.File(folder / f"eq{number}.h5") for number in range(3)]
    psi = [file["equilibria/controlled/e/control"][:] for file in files]
    for file in files:
        file.close()
    assert np.array_equal(psi[0], psi[1])
    assert not np.allclose(psi[0], psi[2], rtol=0.1)


def test_the_updates_of_the_two_phase_rule_can_be_recomputed(experiment: Path) -> None:
    """From the run file alone: mean over samples of |softmax(y_free) - t| / |u| psi sigma(phi_free)^T."""
    folder = experiment.parent
    np.save(folder / "x.npy", np.random.default_rng(0).random((3, 64)))
    np.save(folder / "y.npy", np.array([1, 5, 9]))
    command = ["equilibrium", str(folder / "dale.yaml"), "--input", str(folder / "x.npy"), "--target"]
    command += [str(folder / "y.npy"), "-o", str(folder / "eq.h5"), "--set", "dtype=float64"]
    assert main([*command, "--set", "learn.presynaptic=free", "--set", "learn.weighting=error"]) == 0
    with h5py.File(folder / "eq.h5") as file:
        group, free, controlled = (file[k] for k in ("updates", "equilibria/free", "equilibria/controlled"))
        assert [group.attrs[k] for k in ("rule", "presynaptic", "weighting")] == [
            "least_control",
            "free",
            "error",
        ]
        y = free["readout/soma"][:]
        p = np.exp(y) / np.exp(y).sum(1, keepdims=True)
        error = np.linalg.norm(p - np.eye(10)[[1, 5, 9]], axis=1)
        weight = error / np.linalg.norm(controlled["controller/readout"][:], axis=1)
        dense = (weight[:, None] * controlled["e/control"][:]).T @ np.tanh(free["e/soma"][:]) / 3
        edges = file["edges/e_e"]
        expected = dense[edges["target_node_id"][:], edges["source_node_id"][:]]
        assert group["e_e"][:] == pytest.approx(expected, abs=1e-12)
