"""The figures' commands: what they measure is what the theory says, in a form short enough for a test."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

SMALL = """
circuit: small
populations:
  retina: {type: input, size: 784}
  first: {type: unit, size: 24, activation: tanh}
  readout: {type: output, size: 10}
projections:
  retina_first: {source: retina, target: first}
  first_readout: {source: first, target: readout}
"""


@pytest.fixture(scope="module")
def theory() -> ModuleType:
    spec = importlib.util.spec_from_file_location("theory_figures", ROOT / "benchmarks" / "theory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gradient_errors_vanish_with_equilibrium_errors(theory: ModuleType) -> None:
    """LCP figure S1 in small: along the dynamics and under noise the gradient error is about linear in the other."""
    found = theory.gradient_errors(samples=8, draws=20, steps=3000, seed=0, circuit_text=SMALL)
    flow = np.array(found["dynamics"])
    assert flow[0, 1] == pytest.approx(1)  # the free state has no control, and no gradient
    assert flow[-1, 0] < 0.2 * flow[0, 0]
    assert flow[-1, 1] < 0.2
    away, wrong = np.array(found["noise"]).T
    assert np.corrcoef(away, wrong)[0, 1] > 0.9
    assert (wrong / away).max() < 10


def test_a_trained_circuit_needs_less_control(theory: ModuleType, tmp_path: Path, capsys) -> None:
    out = tmp_path / "f.json"
    argv = ["lcp-figure-2", "--widths", "12", "--samples", "200", "--epochs", "3", "--json", str(out)]
    assert theory.main([*argv, "--plot", str(tmp_path / "f.png")]) == 0
    (row,) = json.loads(out.read_text(encoding="utf-8"))["rows"]
    width, loss, control, loss_before, control_before, unconverged = row
    assert width == 12
    assert loss < loss_before
    assert control < control_before
    assert unconverged < 0.1
    assert (tmp_path / "f.png").stat().st_size > 5000
    assert "| 12 |" in capsys.readouterr().out


def test_measures_during_learning(theory: ModuleType, tmp_path: Path) -> None:
    """Before, on the way and after: feedback that does not learn, on the student and its teacher."""
    path = theory.student_teacher(tmp_path, 60, seed=0)
    sets = ["control={pathway: linear_feedback, feedback: random}", "learn.epochs=1", "learn.batch_size=4"]
    rows = theory.follow(theory.load_experiment(path, sets), every=5, samples=4)
    assert [row["step"] for row in rows] == [0, 5, 10, 12]
    for row in rows:
        assert 0 < row["column_space_free"] < 1
        assert 0 < row["angle_minimum_norm"] < 180
        assert row["largest_real_part"] == row["largest_real_part"]
    first, *_, last = theory.follow(theory.load_experiment(path, sets), theory.NEVER, samples=4)
    assert (first["step"], last["step"]) == (0, 12)
    assert last["angle_minimum_norm"] == pytest.approx(rows[-1]["angle_minimum_norm"])


def test_what_is_refused(theory: ModuleType, capsys) -> None:
    assert theory.main(["dfc-figure-3", "--only", "DFC-XY"]) == 1
    assert "no variant 'DFC-XY'; allowed: DFC, DFC-SS" in capsys.readouterr().err
    assert theory.main(["lcp-figure-s3", "--only", "nothing"]) == 1
    assert "no row 'nothing'" in capsys.readouterr().err
