"""`circuitlab equilibrium` in float64: numpy alone reproduces every equation from the file, for every topology."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from circuitlab.spec.circuit import load_circuit
from tests.oracles.numpy_check import Oracle

ROOT = Path(__file__).parents[2]
TOPOLOGIES = sorted((ROOT / "topologies").glob("*.yaml"))

RING = """
circuit: odd
populations:
  a: {type: input, size: 3}
  b: {type: input, shape: [1, 5, 5]}
  conv: {type: unit, shape: [2, 3, 3], activation: sigmoid}
  pooled: {type: unit, shape: [2, 1, 1], activation: linear, bias: false}
  pyr: {type: pyramidal, size: 6, activation: tanh, sign: excitatory, bias: {init: uniform, scale: 0.3}}
  inh: {type: interneuron, size: 4, activation: relu, sign: inhibitory, bias: {init: constant, value: 0.1}}
  off: {type: interneuron, size: 3, activation: elu, controlled: false}
  y: {type: output, size: 3}
  z: {type: output, size: 2}
projections:
  a_pyr: {source: a, target: pyr, site: basal, rank: 2}
  b_conv: {source: b, target: conv, connect: {rule: convolution, kernel: [3, 3]}, weights: {init: normal, std: 0.3}}
  conv_pooled: {source: conv, target: pooled, connect: {rule: pool, kernel: [3, 3], stride: 3}}
  pooled_pyr: {source: pooled, target: pyr, site: soma}
  conv_pyr: {source: conv, target: pyr, connect: {rule: fixed_indegree, indegree: 5}}
  pyr_pyr: {source: pyr, target: pyr, connect: {rule: pairwise_bernoulli, p: 0.5}, weights: {scale: 0.3}}
  pyr_inh: {source: pyr, target: inh, connect: {rule: fixed_total_number, N: 20}, weights: {scale: 0.5}}
  inh_pyr: {source: inh, target: pyr, site: apical, connect: all_to_all, weights: {scale: 0.5}}
  pyr_off: {source: pyr, target: off, weights: {scale: 0.5}}
  off_pyr: {source: off, target: pyr, site: soma, weights: {scale: 0.3}, rank: 2}
  self: {source: inh, target: inh, connect: one_to_one, weights: {init: constant, value: -0.2}}
  pyr_y: {source: pyr, target: y}
  pyr_z: {source: pyr, target: z, plastic: false}
  y_pyr: {source: y, target: pyr, site: apical, carries: burst, plastic: false, connect: {rule: transpose, of: pyr_y}}
  pyr_self: {source: pyr, target: pyr, site: apical, carries: burst, plastic: false,
             connect: {rule: transpose, of: pyr_pyr}}
"""


def solve(circuit: Path, folder: Path, *options: str, samples: int = 6) -> Path:
    """Random inputs and labels for any circuit, run through the command line."""
    spec = load_circuit(circuit)
    rng = np.random.default_rng(1)
    inputs = {name: rng.random((samples, spec.populations[name].size)) for name in spec.inputs}
    targets = {name: rng.integers(spec.populations[name].size, size=samples) for name in spec.outputs}
    np.savez(folder / "x.npz", **inputs)
    np.savez(folder / "t.npz", **targets)
    out = folder / "eq.h5"
    args = ["equilibrium", str(circuit), "--input", str(folder / "x.npz"), "--target", str(folder / "t.npz")]
    assert main([*args, "--set", "dtype=float64", *options, "-o", str(out)]) == 0
    return out


def check(path: Path, phases: tuple[str, ...] = ("free", "controlled")) -> None:
    oracle = Oracle(path)
    for phase in phases:
        assert oracle.converged[phase].all()
        errors = oracle.errors(phase)
        assert len(errors) >= 4
        assert max(errors.values()) < 1e-8, errors


@pytest.mark.parametrize("circuit", TOPOLOGIES, ids=lambda p: p.stem)
@pytest.mark.parametrize("alpha", ["1.0", "0.1"])
def test_every_topology(circuit: Path, alpha: str, tmp_path: Path) -> None:
    check(solve(circuit, tmp_path, "--set", f"control.controller.alpha={alpha}"))


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--set", "control.feedback=random"),
        ("--set", "control.feedback=apical"),
        ("--set", "control.pathway=linear_feedback", "--set", "control.scale=0.3"),
        ("--set", "control.pathway=linear_feedback", "--set", "control.feedback=jacobian"),
        ("--set", "control.pathway=deep_feedback_control", "--set", "control.controller.alpha=0.2"),
        ("--set", "control.controller={type: proportional, beta: 2}"),
        ("--set", "control.controller={type: pi, alpha: 0.5, k_p: 1}"),
        ("--set", "control.controller={type: integral}", "--set", "loss.soft_targets=0.1"),
        ("--set", "loss={y: cross_entropy, z: squared_error}"),
        ("--set", "solve.method=euler", "--set", "solve.max_time=20 s"),
        ("--set", "solve.method=fixed_point", "--set", "solve.damping=0.5"),
    ],
    ids=lambda o: " ".join(o[1::2]) or "default",
)
def test_every_type_site_and_pathway(options: tuple[str, ...], tmp_path: Path) -> None:
    circuit = tmp_path / "odd.yaml"
    text = RING.replace("activation: relu", "activation: softplus") if "euler" in str(options) else RING
    circuit.write_text(text)
    check(solve(circuit, tmp_path, *options))


def test_neurons_on_a_kink_satisfy_the_inclusion(tmp_path: Path) -> None:
    """Six relu interneurons: control holds some exactly at zero, psi between 0 and S psi."""
    circuit = tmp_path / "odd.yaml"
    circuit.write_text(RING.replace("activation: sigmoid", "activation: relu").replace("size: 4", "size: 6"))
    path = solve(circuit, tmp_path, "--set", "control.controller.alpha=0.05", samples=40)
    check(path)
    with h5py.File(path) as file:
        group = file["equilibria/controlled"]
        resting = sum((group[name]["soma"][:] == 0).sum(1) for name in ("conv", "inh"))
        assert resting.sum() > 0
        assert (group["kinks"][:] == resting).all()


def test_without_targets_only_the_free_equilibrium(tmp_path: Path) -> None:
    circuit = ROOT / "topologies" / "recurrent.yaml"
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((3, 64)))
    args = ["equilibrium", str(circuit), "--input", str(tmp_path / "x.npy"), "--set", "dtype=float64"]
    assert main([*args, "-o", str(tmp_path / "eq.h5")]) == 0
    check(tmp_path / "eq.h5", ("free",))
    with h5py.File(tmp_path / "eq.h5") as file:
        assert "updates" not in file and "controlled" not in file["equilibria"]


def test_the_loss_follows_the_targets_unless_told(tmp_path: Path) -> None:
    circuit = ROOT / "topologies" / "recurrent.yaml"
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.random((3, 64)))
    for name, target, loss in (
        ("labels", np.array([1, 2, 3]), "cross_entropy"),
        ("onehot", np.eye(10)[:3], "cross_entropy"),
        ("real", rng.standard_normal((3, 10)), "squared_error"),
    ):
        np.save(tmp_path / "t.npy", target)
        out = tmp_path / f"{name}.h5"
        args = [
            "--input",
            str(tmp_path / "x.npy"),
            "--target",
            str(tmp_path / "t.npy"),
            "--set",
            "dtype=float64",
        ]
        assert main(["equilibrium", str(circuit), *args, "-o", str(out)]) == 0
        check(out)
        with h5py.File(out) as file:
            assert file["equilibria/controlled/controller/readout"].attrs["loss"] == loss


def test_the_free_equilibrium_gets_every_fallback(tmp_path: Path) -> None:
    """Anderson acceleration alone, held to eight iterations here, leaves every free state over."""
    circuit = ROOT / "topologies" / "recurrent.yaml"
    path = solve(circuit, tmp_path, "--set", "solve.max_iterations=8")
    with h5py.File(path) as file:
        assert "levenberg" in file["equilibria/free"].attrs["solver"]
        assert file["equilibria/free/converged"][:].all()


def test_the_file_and_the_command_say_which_solver_ran_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = solve(ROOT / "topologies" / "recurrent.yaml", tmp_path, "--overwrite")
    said = capsys.readouterr().out
    with h5py.File(path) as file:
        reason = file["equilibria"].attrs["solver_reason"]
    assert reason.startswith("one recurrent group of 256 units: sweeps with Anderson acceleration")
    build = 4 * 256**3 / (3 * 256 * 266 * 6)  # r_r and r_y are dense, so a preconditioned sweep is no dearer
    rate = 1e-11 ** (0.8 * 2 / (build + 2 * 8))
    assert f"leave {rate:.2f} to 0.9" in reason and f"a build costs {build:.3g} products" in reason
    assert f"solver: {reason}\n" in said
