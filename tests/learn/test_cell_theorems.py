"""Theorem 1 and the implicit-function gradient with gains, thresholds and gap junctions, by finite differences."""

from __future__ import annotations

import pytest

from circuitlab.control.output import leaky_integral
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.least_control import LeastControl
from tests.dynamics.test_cells import all_controlled, every
from tests.oracles.tasks import batch, energy, finite_differences, free_loss, task


@every
def test_recurrent_backprop_is_the_gradient_of_the_free_loss(small: Circuit) -> None:
    t = task(small)
    b = batch(t, samples=2)
    updates = RecurrentBackprop().outcome(t, b).updates
    for name, entries in finite_differences(t, lambda: free_loss(t, b), per_parameter=2).items():
        for index, difference in entries:
            assert -2 * float(updates[name][index]) == pytest.approx(difference, abs=1e-6), name


@pytest.mark.parametrize("alpha", [6.4, 0.1])
@all_controlled
def test_least_control_descends_h_plus_loss_over_alpha(small: Circuit, alpha: float) -> None:
    """The principle's update of synapses, biases and conductances is -d(H + L/alpha)/d theta."""
    t = task(small, controller=leaky_integral(alpha, 100), thorough=True)
    b = batch(t, samples=2)
    found = LeastControl().outcome(t, b)
    differences = finite_differences(t, energy(t, b, found.credit.state), per_parameter=2)
    for name, entries in differences.items():
        for index, difference in entries:
            assert -2 * float(found.updates[name][index]) == pytest.approx(difference, abs=1e-6), name
