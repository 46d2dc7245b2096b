"""The descent by L-BFGS: against scipy's minimiser, at kinks, sample by sample, and its guess of the curvature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from circuitlab.control.augmented_energy import AugmentedEnergy
from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import Feedback
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.output import OutputController, integral, leaky_integral
from circuitlab.dynamics.cascade import Cascade
from circuitlab.dynamics.equations import Equations
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.base import solve
from circuitlab.solve.lbfgs import Lbfgs, Minimisation
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.equations import chain, dense, forward
from tests.oracles.tasks import batch, task


def problem(
    small: Circuit, controller: OutputController, samples: int = 4, loss: str = "cross_entropy"
) -> tuple[Task, Batch, Equations]:
    t = task(
        small,
        losses=(loss,),
        controller=controller,
        pathway=lambda s: EnergyBased(Feedback()),
        tolerance=1e-10,
    )
    b = batch(t, samples)
    drive = t.system.drive(b.x)
    phi = t.free(drive).fields.phi
    return t, b, t.pathway.equations(Controlled(t.system, drive, b.target, t.loss, t.controller, phi))


@pytest.mark.parametrize(
    "small",
    [random_circuit(0), dense(40, 0.7), chain(back=True), forward(later=True)],
    ids=["recurrent", "dense", "back", "past"],
)
def test_it_finds_the_minimum_that_scipy_finds(small: Circuit) -> None:
    t, b, equations = problem(small, leaky_integral(0.2, 1.0))
    found = solve(equations, Lbfgs(1e-9, 500))
    assert bool(found.converged.all())
    twin = Twin(small)
    start = equations.start()
    for i in range(4):

        def value(phi: np.ndarray, i: int = i) -> float:
            f, y = twin.f(phi, b.x[:, i].numpy()), torch.as_tensor(phi[-twin.k :, None])
            return 0.5 * f @ f + float(t.loss.value(y, b.target[:, i : i + 1])) / 0.2

        def slope(phi: np.ndarray, i: int = i) -> np.ndarray:
            f, y = twin.f(phi, b.x[:, i].numpy()), torch.as_tensor(phi[-twin.k :, None])
            error = t.loss.gradient(y, b.target[:, i : i + 1])[:, 0].numpy()
            return twin.jacobian(phi).T @ f + twin.d.T @ error / 0.2

        least = minimize(
            value, start[: twin.n, i].numpy(), jac=slope, method="L-BFGS-B", options={"ftol": 1e-15}
        )
        assert found.fields.phi[:, i].numpy() == pytest.approx(least.x, abs=2e-4)
        assert value(found.fields.phi[:, i].numpy()) <= least.fun + 1e-12


@pytest.mark.parametrize("controller", [leaky_integral(0.05, 1.0), integral(1.0)], ids=["leak", "clamped"])
def test_no_accepted_step_raises_the_energy(controller: OutputController) -> None:
    """A strongly recurrent circuit from a far start: the energy of every sample falls from step to step."""
    *_, equations = problem(random_circuit(1, gain=2.0), controller, 16, "squared_error")
    torch.manual_seed(0)
    state = 3 * torch.randn_like(equations.start())
    run = Lbfgs(1e-9, 200).begin(equations, state)
    everything = torch.ones(16, dtype=torch.bool)
    before = torch.full((16,), torch.inf, dtype=torch.float64)
    for _ in range(150):
        run.judge()
        run.advance(everything, ~everything)
        assert (run.value <= before + 1e-12).all()
        before = run.value.clone()
    assert float((run.norms[0, 0] / run.norms[0, 1]).sqrt().max()) < 1e-6


def test_samples_do_not_disturb_each_other() -> None:
    """Each sample's way is its own, whoever else is in the batch and whoever has left it."""
    *_, equations = problem(random_circuit(0, activation="relu"), leaky_integral(0.1, 1.0), 12)
    whole = solve(equations, Lbfgs(1e-9, 500))
    for i in (0, 5, 11):
        alone = solve(equations.select(torch.tensor([i])), Lbfgs(1e-9, 500))
        assert abs(int(alone.iterations) - int(whole.iterations[i])) <= 2  # sums in another order
        assert torch.allclose(alone.state[:, 0], whole.state[:, i], atol=1e-7)


def kinked(weight: float, bias: float) -> Circuit:
    """x -> h (relu, with a bias) -> y."""
    return circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 1, activation="relu", bias=np.array([bias])),
            population("y", "output", 1),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [0.0])),
            projection("h_y", "h", "y", edges([0], [0], [weight])),
        ],
    )


@pytest.mark.parametrize(
    ("bias", "target", "phi"),
    [
        (0.3, -2.0, 0.0),  # pushed down to the kink, and held there: psi = -bias
        (
            0.3,
            0.2,
            (0.3 + 0.2 / 1.5) / (1 + 1 / 1.5),
        ),  # stays above: phi - bias + (phi - target) / (1 + alpha) = 0
        (-0.3, -1.0, -0.3),  # stays silent, where nothing reaches the output
    ],
)
def test_one_neuron_at_its_kink_by_hand(bias: float, target: float, phi: float) -> None:
    """E(phi) = 1/2 (phi - bias)^2 + (relu(phi) - target)^2 / (2 (1 + alpha)), outputs eliminated, alpha 0.5."""
    _, b, equations = problem(kinked(1.0, bias), leaky_integral(0.5, 1.0), 1, "squared_error")
    b.target[:] = target
    found = solve(equations, Lbfgs(1e-10, 100))
    assert bool(found.converged.all())
    assert float(found.fields.phi[0, 0]) == pytest.approx(phi, abs=1e-9)
    assert float(found.fields.psi[0, 0]) == pytest.approx(phi - bias, abs=1e-9)
    assert int(found.kinks) == int(phi == 0)
    if phi == 0:
        assert float(found.fields.phi[0, 0]) == 0.0


def test_the_curvature_of_layers_is_guessed_exactly() -> None:
    """(I - P)^-1 (I - P)^-T by numpy, of the upstream projections: all of an acyclic circuit, some of a chain."""
    for small in (forward(later=True), chain(), dense(10)):
        t = task(small)
        system, twin = t.system, Twin(small)
        rng = np.random.default_rng(0)
        phi, change = rng.standard_normal((2, twin.n, 3))
        found = Cascade(system, system.size).solve(torch.as_tensor(phi), torch.as_tensor(change)).numpy()  # type: ignore[arg-type]
        upstream = np.zeros_like(twin.w)
        loops = [set(group) for group in small.strongly_connected()]
        for p in small.projections.values():
            inside = any(p.source in group and p.target in group for group in loops)
            if p.source in twin.rows and not inside:
                rows, columns = twin.rows[p.target], twin.rows[p.source]
                upstream[rows, columns] = twin.w[rows, columns]
        for i in range(3):
            back = np.eye(twin.n) - upstream * twin.slope(phi[:, i])
            exact = np.linalg.solve(back, np.linalg.solve(back.T, change[:, i]))
            assert found[:, i] == pytest.approx(exact, abs=1e-12)


def test_products_are_those_that_are_taken() -> None:
    """Two for each evaluation, two more of the upstream projections for each direction, two to judge, one for psi."""
    for small in (forward(), dense(20)):
        t, _, equations = problem(small, leaky_integral(1.0, 1.0))
        taken = dict.fromkeys(small.projections, 0)
        for link in t.system.compiled.recurrent:  # type: ignore[attr-defined]
            for name in ("add_product", "add_transposed"):
                real = getattr(link.kernel, name)

                def counted(*args, real=real, link=link, taken=taken):
                    taken[link.projection.name] += args[0].shape[1]
                    real(*args)

                setattr(link.kernel, name, counted)
        found = solve(equations.select(torch.tensor([0])), Lbfgs(1e-9, 500))
        synapses = sum(taken[name] * len(p.edges) for name, p in small.projections.items())
        total = sum(len(p.edges) for p in small.projections.values() if p.source != "x")
        assert float(found.products[0]) == pytest.approx(synapses / total, rel=0.15)


def test_who_leaves_takes_nothing_along() -> None:
    *_, equations = problem(random_circuit(0, activation="relu"), leaky_integral(0.5, 1.0), 5)
    run = Lbfgs(1e-9, 50).begin(equations, equations.start())
    assert isinstance(run, Minimisation)
    everything = torch.ones(5, dtype=torch.bool)
    for _ in range(4):
        run.judge()
        run.advance(everything, ~everything)
    at, length = run.phi.clone(), run.length.clone()
    run.select(torch.tensor([1, 4]))
    assert torch.equal(run.phi, at[:, [1, 4]])
    assert torch.equal(run.length, length[[1, 4]])
    assert run.steps.shape[2] == 2
    run.judge()
    run.advance(torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool))
    assert isinstance(run.energy, AugmentedEnergy)
    assert len(run.energy.batch.target[0]) == 2


def test_a_state_that_is_not_finite_is_stepped_back_from() -> None:
    """A first step a million times too long: the search shortens it until the energy falls."""
    *_, equations = problem(dense(20, 0.9), leaky_integral(1.0, 1.0))
    usual = solve(equations, Lbfgs(1e-9, 500))
    found = solve(equations, replace(Lbfgs(1e-9, 500), damping=1e6))
    assert bool(found.converged.all())
    assert torch.allclose(found.fields.psi, usual.fields.psi, atol=1e-7)
