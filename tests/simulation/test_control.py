"""A circuit under control in real time: scipy on the equations written out, and at rest the solvers' equilibria."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral, proportional, proportional_integral
from circuitlab.control.realtime import RealTime
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.dynamics.noise import OrnsteinUhlenbeck, generator
from circuitlab.learn.base import Task
from circuitlab.simulation.noise import Source
from circuitlab.solve.choose import SolveSettings
from tests.oracles.circuits import random_circuit, shifted, with_junctions
from tests.oracles.in_time import InTime
from tests.oracles.numpy_check import SLOPE
from tests.simulation.conftest import simulator, trace, tuned

CONTROLLERS = {
    "leaky_integral": leaky_integral(0.5, 30.0),
    "integral": integral(30.0),
    "proportional": proportional(0.8),
    "pi": proportional_integral(0.5, 0.4, 30.0),
}
SLOW = {
    "leaky_integral": leaky_integral(1.0, 100.0),
    "proportional": proportional(0.8),
    "pi": proportional_integral(1.0, 0.4, 100.0),
}
"""With those above, the controlled equilibrium of one of these circuits is unstable in time."""
WAYS = {
    "dynamic_inversion": lambda system: DynamicInversion(Feedback()),
    "linear_feedback": lambda system: LinearFeedback.jacobian(system),
}


def problem(cells: bool = False):
    made, rng = tuned(random_circuit(), e=8.0, i=5.0, y0=6.0), np.random.default_rng(5)
    if cells:
        made = with_junctions(shifted(made), [("e", "e"), ("e", "i")])
    return made, rng.standard_normal(4), rng.standard_normal(3)


@pytest.mark.parametrize("cells", [False, True], ids=["plain", "gains, thresholds, gap junctions"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONTROLLERS)
def test_the_transient_under_control(way: str, name: str, cells: bool) -> None:
    """tau dpsi/dt = -psi + sigma'(phi) W^T psi + L psi + D^T u, or psi = Q u; u by each controller in its own words."""
    made, x, target = problem(cells)
    controller = CONTROLLERS[name]
    run = simulator(made, x[None, None], 0.1, way=WAYS[way], controller=controller, target=target[:, None])
    found = trace(run, 400, every=100)[:, 0]
    model = InTime(made)
    n, y, w = model.size, model.output, model.w[0.0]
    q = LinearFeedback.jacobian(CircuitSystem(CompiledCircuit(made, torch.float64))).q.numpy()

    def slope(t, z, past, within):
        phi, psi, held = z[:n], z[n : 2 * n], z[2 * n :]
        error = target - phi[y]
        u = {
            "leaky_integral": held,
            "integral": held,
            "proportional": 0.8 * error,
            "pi": held + 0.4 * error,
        }[name]
        leak = {"leaky_integral": 0.5, "integral": 0.0, "proportional": 0.0, "pi": 0.5}[name]
        if way == "linear_feedback":
            psi = q @ u
        pull = model.each(SLOPE, phi) * (w.T @ psi) - psi
        pull += model.junctions @ psi - model.junctions.sum(1) * psi
        pull[y] += u
        prediction = model.prediction(t, lambda s: phi, lambda s: x, within)
        return np.concatenate(
            [(prediction - phi + psi) / model.tau, pull / model.tau, (error - leak * held) / 30.0]
        )

    exact = model.solve(slope, np.zeros(2 * n + 3), np.arange(0, 41.0, 10.0), step=None)[:, :n]
    assert np.abs(exact[-1, y] - target).max() < np.abs(target).max()
    assert np.abs(found - exact).max() < 1e-8


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SLOW)
def test_its_resting_state_is_the_controlled_equilibrium(way: str, name: str, loss: str) -> None:
    made, x, target = problem()
    target = np.eye(3)[1] if loss == "cross_entropy" else target
    controller = SLOW[name]
    run = simulator(
        made,
        x[None, None],
        2.0,
        way=WAYS[way],
        controller=controller,
        target=target[:, None],
        loss=loss,
    )
    for _ in run.run(1500):
        pass
    assert float(run.speed().max()) < 1e-11
    system = CircuitSystem(CompiledCircuit(made, torch.float64))
    losses = OutputLoss([(LOSSES[loss], slice(0, 3))])
    settings = SolveSettings(tolerance=1e-12, thorough=True, max_iterations=2000)
    task = Task(system, losses, WAYS[way](system), controller, settings)
    drive = system.drive(torch.as_tensor(x[:, None]))
    solved = task.controlled(drive, torch.as_tensor(target[:, None]), task.free(drive))
    assert solved.converged.all()
    for found, expected in zip(
        (run.fields.phi, run.fields.psi, run.fields.u),
        (solved.fields.phi, solved.fields.psi, solved.fields.u),
        strict=True,
    ):
        assert float((found - expected).abs().max()) < 1e-8


@pytest.mark.parametrize("name", ["leaky_integral", "proportional", "pi"])
def test_it_is_the_real_time_of_learning(name: str) -> None:
    """Forward Euler with noise: the same numbers as the loop that learns direct feedback."""
    made, x, target = problem()
    controller, dt, steps = CONTROLLERS[name], 0.5, 60
    compiled = CompiledCircuit(made, torch.float64)
    system = CircuitSystem(compiled)
    way = LinearFeedback.jacobian(system)
    zeros = torch.zeros(system.size, 1, dtype=torch.float64)
    losses = OutputLoss([(LOSSES["squared_error"], slice(0, 3))])
    drive = system.drive(torch.as_tensor(x[:, None]))
    batch = Controlled(system, drive, torch.as_tensor(target[:, None]), losses, controller, zeros)
    theirs = RealTime(way, batch, None, dt)
    eps, own = (
        OrnsteinUhlenbeck(zeros, 5.0, dt, generator(3, "both", 0, torch.device("cpu"))) for _ in range(2)
    )
    run = simulator(
        made,
        x[None, None],
        dt,
        "euler",
        way=lambda _: way,
        controller=controller,
        target=target[:, None],
        noise=[Source(slice(0, system.size), 0.3, own)],
    )
    for _ in range(steps):
        theirs.look()
        theirs.advance(eps.value, 0.3)
        eps.step()
        run.advance()
    assert float((run.fields.phi - theirs.phi).abs().max()) < 1e-12
    assert float((run.fields.u - theirs.u).abs().max()) < 1e-12
