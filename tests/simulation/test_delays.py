"""Delays: transients by the method of steps, resting states as without, and steps that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitlab.control.dynamic_inversion import DynamicInversion
from circuitlab.control.feedback import ApicalFeedback
from circuitlab.control.output import leaky_integral
from circuitlab.errors import CircuitError
from circuitlab.simulation.grid import check_times, nearest, steps_of
from circuitlab.simulation.past import Past
from tests.oracles.circuits import circuit, projection, random_circuit, sparse
from tests.oracles.in_time import InTime
from tests.oracles.numpy_check import SLOPE
from tests.simulation.conftest import delayed, simulator, trace, tuned

LAGS = {"e_e": 0.5, "i_e": 4.0, "x_e": 2.5, "e_y0": 1.5}


def lagged():
    return delayed(tuned(random_circuit(), e=8.0, i=5.0), **LAGS)


def test_a_circuit_with_several_delays_over_100_ms() -> None:
    made, x = lagged(), np.random.default_rng(3).standard_normal(4)
    found = trace(simulator(made, x[None, None], 0.1), 1000, every=100)[:, 0]
    exact = InTime(made).free(
        lambda t: x if t >= 0 else np.zeros(4), np.zeros(14), np.arange(0, 101.0, 10.0), step=0.5
    )
    assert np.abs(found - exact).max() < 1e-8


def test_delays_change_the_transient_and_leave_the_resting_state() -> None:
    x = np.random.default_rng(3).standard_normal((1, 2, 4))
    with_, without = (trace(simulator(made, x, 0.5), 800, every=20) for made in (lagged(), delayed(lagged())))
    assert np.abs(with_[1] - without[1]).max() > 0.01
    assert np.abs(with_[-1] - without[-1]).max() < 1e-12


@pytest.mark.parametrize("method", ["rk4", "euler", "exponential_euler"])
def test_a_resting_circuit_stays_at_rest(method: str) -> None:
    """Begun at the free equilibrium with a past that was there too, nothing moves, delays or not."""
    x = np.random.default_rng(3).standard_normal((1, 2, 4))
    rest = trace(simulator(delayed(lagged()), x, 2.0), 800, every=800)[-1].T.copy()
    made = simulator(lagged(), x, 0.5, method, phi=rest, silent_before=False)
    assert np.abs(trace(made, 40) - rest.T).max() < 1e-13


def test_bursts_arrive_late() -> None:
    """Dynamic inversion through apical projections with delays, beside scipy on the equations written out."""
    base, rng = random_circuit(), np.random.default_rng(8)
    bursts = [
        projection("y_e", "y0", "e", sparse(rng, 7, 3, 0.9, 0.8), site="apical", carries="burst"),
        projection("e_e_b", "e", "e", sparse(rng, 7, 7, 0.5, 0.4), site="apical", carries="burst"),
    ]
    made = circuit([*base.populations.values()], [*base.projections.values(), *bursts])
    made = delayed(tuned(made, e=8.0, i=5.0), y_e=3.0, e_e_b=1.0, e_e=2.0)
    x, target, alpha, tau_u = rng.standard_normal(4), rng.standard_normal(3), 0.5, 20.0
    run = simulator(
        made,
        x[None, None],
        0.05,
        way=lambda system: DynamicInversion(ApicalFeedback(system)),
        controller=leaky_integral(alpha, tau_u),
        target=target[:, None],
    )
    found = trace(run, 600, every=100)[:, 0]

    model = InTime(made)
    n, e, y = model.size, model.rows["e"], model.rows["y0"]
    way = np.zeros((2, n, n))
    for number, burst in enumerate(bursts):
        rows = model.rows[burst.source]
        np.add.at(
            way[number], (burst.edges.target + e.start, burst.edges.source + rows.start), burst.edges.weight
        )

    def slope(t, z, past, within):
        phi, psi, u = z[:n], z[n : 2 * n], z[2 * n :]
        prediction = model.prediction(t, lambda s: past(s)[:n], lambda s: x, within)
        back = way[0] @ past(t - 3.0)[n : 2 * n] + way[1] @ past(t - 1.0)[n : 2 * n]
        control = model.each(SLOPE, phi) * back - psi
        control[y] += u
        moved = (-(phi[y] - target) - alpha * u) / tau_u
        return np.concatenate([(prediction - phi + psi) / model.tau, control / model.tau, moved])

    exact = model.solve(slope, np.zeros(2 * n + 3), np.arange(0, 31.0, 5.0), step=1.0)[:, :n]
    assert np.abs(exact[:, e] - exact[0, e]).max() > 0.1
    assert np.abs(found - exact).max() < 1e-8


def test_a_past_gives_what_was_kept() -> None:
    """Longest delay 3: at every step the values of one, two and three steps ago, between steps those kept between."""
    past = Past(torch.full((1, 1), -1.0), 3, halves=True)
    for step in range(12):
        past.keep(step, torch.full((1, 1), float(step)))
        for delay in (1, 2, 3):
            then = step - delay
            assert float(past.seen(step, delay, 0.0)) == (then if then >= 0 else -1)
            assert float(past.seen(step, delay, 1.0)) == (then + 1 if then >= -1 else -1)
            assert float(past.seen(step, delay, 0.5)) == (then + 0.5 if then >= 0 else -1)
        past.keep_middle(step, torch.full((1, 1), step + 0.5))


def test_a_delay_that_does_not_fit_is_refused_with_the_nearest_step() -> None:
    made = delayed(random_circuit(), e_e=1.5, i_e=0.7)
    with pytest.raises(CircuitError) as refused:
        check_times(made.projections, 0.5, {"duration": 100.0})
    (line,) = str(refused.value).split("\n")
    assert line == (
        "projections.i_e.delay: 0.7 ms is no multiple of the time step, 0.5 ms; allowed: 0.5 ms or 1 ms, or dt = 0.1 ms"
    )
    with pytest.raises(CircuitError) as refused:
        check_times(made.projections, 0.4, {"duration": 100.0})
    assert [line.split(":")[0] for line in str(refused.value).split("\n")] == [
        "projections.e_e.delay",
        "projections.i_e.delay",
    ]
    check_times(made.projections, 0.1, {"duration": 100.0})


@pytest.mark.parametrize(
    ("times", "dt", "step"),
    [([1.5, 0.7], 0.5, 0.1), ([1.5], 0.4, 0.375), ([100.0], 0.7, 0.625), ([0.3], 1.0, 0.3), ([3, 2], 0.9, 1)],
)
def test_the_nearest_step_divides_every_time(times: list[float], dt: float, step: float) -> None:
    assert nearest(times, dt) == pytest.approx(step, abs=1e-12)
    assert all(steps_of(time, nearest(times, dt)) for time in times)
