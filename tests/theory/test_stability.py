"""The largest real part of the dynamics: held against an analytic matrix, and against what a push really does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral, proportional
from circuitlab.theory import conditions, stability
from circuitlab.theory.jacobian import output_jacobian
from circuitlab.theory.stability import Linearised, largest_real_part
from tests.oracles.circuits import random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.tasks import batch, task


def at_rest(circuit, q_of, controller, samples: int = 2):
    """Task, equations and equilibrium under linear feedback with a Q made from J at the free state."""
    plain = task(circuit, losses=("squared_error",))
    b = batch(plain, samples)
    drive = plain.system.drive(b.x)
    phi = plain.free(drive).fields.phi
    q = q_of(output_jacobian(plain.system, phi, drive).rows[0])
    t = task(
        circuit,
        losses=("squared_error",),
        controller=controller,
        pathway=lambda system: LinearFeedback(system, q),
        max_iterations=5000,
    )
    return (t, *rest(t, b))


def rest(t, b):
    """Equations and equilibrium of a batch, by Newton's method from the free state (a rest need not be stable)."""
    drive = t.system.drive(b.x)
    phi = t.free(drive).fields.phi
    equations = t.pathway.equations(Controlled(t.system, drive, b.target, t.loss, t.controller, phi))
    state = equations.start()
    for _ in range(50):
        steps = []
        for sample in range(state.shape[1]):
            one = equations.select(torch.tensor([sample]))
            now = state[:, sample : sample + 1]
            wrong = one.imbalance(now)
            eye = 1e-5 * torch.eye(len(state), dtype=state.dtype)
            columns = [
                one.imbalance(now + push.unsqueeze(1)) - one.imbalance(now - push.unsqueeze(1))
                for push in eye
            ]
            matrix = torch.cat(columns, dim=1) / 2e-5
            steps.append(torch.linalg.solve(matrix, wrong))
        state = state - torch.cat(steps, dim=1)
    assert float(equations.imbalance(state).abs().max()) < 1e-11
    return equations, state


def linear_feedback_matrix(
    twin: Twin, phi: np.ndarray, q: np.ndarray, alpha: float, tau_u: float
) -> np.ndarray:
    """A of eq. 13, 121 with a squared error, from dense matrices."""
    units = (twin.w * twin.slope(phi) - np.eye(twin.n)) / twin.tau[:, None]
    if tau_u == 0:
        return units - q @ twin.d / alpha / twin.tau[:, None]
    k = twin.k
    return np.block([[units, q / twin.tau[:, None]], [-twin.d / tau_u, -alpha * np.eye(k) / tau_u]])


@pytest.mark.parametrize(
    "controller",
    [leaky_integral(0.3, 40.0), integral(40.0), proportional(2.0)],
    ids=["leaky", "integral", "at once"],
)
@pytest.mark.parametrize("rows", [2200, 0], ids=["all eigenvalues", "Arnoldi"])
def test_the_whole_dynamics_by_hand(controller, rows: int, monkeypatch) -> None:
    monkeypatch.setattr(stability, "DENSE_ROWS", rows)
    circuit = random_circuit(0)
    circuit = replace(
        circuit,
        populations={
            name: replace(p, tau_ms=5.0 if name == "i" else 20.0) for name, p in circuit.populations.items()
        },
    )
    t, equations, state = at_rest(circuit, lambda j: j.t(), controller)
    twin = Twin(circuit)
    for sample in range(2):
        phi = state[: twin.n, sample].numpy()
        expected = linear_feedback_matrix(twin, phi, t.pathway.q.numpy(), controller.alpha, controller.tau_ms)
        if rows:
            one = equations.select(torch.tensor([sample]))
            found = Linearised(one, state[:, sample : sample + 1]).matrix().numpy()
            assert found == pytest.approx(expected, abs=1e-8)
        found = largest_real_part(equations, state, sample)
        assert found == pytest.approx(np.linalg.eigvals(expected).real.max(), rel=1e-3, abs=1e-8)


def grows(twin: Twin, t, phi: np.ndarray, u: np.ndarray, x: np.ndarray, target: np.ndarray) -> bool:
    """Whether a small push of a linear-feedback circuit grows, by forward Euler on dense matrices."""
    tau_u, alpha, q, dt = t.controller.tau_ms, t.controller.alpha, t.pathway.q.numpy(), 0.2
    rng = np.random.default_rng(0)
    pushed, v = phi + 1e-6 * rng.standard_normal(len(phi)), u + 1e-6 * rng.standard_normal(len(u))
    for _ in range(40_000):
        change = (twin.f(pushed, x) + q @ v) / twin.tau
        v = v + dt * (target - pushed[-twin.k :] - alpha * v) / tau_u
        pushed = pushed + dt * change
        away = np.linalg.norm(np.concatenate([pushed - phi, v - u]))
        if away > 1e-4:
            return True
        if away < 1e-8:
            return False
    raise AssertionError("neither grew nor died out")


@pytest.mark.parametrize("strength", [-0.6, -0.1, 0.1, 1.0, 30.0])
def test_a_push_grows_exactly_where_the_real_part_is_positive(strength: float) -> None:
    """Q = strength J^T: negative is positive feedback; and very strong feedback rings and diverges."""
    circuit = random_circuit(0, gain=0.5)
    t, equations, state = at_rest(circuit, lambda j: strength * j.t(), leaky_integral(0.3, 60.0), samples=1)
    twin = Twin(circuit)
    b = batch(t, 1)
    predicted = largest_real_part(equations, state, 0)
    phi, u = state[: twin.n, 0].numpy(), state[twin.n :, 0].numpy()
    assert grows(twin, t, phi, u, b.x[:, 0].numpy(), b.target[:, 0].numpy()) == (predicted > 0)


def test_both_signs_are_met() -> None:
    """The test above sees stable and unstable circuits, and Condition 3 tells them apart where control is slow."""
    circuit, signs = random_circuit(0, gain=0.5), []
    for strength in (-0.6, -0.2, 0.1, 1.0):
        controller = leaky_integral(0.3, 20_000.0)
        t, equations, state = at_rest(circuit, lambda j, s=strength: s * j.t(), controller, samples=1)
        b = batch(t, 1)
        j = output_jacobian(t.system, state[: t.system.size], t.system.drive(b.x))
        condition = float(conditions.controllability(j, t.pathway.q)[0]) > -0.3
        signs.append(condition)
        assert condition == (largest_real_part(equations, state, 0) < 0)
    assert set(signs) == {True, False}


def test_dynamic_inversion_diverges_by_the_circuits_own_solver_where_predicted() -> None:
    """Units, control and controller together: a fast controller of a slow circuit diverges, a slow one rests."""
    verdicts = {}
    for tau_u in (0.5, 500.0):
        t = task(
            random_circuit(0, gain=0.9),
            losses=("squared_error",),
            controller=leaky_integral(0.01, tau_u),
            pathway=lambda system: DynamicInversion(Feedback()),
        )
        equations, state = rest(t, batch(t, 1))
        predicted = largest_real_part(equations, state, 0)
        moved, dt = state + 1e-6 * torch.ones_like(state), 0.05
        away = [1e-6]
        for _ in range(60_000):
            moved = moved + dt / equations.time_constants * equations.imbalance(moved)
            away.append(float((moved - state).abs().max()))
            if away[-1] > 1e-5 or away[-1] < 2e-7:
                break
        verdicts[tau_u] = predicted > 0
        assert away[-1] > 1e-5 or away[-1] < 2e-7
        assert (away[-1] > 1e-5) == (predicted > 0)
    assert verdicts == {0.5: True, 500.0: False}
