"""Theorem 1 and the implicit-function gradient, held against finite differences in float64."""

from __future__ import annotations

import pytest
import torch

from circuitlab.control.output import integral, leaky_integral, proportional
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit
from tests.oracles.tasks import batch, energy, finite_differences, free_loss, task

CIRCUITS = {
    "recurrent": dict(seed=0),
    "strongly recurrent": dict(seed=1, gain=1.1),
    "sparse": dict(seed=2, p=0.25, hidden=12),
    "Dale's law": dict(seed=3, dale=True),
    "two outputs": dict(seed=4, outputs=(3, 2)),
    "Dale's law, three outputs, sparse": dict(seed=5, dale=True, outputs=(2, 3, 2), p=0.4, hidden=10),
    "sigmoid": dict(seed=6, activation="sigmoid"),
    "softplus": dict(seed=7, activation="softplus", gain=0.4),
    "relu, some neurons on the kink": dict(seed=0, activation="relu"),
}


@pytest.mark.parametrize("options", CIRCUITS.values(), ids=CIRCUITS)
@pytest.mark.parametrize("alpha", [6.4, 0.1])
def test_least_control_descends_h_plus_loss_over_alpha(options: dict, alpha: float) -> None:
    """-psi sigma(phi)^T = d(H + L/alpha)/dW at the controlled equilibrium (Theorem 1; section 2.4 for alpha > 0)."""
    small = random_circuit(**options)
    t = task(
        small, losses=("cross_entropy", "squared_error"), controller=leaky_integral(alpha, 100), thorough=True
    )
    b = batch(t)
    found = LeastControl().outcome(t, b)
    updates = found.updates
    for name, entries in finite_differences(t, energy(t, b, found.credit.state)).items():
        for index, difference in entries:
            assert -4 * float(updates[name][index]) == pytest.approx(difference, abs=1e-6), name


@pytest.mark.parametrize("controller", [integral(100), proportional(2.0)], ids=["integral", "proportional"])
def test_every_output_controller_descends_its_objective(controller) -> None:
    """With integral control alpha is zero, the loss is held at its minimum and the update descends H itself."""
    t = task(random_circuit(1), losses=("squared_error",), controller=controller, thorough=True)
    b = batch(t)
    found = LeastControl().outcome(t, b)
    updates = found.updates
    for name, entries in finite_differences(t, energy(t, b, found.credit.state)).items():
        for index, difference in entries:
            assert -4 * float(updates[name][index]) == pytest.approx(difference, abs=1e-6), name


@pytest.mark.parametrize("options", CIRCUITS.values(), ids=CIRCUITS)
def test_recurrent_backprop_is_the_gradient_of_the_free_loss(options: dict) -> None:
    """psi sigma(phi)^T of the second phase = -dL/dW at the free equilibrium (eq. 5, 89-90)."""
    t = task(random_circuit(**options), losses=("cross_entropy", "squared_error"))
    b = batch(t)
    updates = RecurrentBackprop().outcome(t, b).updates
    for name, entries in finite_differences(t, lambda: free_loss(t, b)).items():
        for index, difference in entries:
            assert -4 * float(updates[name][index]) == pytest.approx(difference, abs=1e-6), name


def test_recurrent_backprop_reaches_through_uncontrolled_populations() -> None:
    """The baseline is the true gradient whether or not a population has a control."""
    small = random_circuit(8)
    populations = [
        population(
            p.name, p.type, p.size, activation=p.activation, bias=p.bias, controlled=p.type != "interneuron"
        )
        for p in small.populations.values()
    ]
    t = task(circuit(populations, list(small.projections.values())))
    b = batch(t)
    updates = RecurrentBackprop().outcome(t, b).updates
    for name, entries in finite_differences(t, lambda: free_loss(t, b)).items():
        for index, difference in entries:
            assert -4 * float(updates[name][index]) == pytest.approx(difference, abs=1e-6), name
    assert (LeastControl().outcome(t, b).updates["e_i"] == 0).all()


def test_weak_control_tends_to_recurrent_backprop() -> None:
    """As alpha grows, alpha times the least-control update tends to the loss gradient (weak nudging, section 2.4)."""
    small = random_circuit(0)
    exact = None
    for alpha in (1e3, 1e4):
        t = task(small, controller=leaky_integral(alpha, 100))
        b = batch(t)
        exact = RecurrentBackprop().outcome(t, b).updates
        ours = LeastControl().outcome(t, b).updates
        for name in exact:
            assert torch.allclose(alpha * ours[name], exact[name], atol=10 / alpha)


def test_gated_form_multiplies_by_the_slope() -> None:
    t = task(random_circuit(0))
    b = batch(t, samples=1)
    outcome = LeastControl(gated=True).outcome(t, b)
    fields = outcome.credit.fields
    e = t.system.compiled.units["e"]  # type: ignore[attr-defined]
    phi, psi = fields.phi[e, 0].numpy(), fields.psi[e, 0].numpy()
    expected = psi * (1 - torch.tanh(torch.as_tensor(phi)).numpy() ** 2)
    assert outcome.updates["e_bias"].numpy() == pytest.approx(expected, abs=1e-14)


def test_two_units_by_hand() -> None:
    """One hidden and one output unit, both linear, squared error: everything in closed form.

    phi = x u1 + psi1, y = w phi + psi2, psi1 = w psi2, psi2 = u, alpha u = t - y: y = w x u1 + (1 + w^2) u.
    """
    w, u1, x, t_, alpha = 0.7, 1.3, 0.5, 2.0, 0.4
    small = circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 1, activation="linear"),
            population("y", "output", 1),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [u1])),
            projection("h_y", "h", "y", edges([0], [0], [w])),
        ],
    )
    t = task(small, losses=("squared_error",), controller=leaky_integral(alpha, 100))
    b = batch(t, samples=1)
    b.x[:], b.target[:] = x, t_
    outcome = LeastControl().outcome(t, b)
    u = (t_ - w * x * u1) / (alpha + 1 + w * w)
    assert float(outcome.credit.fields.u[0, 0]) == pytest.approx(u, abs=1e-12)
    assert float(outcome.updates["h_y"][0]) == pytest.approx(u * (x * u1 + w * u), abs=1e-12)
    assert float(outcome.updates["x_h"][0]) == pytest.approx(w * u * x, abs=1e-12)
    assert float(outcome.control_cost[0]) == pytest.approx(0.5 * (u**2 + (w * u) ** 2), abs=1e-12)
