"""The Jacobian penalty against finite differences of the norm that numpy makes of the dense matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import LearningRule
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.penalty import JacobianPenalty
from tests.oracles.circuits import circuit, population, projection, random_circuit, sparse
from tests.oracles.tasks import batch, finite_differences, task

SLOPES = {
    "tanh": lambda phi: 1 - np.tanh(phi) ** 2,
    "softplus": lambda phi: 1 / (1 + np.exp(-phi)),
    "sigmoid": lambda phi: np.exp(-phi) / (1 + np.exp(-phi)) ** 2,
    "linear": np.ones_like,
}
GAMMA = 0.37


def norm(small: Circuit, weights: dict[str, torch.Tensor], phi: np.ndarray, rows: dict[str, slice]) -> float:
    """gamma/2 mean_s sum over the projections within recurrent groups of |W diag(sigma'(phi_s))|_F^2, dense."""
    total = 0.0
    for p in small.projections.values():
        if {p.source, p.target} <= {"e", "i"}:
            w = np.zeros((small.populations[p.target].size, small.populations[p.source].size))
            np.add.at(w, (p.edges.target, p.edges.source), weights[p.name].detach().numpy())
            slope = SLOPES[small.populations[p.source].activation](phi[rows[p.source]])
            total += np.mean([np.linalg.norm(w * slope[:, s]) ** 2 for s in range(phi.shape[1])])
    return 0.5 * GAMMA * total


@pytest.mark.parametrize(
    "rule",
    [LeastControl(), LeastControl(presynaptic="free"), LeastControl(gated=True), RecurrentBackprop()],
    ids=["least control", "presynaptic free", "gated", "recurrent backprop"],
)
@pytest.mark.parametrize(
    "options",
    [dict(seed=0), dict(seed=1, dale=True), dict(seed=2, p=0.3, activation="sigmoid", hidden=12)],
    ids=["dense", "Dale's law", "sparse"],
)
def test_the_update_is_minus_the_gradient_with_the_state_held(rule: LearningRule, options: dict) -> None:
    small = random_circuit(**options)
    t = task(small)
    compiled = t.system.compiled  # type: ignore[attr-defined]
    penalty = JacobianPenalty(t.system, GAMMA)  # type: ignore[arg-type]
    outcome = rule.outcome(t, batch(t))
    free = isinstance(rule, RecurrentBackprop) or rule.presynaptic == "free"  # type: ignore[attr-defined]
    phi = (outcome.free if free else outcome.credit).fields.phi.clone()
    before = {name: value.clone() for name, value in outcome.updates.items()}
    penalty.add(outcome)
    value = norm(small, compiled.weights, phi.numpy(), compiled.units)
    assert float(penalty.value(phi)) == pytest.approx(value, rel=1e-12)
    differences = finite_differences(
        t,
        lambda: torch.tensor(norm(small, compiled.weights, phi.numpy(), compiled.units), dtype=torch.float64),
    )
    touched = 0
    for name, entries in differences.items():
        for index, difference in entries:
            added = float(outcome.updates[name][index] - before[name][index])
            assert added == pytest.approx(-difference, abs=1e-9), name
            touched += difference != 0
    assert touched > 8


def test_it_is_over_the_samples_that_are_used() -> None:
    t = task(random_circuit(0))
    outcome = LeastControl().outcome(t, batch(t))
    zero = {name: torch.zeros_like(value) for name, value in outcome.updates.items()}
    one = torch.tensor([False, True, False, False])
    first = replace(outcome, updates=zero, used=one)
    penalty = JacobianPenalty(t.system, GAMMA)  # type: ignore[arg-type]
    penalty.add(first)
    slope = 1 - torch.tanh(outcome.credit.fields.phi[:7, 1]) ** 2
    link = t.system.compiled.links["e_e"]  # type: ignore[attr-defined]
    source = torch.as_tensor(link.projection.edges.source).long()
    expected = -GAMMA * link.kernel.values.detach() * slope[source] ** 2
    assert torch.allclose(first.updates["e_e"], expected, atol=1e-14)
    none = replace(outcome, updates={n: torch.zeros_like(v) for n, v in zero.items()}, used=one & False)
    penalty.add(none)
    assert all((value == 0).all() for value in none.updates.values())


def test_shared_weights_count_once_for_every_synapse_that_uses_them() -> None:
    """A weight of a group of synapses: the sum of what each of them would get."""
    rng = np.random.default_rng(0)
    e = sparse(rng, 5, 5, 0.9, 1.0)
    index = np.arange(len(e.source)) % 3
    shared = replace(e, parameter_index=index, parameters=np.array([0.3, -0.2, 0.5]))
    shared = replace(shared, weight=shared.parameters[index])
    small = circuit(
        [
            population("x", "input", 2),
            population("h", "unit", 5, activation="tanh"),
            population("y", "output", 2),
        ],
        [
            projection("x_h", "x", "h", sparse(rng, 5, 2, 0.9, 1.0)),
            projection("h_h", "h", "h", shared),
            projection("h_y", "h", "y", sparse(rng, 2, 5, 0.9, 1.0)),
        ],
    )
    t = task(small)
    outcome = LeastControl().outcome(t, batch(t))
    before = outcome.updates["h_h"].clone()
    JacobianPenalty(t.system, GAMMA).add(outcome)  # type: ignore[arg-type]
    slope = ((1 - torch.tanh(outcome.credit.fields.phi[:5]) ** 2) ** 2).mean(1).numpy()
    expected = np.zeros(3)
    np.add.at(expected, index, -GAMMA * shared.weight * slope[e.source])
    assert (outcome.updates["h_h"] - before).numpy() == pytest.approx(expected, abs=1e-14)


def test_frozen_projections_stay_out_of_the_update_and_acyclic_circuits_are_refused() -> None:
    small = random_circuit(0)
    frozen = replace(small.projections["e_e"], plastic=False)
    t = task(replace(small, projections={**small.projections, "e_e": frozen}))
    outcome = LeastControl().outcome(t, batch(t))
    JacobianPenalty(t.system, GAMMA).add(outcome)  # type: ignore[arg-type]
    assert "e_e" not in outcome.updates
    chain = {name: p for name, p in small.projections.items() if name in ("x_e", "e_y0")}
    with pytest.raises(CircuitError, match=r"learn\.penalty\.jacobian: it is on recurrent projections"):
        JacobianPenalty(task(replace(small, projections=chain)).system, GAMMA)  # type: ignore[arg-type]
