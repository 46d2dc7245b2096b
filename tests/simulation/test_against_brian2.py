"""A network of 1,000 tanh units agrees with Brian2's over 100 ms.

Brian2 finds what synapses bring once in a step, so its methods of higher order are of first order in the coupling. The
two methods that mean the same in both programs are compared step by step; circuitlab's fourth-order method is compared
with the limit of Brian2's forward Euler for vanishing steps (Richardson's extrapolation from five of them).
"""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.oracles import brian2_network
from tests.oracles.simulators import python_with
from tests.simulation.conftest import simulator, trace
from tests.simulation.test_against_scipy import large

pytestmark = pytest.mark.brian2
UNITS, TAU, DURATION = 1000, 10.0, 100.0


@pytest.fixture(scope="module")
def network() -> tuple:
    return large(UNITS), np.random.default_rng(1).standard_normal(5)


def brian2(network: tuple, folder: Path, method: str, steps: list[float]) -> list[np.ndarray]:
    """Potentials [time, unit] every 10 ms, one array for each step."""
    made, x = network
    edges, into = made.projections["r_r"].edges, made.projections["x_r"].edges
    drive = made.populations["r"].bias.copy()
    np.add.at(drive, into.target, into.weight * x[into.source])
    np.savez(
        folder / "in.npz",
        source=edges.source,
        target=edges.target,
        weight=edges.weight,
        drive=drive,
        tau=TAU,
        duration=DURATION,
        dt=np.array(steps),
        method=method,
    )
    python = python_with("brian2")
    assert python is not None
    program = str(Path(brian2_network.__file__))
    done = subprocess.run(
        [python, program, "in.npz", "out.npz"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as file:
        return [file[f"v{number}"] for number in range(len(steps))]


def ours(network: tuple, method: str, dt: float) -> np.ndarray:
    made, x = network
    every = round(10 / dt)
    return trace(simulator(made, x[None, None], dt, method), round(DURATION / dt), every)[:, 0, :UNITS]


@pytest.mark.parametrize("method", ["euler", "exponential_euler"])
def test_the_same_method_gives_the_same_numbers(network: tuple, method: str, tmp_path: Path) -> None:
    (theirs,) = brian2(network, tmp_path, method, [0.1])
    assert np.abs(ours(network, method, 0.1) - theirs).max() < 1e-10


def test_fourth_order_agrees_with_the_limit_of_small_steps(network: tuple, tmp_path: Path) -> None:
    table = brian2(network, tmp_path, "euler", [1.0, 0.5, 0.25, 0.125, 0.0625])
    order = 1
    while len(table) > 1:
        table = [(2**order * b - a) / (2**order - 1) for a, b in pairwise(table)]
        order += 1
    assert np.abs(ours(network, "rk4", 0.1) - table[0]).max() < 1e-6
