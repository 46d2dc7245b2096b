"""Every solver reaches scipy's equilibrium; the real-time one follows scipy's trajectory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import DynamicInversion, RandomFeedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import leaky_integral, proportional
from circuitlab.dynamics.equations import Equations, FreeEquations
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.anderson import Anderson
from circuitlab.solve.base import solve
from circuitlab.solve.choose import METHODS, SolveSettings, attempts, find
from circuitlab.solve.euler import Euler
from circuitlab.solve.fixed_point import FixedPoint
from circuitlab.solve.levenberg import Levenberg
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin, cross_entropy
from tests.oracles.tasks import batch, task


def slow_circuit(gain: float = 0.5, seed: int = 0) -> Circuit:
    """A random circuit whose populations have different time constants."""
    small = random_circuit(seed, gain=gain)
    tau = {"e": 10.0, "i": 4.0, "y0": 7.0}
    pops = [replace(p, tau_ms=tau.get(p.name, 10.0)) for p in small.populations.values()]
    return circuit(pops, list(small.projections.values()))


def controlled(t: Task, b: Batch) -> Equations:
    drive = t.system.drive(b.x)
    free = t.free(drive).fields.phi
    return t.pathway.equations(Controlled(t.system, drive, b.target, t.loss, t.controller, free))


SETTINGS = {
    "fixed_point": dict(damping=0.5, max_iterations=2000),
    "anderson": {},
    "lbfgs": {},
    "levenberg": {},
    "euler": dict(dt_ms=2.0),
    "auto": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_roots_that_scipy_finds(method: str) -> None:
    small = slow_circuit()
    t = task(
        small, controller=leaky_integral(1.0, 8.0), method=method, **{"tolerance": 1e-10, **SETTINGS[method]}
    )
    b = batch(t, samples=3)
    drive = t.system.drive(b.x)
    free = find(FreeEquations(t.system, drive), t.settings)
    found = find(controlled(t, b), t.settings)
    assert bool(free.converged.all())
    assert bool(found.converged.all())
    assert found.method == ("anderson" if method == "auto" else method)
    twin = Twin(small)
    for i in range(3):
        x, target = b.x[:, i].numpy(), b.target[:, i].numpy()
        assert free.fields.phi[:, i].numpy() == pytest.approx(twin.free(x), abs=1e-8)
        state = twin.controlled_root(x, cross_entropy(target), 1.0)
        assert found.state[:, i].numpy() == pytest.approx(state, abs=1e-8)


@pytest.mark.parametrize("method", ["fixed_point", "anderson", "euler"])
@pytest.mark.parametrize("pathway", ["random", "linear"])
def test_methods_agree_under_other_pathways(method: str, pathway: str) -> None:
    def make(system):
        if pathway == "linear":
            return LinearFeedback.random(system, 1, 0.3)
        return DynamicInversion(RandomFeedback(system, 1, 0.3))

    t = task(slow_circuit(), controller=leaky_integral(1.0, 8.0), pathway=make, tolerance=1e-10)
    b = batch(t, samples=3)
    equations = controlled(t, b)
    settings = replace(t.settings, method=method, **SETTINGS[method])
    found, reference = find(equations, settings), find(equations, t.settings)
    assert bool(found.converged.all())
    assert bool(reference.converged.all())
    assert torch.allclose(found.state, reference.state, atol=1e-8)


def trajectory(equations: Equations, dt: float, duration: float) -> np.ndarray:
    run, no = Euler(1e-9, 1, dt).begin(equations, equations.start()), torch.tensor([False])
    for _ in range(round(duration / dt)):
        run.judge()
        run.advance(no, no)
    return equations.close_algebraic(run.state)[:, 0].numpy()


def check_trajectory(equations: Equations, right_hand_side, duration: float) -> None:
    """First order in dt: halving it halves the error at an instant of the transient."""
    start = equations.start()[:, 0].numpy()
    exact = solve_ivp(right_hand_side, (0, duration), start, rtol=1e-10, atol=1e-12).y[:, -1]
    wrong = [np.abs(trajectory(equations, dt, duration) - exact).max() for dt in (0.1, 0.05)]
    assert wrong[0] < 0.02
    assert wrong[0] / wrong[1] == pytest.approx(2, abs=0.15)
    assert np.abs(exact - start).max() > 0.2, "it moved"


def test_euler_follows_the_free_dynamics() -> None:
    """tau dphi/dt = f(phi) with every population's own tau."""
    small = slow_circuit()
    t, twin = task(small), Twin(small)
    b = batch(t, samples=1)
    x = b.x[:, 0].numpy()
    equations = FreeEquations(t.system, t.system.drive(b.x))
    assert len(set(twin.tau)) == 3
    check_trajectory(equations, lambda _, phi: twin.f(phi, x) / twin.tau, 12.0)


def test_euler_follows_the_controlled_dynamics() -> None:
    """tau dphi/dt = f + psi, tau dpsi/dt = -psi + sigma' W^T psi + D^T u, tau_u du/dt = -dL/dy - alpha u."""
    small = slow_circuit()
    t, twin = task(small, controller=leaky_integral(0.3, 25.0)), Twin(small)
    b = batch(t, samples=1)
    x, gradient = b.x[:, 0].numpy(), cross_entropy(b.target[:, 0].numpy())
    tau = np.concatenate([twin.tau, twin.tau, np.full(twin.k, 25.0)])
    equations = controlled(t, b)
    check_trajectory(equations, lambda _, s: twin.controlled_equations(s, x, gradient, 0.3) / tau, 30.0)


def test_euler_follows_linear_feedback() -> None:
    small = slow_circuit()
    t = task(small, controller=leaky_integral(0.3, 25.0), pathway=lambda s: LinearFeedback.random(s, 1, 0.5))
    twin, b = Twin(small), batch(t, samples=1)
    x, gradient = b.x[:, 0].numpy(), cross_entropy(b.target[:, 0].numpy())
    q = t.pathway.q.numpy()  # type: ignore[attr-defined]
    tau = np.concatenate([twin.tau, np.full(twin.k, 25.0)])

    def right(_, state: np.ndarray) -> np.ndarray:
        phi, u = state[: twin.n], state[twin.n :]
        return np.concatenate([twin.f(phi, x) + q @ u, -gradient(phi[-twin.k :]) - 0.3 * u]) / tau

    check_trajectory(controlled(t, b), right, 30.0)


def test_a_proportional_controller_follows_at_once() -> None:
    """u = -beta dL/dy at every moment; phi and psi move with their own time constants."""
    small = slow_circuit()
    t, twin = task(small, controller=proportional(0.5)), Twin(small)
    b = batch(t, samples=1)
    x, gradient = b.x[:, 0].numpy(), cross_entropy(b.target[:, 0].numpy())
    n, tau = twin.n, np.concatenate([twin.tau, twin.tau])
    equations = controlled(t, b)

    def right(_, state: np.ndarray) -> np.ndarray:
        u = -0.5 * gradient(state[n - twin.k : n])
        return twin.controlled_equations(np.concatenate([state, u]), x, gradient, 2.0)[: 2 * n] / tau

    start = equations.start()[: 2 * n, 0].numpy()
    exact = solve_ivp(right, (0, 30.0), start, rtol=1e-10, atol=1e-12).y[:, -1]
    wrong = [np.abs(trajectory(equations, dt, 30.0)[: 2 * n] - exact).max() for dt in (0.1, 0.05)]
    assert wrong[0] < 0.02
    assert wrong[0] / wrong[1] == pytest.approx(2, abs=0.15)
    state = trajectory(equations, 0.1, 30.0)
    assert state[2 * n :] == pytest.approx(-0.5 * gradient(state[n - twin.k : n]), abs=1e-12)


def linear_ring(units: int) -> Circuit:
    rng = np.random.default_rng(0)
    pops = [
        population("x", "input", 3, activation="linear"),
        population("h", "unit", units, activation="linear"),
        population("y", "output", 1),
    ]
    w = sparse(rng, units, units, 1.1, 0.5)
    projs = [
        projection("x_h", "x", "h", sparse(rng, units, 3, 1.1, 1.0)),
        projection("h_h", "h", "h", w),
        projection("h_y", "h", "y", edges([0], [0], [0.0])),
    ]
    return circuit(pops, projs)


@pytest.mark.parametrize("units", [2, 3, 5])
def test_anderson_solves_a_linear_problem_in_as_many_steps_as_it_has_dimensions(units: int) -> None:
    """On linear equations the mix of m differences is GMRES's: exact after `units` differences (Walker and Ni 2011).

    The y unit stays at zero, so units + 1 evaluations fill the history and one more sees the exact solution.
    """
    t = task(linear_ring(units))
    b = batch(t, samples=6)
    equations = FreeEquations(t.system, t.system.drive(b.x))
    found = solve(equations, Anderson(1e-9, 50, depth=units))
    assert bool(found.converged.all())
    assert int(found.iterations.max()) <= units + 3
    plain = solve(equations, FixedPoint(1e-9, 500))
    assert int(plain.iterations.min()) > units + 3
    with_less = solve(equations, Anderson(1e-9, 50, depth=1))
    assert int(with_less.iterations.max()) > int(found.iterations.max()) or units == 2


def test_damping_of_the_fixed_point_iteration() -> None:
    """next = state + damping (G(state) - state): on phi = w phi + x the error shrinks by 1 - damping (1 - w)."""
    small = circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 1, activation="linear"),
            population("y", "output", 1),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [1.0])),
            projection("h_h", "h", "h", edges([0], [0], [-1.5])),
            projection("h_y", "h", "y", edges([0], [0], [1.0])),
        ],
    )
    t = task(small)
    equations = FreeEquations(t.system, t.system.drive(torch.ones(1, 1, dtype=torch.float64)))
    assert not bool(solve(equations, FixedPoint(1e-9, 200)).converged.any())
    solver = FixedPoint(1e-9, 200, damping=0.5)
    no = torch.tensor([False])
    run = solver.begin(equations, torch.zeros_like(equations.start()))
    for count in range(1, 5):
        run.judge()
        run.advance(no, no)
        assert float(run.state[0] - 0.4) == pytest.approx(-0.4 * (1 - 0.5 * 2.5) ** count)
    found = solve(equations, solver)
    assert float(found.fields.phi[0]) == pytest.approx(0.4, abs=1e-8)


def test_order_of_attempts() -> None:
    t = task(random_circuit(0))
    b = batch(t)
    equations = controlled(t, b)

    def names(problem: Equations, **settings) -> list[str]:
        return [s.name for s in attempts(problem, SolveSettings(**settings), torch.float64)]

    assert names(equations) == ["anderson", "levenberg", "anderson"]
    acyclic = task(
        circuit(
            [population("x", "input", 2, activation="linear"), population("y", "output", 2)],
            [projection("x_y", "x", "y", edges([0, 1], [0, 1], [1.0, 1.0]))],
        )
    )
    free = FreeEquations(acyclic.system, acyclic.system.drive(torch.ones(2, 1, dtype=torch.float64)))
    assert names(free) == ["fixed_point"]
    for method in METHODS[1:]:
        assert names(equations, method=method) == [method]
    (euler,) = attempts(equations, SolveSettings(method="euler", dt_ms=2.0, max_time_ms=50.0), torch.float64)
    assert euler.max_iterations == 25
    assert euler.tolerance == 1e-6
    assert SolveSettings().at(torch.float32) == 1e-5


def test_levenberg_never_climbs() -> None:
    """From anywhere, strongly recurrent and strongly controlled: every step lowers the energy (to rounding)."""
    t = task(random_circuit(1, gain=1.5), controller=leaky_integral(0.05, 10.0))
    equations, solver = controlled(t, batch(t, 6)), Levenberg(1e-10, 100)
    energy = equations.energy()
    assert energy is not None
    state = 4 * torch.randn(
        equations.start().shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    run, soma = solver.begin(equations, state), equations.blocks["soma"]
    quiet = torch.zeros(6, dtype=torch.bool)
    values = [energy.value(state[soma])]
    for _ in range(12):
        run.judge()
        run.advance(quiet, quiet)
        values.append(energy.value(run.state[soma]))
        assert (values[-1] <= values[-2] * (1 + 1e-12)).all()
    assert (values[-1] < 0.5 * values[0]).all()


def test_every_sample_keeps_its_own_damping() -> None:
    """Levenberg's mu, of samples that stay when others leave."""
    t = task(random_circuit(0))
    run = Levenberg(1e-8, 10).begin(equations := controlled(t, batch(t, 5)), equations.start())
    run.mu = torch.arange(5.0)
    run.select(torch.tensor([1, 4]))
    assert run.mu.tolist() == [1, 4]


@pytest.mark.parametrize("method", ["levenberg", "lbfgs"])
def test_a_descent_refuses_equations_without_an_energy(method: str) -> None:
    t = task(random_circuit(0), pathway=lambda s: LinearFeedback.random(s, 1), method=method)
    b = batch(t)
    with pytest.raises(CircuitError, match=rf"solve\.method: {method} descends an energy"):
        find(controlled(t, b), t.settings)
