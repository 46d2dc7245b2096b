"""The figures' commands: what they measure is what the theory says, in a form short enough for a test."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
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
def theory() -> Iterator[ModuleType]:
    """benchmarks/theory.py, as it runs from there."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("theory")
    sys.path.remove(str(ROOT / "benchmarks"))


def test_gradient_errors_vanish_with_equilibrium_errors(theory: ModuleType) -> None:
    """LCP figure S1 in small: along the dynamics and under noise the gradient error is about linear in the other."""
    found = theory.gradient_errors.gradient_errors(
        samples=8, draws=20, steps=3000, seed=0, circuit_text=SMALL
    )
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


def test_measures_during_learning(theory: ModuleType) -> None:
    """Before, on the way and after: feedback that does not learn, on the student and its teacher."""
    from figures.drawing import experiment
    from figures.follow import follow

    sets = ["learn.rule=deep_feedback_control_ss", "data.limit=48", "dtype=float64", "learn.epochs=4"]
    fixed = experiment("student_teacher_dfc", *sets, "learn.feedback=null")
    rows = follow(fixed, every=5, samples=4)
    assert [row["step"] for row in rows] == [0, 5, 10, 12]
    for row in rows:
        assert 0 < row["column_space_free"] < 1
        assert 0 < row["angle_minimum_norm"] < 180
        assert row["largest_real_part"] == row["largest_real_part"]
    # its standard deviation is that of the samples, and its error the one of their mean
    assert rows[0]["free_loss_deviation"] == pytest.approx(rows[0]["free_loss_error"] * 3**0.5)
    quick = experiment("student_teacher_dfc", *sets, "learn.feedback.optimizer.lr=0.1")
    learned = follow(quick, every=10, samples=4)
    assert [row["step"] for row in learned] == [0, 1, 10, 12]  # 1: after pretraining
    assert learned[0]["column_space_free"] == pytest.approx(rows[0]["column_space_free"])
    assert learned[1]["column_space_free"] > learned[0]["column_space_free"] + 0.2


def test_windows(theory: ModuleType) -> None:
    """Means over windows, and the deviation of all samples and measurements in one together."""
    from figures.follow import learning, windows

    rng = np.random.default_rng(0)
    values = rng.standard_normal((7, 5))
    steps = [
        {"step": 10.0 * number, "a": float(row.mean()), "a_deviation": float(row.std())}
        for number, row in enumerate(values)
    ]
    found = windows(steps, "a", 3)
    expected = [(15, values[:4].mean(), values[:4].std()), (50, values[4:].mean(), values[4:].std())]
    np.testing.assert_allclose(found, expected)
    assert windows(steps, "missing", 3).shape == (0, 3)
    assert learning(steps) == steps
    assert learning([{"step": 0}, {"step": 1}, {"step": 40}]) == [{"step": 1}, {"step": 40}]


def test_figure_of_deep_feedback_control(theory: ModuleType, tmp_path: Path, capsys) -> None:
    """Figures 3 and 4 in a form too short to say anything: their tables have every variant and setting."""
    short = ["--limit", "48", "--epochs", "4", "--every", "6", "--samples", "2", "--window", "1"]
    out, plot = tmp_path / "f.json", tmp_path / "f.png"
    only = ["--only", "DFC-SS (fixed)", "DFC-SSA (fixed)"]
    assert theory.main(["dfc-figure-3", *short, *only, "--json", str(out), "--plot", str(plot)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row[:2] for row in rows] == [[name, at] for name in only[1:] for at in (0, 6, 12)]
    assert plot.stat().st_size > 5000
    for row in rows:
        assert row[7] == pytest.approx(0, abs=1e-3) if row[0].startswith("DFC-SSA") else 0 < row[7] < 30
    weak = ["--nudges", "0.001", "0.5", "--alphas", "0.01"]
    assert theory.main(["dfc-figure-4", *short, *weak, "--json", str(out), "--plot", str(plot)]) == 0
    names = {row[0] for row in json.loads(out.read_text(encoding="utf-8"))["rows"]}
    assert names == {"lambda 0.001", "lambda 0.5", "alpha 0.01"}
    assert "| lambda 0.5 | 12 |" in capsys.readouterr().out


def test_what_is_refused(theory: ModuleType, capsys) -> None:
    assert theory.main(["dfc-figure-3", "--only", "DFC-XY"]) == 1
    assert "no variant 'DFC-XY'; allowed: DFC, DFC-SS" in capsys.readouterr().err
    assert theory.main(["lcp-figure-s3", "--only", "nothing"]) == 1
    assert "no row 'nothing'" in capsys.readouterr().err
