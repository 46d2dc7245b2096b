"""Deep feedback control's theorems, and Proposition S8 of the least-control paper, as measured angles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.loss import LOSSES
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.base import Batch, Task
from circuitlab.learn.least_control import LeastControl
from circuitlab.theory import references
from circuitlab.theory.jacobian import OutputJacobian, output_jacobian
from circuitlab.theory.references import Credit, flat
from circuitlab.theory.updates import angle, cosine
from tests.oracles.circuits import circuit, population, projection, random_circuit, sparse
from tests.oracles.equations import MANY
from tests.oracles.tasks import batch, task

WEAK = 1e-4
"""The leak, standing for alpha -> 0."""
NUDGE = 1e-4
"""lambda."""


def layered(seed: int = 0, *, equal: bool) -> tuple[Circuit, np.ndarray]:
    """15-10-10-5, tanh and a linear output, no biases, and one input.

    Args:
        equal: scale the weights so that all layers have the same norm (Condition 1).
    """
    rng = np.random.default_rng(seed)
    sizes = {"x": 15, "a": 10, "b": 10, "y": 5}
    x = rng.standard_normal(15)
    x *= (1.5 if equal else 4) / np.linalg.norm(x)
    projections, rate, names = [], x, list(sizes)
    for source, target in itertools.pairwise(names):
        e = sparse(rng, sizes[target], sizes[source], 1.0, 1.0)
        matrix = np.zeros((sizes[target], sizes[source]))
        matrix[e.target, e.source] = e.weight
        scale = 1.0
        if equal and target != "y":
            potential, wanted = matrix @ rate, np.linalg.norm(x)

            def excess(s: float, potential: np.ndarray = potential, wanted: float = wanted) -> float:
                return float(np.linalg.norm(np.tanh(s * potential)) - wanted)

            scale = brentq(excess, 1e-3, 1e3)
        rate = np.tanh(scale * matrix @ rate)
        e = type(e)(e.source, e.target, scale * e.weight, e.multiplicity)
        projections.append(projection(f"{source}_{target}", source, target, e))
    kinds = {"x": "input", "y": "output"}
    pops = [
        population(name, kinds.get(name, "unit"), size, activation="tanh" if name in "ab" else "linear")
        for name, size in sizes.items()
    ]
    return circuit(pops, projections), x


def nudged(
    t: Task, x: torch.Tensor, label: torch.Tensor, loss: str, nudge: float
) -> tuple[Batch, torch.Tensor]:
    """The batch whose target is the free output moved down the gradient of a loss, and delta_L  [DFC eq. 3]."""
    y = t.outputs(t.free(t.system.drive(x)).fields.phi)
    delta = -nudge * LOSSES[loss].gradient(y, label)
    return Batch(x, y + delta), delta


def direct(
    make: Circuit, q_of, x: torch.Tensor, alpha: float = WEAK
) -> tuple[Task, OutputJacobian, torch.Tensor]:
    """A circuit under linear feedback with Q made from J at the free state, J, and the free potentials."""
    plain = task(make, losses=("squared_error",))
    drive = plain.system.drive(x)
    phi = plain.free(drive).fields.phi
    j = output_jacobian(plain.system, phi, drive)
    t = task(
        make,
        losses=("squared_error",),
        controller=leaky_integral(alpha, 100.0),
        pathway=lambda system: LinearFeedback(system, q_of(j.rows[0])),
        thorough=True,
        tolerance=1e-8,
    )
    return t, j, phi


def in_row_space(rows: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Q = J^T M with M random and positive definite on average: Condition 2, and far from J^T itself."""
    k = len(rows)
    mixing = np.random.default_rng(seed).standard_normal((k, k)) + 3 * np.eye(k)
    return rows.t() @ torch.as_tensor(mixing)


def arbitrary(rows: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Q of random numbers."""
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(tuple(rows.t().shape)))


def degrees(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(angle(cosine(one, other)))


@pytest.mark.parametrize("name", ["two populations", "two outputs", "acyclic", "chain"])
def test_lemma_1_to_second_order(name: str) -> None:
    """psi = Q (J Q + alpha)^-1 delta + O(lambda^2): the error falls a hundredfold with a tenth of lambda."""
    make = MANY[name]()
    b = batch(task(make), samples=1)
    q_of = lambda rows: rows.t() + 0.1 * arbitrary(rows)  # noqa: E731
    t, j, _ = direct(make, q_of, b.x, alpha=0.5)
    errors = []
    for nudge in (1e-2, 1e-3):
        near, delta = nudged(t, b.x, b.target, "squared_error", nudge)
        drive = t.system.drive(near.x)
        found = t.controlled(drive, near.target, t.free(drive))
        assert bool(found.converged.all())
        expected = references.linearised_control(j, t.pathway.q, 0.5, delta)  # type: ignore[attr-defined]
        errors.append(float(torch.linalg.vector_norm(found.fields.psi - expected)))
    size = float(torch.linalg.vector_norm(expected))
    assert errors[1] < 0.02 * size
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.35)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_theorem_2_conditions_1_and_2_give_gauss_newton(seed: int) -> None:
    make, x = layered(seed, equal=True)
    column = torch.as_tensor(x).unsqueeze(1)
    label = torch.as_tensor(np.random.default_rng(seed).standard_normal((5, 1)))
    found = {}
    for name, q_of in (("met", in_row_space), ("not met", arbitrary)):
        t, j, phi = direct(make, q_of, column)
        near, delta = nudged(t, column, label, "squared_error", NUDGE)
        outcome = LeastControl().outcome(t, near)
        assert bool(outcome.used.all())
        newton = references.gauss_newton(t.system, j, phi, near.x, delta).update(t.system, near.x, 0)
        found[name] = degrees(flat(outcome.updates), newton)
    assert found["met"] < 1
    assert found["not met"] > 20
    uneven, x = layered(seed, equal=False)
    t, j, phi = direct(uneven, in_row_space, torch.as_tensor(x).unsqueeze(1))
    near, delta = nudged(t, torch.as_tensor(x).unsqueeze(1), label, "squared_error", NUDGE)
    newton = references.gauss_newton(t.system, j, phi, near.x, delta).update(t.system, near.x, 0)
    assert degrees(flat(LeastControl().outcome(t, near).updates), newton) > 3  # Condition 1 is needed


CIRCUITS = {"layers": None, **{name: MANY[name] for name in ("two populations", "dale", "chain")}}


@pytest.mark.parametrize("make", CIRCUITS.values(), ids=CIRCUITS)
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_theorem_3_condition_2_alone_gives_weighted_minimum_norm(make, loss: str) -> None:
    """On any graph, with any loss, without Condition 1; each neuron has its own rate 1/p (a layer's 1/|r|^2)."""
    if make is None:
        c, x = layered(0, equal=False)
        b = batch(task(c), samples=1)
        b = Batch(torch.as_tensor(x).unsqueeze(1), b.target)
    else:
        c = make()
        b = batch(task(c), samples=1)
    t, j, phi = direct(c, in_row_space, b.x)
    near, delta = nudged(t, b.x, b.target, loss, NUDGE)
    outcome = LeastControl().outcome(t, near)
    assert bool(outcome.used.all())
    power = references.presynaptic_power(t.system, phi, near.x)  # type: ignore[arg-type]
    fields = outcome.credit.fields
    own = Credit(fields.phi, fields.psi / power).update(t.system, near.x, 0)
    exact = references.minimum_norm(j, phi, delta, power).update(t.system, near.x, 0)
    assert degrees(own, exact) < 1
    up_to_rates = references.minimum_norm(j, phi, delta).update(t.system, near.x, 0)
    assert degrees(flat(outcome.updates), up_to_rates) < 1


@pytest.mark.parametrize("name", ["layers", "two populations", "acyclic"])
def test_proposition_4_arbitrary_feedback_descends(name: str) -> None:
    """Rates of 1/p for each neuron: within 90 degrees of the gradient for every Q; without them not for every Q."""
    if name == "layers":
        c, x = layered(1, equal=False)
        b = Batch(torch.as_tensor(x).unsqueeze(1), batch(task(c), samples=1).target)
    else:
        c = MANY[name]()
        b = batch(task(c), samples=1)
    found = []
    for seed in range(12):
        t, j, phi = direct(c, lambda rows, seed=seed: arbitrary(rows, seed), b.x)
        near, delta = nudged(t, b.x, b.target, "cross_entropy", NUDGE)
        # Lemma 1 gives the steady state whether or not the dynamics would reach it
        psi = references.linearised_control(j, t.pathway.q, WEAK, delta)  # type: ignore[attr-defined]
        power = references.presynaptic_power(t.system, phi, near.x)  # type: ignore[arg-type]
        gradient = Credit(phi, j.credit(delta)).update(t.system, near.x, 0)
        found.append(degrees(Credit(phi, psi / power).update(t.system, near.x, 0), gradient))
    assert max(found) < 90
    assert max(found) > 30  # arbitrary indeed


def test_s8_the_gradient_error_is_linear_in_the_equilibrium_error() -> None:
    """|update at phi* + e - gradient| <= M |e|  [LCP Proposition S8, figure S1]: slope one on logarithmic axes."""
    t = task(random_circuit(2, gain=0.4), losses=("squared_error",), thorough=True)
    b = batch(t, samples=3)
    system = t.system
    drive = system.drive(b.x)
    best = references.optimal_control(t, b, t.free(drive), 0.0)
    assert bool(best.converged.all())

    def update(phi: torch.Tensor) -> torch.Tensor:
        psi = phi - system.linearise(phi, drive).prediction
        return flat(system.update(phi, psi, b.x))

    exact = update(best.fields.phi)
    step = torch.as_tensor(np.random.default_rng(0).standard_normal(tuple(drive.shape)))
    step /= torch.linalg.vector_norm(step)
    sizes = np.logspace(-5, -1, 9)
    errors = [float(torch.linalg.vector_norm(update(best.fields.phi + s * step) - exact)) for s in sizes]
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.05)
    ratios = np.array(errors) / sizes
    assert ratios.max() / ratios.min() < 1.3
