"""The PI controller: where it rests, and that real time gets there along the paper's equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.base import Controlled
from circuitlab.control.deep_feedback_control import DeepFeedbackControl
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.feedback import Feedback
from circuitlab.control.interneurons import Interneurons
from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import leaky_integral, proportional_integral
from circuitlab.learn.base import Task
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.schedule import AlphaSchedule
from circuitlab.solve.euler import Euler
from tests.oracles.circuits import random_circuit
from tests.oracles.dense_twin import Twin, cross_entropy
from tests.oracles.tasks import batch, task

PATHWAYS = {
    "dynamic_inversion": None,
    "linear_feedback": lambda system: LinearFeedback.random(system, 1, 0.4),
    "energy_based": lambda system: EnergyBased(Feedback()),
    "lateral_inhibition": lambda system: LateralInhibition(system, Feedback(), Interneurons(system)),
    "deep_feedback_control": lambda system: DeepFeedbackControl.random(system, 1, 0.4).nudged(0.3),
}
LEAK, K_P, TAU = 0.4, 1.5, 30.0


def held(t: Task, b) -> Controlled:
    drive = t.system.drive(b.x)
    return Controlled(t.system, drive, b.target, t.loss, t.controller, t.free(drive).fields.phi)


def test_the_leak_that_the_equilibrium_knows() -> None:
    """u = u_int + k_p e with u_int = e / a at rest: u = e (1/a + k_p), DFC's alpha tilde."""
    found = proportional_integral(LEAK, K_P, TAU)
    assert found.alpha == pytest.approx(1 / (1 / LEAK + K_P), rel=1e-15)
    assert found.leak == pytest.approx(LEAK, rel=1e-15)
    assert leaky_integral(0.3, TAU).leak == 0.3
    assert leaky_integral(0.3, TAU).pace_ms == TAU


@pytest.mark.parametrize("name", ["dynamic_inversion", "linear_feedback", "energy_based"])
def test_every_step_of_real_time_is_the_papers(name: str) -> None:
    """Sixty Euler steps of soma, control and u_int in numpy, u = u_int + k_p e; the integral part begins at zero."""
    small = random_circuit(0)
    t = task(small, controller=proportional_integral(LEAK, K_P, TAU), pathway=PATHWAYS[name])
    b, twin, dt = batch(t, samples=1), Twin(small), 0.7
    start = held(t, b)
    equations = t.pathway.equations(start)
    run = Euler(1e-12, 10, dt).begin(equations, equations.silence())
    better = torch.ones(1, dtype=torch.bool)
    x, gradient = b.x[:, 0].numpy(), cross_entropy(b.target[:, 0].numpy())
    phi, psi, integral = start.phi[:, 0].numpy().copy(), np.zeros(twin.n), np.zeros(twin.k)
    q = t.pathway.q.numpy() if name == "linear_feedback" else None  # type: ignore[attr-defined]
    for _ in range(60):
        e = -gradient(phi[-twin.k :])
        u = integral + K_P * e
        assert run.state[equations.blocks["controller"], 0].numpy() == pytest.approx(u, abs=1e-12)
        assert run.state[: twin.n, 0].numpy() == pytest.approx(phi, abs=1e-12)
        if name == "energy_based":
            gap = -twin.f(phi, x)
            rise = dt / twin.tau * (twin.slope(phi) * (twin.w.T @ gap) + twin.d.T @ u - gap)
            phi = phi + rise
            integral = integral + dt / TAU * (e - LEAK * integral)
            run.judge()
            run.advance(better, ~better)
            continue
        if q is None:
            moved = twin.slope(phi) * (twin.w.T @ psi) + twin.d.T @ u - psi
        else:
            psi, moved = q @ u, np.zeros(twin.n)
        phi, psi = phi + dt / twin.tau * (twin.f(phi, x) + psi), psi + dt / twin.tau * moved
        integral = integral + dt / TAU * (e - LEAK * integral)
        run.judge()
        run.advance(better, ~better)


@pytest.mark.parametrize("name", PATHWAYS)
def test_real_time_rests_where_the_fixed_point_is(name: str) -> None:
    small = random_circuit(0, gain=0.4 if name == "lateral_inhibition" else 0.8)  # it has no rest everywhere
    t = task(small, controller=proportional_integral(LEAK, K_P, TAU), pathway=PATHWAYS[name])
    b = batch(t)
    steady = LeastControl().outcome(t, b)
    slow = replace(t.settings, method="euler", tolerance=1e-9, dt_ms=1.0, max_time_ms=5000.0)
    moving = LeastControl().outcome(replace(t, settings=slow), b)
    plain = LeastControl().outcome(replace(t, controller=leaky_integral(t.controller.alpha, TAU)), b)
    for found in (steady, moving, plain):
        assert bool(found.credit.converged.all())
    for part in ("phi", "psi", "u"):
        expected = getattr(steady.credit.fields, part)
        assert torch.allclose(getattr(moving.credit.fields, part), expected, atol=1e-6)
        assert torch.allclose(getattr(plain.credit.fields, part), expected, atol=1e-9)
    aim = t.under_control(t.system.drive(b.x), b.target, steady.free)  # DFC's own target
    e = -aim.loss.gradient(t.outputs(steady.credit.fields.phi), aim.target)
    assert torch.allclose(steady.credit.fields.u, e / LEAK + K_P * e, atol=1e-8)


def test_a_schedule_is_of_the_leak_of_the_integral() -> None:
    t = task(random_circuit(0), controller=proportional_integral(2.0, K_P, TAU))
    schedule = AlphaSchedule(2.0, 0.5, updates=10, over=1.0)
    assert schedule.aimed(t, 0) is t
    end = schedule.aimed(t, 10).controller
    assert end.leak == pytest.approx(0.5, rel=1e-14)
    assert end.alpha == pytest.approx(0.5 / (1 + 0.5 * K_P), rel=1e-14)
    assert (end.k_p, end.tau_ms) == (K_P, TAU)
