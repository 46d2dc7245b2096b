"""Activations against numpy's formulas and finite differences; kinks against a search over slopes."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from circuitlab import native
from circuitlab.dynamics.activations import ACTIVATIONS, at_kink, kink_distance, kinked_control, rate_of_sum
from tests.oracles.numpy_check import SIGMA

POINTS = np.array([-30.0, -4.1, -1.3, -0.2, -1e-3, 1e-3, 0.3, 0.9, 2.2, 5.0, 30.0])
KINKED = [a for a in ACTIVATIONS.values() if a.kink]
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)


def evaluated(activation, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tensor = torch.tensor(phi)
    rate = torch.empty_like(tensor)
    activation.rate(tensor, rate)
    return rate.numpy(), activation.slope(tensor, rate).numpy(), activation.bend(tensor, rate).numpy()


@every_activation
def test_rate_is_the_formula(activation) -> None:
    assert evaluated(activation, POINTS)[0] == pytest.approx(SIGMA[activation.name](POINTS), rel=1e-12)


@every_activation
def test_slope_and_bend_are_derivatives(activation) -> None:
    """Central differences of the numpy formula and of the slope."""
    h = 1e-4
    sigma = SIGMA[activation.name]
    _, slope, bend = evaluated(activation, POINTS)
    assert slope == pytest.approx((sigma(POINTS + h) - sigma(POINTS - h)) / (2 * h), abs=1e-7)
    slopes = [evaluated(activation, POINTS + d)[1] for d in (h, -h)]
    assert bend == pytest.approx((slopes[0] - slopes[1]) / (2 * h), abs=1e-7)


@every_activation
def test_extreme_potentials_stay_finite(activation) -> None:
    for dtype in (np.float32, np.float64):
        for values in evaluated(activation, np.array([-1e4, -90.0, 0.0, 90.0, 1e4], dtype)):
            assert np.isfinite(values).all()
            assert values.dtype == dtype


@pytest.mark.parametrize("way", [nullcontext, native.disabled], ids=["compiled", "torch"])
@every_activation
def test_the_rate_of_a_sum(activation, way) -> None:
    """The sum to the last bit, the rate within a few units of the last place."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        a, b = rng.standard_normal((2, 37, 5)).astype(dtype) * 3
        potential, rate = torch.empty(2, 37, 5, dtype=torch.tensor(a).dtype)
        with way():
            rate_of_sum(activation, torch.tensor(a), torch.tensor(b), potential, rate)
        assert (potential.numpy() == a + b).all()
        expected = SIGMA[activation.name]((a + b).astype(np.float64))
        eps = float(np.finfo(dtype).eps)
        assert rate.numpy() == pytest.approx(expected, rel=8 * eps, abs=eps)


def test_kinks_are_where_the_slope_jumps() -> None:
    eps = 1e-9
    for activation in ACTIVATIONS.values():
        _, slope, _ = evaluated(activation, np.array([-eps, eps]))
        jumps = abs(slope[1] - slope[0]) > 1e-6
        assert jumps == (activation.kink is not None), activation.name
        if activation.kink:
            assert slope.tolist() == list(activation.kink)  # to the last digit in double precision


GRID = np.array(list(itertools.product(np.linspace(-2, 2, 9), np.linspace(-2, 2, 9), [-1.0, 1.0])))
"""Prediction, S psi, and the potential at present (whose sign alone matters)."""


def solutions(kink: tuple[float, float], prediction: float, raw: float) -> list[float]:
    """Every psi = g raw with g the slope at phi = prediction + psi, g searched through the interval of slopes."""
    low, high = kink
    found = []
    if prediction + low * raw <= 0:
        found.append(low * raw)
    if prediction + high * raw >= 0:
        found.append(high * raw)
    for g in np.linspace(low, high, 397):
        if prediction + g * raw == 0:
            found.append(g * raw)
    if raw != 0 and low <= -prediction / raw <= high:
        found.append(-prediction)
    return found


@pytest.mark.parametrize("activation", KINKED, ids=[a.name for a in KINKED])
def test_kinked_control_solves_the_neurons_own_equation(activation) -> None:
    prediction, raw, phi = torch.tensor(GRID).t().unsqueeze(2)
    control = kinked_control(activation.kink, phi, raw, prediction).flatten().tolist()
    for (p, r, now), psi in zip(GRID, control, strict=True):
        allowed = solutions(activation.kink, p, r)
        assert min(abs(psi - a) for a in allowed) < 1e-12, (p, r, now, psi, allowed)
        if r < 0:  # monotone: there is only one
            assert max(allowed) - min(allowed) < 1e-12


@pytest.mark.parametrize("activation", KINKED, ids=[a.name for a in KINKED])
def test_where_both_sides_are_consistent_the_present_one_stays(activation) -> None:
    low, high = activation.kink
    prediction, raw = torch.full((1, 1), -0.5), torch.full((1, 1), 1.0)
    for phi, slope in ((0.1, high), (-0.1, low)):
        control = kinked_control(activation.kink, torch.full((1, 1), phi), raw, prediction)
        assert float(control) == pytest.approx(slope)


@pytest.mark.parametrize("activation", KINKED, ids=[a.name for a in KINKED])
def test_neurons_on_a_kink_have_potential_zero_and_an_inner_slope(activation) -> None:
    low, high = activation.kink
    prediction, raw, phi = torch.tensor(GRID).t().unsqueeze(2)
    on = at_kink(activation.kink, raw, prediction)
    control = kinked_control(activation.kink, phi, raw, prediction)
    inner = torch.tensor([(p + low * r) * (p + high * r) < 0 and r < 0 for p, r, _ in GRID]).unsqueeze(1)
    assert torch.equal(on, inner)
    assert int(on.sum()) > 10
    assert ((prediction + control)[on] == 0).all()
    slope = (control / raw)[on]
    assert ((slope > low) & (slope < high)).all()


@pytest.mark.parametrize("activation", KINKED, ids=[a.name for a in KINKED])
def test_distance_from_what_the_equations_allow(activation) -> None:
    """Brute force: the nearest of all controls that slopes of the potential's side allow."""
    low, high = activation.kink
    for phi, raw, psi in itertools.product((-0.4, 0.0, 0.7), (-1.5, 0.0, 0.8), (-2.0, -0.5, 0.0, 0.3, 1.7)):
        slopes = {-1: [low], 0: np.linspace(low, high, 2001), 1: [high]}[int(np.sign(phi))]
        expected = min((g * raw - psi for g in slopes), key=abs)
        found = kink_distance(
            activation.kink, *(torch.full((1, 1), float(v)).double() for v in (phi, raw, psi))
        )
        assert float(found) == pytest.approx(expected, abs=1e-3)
        assert (float(found) == 0) == (expected == 0 or (phi == 0 and abs(expected) < 5e-4))
