"""A loss in the user's own file: the same run as the built-in, kept in the run file, and watched on --resume."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from tests.oracles.numpy_check import SIGMA

CIRCUIT = """
circuit: small
populations:
  x: {type: input, size: 64}
  h: {type: pyramidal, size: 12, activation: tanh}
  y: {type: output, size: 10}
projections:
  x_h: {source: x, target: h}
  h_h: {source: h, target: h, weights: {scale: 0.3}}
  h_y: {source: h, target: y}
"""
EXPERIMENT = """
experiment: small
circuit: circuit.yaml
data: {name: digits, limit: 80, validation: 0.1}
loss: LOSS
control: {pathway: PATHWAY, controller: {alpha: 0.5}}
learn: {epochs: 2, batch_size: 24}
dtype: float64
solve: {tolerance: 1e-11, free_tolerance: 1e-11}
"""
LOSSES = '''
import torch

def cross_entropy(y, target):
    """As the built-in one."""
    return -(target * torch.log_softmax(y, 0)).sum()

def pseudo_huber(y, target):
    return (torch.sqrt(1 + (y - target).square()) - 1).sum()
'''
OWN = "{name: function, file: my_losses.py, function: cross_entropy, soft_targets: 0.1}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "circuit.yaml").write_text(CIRCUIT)
    (tmp_path / "my_losses.py").write_text(LOSSES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def experiment(folder: Path, name: str, loss: str, pathway: str = "dynamic_inversion") -> str:
    text = EXPERIMENT.replace("LOSS", loss).replace("PATHWAY", pathway)
    (folder / f"{name}.yaml").write_text(text)
    return f"{name}.yaml"


@pytest.mark.parametrize("pathway", ["dynamic_inversion", "linear_feedback"])
def test_a_run_equals_that_of_the_built_in_loss(folder: Path, pathway: str) -> None:
    given = {"own": OWN, "built_in": "{name: cross_entropy, soft_targets: 0.1}"}
    for name, loss in given.items():
        assert main(["run", experiment(folder, name, loss, pathway), "-o", f"{name}.h5"]) == 0
    assert main(["run", experiment(folder, "hard", "cross_entropy", pathway), "-o", "hard.h5"]) == 0
    with h5py.File("own.h5") as own, h5py.File("built_in.h5") as built_in, h5py.File("hard.h5") as hard:
        for name in ("train_loss", "control_cost", "test_loss"):
            found = own[f"training/{name}"][:]
            assert np.allclose(found, built_in[f"training/{name}"][:], rtol=1e-8, atol=1e-10), name
            apart = np.abs(found - hard[f"training/{name}"][:]).max()
            assert apart > 1e-4, "soft targets count"
        for name in ("x_h", "h_h", "h_y"):
            last = own[f"weights/{name}"][-1] if f"weights/{name}" in own else None
            if last is not None:
                assert np.allclose(last, built_in[f"weights/{name}"][-1], atol=1e-7), name
        text = own["spec/loss/y"]
        assert text[()].decode() == LOSSES
        assert text.attrs["sha256"] == hashlib.sha256(LOSSES.encode()).hexdigest()
        assert (text.attrs["file"], text.attrs["function"]) == ("my_losses.py", "cross_entropy")
        assert "loss" not in built_in["spec"]


def test_resume_refuses_another_function(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = experiment(folder, "own", OWN)
    assert main(["run", name, "-o", "own.h5"]) == 0
    assert main(["run", name, "-o", "own.h5", "--resume"]) == 0
    (folder / "my_losses.py").write_text(LOSSES.replace("-(target", "-2 * (target"))
    capsys.readouterr()
    assert main(["run", name, "-o", "own.h5", "--resume"]) == 1
    assert "was made by another loss/y" in capsys.readouterr().err


def test_the_equilibrium_of_a_loss_of_ones_own_satisfies_its_equations(folder: Path) -> None:
    """alpha u = -dL/dy for the pseudo-Huber loss, recomputed with numpy."""
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.random((5, 64)))
    target = np.eye(10)[:5]
    np.save("t.npy", target)
    sub = folder / "sub"
    sub.mkdir()
    shutil.move(folder / "my_losses.py", sub / "my_losses.py")
    options = ["--set", "dtype=float64", "--set", "control.controller.alpha=0.3"]
    loss = "{name: function, file: sub/my_losses.py, function: pseudo_huber}"
    files = ["--input", "x.npy", "--target", "t.npy", "-o", "eq.h5"]
    assert main(["equilibrium", "circuit.yaml", *files, *options, "--set", f"loss={loss}"]) == 0
    with h5py.File("eq.h5") as file:
        group = file["equilibria/controlled"]
        assert group["converged"][:].all()
        y, u = group["y/soma"][:], group["controller/y"][:]
        slope = (y - target) / np.sqrt(1 + (y - target) ** 2)
        assert np.allclose(0.3 * u, -slope, atol=1e-6)
        assert np.allclose(group["h/rate"][:], SIGMA["tanh"](group["h/soma"][:]))
