"""Feedback weights learned from noise: the noise itself, the moments that linear theory gives, and what Q comes to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from circuitlab.control.base import Controlled
from circuitlab.control.deep_feedback_control import DeepFeedbackControl, tracking
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import leaky_integral, proportional_integral
from circuitlab.dynamics.noise import OrnsteinUhlenbeck, generator
from circuitlab.errors import CircuitError
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import Batch
from circuitlab.learn.feedback.noisy import Alternating, AntiHebbian, Noise, named
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.tasks import batch, task

CPU = torch.device("cpu")


def test_noise_has_its_standard_deviation_and_time_constant() -> None:
    noise = OrnsteinUhlenbeck(torch.empty(50, 200), 50.0, 10.0, generator(0, "test", 3, CPU))
    first = noise.value.clone()
    later = [noise.step().clone() for _ in range(5)]
    for values in (first, *later):
        assert float(values.mean()) == pytest.approx(0, abs=0.05)
        assert float(values.std()) == pytest.approx(1, abs=0.03)
    for lag, values in enumerate(later, 1):
        assert float((first * values).mean()) == pytest.approx(np.exp(-lag * 10 / 50), abs=0.04)


def test_noise_follows_from_seed_name_and_step_alone() -> None:
    def draw(seed: int, name: str, step: int) -> torch.Tensor:
        return (
            OrnsteinUhlenbeck(torch.empty(3, 4), 50.0, 10.0, generator(seed, name, step, CPU)).step().clone()
        )

    assert torch.equal(draw(0, "a", 7), draw(0, "a", 7))
    others = [draw(1, "a", 7), draw(0, "b", 7), draw(0, "a", 8)]
    assert not any(torch.equal(draw(0, "a", 7), other) for other in others)


def repeated(b: Batch, count: int) -> Batch:
    return Batch(b.x.repeat(1, count), b.target.repeat(1, count))


def lyapunov(
    twin: Twin, phi: np.ndarray, q: np.ndarray, dt: float, tau_u: float, noise: Noise, leak: float, k_p: float
):
    """Stationary <u u^T>/s^2 and <eps u^T>/s of the linear stochastic difference equation, squared error.

    phi' = phi + dt/tau (A phi + Q u + s eps), u = u_int + k_p e, u_int' = u_int + dt/tau_u (e - leak u_int), e = -D phi
    """
    n, k = twin.n, twin.k
    a, share, pace = twin.jacobian(phi), dt / twin.tau[:, None], dt / tau_u
    kept = np.exp(-dt / noise.tau_ms)
    u_of = np.concatenate([-k_p * twin.d, np.eye(k), np.zeros((k, n))], axis=1)
    m = np.zeros((2 * n + k, 2 * n + k))
    m[:n, :n] = np.eye(n) + share * a
    m[:n] += share * (q @ u_of)
    m[:n, n + k :] = share * np.eye(n)
    m[n : n + k, :n] = -pace * twin.d
    m[n : n + k, n : n + k] = (1 - pace * leak) * np.eye(k)
    m[n + k :, n + k :] = kept * np.eye(n)
    assert np.abs(np.linalg.eigvals(m)).max() < 1
    drawn = np.zeros_like(m)
    drawn[n + k :, n + k :] = (1 - kept**2) * np.eye(n)
    covariance = solve_discrete_lyapunov(m, drawn)
    return u_of @ covariance @ u_of.T, covariance[n + k :] @ u_of.T


@pytest.mark.parametrize("k_p", [0.0, 0.8])
def test_the_expected_update_is_linear_theorys(k_p: float) -> None:
    """dQ = -(Q <u u^T> + s <eps u^T>)/s^2 - decay Q with the stationary moments by a discrete Lyapunov equation, of
    both rules on a linear circuit; populations have time constants of their own."""
    small = random_circuit(0, activation="linear", gain=0.5)
    pops = [
        replace(p, tau_ms=tau) for p, tau in zip(small.populations.values(), (10, 10, 15, 8), strict=True)
    ]
    small = circuit(pops, list(small.projections.values()))
    controller = proportional_integral(0.5, k_p, 60.0) if k_p else leaky_integral(0.5, 60.0)
    t = task(
        small,
        losses=("squared_error",),
        controller=controller,
        pathway=lambda s: LinearFeedback.random(s, 1, 0.3),
    )
    b, twin = repeated(batch(t, samples=1), 256), Twin(small)
    q, dt = t.pathway.q.numpy(), 5.0  # type: ignore[attr-defined]
    noise = Noise(scale=0.02, tau_ms=30.0, dt_ms=dt, steps=4000, decay=0.05, seed=1)
    own, cross = lyapunov(twin, np.zeros(twin.n), q, dt, 60.0, noise, 0.5, k_p)
    expected = -(q @ own + cross) - 0.05 * q
    outcome = LeastControl().outcome(t, b)
    for rule in (AntiHebbian(noise), Alternating(noise, controller)):
        found = rule.updates(t, b, outcome if isinstance(rule, AntiHebbian) else None, 0)
        assert set(found) == set(t.pathway.parameters())
        dense = torch.cat([found[f"Q/{name}"] for name in twin.rows]).numpy()
        assert np.abs(dense - expected).max() < 0.02 * np.abs(expected).max()
        assert np.abs(own).max() > 0.05 and np.abs(cross).max() > 0.05


def test_updates_are_the_same_in_a_resumed_run() -> None:
    """An update follows from the state and its number alone."""
    t = task(random_circuit(0), pathway=lambda s: LinearFeedback.random(s, 0))
    b = batch(t)
    outcome = LeastControl().outcome(t, b)
    rule = AntiHebbian(Noise(steps=20))
    once, again = (rule.updates(t, b, outcome, 5) for _ in range(2))
    other = rule.updates(t, b, outcome, 6)
    for name in once:
        assert torch.equal(once[name], again[name])
        assert not torch.equal(once[name], other[name])


def test_rules_without_a_controlled_equilibrium_get_one() -> None:
    """After recurrent backprop, whose credit is no control, the noise starts from the equilibrium under control."""
    t = task(random_circuit(0), pathway=lambda s: LinearFeedback.random(s, 0, 0.3))
    b, rule = batch(t), AntiHebbian(Noise(steps=20))
    backprop = rule.updates(t, b, RecurrentBackprop().outcome(t, b), 0)
    control = rule.updates(t, b, LeastControl().outcome(t, b), 0)
    for name in control:
        assert torch.allclose(backprop[name], control[name], atol=1e-7)


def test_unstable_samples_teach_nothing_but_decay() -> None:
    """J Q = 3 sigma'(h) - 1: the saturated sample runs away; the others learn without it, and alone it decays Q."""
    small = circuit(
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
    q = torch.tensor([[3.0], [-1.0]], dtype=torch.float64)
    t = task(small, losses=("squared_error",), pathway=lambda s: DeepFeedbackControl(s, q))
    rule = Alternating(Noise(steps=2000, decay=0.01), proportional_integral(0.2, 0.0, 50.0))
    x = torch.tensor([[4.0, 0.1]], dtype=torch.float64)
    both, good, bad = (
        rule.updates(t, Batch(part, torch.zeros_like(part)), None, 0) for part in (x, x[:, 1:], x[:, :1])
    )
    for name, change in named(t.pathway, -0.01 * q).items():  # type: ignore[arg-type]
        assert torch.equal(bad[name], change)
        assert torch.allclose(both[name], good[name])
        assert not torch.allclose(good[name], change)


def test_units_without_control_keep_none() -> None:
    small = random_circuit(0)
    pops = [replace(p, controlled=p.type != "interneuron") for p in small.populations.values()]
    t = task(
        circuit(pops, list(small.projections.values())), pathway=lambda s: LinearFeedback.random(s, 0, 0.3)
    )
    b = batch(t)
    found = AntiHebbian(Noise(steps=20)).updates(t, b, LeastControl().outcome(t, b), 0)
    assert (found["Q/i"] == 0).all() and (found["Q/e"] != 0).all()


def test_a_pathway_without_direct_feedback_is_refused() -> None:
    t = task(random_circuit(0), pathway=lambda s: DynamicInversion(Feedback()))
    with pytest.raises(
        CircuitError, match="learn: alternating is for direct feedback, not for dynamic_inversion"
    ):
        Alternating(Noise(), leaky_integral(1.0, 100.0)).updates(t, batch(t), None, 0)


def test_tracking_is_the_control_error() -> None:
    """-dL/dy = r* - y over all outputs, whatever the task's losses."""
    t = task(random_circuit(0, outputs=(2, 3)), losses=("cross_entropy", "squared_error"))
    y, target = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    held = Controlled(t.system, y, target, tracking(5), t.controller, y)
    assert torch.equal(-held.loss.gradient(y, target), target - y)
