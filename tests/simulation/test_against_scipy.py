"""Transients agree with scipy's integrator on equations written out anew, and every method has its order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import FreeEquations
from circuitlab.solve.choose import SolveSettings, find
from tests.oracles.circuits import (
    circuit,
    population,
    projection,
    random_circuit,
    shifted,
    sparse,
    with_junctions,
)
from tests.oracles.in_time import InTime
from tests.simulation.conftest import delayed, simulator, trace, tuned


def large(units: int = 1000, seed: int = 0):
    """x -> 1,000 tanh units, a tenth of the pairs joined, spectral radius about 0.9 -> y."""
    rng = np.random.default_rng(seed)
    return circuit(
        [
            population("x", "input", 5, activation="linear"),
            population("r", "unit", units, bias=0.1 * rng.standard_normal(units)),
            population("y", "output", 3),
        ],
        [
            projection("x_r", "x", "r", sparse(rng, units, 5, 0.8, 1.0)),
            projection("r_r", "r", "r", sparse(rng, units, units, 0.1, 0.9)),
            projection("r_y", "r", "y", sparse(rng, 3, units, 1.0, 1.0)),
        ],
    )


def test_a_thousand_tanh_units_over_100_ms() -> None:
    """To 1e-6 by RK4 of 0.1 ms; the error is its own, 1e-9, not scipy's."""
    made = large()
    x = np.random.default_rng(1).standard_normal(5)
    found = trace(simulator(made, x[None, None], 0.1), 1000, every=50)[:, 0]
    exact = InTime(made).free(lambda t: x, np.zeros(1003), np.arange(0, 100.1, 5.0))
    assert np.abs(found - exact).max() < 1e-8


def test_its_resting_state_is_the_free_equilibrium() -> None:
    made = large()
    x = np.random.default_rng(1).standard_normal((2, 5))
    rested = trace(simulator(made, x[None], 1.0), 3000, every=3000)[-1]
    system = CircuitSystem(CompiledCircuit(made, torch.float64))
    settings = SolveSettings(tolerance=1e-13, thorough=True, max_iterations=500)
    solved = find(FreeEquations(system, system.drive(torch.as_tensor(x.T))), settings, None)
    assert solved.converged.all()
    assert np.abs(rested - solved.fields.phi.t().numpy()).max() < 1e-8


def cells():
    """Gains, thresholds, gap junctions within and between populations, and delays."""
    made = with_junctions(shifted(random_circuit(gain=0.5)), [("e", "e"), ("e", "i")])
    return delayed(tuned(made, e=8.0, i=5.0), e_e=1.0, i_e=2.0, x_e=3.0)


def test_gains_thresholds_and_gap_junctions() -> None:
    made, x = cells(), np.random.default_rng(1).standard_normal(4)
    found = trace(simulator(made, x[None, None], 0.1), 500, every=100)[:, 0]
    silent = np.zeros(4)
    exact = InTime(made).free(
        lambda t: x if t >= 0 else silent, np.zeros(14), np.arange(0, 51.0, 10.0), step=1.0
    )
    assert np.abs(found - exact).max() < 1e-8


def test_they_rest_at_the_free_equilibrium() -> None:
    made, x = cells(), np.random.default_rng(1).standard_normal((2, 4))
    rested = trace(simulator(made, x[None], 1.0), 1000, every=1000)[-1]
    system = CircuitSystem(CompiledCircuit(made, torch.float64))
    settings = SolveSettings(tolerance=1e-13, thorough=True, max_iterations=500)
    solved = find(FreeEquations(system, system.drive(torch.as_tensor(x.T))), settings, None)
    assert solved.converged.all()
    assert np.abs(rested - solved.fields.phi.t().numpy()).max() < 1e-8


@pytest.mark.parametrize(("method", "order"), [("rk4", 4), ("euler", 1), ("exponential_euler", 1)])
@pytest.mark.parametrize("lags", [{}, {"e_e": 2.0, "i_e": 4.0, "x_e": 6.0}], ids=["no delay", "delays"])
def test_order_of_convergence(method: str, order: int, lags: dict[str, float]) -> None:
    """Halving the step divides the error by 2 to the order, with delays and a changing input as without."""
    made = delayed(tuned(random_circuit(dale=True), e=8.0, i=5.0), **lags)
    x = np.random.default_rng(3).standard_normal((5, 4))
    exact = InTime(made).free(
        lambda t: np.zeros(4) if t < 0 else x[min(int(t / 8 + 1e-9), 4)],
        np.zeros(14),
        np.array([0.0, 40.0]),
        step=2.0,
    )[-1]
    errors = []
    for dt in (1.0, 0.5, 0.25):
        run = simulator(made, x[:, None], dt, method, hold=round(8 / dt))
        errors.append(np.abs(trace(run, round(40 / dt), every=round(40 / dt))[-1, 0] - exact).max())
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(rates - order).max() < 0.35, (errors, rates)


def test_exponential_euler_is_exact_for_a_leak_with_a_constant_input() -> None:
    """phi = c (1 - exp(-t/tau)) at any step, also one of ten time constants."""
    made = circuit(
        [population("x", "input", 1, activation="linear"), population("y", "output", 1, tau_ms=3.0)],
        [projection("x_y", "x", "y", sparse(np.random.default_rng(0), 1, 1, 1.0, 1.0))],
    )
    weight = made.projections["x_y"].edges.weight[0]
    found = trace(simulator(made, np.array([[[2.0]]]), 30.0, "exponential_euler"), 2)[:, 0, 0]
    expected = 2.0 * weight * -np.expm1(-np.array([0.0, 30.0, 60.0]) / 3.0)
    assert np.abs(found - expected).max() < 1e-15


def test_inputs_change_at_their_own_steps() -> None:
    """A unit that leaks, driven 1, 0, 2 for 4 ms each: the solution in closed form."""
    made = circuit(
        [population("x", "input", 1, activation="linear"), population("y", "output", 1, tau_ms=5.0)],
        [projection("x_y", "x", "y", sparse(np.random.default_rng(0), 1, 1, 1.0, 1.0))],
    )
    weight, z, expected = made.projections["x_y"].edges.weight[0], 0.0, []
    for value in (1.0, 0.0, 2.0):
        for _ in range(8):
            expected.append(z)
            z = weight * value + (z - weight * value) * np.exp(-0.5 / 5.0)
    run = simulator(made, np.array([1.0, 0.0, 2.0])[:, None, None], 0.5, "exponential_euler", hold=8)
    assert np.abs(trace(run, 24)[:24, 0, 0] - expected).max() < 1e-14
