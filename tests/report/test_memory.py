"""The predicted memory against a process's own high-water mark, and that iterations take none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitlab.cli.main import main
from circuitlab.compile.kernels import compile_kernel
from circuitlab.report.memory import graph_bytes, stored_bytes
from tests.oracles.circuits import edges, projection
from tests.oracles.peak import peaks

CIRCUIT = """
circuit: measured
populations:
  x: {type: input, size: 100}
  h: {type: unit, size: SIZE, activation: tanh}
  y: {type: output, size: 10}
projections:
  x_h: {source: x, target: h}
  h_h: {source: h, target: h, connect: RULE, weights: {scale: 0.5}}
  h_y: {source: h, target: y}
"""
SPARSE = "{rule: pairwise_bernoulli, p: 0.05}"


def written(folder: Path, size: int, rule: str) -> Path:
    path = folder / "measured.yaml"
    path.write_text(CIRCUIT.replace("SIZE", str(size)).replace("RULE", rule), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("size", "connect", "rule", "batch"),
    [
        (2_000, SPARSE, "least_control", 64),
        (2_000, SPARSE, "recurrent_backprop", 64),
        (10_000, "{rule: pairwise_bernoulli, p: 0.01}", "least_control", 64),
        (1_500, "all_to_all", "least_control", 64),
    ],
)
def test_show_predicts_the_peak_within_a_fifth(
    size: int, connect: str, rule: str, batch: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, size, connect)
    assert main(["show", str(path), "--json", "--batch", str(batch), "--rule", rule]) == 0
    said = json.loads(capsys.readouterr().out)["memory"]
    measured = peaks(path, rule, batch)
    assert said["building"] == pytest.approx(measured["building"], rel=0.2)
    assert said["step"] == pytest.approx(measured["step"], rel=0.2)


@pytest.mark.parametrize("rule", ["least_control", "recurrent_backprop"])
def test_iterations_take_no_memory(rule: str, tmp_path: Path) -> None:
    """A tolerance below what rounding allows keeps the solver busy to its limit; a state kept for each is 140 MB."""
    path = written(tmp_path, 2_000, SPARSE)
    options = ("solve.method=anderson", "solve.tolerance=2.1e-7", "solve.on_unconverged=keep")
    few, many = (
        peaks(path, rule, 64, *options, f"solve.max_iterations={limit}", steps=1)["step"]
        for limit in (50, 500)
    )
    assert many == pytest.approx(few, rel=0.08)


def test_stored_bytes_are_those_of_the_formats() -> None:
    """CSR: values, columns and their transposes (4 bytes each), a permutation (8), and two arrays of row pointers."""
    rng = np.random.default_rng(0)
    target, source = np.nonzero(rng.random((300, 200)) < 0.1)
    n = len(source)
    made = projection("p", "a", "b", edges(source, target, rng.standard_normal(n)))
    kernel = compile_kernel(made, (300, 200), torch.float32)
    assert kernel.name == "csr"
    assert stored_bytes(kernel) == n * (4 * 4 + 8) + 4 * (301 + 201)
    assert stored_bytes(compile_kernel(made, (300, 200), torch.float64)) == n * (4 * 4 + 8 + 2 * 4) + 4 * 502
    assert graph_bytes(made) == n * (4 + 4 + 8 + 4)
    target, source = (i.ravel() for i in np.indices((30, 20)))
    full = projection("p", "a", "b", edges(source, target, np.ones(600)))
    assert stored_bytes(compile_kernel(full, (30, 20), torch.float32)) == 600 * 4


def test_more_samples_and_digits_take_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, 200, SPARSE)

    def step(*options: str) -> float:
        assert main(["show", str(path), "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["memory"]["step"]

    assert step() < step("--batch", "128") < step("--batch", "128", "--dtype", "float64")
    assert step("--rule", "recurrent_backprop") < step()
    assert main(["show", str(path)]) == 0
    assert "memory beyond Python, torch and the data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rule", "magic"), "--rule: no 'magic'; allowed: least_control, least_control_gated"),
        (("--dtype", "float16"), "--dtype: no 'float16'; allowed: float32, float64"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(written(tmp_path, 20, SPARSE)), *options]) == 1
    assert capsys.readouterr().err.startswith(message)
