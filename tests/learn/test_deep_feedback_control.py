"""DFC's rules: their updates by numpy, during the dynamics and at rest, and what becomes of unstable samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.deep_feedback_control import DeepFeedbackControl as Pathway
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import leaky_integral, proportional_integral
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.learn.deep_feedback_control import DeepFeedbackControl, LinearisedSteadyState, SteadyState
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.tasks import batch, task

LEAK, K_P, TAU = 0.05, 1.0, 40.0


def dfc(small: Circuit, nudge: float = 0.1, *, losses=("squared_error",), jacobian=False, **settings) -> Task:
    def pathway(system):
        made = Pathway.jacobian(system) if jacobian else Pathway.random(system, 1, 0.3)
        return made.nudged(nudge)

    return task(
        small,
        losses=losses,
        controller=proportional_integral(LEAK, K_P, TAU),
        pathway=pathway,
        **settings,
    )


def flat(updates: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([updates[name].numpy() for name in sorted(updates)])


def cosine(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    a, b = flat(one), flat(other)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_numpy(
    small: Circuit, dense: np.ndarray, inputs: np.ndarray, bias: np.ndarray
) -> dict[str, np.ndarray]:
    """Updates of each synapse from matrices of all units."""
    twin, found = Twin(small), {}
    for name, p in small.projections.items():
        rows = twin.rows[p.target].start + p.edges.target
        if p.source == "x":
            found[name] = inputs[rows, p.edges.source]
        else:
            found[name] = dense[rows, twin.rows[p.source].start + p.edges.source]
    for name, rows in twin.rows.items():
        if small.populations[name].bias is not None:
            found[f"{name}_bias"] = bias[rows]
    return found


@pytest.mark.parametrize("uncontrolled", [False, True])
@pytest.mark.parametrize("steps", [5, 50])
def test_updates_during_the_dynamics_are_numpys(steps: int, uncontrolled: bool) -> None:
    """DFC eq. 5 over forward Euler steps of eq. 1 and 4 from the free state, its mean over time and samples."""
    small = random_circuit(0)
    if uncontrolled:
        pops = [replace(p, controlled=p.type != "interneuron") for p in small.populations.values()]
        small = circuit(pops, list(small.projections.values()))
    dt = 2.0
    t = dfc(small, dt_ms=dt, max_time_ms=steps * dt, free_tolerance=1.0)
    b, twin = batch(t, samples=3), Twin(small)
    found = DeepFeedbackControl().outcome(t, replace(b))
    q = t.pathway.q.numpy()  # type: ignore[attr-defined]
    dense, inputs, bias = np.zeros((twin.n, twin.n)), np.zeros((twin.n, 4)), np.zeros(twin.n)
    for i in range(3):
        x = b.x[:, i].numpy()
        phi, integral = twin.free(x), np.zeros(twin.k)
        wanted = 0.8 * phi[-twin.k :] + 0.2 * b.target[:, i].numpy()
        for _ in range(steps):
            e = wanted - phi[-twin.k :]
            ahead = twin.prediction(phi, x)
            change = twin.controlled * (twin.sigma(phi) - twin.sigma(ahead))
            dense += np.outer(change, twin.sigma(phi))
            inputs += np.outer(change, x)
            bias += change
            phi = phi + dt / twin.tau * (ahead - phi + q @ (integral + K_P * e))
            integral = integral + dt / TAU * (e - LEAK * integral)
        assert found.credit.fields.phi[:, i].numpy() == pytest.approx(phi, abs=1e-9)
    expected = by_numpy(small, *(part / (3 * steps) for part in (dense, inputs, bias)))
    assert set(expected) == set(found.updates)
    for name, update in expected.items():
        assert found.updates[name].numpy() == pytest.approx(update, abs=1e-9), name
        assert np.abs(update).max() > 1e-6 or uncontrolled


def test_updates_at_the_steady_state_are_numpys() -> None:
    """(sigma(v) - sigma(v_ff)) r^T; without the nonlinearity (DFC eq. 9) it is the least-control rule."""
    small = random_circuit(2)
    t = dfc(small, losses=("cross_entropy",))
    b, twin = batch(t, samples=3), Twin(small)
    found = SteadyState().outcome(t, b)
    assert bool(found.used.all())
    fields = found.credit.fields
    dense, inputs, bias = np.zeros((twin.n, twin.n)), np.zeros((twin.n, 4)), np.zeros(twin.n)
    for i in range(3):
        phi, psi, x = fields.phi[:, i].numpy(), fields.psi[:, i].numpy(), b.x[:, i].numpy()
        change = twin.sigma(phi) - twin.sigma(phi - psi)
        dense += np.outer(change, twin.sigma(phi)) / 3
        inputs += np.outer(change, x) / 3
        bias += change / 3
    for name, update in by_numpy(small, dense, inputs, bias).items():
        assert found.updates[name].numpy() == pytest.approx(update, abs=1e-12)
    plain = LeastControl().outcome(t, b)
    assert torch.allclose(found.updates["e_y0"], plain.updates["e_y0"], atol=1e-10), "output units are linear"
    assert 0.5 < cosine(found.updates, plain.updates) < 1 - 1e-6


@pytest.mark.parametrize("options", [dict(seed=0), dict(seed=1, dale=True)], ids=["tanh", "Dale's law"])
def test_the_three_rules_agree(options: dict) -> None:
    """During the dynamics with a controller slower than the neurons, at rest, and at the linearised rest."""
    small = random_circuit(**options, gain=0.5)
    t = dfc(small, 0.05, jacobian=True, dt_ms=1.0, max_time_ms=6000.0)
    b = batch(t)
    steady = SteadyState().outcome(t, b)
    moving = DeepFeedbackControl().outcome(t, b)
    linear = LinearisedSteadyState().outcome(t, b)
    for found in (steady, moving, linear):
        assert bool(found.used.all())
    assert torch.allclose(moving.credit.fields.phi, steady.credit.fields.phi, atol=1e-6)
    assert cosine(moving.updates, steady.updates) > 0.99
    assert cosine(linear.updates, steady.updates) > 0.99
    assert np.linalg.norm(flat(moving.updates)) == pytest.approx(
        np.linalg.norm(flat(steady.updates)), rel=0.1
    )


def test_time_that_would_repeat_the_state_at_rest_is_not_simulated() -> None:
    t = dfc(random_circuit(0, gain=0.5), jacobian=True, dt_ms=2.0, max_time_ms=20_000.0, tolerance=1e-11)
    b = batch(t)
    short = DeepFeedbackControl().outcome(t, b)
    never = replace(t, settings=replace(t.settings, tolerance=1e-30), on_unconverged="keep")
    whole = DeepFeedbackControl().outcome(never, b)
    assert int(short.credit.iterations.max()) < 5000 < int(whole.credit.iterations.max())
    for name, update in whole.updates.items():
        assert short.updates[name].numpy() == pytest.approx(update.numpy(), abs=1e-9)


def test_a_nudge_of_a_half_clamps_the_output() -> None:
    """lambda = 0.5, a squared error and no leak to speak of: the outputs reach the target, and their synapses learn by
    the delta rule on what they predict there."""
    small = random_circuit(0)
    controller = proportional_integral(1e-6, K_P, TAU)
    t = replace(dfc(small, 0.5, jacobian=True, tolerance=1e-6), controller=controller)
    b, twin = batch(t, samples=3), Twin(small)
    found = SteadyState().outcome(t, b)
    assert bool(found.used.all())
    fields, p = found.credit.fields, small.projections["e_y0"]
    assert torch.allclose(t.outputs(fields.phi), b.target, atol=1e-5)
    expected = np.zeros((3, 7))
    for i in range(3):
        phi = fields.phi[:, i].numpy()
        ahead = twin.prediction(phi, b.x[:, i].numpy())[-3:]
        expected += np.outer(b.target[:, i].numpy() - ahead, twin.sigma(phi)[:7]) / 3
    assert found.updates["e_y0"].numpy() == pytest.approx(expected[p.edges.target, p.edges.source], abs=1e-5)


def test_linear_feedback_has_a_linearised_steady_state_as_well() -> None:
    """alpha u = -dL/dy(y_free + J Q u) for the cross-entropy, psi = Q u, by scipy's root."""
    from scipy.optimize import root

    small = random_circuit(0)
    t = task(small, controller=leaky_integral(0.5, 10.0), pathway=lambda s: LinearFeedback.random(s, 1, 0.3))
    b, twin = batch(t, samples=2), Twin(small)
    found = LinearisedSteadyState().outcome(t, b)
    q = t.pathway.q.numpy()  # type: ignore[attr-defined]
    for i in range(2):
        phi = twin.free(b.x[:, i].numpy())
        through = twin.d @ np.linalg.inv(-twin.jacobian(phi)) @ q
        target = b.target[:, i].numpy()

        def wrong(u: np.ndarray, y=phi[-3:], through=through, target=target) -> np.ndarray:
            moved = y + through @ u
            return 0.5 * u + np.exp(moved - np.logaddexp.reduce(moved)) - target

        u = root(wrong, np.zeros(3), tol=1e-14).x
        assert found.credit.fields.psi[:, i].numpy() == pytest.approx(q @ u, abs=1e-8)


def runaway() -> Circuit:
    """x -> h -> y with J Q = 3 sigma'(h) - 1: unstable (Condition 3) where h is saturated."""
    return circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 1, activation="tanh"),
            population("y", "output", 1),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [1.0])),
            projection("h_y", "h", "y", edges([0], [0], [1.0])),
        ],
    )


def test_samples_that_run_away_are_left_out() -> None:
    """The update is that of the other samples alone."""
    q = torch.tensor([[3.0], [-1.0]], dtype=torch.float64)
    t = task(
        runaway(),
        losses=("squared_error",),
        controller=proportional_integral(LEAK, 0.0, TAU),
        pathway=lambda s: Pathway(s, q, 0.1),
        dt_ms=2.0,
        max_time_ms=1000.0,
    )
    x = torch.tensor([[0.1, 3.0, -0.3, 2.5, 0.2]], dtype=torch.float64)
    b = Batch(x, 1.1 * torch.tanh(x))
    found = DeepFeedbackControl().outcome(t, b)
    assert found.used.tolist() == [True, False, True, False, True]
    alone = DeepFeedbackControl().outcome(t, Batch(x[:, found.used], b.target[:, found.used]))
    assert bool(alone.used.all())
    for name, update in alone.updates.items():
        assert torch.allclose(found.updates[name], update, atol=1e-12)
        assert float(update.abs().max()) > 1e-6


@pytest.mark.parametrize("rule", [DeepFeedbackControl(), SteadyState(), LinearisedSteadyState()])
def test_a_pathway_without_direct_feedback_is_refused(rule) -> None:
    t = task(random_circuit(0), pathway=lambda s: DynamicInversion(Feedback()))
    with pytest.raises(
        CircuitError, match="is for direct feedback, not for dynamic_inversion; allowed: linear_feedback"
    ):
        rule.outcome(t, batch(t))
