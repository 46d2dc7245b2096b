"""Preconditioned sweeps, another form of the same equations: equilibria found by scipy stay, and fewer are needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.dynamic_inversion import ApicalFeedback, DynamicInversion, RandomFeedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.dynamics.equations import Equations, FreeEquations
from circuitlab.dynamics.foresight import price, steps
from circuitlab.dynamics.preconditioned import build, recurrent_group
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.anderson import Anderson
from circuitlab.solve.base import solve
from circuitlab.solve.choose import CONTRACTING, SolveSettings, find
from tests.oracles.circuits import random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.equations import (
    MANY,
    adjoint_equations,
    chain,
    controlled_equations,
    dense,
    exact_adjoint,
    exact_controlled,
    exact_free,
    image_of,
    with_bursts,
)
from tests.oracles.tasks import batch, task

SERVED = {
    name: MANY[name]
    for name in (
        "two populations",
        "dale",
        "two outputs",
        "chain",
        "an output feeds a later population",
        "not controlled",
    )
} | {"with bursts": lambda: with_bursts(chain())}
served = pytest.mark.parametrize("name", SERVED)


def elsewhere(phi: torch.Tensor) -> torch.Tensor:
    """Potentials that have little to do with an equilibrium: any will do to build a preconditioner from."""
    return torch.randn(phi.shape, dtype=phi.dtype, generator=torch.Generator().manual_seed(7))


def prepared(name: str, samples: int = 3) -> tuple[Task, Batch, Twin]:
    circuit = SERVED[name]()
    t = task(circuit)
    return t, batch(t, samples), Twin(circuit)


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def stays(equations: Equations, state: torch.Tensor) -> float:
    """How far one sweep moves a state, in the variables that sweeps iterate; `closed` must lead back, too."""
    opened = equations.opened(state)
    image = image_of(equations, opened)
    return max(far(image, opened), far(equations.closed(image), state))


@served
def test_a_free_equilibrium_is_its_own_image(name: str) -> None:
    t, b, twin = prepared(name)
    phi = exact_free(twin, b)
    equations = FreeEquations(t.system, t.system.drive(b.x)).preconditioned(elsewhere(phi))
    assert stays(equations, phi) < 1e-10
    assert far(image_of(equations, phi + 0.1), phi) > 1e-3


@served
def test_a_controlled_equilibrium_is_its_own_image(name: str) -> None:
    """In the group the sweep iterates lambda = W^T psi + q, with psi = sigma'(phi) lambda."""
    t, b, twin = prepared(name)
    state = exact_controlled(t, twin, b)
    equations = controlled_equations(t, b).preconditioned(elsewhere(state[: twin.n]))
    assert stays(equations, state) < 1e-10
    rows = recurrent_group(t.system)
    assert rows is not None
    lam = equations.opened(state)[twin.n : 2 * twin.n][rows].numpy()
    psi = state[twin.n : 2 * twin.n].numpy()
    assert lam == pytest.approx((twin.w.T @ psi)[rows], abs=1e-9)


@served
def test_an_adjoint_equilibrium_is_its_own_image(name: str) -> None:
    t, b, twin = prepared(name)
    phi = exact_free(twin, b)
    equations = adjoint_equations(t, b, phi, build(t.system, elsewhere(phi)))
    psi = exact_adjoint(twin, phi, equations.error)
    assert stays(equations, psi) < 1e-10


@served
def test_the_build_is_the_group_inverted_at_its_mean_slopes(name: str) -> None:
    """B = (I - W S)^-1 W by numpy, and 8/3 n^3 operations over 2 synapses batch of a product."""
    t, b, twin = prepared(name, 5)
    phi = elsewhere(exact_free(twin, b))
    given, rows = build(t.system, phi), recurrent_group(t.system)
    assert rows is not None and given.rows == rows
    slopes = np.stack([twin.slope(one) for one in phi.t().numpy()])[:, rows].mean(0)
    w = twin.w[rows, rows]
    assert given.slopes.numpy()[:, 0] == pytest.approx(slopes, abs=1e-12)
    expected = np.linalg.solve(np.eye(len(w)) - w * slopes, w)
    assert given.matrix.numpy() == pytest.approx(expected, abs=1e-11)
    circuit = t.system.compiled.circuit  # type: ignore[attr-defined]
    rate = [p for p in circuit.projections.values() if p.carries == "rate" and p.source != "x"]
    synapses = sum(len(p.edges) for p in rate)
    cost = 4 * len(w) ** 3 / (3 * synapses * 5)
    equations = controlled_equations(t, b)
    assert given.extra == pytest.approx(cost)
    assert equations.build_cost() == pytest.approx(cost)
    assert equations.preconditioned(phi).extra == pytest.approx(cost)
    group = {name for name, at in twin.rows.items() if rows.start <= at.start and at.stop <= rows.stop}
    outside = sum(len(p.edges) for p in rate if not (p.source in group and p.target in group))
    assert equations.preconditioned_sweep() == pytest.approx((outside + len(w) ** 2) / synapses)


@pytest.mark.parametrize("samples", [1, 4])
@served
def test_preconditioned_and_plain_solves_agree(name: str, samples: int) -> None:
    """On circuits that are weakly recurrent, where there is one equilibrium."""
    t, b, twin = prepared(name, samples)
    drive, anderson = t.system.drive(b.x), Anderson(1e-11, 500)
    free = FreeEquations(t.system, drive)
    phi = solve(free, anderson).fields.phi
    assert far(phi, exact_free(twin, b)) < 1e-8
    pairs = [
        (free, free.preconditioned(elsewhere(phi))),
        (controlled_equations(t, b, phi), controlled_equations(t, b, phi).preconditioned(phi)),
        (adjoint_equations(t, b, phi), adjoint_equations(t, b, phi, build(t.system, phi))),
    ]
    for plain, quick in pairs:
        one, other = solve(plain, anderson), solve(quick, anderson)
        assert bool(one.converged.all() and other.converged.all())
        assert far(one.state, other.state) < 1e-8


def test_a_dense_circuit_of_gain_09_needs_fewer_sweeps() -> None:
    """By count, in every phase; the residuals that end both are recomputed from the same equations."""
    t = task(dense(64, 0.9))
    b = batch(t, 32)
    free = FreeEquations(t.system, t.system.drive(b.x))
    anderson = Anderson(1e-6, 500)
    phi = solve(free, anderson).fields.phi
    pairs = [
        (free, free.preconditioned(phi)),
        (controlled_equations(t, b, phi), controlled_equations(t, b, phi).preconditioned(phi)),
        (adjoint_equations(t, b, phi), adjoint_equations(t, b, phi, build(t.system, phi))),
    ]
    for plain, quick in pairs:
        one, other = solve(plain, anderson), solve(quick, anderson)
        assert bool(one.converged.all() and other.converged.all())
        assert float(other.residual.max()) <= 1e-6
        assert float(other.iterations.double().mean()) < 0.75 * float(one.iterations.double().mean())


def test_with_equal_slopes_one_preconditioned_sweep_is_exact() -> None:
    """Linear units have S = sigma' = 1 for every sample, and nothing is left to iterate."""
    circuit = chain()
    linear = {
        name: replace(p, activation="linear") if name in ("e", "i") else p
        for name, p in circuit.populations.items()
    }
    circuit = replace(circuit, populations=linear)
    t = task(circuit)
    b, twin = batch(t, 4), Twin(circuit)
    phi = exact_free(twin, b)
    free = FreeEquations(t.system, t.system.drive(b.x)).preconditioned(elsewhere(phi))
    assert far(image_of(free, elsewhere(phi)), phi) < 1e-10
    adjoint = adjoint_equations(t, b, phi, build(t.system, phi))
    psi = exact_adjoint(twin, phi, adjoint.error)
    assert far(adjoint.closed(image_of(adjoint, elsewhere(psi))), psi) < 1e-10


@pytest.mark.parametrize("asked", ["auto", "mean_response", "none"])
def test_products_count_the_build_and_the_method_says_so(asked: str) -> None:
    t = task(dense(48, 0.9), preconditioner=asked, tolerance=1e-8)
    b = batch(t, 200)
    free = t.free(t.system.drive(b.x))
    found = t.controlled(t.system.drive(b.x), b.target, free)
    assert bool(found.converged.all())
    assert found.method == ("anderson" if asked == "none" else "preconditioned anderson")
    equations = controlled_equations(t, b)
    build_cost = equations.build_cost()
    assert build_cost is not None
    sweeps = found.iterations.double() * 2 * (1 if asked == "none" else equations.preconditioned_sweep())
    extra = 0 if asked == "none" else build_cost
    if free.rate < CONTRACTING:  # then the solver began at the linear response
        extra += price(t.system, steps(free.rate), 200)
    assert found.products.numpy() == pytest.approx((sweeps + 2 + extra).numpy())


@pytest.mark.parametrize("asked", ["mean_response", "none"])
def test_recurrent_backprop_gives_the_same_update(asked: str) -> None:
    t = task(dense(32, 0.7), preconditioner=asked, tolerance=1e-10)
    b, plain = batch(t, 8), replace(t, settings=replace(t.settings, method="fixed_point"))
    found, expected = (RecurrentBackprop().outcome(one, b) for one in (t, plain))
    assert found.credit.method.startswith("preconditioned") == (asked == "mean_response")
    for name, update in expected.updates.items():
        assert far(found.updates[name], update) < 1e-8


def test_find_preconditions_only_where_a_rate_is_known() -> None:
    t = task(dense(32, 0.7))
    b = batch(t, 8)
    settings = SolveSettings(tolerance=1e-8, preconditioner="mean_response")
    equations = controlled_equations(t, b)
    assert find(equations, settings).method == "anderson"
    assert find(equations, settings, rate=0.5).method == "preconditioned anderson"


def unserved() -> dict[str, tuple[Circuit, object]]:
    return {
        "acyclic": (MANY["acyclic"](), None),
        "an output in the group": (MANY["outputs project back"](), None),
        "a kink": (random_circuit(0, activation="relu"), None),
        "random feedback": (chain(), lambda s: DynamicInversion(RandomFeedback(s, 0))),
        "apical feedback": (with_bursts(chain()), lambda s: DynamicInversion(ApicalFeedback(s))),
        "linear feedback": (chain(), lambda s: LinearFeedback.random(s, 0, 0.3)),
    }


@pytest.mark.parametrize("name", unserved())
def test_what_cannot_be_preconditioned_says_so(name: str) -> None:
    circuit, pathway = unserved()[name]
    t = task(circuit, pathway=pathway)
    equations = controlled_equations(t, batch(t, 2))
    assert equations.build_cost() is None
    with pytest.raises(CircuitError, match=r"solve\.preconditioner: mean_response needs one recurrent group"):
        equations.preconditioned(torch.zeros(t.system.size, 2, dtype=torch.float64))
