"""The choice between two controlled equilibria, on a circuit that has them by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from circuitlab.control.dynamic_inversion import DynamicInversion, RandomFeedback
from circuitlab.control.output import leaky_integral
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, Task
from circuitlab.learn.energy import checked
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit
from tests.oracles.tasks import batch, task

GAIN, INPUT, ALPHA, TARGET = 3.0, -0.3, 5.0, -1.0


def bistable() -> Task:
    """phi = 3 tanh(phi) + x, y = phi_h read by one linear output: two stable free states, phi near 3 and near -3."""
    small = circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 1, activation="tanh"),
            population("y", "output", 1),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [1.0])),
            projection("h_h", "h", "h", edges([0], [0], [GAIN])),
            projection("h_y", "h", "y", edges([0], [0], [1.0])),
        ],
    )
    return task(small, losses=("squared_error",), controller=leaky_integral(ALPHA, 100), tolerance=1e-9)


def reduced(phi: float) -> float:
    """E of the hidden potential alone, the output minimised out: 1/2 (phi - 3 tanh phi - x)^2 + 1/2 (t - tanh phi)^2 /
    (1 + alpha)."""
    return 0.5 * (phi - GAIN * np.tanh(phi) - INPUT) ** 2 + 0.5 * (TARGET - np.tanh(phi)) ** 2 / (1 + ALPHA)


def minima() -> tuple[float, float]:
    """By scipy: the potentials of the two minima of E, the negative one first."""

    def slope(phi: float) -> float:
        return (reduced(phi + 1e-6) - reduced(phi - 1e-6)) / 2e-6

    return brentq(slope, -4, -2.5), brentq(slope, 2.2, 3.5)  # type: ignore[return-value]


def test_the_lower_energy_is_taken_and_counted() -> None:
    """Found from the wrong side, the equilibrium near +3 costs more than the one near -3 that descent from the free
    state (-3) finds."""
    low, high = minima()
    assert reduced(low) < reduced(high)
    t = bistable()
    b = Batch(torch.full((1, 3), INPUT, dtype=torch.float64), torch.full((1, 3), TARGET, dtype=torch.float64))
    drive = t.system.drive(b.x)
    settled = t.free(drive)
    phi = settled.fields.phi.clone()
    phi[0] = torch.tensor([3.0, 3.0, -3.0])
    wrong = t.controlled(drive, b.target, replace(settled, fields=replace(settled.fields, phi=phi)))
    assert wrong.converged.all()
    assert wrong.fields.phi[0].tolist() == pytest.approx([high, high, low], abs=1e-5)
    free = replace(settled, fields=replace(settled.fields, phi=torch.full_like(phi, -3.0)))
    for samples, lowered, ends in (
        (1, 1, [low, high, low]),
        (3, 2, [low, low, low]),
        (9, 2, [low, low, low]),
    ):
        solution, tried, lower = checked(replace(t, check=samples), drive, b, free, wrong)
        assert (tried, lower) == (min(samples, 3), lowered)
        assert solution.fields.phi[0].tolist() == pytest.approx(ends, abs=1e-5)
        assert solution.converged.all()
        psi = solution.fields.phi - t.system.linearise(solution.fields.phi, drive).prediction
        assert torch.allclose(solution.fields.psi, psi, atol=1e-7)
        assert (solution.products[:tried] > wrong.products[:tried]).all()
        assert (solution.products[tried:] == wrong.products[tried:]).all()


def test_a_sample_without_equilibrium_takes_the_one_descent_found() -> None:
    t = bistable()
    b = Batch(torch.full((1, 2), INPUT, dtype=torch.float64), torch.full((1, 2), TARGET, dtype=torch.float64))
    drive = t.system.drive(b.x)
    free = t.free(drive)
    found = t.controlled(drive, b.target, free)
    lost = replace(found, converged=torch.tensor([False, True]), state=found.state + 1.0)
    solution, tried, lower = checked(replace(t, check=2), drive, b, free, lost)
    assert solution.converged.all()
    assert (tried, lower) == (2, 0), "a state that is no equilibrium has no energy to compare"


def test_the_same_equilibrium_is_not_lower() -> None:
    """Rounding and tolerance alone never count."""
    t = task(random_circuit(0), controller=leaky_integral(0.1, 100), tolerance=1e-6)
    b = batch(t, samples=6)
    outcome = LeastControl().outcome(replace(t, check=4), b)
    assert (outcome.energy_checked, outcome.energy_lowered) == (4, 0)
    plain = LeastControl().outcome(t, b)
    assert (plain.energy_checked, plain.energy_lowered) == (0, 0)
    for name in plain.updates:
        assert torch.allclose(outcome.updates[name], plain.updates[name], atol=1e-6)


def test_equations_without_an_energy_are_refused() -> None:
    t = task(
        random_circuit(0), pathway=lambda system: DynamicInversion(RandomFeedback(system, 0)), tolerance=1e-6
    )
    with pytest.raises(CircuitError, match="levenberg descends an energy"):
        LeastControl().outcome(replace(t, check=1), batch(t))
