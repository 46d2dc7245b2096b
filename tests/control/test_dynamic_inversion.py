"""Dynamic inversion against scipy: descent of its energy, constrained minimisation, roots of the written equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, root

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import (
    ApicalFeedback,
    DynamicInversion,
    RandomFeedback,
    feedback,
)
from circuitlab.control.output import integral, leaky_integral, proportional
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin, cross_entropy, squared_error
from tests.oracles.tasks import batch, task

CIRCUITS = {
    "recurrent": dict(seed=0),
    "sparse": dict(seed=2, p=0.3, hidden=9),
    "Dale's law": dict(seed=3, dale=True),
    "sigmoid": dict(seed=6, activation="sigmoid"),
}
every_circuit = pytest.mark.parametrize("options", CIRCUITS.values(), ids=CIRCUITS)


def with_burst(small: Circuit, weights=None, seed: int = 0) -> Circuit:
    """The circuit with a burst projection y -> e, i -> e and e -> e of random weights, or of those given by name."""
    rng = np.random.default_rng(seed)
    projs = list(small.projections.values())
    sizes = {"y0": small.populations["y0"].size, "i": 4, "e": small.populations["e"].size}
    for source, n in sizes.items():
        e = sparse(rng, sizes["e"], n, 0.7, 0.5) if weights is None else weights[source]
        projs.append(projection(f"{source}_e_burst", source, "e", e, site="apical", carries="burst"))
    return circuit(list(small.populations.values()), projs)


def outcome(small: Circuit, alpha: float, losses=("cross_entropy",), pathway=None, **settings):
    controller = leaky_integral(alpha, 100.0) if alpha else integral(100.0)
    t = task(small, losses=losses, controller=controller, pathway=pathway, **settings)
    b = batch(t, samples=3)
    found = LeastControl().outcome(t, b)
    assert bool(found.credit.converged.all())
    return found, b.x.numpy(), b.target.numpy(), t


@every_circuit
@pytest.mark.parametrize("alpha", [1.0, 0.1])
def test_tied_feedback_descends_the_energy_as_scipy_does(options: dict, alpha: float) -> None:
    """The controlled state is the minimum of 1/2 |f|^2 + L/alpha that descent from the free state finds (sec. 2.4)."""
    small = random_circuit(**options)
    found, x, target, _ = outcome(small, alpha)
    twin, fields = Twin(small), found.credit.fields
    for i in range(3):
        gradient = cross_entropy(target[:, i])

        def value(phi: np.ndarray, i: int = i) -> float:
            f, y = twin.f(phi, x[:, i]), phi[-twin.k :]
            return 0.5 * f @ f + (np.logaddexp.reduce(y) - target[:, i] @ y) / alpha

        def slope(phi: np.ndarray, i: int = i, gradient=gradient) -> np.ndarray:
            return twin.jacobian(phi).T @ twin.f(phi, x[:, i]) + twin.d.T @ gradient(phi[-twin.k :]) / alpha

        least = minimize(value, twin.free(x[:, i]), jac=slope, method="BFGS", options={"gtol": 1e-8})
        phi = root(slope, least.x, tol=1e-13).x
        assert value(phi) == pytest.approx(least.fun, abs=1e-8)
        assert fields.phi[:, i].numpy() == pytest.approx(phi, abs=1e-7)
        assert fields.psi[:, i].numpy() == pytest.approx(-twin.f(phi, x[:, i]), abs=1e-7)
        assert fields.u[:, i].numpy() == pytest.approx(-gradient(phi[-twin.k :]) / alpha, abs=1e-7)


@every_circuit
def test_without_leak_control_is_the_least_that_reaches_the_target(options: dict) -> None:
    """alpha = 0: scipy's SLSQP on min 1/2 |psi|^2 subject to f(phi) + psi = 0 and y = target (eq. 3)."""
    small = random_circuit(**options)
    found, x, target, _ = outcome(small, 0.0, losses=("squared_error",))
    twin, fields = Twin(small), found.credit.fields
    for i in range(3):
        xi = x[:, i]
        least = minimize(
            lambda phi, xi=xi: 0.5 * float(np.sum(twin.f(phi, xi) ** 2)),
            twin.free(xi),
            jac=lambda phi, xi=xi: twin.jacobian(phi).T @ twin.f(phi, xi),
            constraints={
                "type": "eq",
                "fun": lambda phi, i=i: phi[-twin.k :] - target[:, i],
                "jac": lambda phi: twin.d,
            },
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        assert fields.phi[-twin.k :, i].numpy() == pytest.approx(target[:, i], abs=1e-9)
        assert float(found.control_cost[i]) == pytest.approx(least.fun, abs=1e-8)
        assert fields.phi[:, i].numpy() == pytest.approx(least.x, abs=1e-5)
        assert fields.psi[:, i].numpy() == pytest.approx(-twin.f(least.x, xi), abs=1e-5)


def check_root(
    small: Circuit, s: np.ndarray | None, found, x: np.ndarray, target: np.ndarray, alpha: float
) -> None:
    """phi, psi and u are the root of the written equations with feedback S that scipy finds from the free state."""
    twin, fields = Twin(small), found.credit.fields
    for i in range(x.shape[1]):
        state = twin.controlled_root(x[:, i], cross_entropy(target[:, i]), alpha, s)
        n = twin.n
        assert fields.phi[:, i].numpy() == pytest.approx(state[:n], abs=1e-8)
        assert fields.psi[:, i].numpy() == pytest.approx(state[n : 2 * n], abs=1e-8)
        assert fields.u[:, i].numpy() == pytest.approx(state[2 * n :], abs=1e-8)


@every_circuit
def test_random_feedback_solves_its_equations(options: dict) -> None:
    small = random_circuit(**options)
    pathways = []

    def pathway(system):
        pathways.append(DynamicInversion(RandomFeedback(system, seed=5, scale=0.5)))
        return pathways[0]

    found, x, target, _ = outcome(small, 1.0, pathway=pathway)
    twin = Twin(small)
    s = np.zeros((twin.n, twin.n))
    weights = pathways[0].feedback_weights()
    assert set(weights) == {f"S/{name}" for name, p in small.projections.items() if p.source != "x"}
    for name, p in small.projections.items():
        if p.source != "x":  # the transposed synapses: from the projection's target back to its source
            rows = twin.rows[p.source].start + p.edges.source
            columns = twin.rows[p.target].start + p.edges.target
            np.add.at(s, (rows, columns), weights[f"S/{name}"].numpy())
    assert np.abs(s - twin.w.T).max() > 0.1
    check_root(small, s, found, x, target, 1.0)


@every_circuit
def test_apical_feedback_solves_its_equations(options: dict) -> None:
    """S is made of the burst-coded projections alone, and these are no part of f."""
    small = with_burst(random_circuit(**options))
    found, x, target, _ = outcome(small, 1.0, pathway=lambda s: DynamicInversion(ApicalFeedback(s)))
    twin = Twin(small)
    assert np.abs(twin.s).max() > 0
    check_root(small, twin.s, found, x, target, 1.0)


@every_circuit
def test_tied_feedback_solves_its_equations_and_bursts_are_idle(options: dict) -> None:
    small = with_burst(random_circuit(**options))
    found, x, target, _ = outcome(small, 1.0)
    check_root(small, None, found, x, target, 1.0)


def test_bursts_that_transpose_the_circuit_equal_tied_feedback() -> None:
    """Every rate projection among units mirrored by a burst projection with its transposed weights onto e and i."""
    small = random_circuit(0)
    pops = [replace(p, type="pyramidal") if p.name == "i" else p for p in small.populations.values()]
    projs = list(small.projections.values())
    for p in small.projections.values():
        if p.source != "x":
            back = edges(p.edges.target, p.edges.source, p.edges.weight)
            projs.append(
                projection(f"{p.name}_back", p.target, p.source, back, site="apical", carries="burst")
            )
    mirrored = circuit(pops, projs)
    twin = Twin(mirrored)
    assert np.array_equal(twin.s, twin.w.T)
    tied, *_ = outcome(mirrored, 1.0)
    apical, *_ = outcome(mirrored, 1.0, pathway=lambda s: DynamicInversion(ApicalFeedback(s)))
    assert torch.allclose(tied.credit.state, apical.credit.state, atol=1e-9)


@every_circuit
@pytest.mark.parametrize("feedback", ["tied", "random"])
def test_uncontrolled_populations_have_no_control(options: dict, feedback: str) -> None:
    small = random_circuit(**options)
    pops = [replace(p, controlled=p.type != "interneuron") for p in small.populations.values()]
    small = circuit(pops, list(small.projections.values()))
    twin = Twin(small)
    pathways = []

    def pathway(system):
        kinds = {"tied": lambda: None, "random": lambda: RandomFeedback(system, seed=5, scale=0.5)}
        made = kinds[feedback]()
        pathways.append(DynamicInversion(made) if made else task(small).pathway)
        return pathways[0]

    found, x, target, _ = outcome(small, 1.0, pathway=pathway)
    assert (found.credit.fields.psi[twin.rows["i"]] == 0).all()
    s = twin.w.T
    if feedback == "random":
        s = np.zeros_like(twin.w)
        for name, values in pathways[0].feedback_weights().items():
            p = small.projections[name.removeprefix("S/")]
            rows = twin.rows[p.source].start + p.edges.source
            np.add.at(s, (rows, twin.rows[p.target].start + p.edges.target), values.numpy())
    check_root(small, s, found, x, target, 1.0)


def test_every_output_controller_with_one_leak_rests_at_the_same_state() -> None:
    """tau_u changes the way, not the place; a proportional controller of 1/alpha rests there too."""
    t = task(random_circuit(0), controller=leaky_integral(0.5, 100.0))
    b = batch(t)
    first = LeastControl().outcome(t, b).credit.state
    for controller in (leaky_integral(0.5, 3.0), proportional(2.0)):
        other = LeastControl().outcome(replace(t, controller=controller), b).credit.state
        assert torch.allclose(first, other, atol=1e-10)


def test_random_feedback_keeps_dales_law_and_its_range() -> None:
    """Weights within scale / sqrt(mean outdegree), of W^T's sign where the source obeys Dale's law, own streams."""
    small = random_circuit(0, dale=True, p=0.5, hidden=20)
    system = CircuitSystem(CompiledCircuit(small, torch.float64))
    first, twice = RandomFeedback(system, 1), RandomFeedback(system, 1, scale=2.0)
    other = RandomFeedback(system, 2)
    for name, values in first.weights().items():
        p = small.projections[name]
        sign = {"e": 1, "i": -1}[p.source]
        assert (sign * values >= 0).all()
        bound = (len(p.edges) / small.populations[p.source].size) ** -0.5
        assert float(values.abs().max()) <= min(bound, 1.0) * (1 + 1e-12)
        assert float(values.abs().max()) > 0.5 * min(bound, 1.0)
        assert torch.allclose(twice.weights()[name], 2 * values)
        assert not torch.allclose(other.weights()[name], values)
    unsigned = CircuitSystem(CompiledCircuit(random_circuit(0, p=0.5, hidden=20), torch.float64))
    values = RandomFeedback(unsigned, 1).weights()["e_e"]
    assert (values > 0).any()
    assert (values < 0).any()


def test_refusals() -> None:
    small = random_circuit(0)
    system = CircuitSystem(CompiledCircuit(small, torch.float64))
    with pytest.raises(
        CircuitError, match=r"control\.feedback: apical needs projections with `carries: burst`"
    ):
        feedback("apical", system, 0, {})
    with pytest.raises(
        CircuitError,
        match="there is no feedback 'tide' among units; allowed: tied, random, kolen_pollack, apical",
    ):
        feedback("tide", system, 0, {})
    pops = [replace(p, controlled=p.type != "output") for p in small.populations.values()]
    t = task(circuit(pops, list(small.projections.values())))
    b = batch(t)
    drive = t.system.drive(b.x)
    problem = Controlled(t.system, drive, b.target, t.loss, t.controller, torch.zeros_like(drive))
    with pytest.raises(CircuitError, match="an output population cannot be `controlled: false`"):
        t.pathway.equations(problem)


def test_squared_error_of_two_outputs_by_root() -> None:
    small = random_circuit(4, outputs=(3, 2))
    found, x, target, _ = outcome(small, 0.5, losses=("squared_error",))
    twin = Twin(small)
    for i in range(3):
        state = twin.controlled_root(x[:, i], squared_error(target[:, i]), 0.5)
        assert found.credit.state[:, i].numpy() == pytest.approx(state, abs=1e-8)


def test_a_circuit_of_hidden_linear_units_in_closed_form() -> None:
    """f linear: minimise 1/2 |A phi - c|^2 + |D phi - t|^2 / (2 alpha) by the normal equations."""
    rng = np.random.default_rng(2)
    pops = [
        population("x", "input", 3, activation="linear"),
        population("h", "unit", 5, activation="linear", bias=rng.standard_normal(5)),
        population("y", "output", 2),
    ]
    projs = [
        projection("x_h", "x", "h", sparse(rng, 5, 3, 0.9, 1.0)),
        projection("h_h", "h", "h", sparse(rng, 5, 5, 0.9, 0.4)),
        projection("h_y", "h", "y", sparse(rng, 2, 5, 0.9, 1.0)),
    ]
    small = circuit(pops, projs)
    found, x, target, _ = outcome(small, 0.2, losses=("squared_error",))
    twin = Twin(small)
    a = np.eye(7) - twin.w
    c = twin.u_in @ x + twin.b[:, None]
    phi = np.linalg.solve(a.T @ a + twin.d.T @ twin.d / 0.2, a.T @ c + twin.d.T @ target / 0.2)
    assert found.credit.fields.phi.numpy() == pytest.approx(phi, abs=1e-10)
