"""Deep Feedback Control: its target, its equilibrium by scipy, and Lemma 1 on linear circuits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import root

from circuitlab.control.deep_feedback_control import DeepFeedbackControl
from circuitlab.control.output import proportional_integral
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.learn.deep_feedback_control import LinearisedSteadyState, SteadyState
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.tasks import batch, task

LEAK, K_P = 0.05, 1.5
ALPHA = LEAK / (1 + LEAK * K_P)


def dfc(small, nudge: float, *, losses=("cross_entropy",), scale=0.4, leak=LEAK, **settings):
    """A task under DFC with random feedback (the identity on the outputs)."""
    return task(
        small,
        losses=losses,
        controller=proportional_integral(leak, K_P, 50.0),
        pathway=lambda s: DeepFeedbackControl.random(s, 1, scale).nudged(nudge),
        **settings,
    )


def test_the_target_is_nudged_from_the_free_output() -> None:
    """r* = y - lambda dL/dy, with DFC's |y - t|^2 for a squared error: a nudge of 0.5 is the target itself."""
    loss = OutputLoss([(LOSSES["squared_error"], slice(0, 2)), (LOSSES["cross_entropy"], slice(2, 5))])
    rng = np.random.default_rng(0)
    y, target = rng.standard_normal((5, 4)), np.concatenate([rng.standard_normal((2, 4)), np.eye(3, 4)])
    target[2:, 3] = 1 / 3
    found = loss.nudged(torch.tensor(y), torch.tensor(target), 0.1).numpy()
    p = np.exp(y[2:]) / np.exp(y[2:]).sum(0)
    assert found[:2] == pytest.approx(0.8 * y[:2] + 0.2 * target[:2], abs=1e-14)
    assert found[2:] == pytest.approx(y[2:] - 0.1 * (p - target[2:]), abs=1e-14)
    clamped = loss.nudged(torch.tensor(y), torch.tensor(target), 0.5).numpy()
    assert clamped[:2] == pytest.approx(target[:2], abs=1e-15)


@pytest.mark.parametrize("start", ["free", "zero"])
@pytest.mark.parametrize("nudge", [0.05, 0.5])
def test_its_equilibrium_is_scipys(nudge: float, start: str) -> None:
    """f(phi) + Q u = 0, (alpha / (1 + alpha k_p)) u = r* - y, with r* from the free state wherever control starts."""
    small = random_circuit(0)
    t = replace(dfc(small, nudge), start=start)
    b = batch(t, samples=3)
    found = LeastControl().outcome(t, b)
    assert bool(found.used.all())
    assert torch.allclose(found.loss, t.loss.value(t.outputs(found.free.fields.phi), b.target))
    twin, q = Twin(small), t.pathway.q.numpy()  # type: ignore[attr-defined]
    for i in range(3):
        x, target = b.x[:, i].numpy(), b.target[:, i].numpy()
        free = twin.free(x)
        y = free[-3:]
        wanted = y - nudge * (np.exp(y) / np.exp(y).sum() - target)

        def wrong(state: np.ndarray, x=x, wanted=wanted) -> np.ndarray:
            phi, u = state[: twin.n], state[twin.n :]
            return np.concatenate([twin.f(phi, x) + q @ u, wanted - phi[-3:] - ALPHA * u])

        state = root(wrong, np.concatenate([free, np.zeros(3)]), tol=1e-14)
        assert np.abs(state.fun).max() < 1e-11
        assert found.credit.fields.phi[:, i].numpy() == pytest.approx(state.x[: twin.n], abs=1e-8)
        assert found.credit.fields.u[:, i].numpy() == pytest.approx(state.x[twin.n :], abs=1e-7)
    psi, rate = found.credit.fields.psi, t.system.rates(found.credit.fields.phi)  # type: ignore[attr-defined]
    update = (psi[:7] @ rate[:7].t() / 3).numpy()
    e_e = small.projections["e_e"].edges
    assert found.updates["e_e"].numpy() == pytest.approx(update[e_e.target, e_e.source], abs=1e-12)


def lemma(small, q: np.ndarray, x: np.ndarray, delta: np.ndarray, alpha: float) -> np.ndarray:
    """DFC eq. 6: v_ss - v_ff = Q (J Q + alpha)^-1 delta, J = D (1 - W sigma')^-1 at the free state."""
    twin = Twin(small)
    j = twin.d @ np.linalg.inv(-twin.jacobian(twin.free(x)))
    return q @ np.linalg.solve(j @ q + alpha * np.eye(twin.k), delta)


@pytest.mark.parametrize("rule", [SteadyState(), LinearisedSteadyState()], ids=lambda rule: rule.name)
def test_lemma_1_is_exact_on_linear_circuits(rule) -> None:
    small = random_circuit(1, activation="linear", outputs=(3, 2))
    t = dfc(small, 0.3, losses=("squared_error",))
    b = batch(t, samples=3)
    found = rule.outcome(t, b)
    assert bool(found.used.all())
    q = t.pathway.q.numpy()  # type: ignore[attr-defined]
    for i in range(3):
        x = b.x[:, i].numpy()
        delta = 0.6 * (b.target[:, i].numpy() - Twin(small).free(x)[-5:])
        expected = lemma(small, q, x, delta, ALPHA)
        assert found.credit.fields.psi[:, i].numpy() == pytest.approx(expected, abs=1e-8)
        assert np.abs(expected).max() > 0.05


def test_lemma_1_holds_more_and_more_as_the_nudge_goes_to_zero() -> None:
    """On a nonlinear recurrent circuit the steady state differs from eq. 6 by order lambda^2: relative errors shrink
    with lambda, while the linearised steady state is eq. 6 at any lambda."""
    small = random_circuit(0)
    angles = []
    for nudge in (0.3, 0.03, 0.003):
        t = dfc(small, nudge)
        b = batch(t, samples=1)
        x = b.x[:, 0].numpy()
        y = Twin(small).free(x)[-3:]
        delta = nudge * (b.target[:, 0].numpy() - np.exp(y) / np.exp(y).sum())
        expected = lemma(small, t.pathway.q.numpy(), x, delta, ALPHA)  # type: ignore[attr-defined]
        linear = LinearisedSteadyState().outcome(t, b).credit.fields.psi[:, 0].numpy()
        assert linear == pytest.approx(expected, abs=1e-8 * max(nudge, 0.01))
        steady = SteadyState().outcome(t, b).credit.fields.psi[:, 0].numpy()
        angles.append(np.linalg.norm(steady - expected) / np.linalg.norm(expected))
        cosine = steady @ expected / np.linalg.norm(steady) / np.linalg.norm(expected)
    assert angles[0] / angles[1] == pytest.approx(10, rel=0.4)
    assert angles[1] / angles[2] == pytest.approx(10, rel=0.2)
    assert cosine > 1 - 1e-5
